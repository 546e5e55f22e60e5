"""Log time: how long things lasted, as all replicas agree on it.

The holder of role ``system`` measures with its monotonic clock how long ago it took the role,
and stamps each entry with the log time at which its epoch began plus that. Applying an entry
moves log time forward to its stamp, if it was stamped under the current epoch. Without a
holder log time stands still: a gap lengthens leases and sessions, it never shortens them.
Wall time is made monotone beside it, for users to show; nothing is decided by it.
"""


class LogTime:
    """Log time and monotone wall time as of the last applied entry. Deterministic."""

    __slots__ = ("ns", "wall_ns")

    def __init__(self, ns: int = 0, wall_ns: int = 0) -> None:
        self.ns = ns
        self.wall_ns = wall_ns

    def advance(self, *, log_time_ns: int, wall_ns: int, current: bool) -> None:
        """Take an entry's stamps; ``current`` tells whether its epoch is the current one."""
        if current and log_time_ns > self.ns:
            self.ns = log_time_ns
        self.wall_ns = max(self.wall_ns, wall_ns)


class HolderClock:
    """Measures log time on the holder. Its base is set when the holder *applies* its epoch.

    That is after the epoch began, so the measured time is at most the real one.
    """

    __slots__ = ("_base_log_ns", "_base_ns", "epoch")

    def __init__(self) -> None:
        self.epoch = 0
        self._base_log_ns = 0
        self._base_ns = 0

    def begin(self, epoch: int, log_time_ns: int, now_ns: int) -> None:
        """Hold ``epoch``, whose entry was applied at log time ``log_time_ns``."""
        self.epoch = epoch
        self._base_log_ns = log_time_ns
        self._base_ns = now_ns

    def end(self) -> None:
        """Hold nothing: stamps are 0 from now on."""
        self.epoch = 0

    def stamp(self, now_ns: int) -> int:
        """Return the log time at ``now_ns``, 0 without the role."""
        return self._base_log_ns + now_ns - self._base_ns if self.epoch else 0
