"""What a supervisor is asked to keep running: ``Child``, with ``Grace`` and ``Ready``."""

import signal as signals
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Final, Literal, Self

from outlast.detect.core.restarting import ChildRule
from outlast.detect.core.supervisor import Restart, RestartPolicy
from outlast.detect.stop import Stop
from outlast.kernel import ConfigError

Kind = Literal["command", "process", "thread", "task"]

_LINE_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Grace:
    """How a child is stopped: it is asked, and after a time it is ended.

    Args:
        seconds: From asking to ending. 0 ends it at once.
        signal: What a process is asked by. SIGTERM by default.

    Raises:
        ConfigError: ``seconds`` is negative, or there is no such signal.
    """

    seconds: float = 5.0
    signal: int = signals.SIGTERM

    def __post_init__(self) -> None:
        """Check the time and the signal."""
        if not self.seconds >= 0 or not isfinite(self.seconds):
            raise ConfigError(f"Grace: seconds is {self.seconds}; 0 or more")
        if not 0 < self.signal < signals.NSIG:
            raise ConfigError(f"Grace: signal is {self.signal}; 1 to {signals.NSIG - 1}")


@dataclass(frozen=True, slots=True)
class Ready:
    """When a child counts as started, so that the next one may start.

    Made by :meth:`line`, :meth:`port`, :meth:`stamp` and :meth:`when`.
    """

    how: Literal["line", "port", "stamp", "when"]
    text: str = ""
    host: str = ""
    number: int = 0
    call: Callable[[], Any] | None = None

    @classmethod
    def line(cls, text: str) -> Self:
        """Ready once a line of its output contains ``text``; of a process whose output we read."""
        if not text or len(text) > _LINE_MAX:
            raise ConfigError(f"Ready.line: text is {text!r}; 1 to {_LINE_MAX} characters")
        return cls("line", text=text)

    @classmethod
    def port(cls, port: int, host: str = "127.0.0.1") -> Self:
        """Ready once somebody listens on that TCP port."""
        if not 0 < port < 1 << 16:
            raise ConfigError(f"Ready.port: port is {port}; 1 to 65535")
        return cls("port", host=host, number=port)

    @classmethod
    def stamp(cls) -> Self:
        """Ready once the child has called :func:`~outlast.detect.progress_stamp`."""
        return cls("stamp")

    @classmethod
    def when(cls, call: Callable[[], Awaitable[Any] | Any]) -> Self:
        """Ready once ``call`` says so, which is asked 20 times a second.

        It may be a coroutine function, or a plain one, which is called on a thread, or a check of
        :mod:`outlast.detect.checks`. ``True``, ``None``, ok and degraded say yes; ``False``,
        failed and an exception say not yet.
        """
        return cls("when", call=call)


