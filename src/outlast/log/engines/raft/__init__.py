"""Our own Raft."""
