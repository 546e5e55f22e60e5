"""The log in a directory of one machine."""

from outlast.log.engines.file.log import FileLog, FileLogSettings

__all__ = ["FileLog", "FileLogSettings"]
