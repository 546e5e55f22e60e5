"""What watchdogs do: each action bounded in time, none of them able to harm the program."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from outlast.detect.core.ladder import Action
from outlast.detect.watchdog_events import DumpWritten, RestartForced, StacksTaken
from outlast.detect.watchdog_stack import DumpPad, all_text, bounded
from outlast.kernel import ConfigError, Event, World

if TYPE_CHECKING:
    from outlast.detect.watchdog import Finding

EXIT_CODE: Final = 86
_ACTION_SECONDS: Final = 1.0
_END_SECONDS: Final = 2.0
_DUMPS_MAX: Final = 10
_HUNG_MAX: Final = 4
_TOP: Final = 10


class Actor:
    """Does actions, each on a thread of its own that is waited for one second.

    At most four may hang at the same time; further ones are refused until one has ended. With
    ``inline`` (simulated time) they are done where they are asked for. Used by one thread.
    """

    def __init__(self, *, health: Any, dump_dir: str | None, exit_code: int) -> None:
        if not 1 <= exit_code <= 255:
            raise ConfigError(f"Watchdogs: exit_code is {exit_code}; 1 to 255")
        self.health = health
        self.world: World | None = None
        self.inline = False
        self.exit: Callable[[int], object] = os._exit
        self.alive: Callable[[], object] = lambda: None
        self._dump_dir = dump_dir
        self._exit_code = exit_code
        self._dumps = 0
        self._hung: list[bool] = []
        self._pad: DumpPad | None = None

    def act(self, action: Action, title: str, finding: "Finding") -> str:
        """Do one action; return what went wrong, empty if nothing did."""
        if action == "restart":
            return self._restart(f"{title}: {finding.detail}")
        if action == "event":
            make = finding.event
            return "" if make is None else self._bounded(lambda: self._emit(make()))
        if action == "stacks":
            return self._bounded(lambda: self._emit(StacksTaken(
                reason=f"{title}: {finding.detail}", stacks=all_text()
            )))  # fmt: skip
        if action == "not_ready":
            return self._bounded(lambda: self._report(title, finding.detail))
        return self._bounded(lambda: self._dump(f"{title}: {finding.detail}"))

    def emit(self, event: Event) -> str:
        """Emit ``event``."""
        return self._bounded(lambda: self._emit(event))

    def ready(self, title: str) -> str:
        """Take back what ``not_ready`` reported."""
        return self._bounded(lambda: self._report(title, ""))

    def close(self) -> None:
        """Give the memory for stacks back."""
        if self._pad is not None:
            self._pad.close()
            self._pad = None

    def _bounded(self, call: Callable[[], object]) -> str:
        if self.inline:
            try:
                call()
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            return ""
        if len(self._hung) >= _HUNG_MAX:
            return f"{_HUNG_MAX} actions hang; no further one is begun"

        def counted() -> None:
            self._hung.append(True)
            try:
                call()
            finally:
                self._hung.pop()

        return bounded(counted, _ACTION_SECONDS, "outlast-watchdog-act", self.alive)

    def _emit(self, event: Event) -> None:
        if self.world is not None:
            self.world.events.emit(event)

    def _report(self, title: str, detail: str) -> None:
        from outlast.detect.health import Status

        status = Status.FAILED if detail else Status.OK
        self.health.report(f"watchdog {title}", status, detail, groups=("readiness",))

    def _dump(self, reason: str) -> None:
        if self._dumps >= _DUMPS_MAX:
            return
        import tempfile

        directory = self._dump_dir or tempfile.gettempdir()
        path = os.path.join(directory, f"outlast-dump-{os.getpid()}-{self._dumps}.txt")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(f"{reason}\n\n{all_text()}\n\n{memory_text()}\n")
        self._dumps += 1
        self._emit(DumpWritten(reason=reason, path=path))

    def _restart(self, reason: str) -> str:
        """End the process, within two seconds even if nothing in Python gets on any more."""
        if not self.inline:
            self._pad = self._pad or DumpPad()
            self._pad.arm(_END_SECONDS, end=True)
        self._bounded(lambda: self._emit(RestartForced(reason=reason, code=self._exit_code)))
        self._bounded(lambda: os.write(2, f"outlast: ends itself: {reason}\n".encode()))
        self.exit(self._exit_code)
        return ""


def top_lines(count: int = _TOP) -> tuple[str, ...]:
    """Return which lines hold the most memory, if ``tracemalloc`` is on; else nothing."""
    import tracemalloc

    if not tracemalloc.is_tracing():
        return ()
    found = tracemalloc.take_snapshot().statistics("lineno")[:count]
    return tuple(
        f"{one.traceback[0].filename}:{one.traceback[0].lineno} {one.size} bytes in {one.count}"
        for one in found
    )


def memory_text() -> str:
    """Return what is known of the use of memory, as text."""
    import gc

    collections = [one["collections"] for one in gc.get_stats()]
    lines = [f"gc: counts {gc.get_count()}, collections {collections}"]
    return "\n".join([*lines, *(top_lines() or ("tracemalloc is off",))])
