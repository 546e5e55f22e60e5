"""Rules of the wire: bytes to frames, and who may talk to whom. Pure."""