ReadyWhen = Ready | str | int | Callable[[], Any]
"""What ``ready=`` takes: a :class:`Ready`, text of a line, a port, or what can be called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One thing to keep running.

    Made by :meth:`command`, :meth:`process`, :meth:`thread` and :meth:`task`, which all take these
    settings. Frozen, safe to share.

    Args:
        restart: ``permanent`` (after every end), ``transient`` (unless it ended well: exit code
            0, or a return) or ``temporary`` (never).
        ready: When it counts as started: text of a line of its output, a port, a function or
            check that is asked, or a :class:`Ready`. By default as soon as it runs.
        start_timeout: Seconds until it must be ready, and have left its first stamp; then it is
            ended, which counts as a failure.
        progress: It must call :func:`~outlast.detect.progress_stamp` at least every so many
            seconds; one that is silent for longer is stuck: its stacks are taken, then it is
            started again. ``None`` watches nothing.
        stop: Seconds from asking it to stop to ending it, or a :class:`Grace`.
        significant: Whether its end counts for ``auto_shutdown`` of its supervisor.
        final: Exit codes after which another start would end the same: it stays down.
        policy: A limit and waits of its own instead of the supervisor's; says ``restart`` and
            ``final``, too.

    Raises:
        ConfigError: Definite. A value is out of range, or two do not fit.
    """

    name: str
    kind: Kind
    restart: Restart = "permanent"
    ready: ReadyWhen | None = None
    start_timeout: float = 30.0
    progress: float | None = None
    stop: float | Grace = 5.0
    significant: bool = False
    final: tuple[int, ...] = ()
    policy: RestartPolicy | None = None
    line: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    directory: str | None = None
    output: str = "inherit"
    function: Callable[..., Any] | None = None
    args: tuple[Any, ...] = field(default=(), repr=False)
    every: float | None = None

    def __post_init__(self) -> None:
        """Bring the settings into one form and check them."""
        _set = object.__setattr__
        if not self.name or "/" in self.name:
            raise ConfigError(f"child {self.name!r}: a name is not empty and has no '/'")
        if not isinstance(self.stop, Grace):
            _set(self, "stop", Grace(self.stop))
        if self.policy is not None:
            _set(self, "restart", self.policy.restart)
            _set(self, "final", (*self.final, *self.policy.final))
        _set(self, "ready", _read_ready(self.ready))
        for what in ("start_timeout", "progress", "every"):
            value = getattr(self, what)
            if value is not None and not (value > 0 and isfinite(value)):
                raise ConfigError(f"child {self.name!r}: {what} is {value}; above 0 and finite")
        self.rule()
        self._check_output()

    def _check_output(self) -> None:
        wanted = self.ready
        if isinstance(wanted, Ready) and wanted.how == "line":
            if self.kind in {"thread", "task"}:
                raise ConfigError(f"child {self.name!r}: a {self.kind} has no output to look at")
            if self.output == "inherit":
                object.__setattr__(self, "output", "tee")

    @classmethod
    def command(
        cls,
        name: str,
        line: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        output: str = "inherit",
        **settings: Any,
    ) -> Self:
        """Return a program to run.

        Args:
            name: Its name; unique within the supervisor.
            line: Program and arguments; the program is found through ``PATH``.
            environment: Its whole environment; ours by default. Ours to add: a mark by which
                its descendants are found.
            directory: Where it runs; ours by default.
            output: ``inherit`` (it writes where we do), ``keep`` (we read it and keep the last
                50 lines for :class:`~outlast.detect.ChildExited`), ``tee`` (both), or the path
                of a file to append to, whose last lines are read when it ends.
            settings: Those of the class.
        """
        if isinstance(line, str) or not line:
            raise ConfigError(f"child {name!r}: line is {line!r}; a list of program and arguments")
        return cls(
            name=name, kind="command", line=tuple(line), environment=environment,
            directory=directory, output=output, **settings,
        )  # fmt: skip

    @classmethod
    def process(
        cls,
        name: str,
        function: Callable[..., object],
        *,
        args: Sequence[Any] = (),
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        output: str = "inherit",
        **settings: Any,
    ) -> Self:
        """Return a Python function to run in an interpreter of its own.

        It is started afresh, never forked, and imports the function by its name: so it must be one
        of a module (or of the file that is the program), and ``args`` must pickle. Returning is
        exit code 0, an exception 1.
        """
        name_of = getattr(function, "__qualname__", "<locals>")
        if "<" in name_of or getattr(function, "__module__", None) is None:
            raise ConfigError(
                f"child {name!r}: {name_of} cannot be imported by name; give a function that"
                " stands in a module"
            )
        return cls(
            name=name, kind="process", function=function, args=tuple(args),
            environment=environment, directory=directory, output=output, **settings,
        )  # fmt: skip

    @classmethod
    def thread(
        cls,
        name: str,
        function: Callable[[Stop], object] | Callable[[], object],
        *,
        every: float | None = None,
        **settings: Any,
    ) -> Self:
        """Return a function to run on a thread.

        A thread cannot be ended from outside. One that does not return when it is asked to stop
        is *stuck*: :class:`~outlast.detect.ChildAbandoned` says so, a shutdown goes on without
        it, and it is not started again before it has returned.

        Args:
            name: Its name.
            function: Takes a :class:`~outlast.detect.Stop`, by which it hears that it shall end;
                with ``every`` it takes nothing.
            every: Call it every so many seconds, from the end of one call to the next. Then it
                works in the simulator, too, where a function that waits for ``stop`` cannot.
            settings: Those of the class.
        """
        return cls(name=name, kind="thread", function=function, every=every, **settings)

    @classmethod
    def task(
        cls,
        name: str,
        function: Callable[..., Coroutine[Any, Any, object]],
        *,
        args: Sequence[Any] = (),
        **settings: Any,
    ) -> Self:
        """Return a coroutine function to run as an asyncio task, stopped by cancelling it."""
        return cls(name=name, kind="task", function=function, args=tuple(args), **settings)

    @property
    def grace(self) -> Grace:
        """How it is stopped."""
        return self.stop if isinstance(self.stop, Grace) else Grace(self.stop)

    def rule(self) -> ChildRule:
        """Return what the rules know of it."""
        return ChildRule(self.name, self.restart, self.significant, self.final, self.policy)

    def renamed(self, name: str) -> Self:
        """Return the same under another name, for several of a kind."""
        return replace(self, name=name)


def _read_ready(given: ReadyWhen | None) -> Ready | None:
    if given is None or isinstance(given, Ready):
        return given
    if isinstance(given, str):
        return Ready.line(given)
    if isinstance(given, int):
        return Ready.port(given)
    return Ready.when(given)
