"""What an entry is, and which ones an engine takes.

Kinds are one byte on disk and the same numbers in every engine that stores frames, so that a
tool can read any log: 0 is a user's entry, everything else is the engine's own.
"""

from outlast.kernel import ConfigError

NORMAL = 0
SEAL = 3

NORMAL_KIND = bytes([NORMAL])
SEAL_KIND = bytes([SEAL])


def check_size(entry: object, bytes_max: int) -> None:
    """Refuse an entry that is empty, not ``bytes``, or larger than ``bytes_max``.

    Raises:
        ConfigError: Definite. Says the size and the limit.
    """
    if not isinstance(entry, bytes):
        message = f"an entry is bytes, not {type(entry).__name__}"
        raise ConfigError(message)
    if not entry:
        message = "the entry is empty; it must have at least 1 byte"
        raise ConfigError(message)
    if len(entry) > bytes_max:
        message = f"the entry has {len(entry)} bytes; this log takes at most {bytes_max}"
        raise ConfigError(message)
