"""The log in memory, for tests and for state that may be lost with the process."""

from outlast.log.engines.memory.log import MemoryLog, MemoryLogSettings

__all__ = ["MemoryLog", "MemoryLogSettings"]
