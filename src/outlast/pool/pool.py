"""``Pool``: several equal instances of a service, used as one that does not fail so easily."""

import threading
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self, TypeVar

from outlast.kernel import ConfigError, UnavailableError, World, current_deadline, current_world
from outlast.kernel.registry import watch
from outlast.pool.core.blame import Verdict, blame
from outlast.pool.core.instance import Found, Instance, show
from outlast.pool.core.pool import DEFAULT, PoolCore, Rules
from outlast.pool.core.settings import LoadOf, Outlier, Pick, Ramp, pick_of
from outlast.pool.discovery import Source, Static, source_of
from outlast.pool.endpoint import Borrowed, Endpoint
from outlast.pool.failover import Guard, attempt_async, attempt_blocking, may_repeat
from outlast.protect.checks import DAY, NS, check_number, check_whole
from outlast.protect.core.note import sign, signed
from outlast.protect.forked import tell_of_forks
from outlast.protect.kinds import kind_of
from outlast.protect.policy import Policy

if TYPE_CHECKING:
    from outlast.pool.background import Background
    from outlast.pool.check import Check

P = ParamSpec("P")
R = TypeVar("R")

_EARLY_NS: Final = NS // 1000
"""A timer may fire so much before its instant."""


class Pool:
    """Several equal instances of a service: calls go where they succeed.

    ::

        pool = Pool("shop", ["http://a:8080", "http://b:8080", "http://c:8080"])

        async def order(endpoint, number):
            return await client.get(f"{endpoint}/orders/{number}")

        answer = await pool.call(order, 17)

    *Choosing.* Two instances are drawn and the one with fewer calls in flight takes the call.
    *Ejecting.* Who fails, lies, or is much slower than the others gets no calls for a while; an
    instance comes back by one call as a probe, then little by little. At most ``max_ejected`` of
    them are out at a time. *Panic.* If less than ``panic`` of them are usable, all get calls: a
    few would be crushed by what was meant for many. *Failing over.* A failed call goes on at an
    instance that it has not been to, as an attempt of the same logical call: deadline, key and
    budget are those of the policy around it. It does so only if the failed attempt surely had no
    effect, or if the call may be made twice: ``idempotent=True``, or an idempotency key.

    A static list needs no more than this. With ``check=`` or a discovery, use it as
    ``async with pool:``, or ``with pool:`` where nothing is awaited (a thread then does that
    work). Safe to share between threads and event loops. After a fork the child has its own
    counts, and enters ``with pool:`` anew. Not picklable.

    Args:
        name: In events, metrics and errors, and the host under which the httpx transports know it.
        source: Addresses or :class:`Instance` values; or where to find them: :class:`Dns`,
            :class:`Membership`, a function that returns them (asked every 5 seconds), an
            asynchronous iterator of lists.
        pick: ``"p2c"``, ``"round_robin"``, ``"least_loaded"``, ``"peak_ewma"``, or
            ``p2c(peak_ewma())``.
        eject: When an instance is ejected; ``None`` for never.
        readmit: How one that comes is brought up; see :func:`ramp`.
        panic: Share of usable instances below which all get calls; 0 for never.
        check: :func:`http_check`, or a function that is given an :class:`Instance` and says by
            ``False`` or an error that it does not work. Every 2 seconds; three failures in a row
            take an instance out, two successes bring it back.
        policy: What protects a logical call; its retry, if it has one, decides about failing
            over. A limit of time on one attempt (``attempt_timeout=``) is what makes a call leave
            an instance that hangs.
        attempts: Calls at most, where the policy has no retry.
        valid: Tells of a result whether it can be right. What is not is a lie of the instance,
            and never returned.
        idempotent: Whether calls may be made twice.
        blame: Tells of an error whether the instance is at fault; ``None`` for what
            ``outlast.pool.core.blame`` says.
        zone: Instances of this zone are preferred, while enough of them are usable.
        drain: Seconds for which calls of an instance that leaves may go on.
        instances_max: More than so many are refused.
        world: Clock, draws and events; the current one by default.

    Raises:
        ConfigError: Definite. A setting is wrong.
    """

    __slots__ = (
        "__weakref__", "_background", "_blame", "_core", "_guard", "_idle", "_lock", "_world",
        "attempts", "check", "idempotent", "instances_max", "name", "policy", "rules", "source",
        "valid",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        source: Any,
        *,
        pick: str | Pick | LoadOf = "p2c",
        eject: Outlier | None = DEFAULT,
        readmit: Ramp = Ramp(10.0, 0.1),  # noqa: B008 - a frozen value
        panic: float = 0.5,
        check: "Check | Callable[..., Any] | None" = None,
        policy: Policy | None = None,
        attempts: int = 2,
        valid: Callable[[Any], bool] | None = None,
        idempotent: bool = False,
        blame: Callable[[BaseException], bool | None] | None = None,
        zone: str = "",
        drain: float = 30.0,
        instances_max: int = 1000,
        world: World | None = None,
    ) -> None:
        called: object = name
        if not isinstance(called, str) or not called:
            raise ConfigError(f"Pool: name is {called!r}; it needs one, such as 'shop'")
        for what, value, kind in (("eject", eject, Outlier), ("readmit", readmit, Ramp),
                                  ("policy", policy, Policy)):  # fmt: skip
            if not isinstance(value, kind) and (value is not None or what == "readmit"):
                raise ConfigError(f"Pool: {what} is {value!r}; {kind.__name__} would be right")
        for what, function in (("valid", valid), ("blame", blame)):
            if function is not None and not callable(function):
                raise ConfigError(f"Pool: {what} is {function!r}; a function would be right")
        self.name = name
        self.instances_max = check_whole("Pool", "instances_max", instances_max, 1, 1_000_000)
        self.attempts = check_whole("Pool", "attempts", attempts, 1, 100)
        self.source: Source = source_of(source, name, self.instances_max)
        self.check = _check_of(check)
        self.rules = Rules(
            pick=pick_of(pick), eject=eject, readmit=readmit,
            panic=check_number("Pool", "panic", panic, 0.0, 1.0, what="a share"), zone=zone,
            drain_ns=round(check_number("Pool", "drain", drain, 0.0, DAY, what="seconds") * NS),
            **({} if self.check is None else self.check.hysteresis()),
        )  # fmt: skip
        self.policy = policy
        self.valid = valid
        self.idempotent = idempotent
        self._blame = blame
        self._world = world
        self._lock = threading.Lock()
        self._core: PoolCore | None = None
        self._background: Background | None = None
        self._idle = self.check is not None or not isinstance(self.source, Static)
        self._guard = Guard(name, policy, attempts, self.may_repeat)
        tell_of_forks(self)
        watch(self)

    # --- calling --------------------------------------------------------------------------------

    def call(
        self,
        function: Callable[Concatenate[Endpoint, P], R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Call ``function(endpoint, *args, **kwargs)``; a coroutine function gives a coroutine.

        Raises:
            UnavailableError: Definite. There is no instance.
            IndefiniteError: Indefinite. The last answer was wrong (``valid=``, or ``lied()``).
            BaseException: What the last attempt raised, itself.
            TypeError: A generator, or a plain function that returned a coroutine.
        """
        kind = kind_of(function)
        policy = self._guard.policy()
        if kind == "async":
            return policy.call(attempt_async(self, function), *args, **kwargs)  # type: ignore[no-any-return]
        if kind != "blocking":
            raise TypeError(f"a {kind} cannot go on at another instance; use pool.endpoint()")
        return policy.call(attempt_blocking(self, function), *args, **kwargs)  # type: ignore[no-any-return]

    def acall(
        self,
        function: Callable[Concatenate[Endpoint, P], Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Awaitable[R]:
        """Await whatever ``function(endpoint, *args, **kwargs)`` returns; see :meth:`call`."""
        policy = self._guard.policy()
        return policy.call(attempt_async(self, function), *args, **kwargs)

    def endpoint(self, *, avoid: Collection[str] = ()) -> Borrowed:
        """Return a block, for ``with`` or ``async with``, in which an instance is used.

        An exception that leaves the block is its failure, and the time in it its latency. Nothing
        is repeated: ``avoid`` says where this has been before.

        Args:
            avoid: Addresses that are left out while there are others.
        """
        return Borrowed(self, list(avoid))

    # --- for drivers ----------------------------------------------------------------------------

    def take(self, tried: list[str]) -> Endpoint:
        """Choose an instance for one attempt and add it to ``tried``; :meth:`end` must follow.

        Raises:
            UnavailableError: Definite. There is none.
            ConfigError: Definite. The pool has work in the background and was not entered.
        """
        if self._idle:
            raise ConfigError(
                f"Pool {self.name!r}: looking up and checking instances is work in the "
                "background; use `async with pool:` or `with pool:` around it"
            )
        world = self._world or current_world()
        now_ns = world.clock.monotonic_ns()
        with self._lock:
            core = self._core or self._begun_locked(world, now_ns)
            picked = core.pick(tried, now_ns)
            if picked is not None:
                tried.append(picked.member.instance.address)
            told = core.events
            if told:
                core.events = []
        for event in told:
            world.events.emit(event)
        if picked is None:
            raise self._nobody(core, now_ns)
        return Endpoint(self, picked, now_ns)

    def end(self, endpoint: Endpoint, error: BaseException | None) -> None:
        """An attempt has ended, with ``error`` or well. A second time changes nothing."""
        if endpoint.ended:
            return
        endpoint.ended = True
        world = self._world or current_world()
        now_ns = world.clock.monotonic_ns()
        until_ns = now_ns if endpoint.answered_ns is None else endpoint.answered_ns
        verdict: Verdict = "ok"
        raised: Exception | None = None
        if endpoint.lie:
            verdict = "lied"
        elif error is not None:
            try:
                verdict = self._judge(error, now_ns)
            except Exception as wrong:  # of blame=: told once the call's place is given back
                verdict, raised = "ours", wrong
        with self._lock:
            core = self._core or self._begun_locked(world, now_ns)
            core.done(endpoint.picked, verdict, until_ns - endpoint.begun_ns, now_ns)
            told = core.events
            if told:
                core.events = []
        for event in told:
            world.events.emit(event)
        if raised is not None:
            raise raised

    def now_ns(self) -> int:
        """Return the monotonic time of the pool's world."""
        return (self._world or current_world()).clock.monotonic_ns()

    def note_lie(self, endpoint: Endpoint) -> None:
        """Hold against an instance what was found out after the call."""
        member = endpoint.picked.member
        if member.standing == "live":
            self._do(lambda core, now_ns: core.lied(member, now_ns))

    def tell_found(self, found: Found) -> None:
        """Take what a discovery has found."""
        self._do(lambda core, now_ns: core.found(found, now_ns))

    def tell_checked(self, address: str, reason: str | None) -> None:
        """Take the outcome of an active check: ``None`` is good, else what was wrong."""
        self._do(lambda core, now_ns: core.checked(address, reason, now_ns))

    def may_repeat(self, error: BaseException) -> bool:
        """Whether a call that ended with ``error`` may be made again at another instance."""
        # That there is nobody is ours to say, and no reason to wait.
        return not signed(error, self) and may_repeat(error, self.idempotent)

    # --- background -----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin to look up and check instances; waits for the first list, 5 seconds at most."""
        background = self._running()
        try:
            await background.start()
        except BaseException:
            self._background = None
            raise
        self._idle = False
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what runs in the background."""
        self._stopping()
        background, self._background = self._background, None
        if background is not None:
            await background.stop()

    def __enter__(self) -> Self:
        """As ``async with``, on a thread of the pool's own."""
        background = self._running()
        try:
            background.start_thread()
        except BaseException:
            self._background = None
            raise
        self._idle = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what runs in the background."""
        self._stopping()
        background, self._background = self._background, None
        if background is not None:
            background.stop_thread()

    # --- by hand --------------------------------------------------------------------------------

    def drain(self, address: str, *, draining: bool = True) -> None:
        """Give an instance no new calls, until this is called with ``draining=False``.

        Those under way go on; :meth:`drained` waits for them.

        Raises:
            ConfigError: Definite. There is no such instance.
        """
        if not self._do(lambda core, now_ns: core.drain(address, now_ns, draining=draining)):
            raise ConfigError(f"Pool {self.name!r}: no instance {address!r}; {self.addresses}")

    async def drained(self, address: str, *, timeout: float | None = None) -> bool:
        """Wait until an instance has no calls in flight; return whether that came in time.

        Args:
            address: Of the instance; one that is gone has none.
            timeout: Seconds; by default ``drain`` of the pool.
        """
        world = self._world or current_world()
        limit_ns = self.rules.drain_ns if timeout is None else round(timeout * NS)
        until_ns = world.clock.monotonic_ns() + limit_ns
        while True:
            core = self._core
            member = None if core is None else core.member(address)
            if member is None or not member.in_flight:
                return True
            left_ns = until_ns - world.clock.monotonic_ns()
            if left_ns <= 0:
                return False
            await world.timers.sleep(min(left_ns / NS, 0.05))

    # --- what can be asked ----------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """The instances that are there now, those that are leaving left out."""
        return show(self.instances)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The same, with weight, zone and host."""
        return self._do(
            lambda core, now_ns: tuple(m.instance for m in core.members if not m.draining)
        )

    def describe(self) -> dict[str, Any]:
        """Return the settings, as values that JSON knows."""
        eject = self.rules.eject
        described: dict[str, Any] = {
            "name": self.name,
            "source": self.source.describe(),
            "pick": str(self.rules.pick),
            "readmit": self.rules.readmit.seconds,
            "panic": self.rules.panic,
            "attempts": self.attempts,
            "idempotent": self.idempotent,
        }
        if eject is not None:
            latency = None if eject.latency is None else eject.latency.deviations
            described["eject"] = {
                **{name: getattr(eject, name) for name in Outlier.__slots__}, "latency": latency,
            }  # fmt: skip
        if self.check is not None:
            described["check"] = self.check.describe()
        if self.policy is not None:
            described["policy"] = self.policy.name
        return described

    def snapshot(self) -> dict[str, Any]:
        """Return the live state, instance by instance, as values that JSON knows."""
        state = self._do(lambda core, now_ns: core.snapshot(now_ns))
        return {"name": self.name, **state}

    def __repr__(self) -> str:
        core = self._core
        if core is None:
            return f"Pool({self.name!r}, {self.source.describe()})"
        usable = sum(member.usable for member in core.members)
        state = ", panic" if core.panic else ""
        return f"Pool({self.name!r}, {usable} of {len(core.members)} usable{state})"

    def forked(self) -> None:
        """This is the child of a fork: counts go on, the lock and the background are nobody's."""
        self._lock = threading.Lock()
        if self._background is not None:
            self._background = None
            self._idle = self.check is not None or not isinstance(self.source, Static)

    def begin_anew(self) -> None:
        """This is another world: nothing is known yet."""
        with self._lock:
            self._core = None
            self._background = None
            self._idle = self.check is not None or not isinstance(self.source, Static)

    # --- inside ---------------------------------------------------------------------------------

    def _begun_locked(self, world: World, now_ns: int) -> PoolCore:
        core = self._core = PoolCore(self.name, self.rules, world.prng.fork())
        if isinstance(self.source, Static):
            core.found(self.source.found, now_ns)
            core.events.clear()  # nothing has changed: this is how it was made
        return core

    def _do(self, what: Callable[[PoolCore, int], R]) -> R:
        """Let the core do something, and tell what came of it outside of the lock."""
        world = self._world or current_world()
        now_ns = world.clock.monotonic_ns()
        with self._lock:
            core = self._core or self._begun_locked(world, now_ns)
            answer = what(core, now_ns)
            told, core.events = core.events, []
        for event in told:
            world.events.emit(event)
        return answer

    def _judge(self, error: BaseException, now_ns: int) -> Verdict:
        if isinstance(error, Exception):
            said = None if self._blame is None else self._blame(error)
            return blame(error) if said is None else "failed" if said else "ours"
        # A limit of time cancels what it bounds; anybody else has reasons of their own.
        limit = current_deadline.get()
        if limit is not None and limit.passed(now_ns + _EARLY_NS):
            return "late"
        return "cut"

    def _nobody(self, core: PoolCore, now_ns: int) -> UnavailableError:
        left_ns = core.soonest_ns(now_ns)
        message = f"{self.name}: none of {len(core.members)} instances is usable"
        error = UnavailableError(message, retry_after=None if left_ns is None else left_ns / NS)
        sign(error, self)
        return error

    def _running(self) -> "Background":
        if self._background is not None:
            raise RuntimeError(f"Pool {self.name!r} was entered already")
        from outlast.pool.background import Background

        self._background = Background(self, self._world or current_world())
        return self._background

    def _stopping(self) -> None:
        self._idle = self.check is not None or not isinstance(self.source, Static)


def _check_of(given: Any) -> "Check | None":
    if given is None:
        return None
    from outlast.pool.check import check_of

    return check_of(given)
