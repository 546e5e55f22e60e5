"""Rules of state: entries, sessions, authority, log time, digests. Pure."""
