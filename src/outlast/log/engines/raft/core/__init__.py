"""The rules of Raft without I/O: ``step(event, now_ns) -> Effects``."""
