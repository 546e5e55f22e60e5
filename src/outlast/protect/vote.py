"""``Vote``: ask several redundant instances and take the answer of the majority."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from outlast.kernel import (
    CommandError,
    ConfigError,
    DeadlineError,
    InvariantError,
    OverloadedError,
    World,
    current_deadline,
    current_world,
)
from outlast.kernel.errors import NoMajorityError
from outlast.protect.beside import Crew, side_by_side
from outlast.protect.checks import DAY, check_ns, check_whole
from outlast.protect.core.vote import Tally, majority, told
from outlast.protect.kinds import Kind, kind_of

P = ParamSpec("P")
R = TypeVar("R")


class Vote(Generic[P, R]):
    """Calls all instances side by side and returns the answer that ``quorum`` of them agree on.

    With a majority of ``n`` as the quorum, up to ``(n - 1) // 2`` instances may fail or lie in
    any way, together, too, and the answer is that of the others (a Byzantine fault of an instance
    is masked). That needs answers that are equal where they are right, and calls that may be made
    on every instance. The answer is returned as soon as it is certain; so is the error, once no
    answer can reach the quorum.

    Calling it calls the instances: a coroutine if they are coroutine functions, and blocking, on
    threads, if they are plain ones. A ``CommandError`` is an answer like others; any other error
    is none. Coroutines that are not needed any more are cancelled and awaited; threads run on,
    and can ask :func:`outlast.protect.abandoned`.

    Args:
        instances: Functions with the same parameters, all of one kind. Two or more.
        quorum: How many equal answers decide. Default: more than half. With less than that,
            the first answer to reach it wins.
        key: Makes of an answer what is compared, such as its body without a time stamp.
        timeout: Seconds after which nobody is waited for.
        names: How the instances are called in events and errors. Default: the names of the
            functions where they differ, else ``instance 1`` and so on.
        max_threads: How many threads there may be, for plain functions; an instance for which
            none is free fails. Default: four votes at a time.
        name: Shown in events.

    Raises:
        ConfigError: Definite. A setting is wrong.
        NoMajorityError: Indefinite. No answer reached the quorum.
        DeadlineError: Indefinite. Plain functions: the deadline of the context passed.

    >>> import outlast.host
    >>> Vote([lambda: 4, lambda: 5, lambda: 4])()
    4
    """

    __slots__ = ("_async", "_crew", "dissents", "instances", "key", "name", "names", "quorum",
                 "timeout", "votes")  # fmt: skip

    def __init__(
        self,
        instances: Sequence[Callable[P, R]],
        *,
        quorum: int | None = None,
        key: Callable[[Any], Any] | None = None,
        timeout: float | None = None,
        names: Sequence[str] | None = None,
        max_threads: int | None = None,
        name: str = "",
    ) -> None:
        self.instances: tuple[Callable[P, R], ...] = tuple(instances)
        count = len(self.instances)
        if count < 2 or not all(callable(instance) for instance in self.instances):
            raise ConfigError(
                f"Vote: instances is {instances!r}; two functions or more are needed"
            )
        kinds = {kind_of(instance) for instance in self.instances}
        if len(kinds) > 1 or kinds & {"generator", "async generator"}:
            shown = ", ".join(sorted(kinds))
            raise ConfigError(f"Vote: instances are {shown}; all plain or all async is needed")
        self._async = kinds == {"async"}
        self.quorum = (
            majority(count) if quorum is None else check_whole("Vote", "quorum", quorum, 1, count)
        )
        if key is not None and not callable(key):
            raise ConfigError(f"Vote: key is {key!r}; a function of the answer would be right")
        self.key = key
        if timeout is not None:
            check_ns("Vote", "timeout", timeout, 1e-6, DAY)
        self.timeout = timeout
        if names is not None and len(set(names)) != count:
            raise ConfigError(f"Vote: names is {names!r}; {count} different names are needed")
        self.names = tuple(names) if names is not None else _names(self.instances)
        threads = 4 * count if max_threads is None else max_threads
        self._crew = Crew(check_whole("Vote", "max_threads", threads, 1, 10_000))
        self.name = name
        self.votes = 0
        self.dissents = dict.fromkeys(self.names, 0)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Ask all instances; a coroutine if they are coroutine functions."""
        ask: Any = self._ask_async if self._async else self._ask
        return ask(args, kwargs)  # type: ignore[no-any-return]

    @property
    def __outlast_kind__(self) -> Kind:
        """As what a policy protects it: as the kind of function that the instances are."""
        return "async" if self._async else "blocking"

    def describe(self) -> dict[str, Any]:
        """Return the settings."""
        return {"instances": list(self.names), "quorum": self.quorum, "timeout": self.timeout}

    def snapshot(self) -> dict[str, Any]:
        """Return how many votes there were, and how often each instance was alone."""
        return {"votes": self.votes, "dissents": dict(self.dissents)}

    def _ask(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        world = current_world()
        clock = world.clock
        count = _Count(self, world)
        race = side_by_side(self._crew, world)
        begun_ns = clock.monotonic_ns()
        until_ns = None if self.timeout is None else begun_ns + round(self.timeout * 1e9)
        limit = current_deadline.get()
        limit_ns = None if limit is None or limit.endless else limit.at_ns
        if limit_ns is not None:
            until_ns = limit_ns if until_ns is None else min(until_ns, limit_ns)
        try:
            for number, instance in enumerate(self.instances):
                if not race.start(number, partial(instance, *args, **kwargs)):
                    count.failed(number, OverloadedError("no thread is free"))
            while not count.decided:
                ended = race.next(until_ns)
                if ended is None:
                    if limit_ns is not None and clock.monotonic_ns() >= limit_ns:
                        raise DeadlineError("the deadline passed while instances were asked")
                    break
                count.ended(ended.number, ended.answer, ended.error)
        finally:
            race.leave()
        return count.outcome()

    async def _ask_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        world = current_world()
        count = _Count(self, world)
        tasks: dict[asyncio.Future[Any], int] = {}
        try:
            for number, instance in enumerate(self.instances):
                call: Any = instance(*args, **kwargs)
                tasks[asyncio.ensure_future(call)] = number
            loop = asyncio.get_running_loop()
            until = None if self.timeout is None else loop.time() + self.timeout
            running = set(tasks)
            while not count.decided:
                left = None if until is None else max(until - loop.time(), 0.0)
                done, running = await asyncio.wait(
                    running, timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for task in sorted(done, key=tasks.__getitem__):
                    if task.cancelled():
                        count.failed(tasks[task], asyncio.CancelledError())
                        continue
                    error = task.exception()
                    count.ended(tasks[task], None if error else task.result(), error)
        finally:
            await _clear(tasks)
        return count.outcome()


class _Count:
    """One vote."""

    __slots__ = ("_errors", "_vote", "_world", "tally")

    def __init__(self, vote: Vote[..., Any], world: World) -> None:
        self._vote = vote
        self._world = world
        self._errors: dict[int, BaseException] = {}
        self.tally = Tally(len(vote.instances), vote.quorum)

    @property
    def decided(self) -> bool:
        return self.tally.winner is not None or self.tally.hopeless

    def failed(self, number: int, error: BaseException) -> None:
        self._errors[number] = error
        self.tally.gave_none(number)

    def ended(self, number: int, answer: Any, error: BaseException | None) -> None:
        key = self._vote.key
        if isinstance(error, InvariantError) or not isinstance(error, Exception | None):
            raise error
        if isinstance(error, CommandError):
            ballot: Any = ("error", type(error), error.args)
            self.tally.answered(number, ballot, (None, error))
        elif error is not None:
            self.failed(number, error)
        else:
            try:
                ballot = ("answer", answer if key is None else key(answer))
                self.tally.answered(number, ballot, (answer, None))
            except Exception as wrong:  # an answer that cannot be compared is none
                self.failed(number, wrong)

    def outcome(self) -> Any:
        """Return or raise what the quorum said, and name the others."""
        vote, tally = self._vote, self.tally
        vote.votes += 1
        winner = tally.winner
        if winner is None:
            raise self._no_majority()
        odd = tuple(vote.names[number] for number in tally.dissenters)
        failed = tuple(vote.names[number] for number in sorted(tally.failed))
        if odd or failed:
            from outlast.protect.events import VoteDissented

            for name in odd:
                vote.dissents[name] += 1
            event = VoteDissented(name=vote.name, dissenting=odd, failed=failed)
            self._world.events.emit(event)
        answer, error = winner.answer
        if error is not None:
            raise error
        return answer

    def _no_majority(self) -> NoMajorityError:
        names, tally = self._vote.names, self.tally
        failed = {names[n]: type(error).__name__ for n, error in sorted(self._errors.items())}
        heard = {member for party in tally.members for member in party} | set(self._errors)
        unheard = tuple(name for number, name in enumerate(names) if number not in heard)
        lost = f", {len(failed)} failed" if failed else ""
        late = f", {len(unheard)} had not answered" if unheard else ""
        error = NoMajorityError(
            f"{told(tally)}{lost}{late}; {tally.quorum} equal answers are needed",
            parties=tally.parties, failed=failed, unheard=unheard,
        )  # fmt: skip
        if self._errors:
            error.__cause__ = self._errors[min(self._errors)]
        return error


async def _clear(tasks: "dict[asyncio.Future[Any], int]") -> None:
    """Cancel what runs and wait until it has ended, even if cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    while any(not task.done() for task in running):
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # nobody is to hear that it was never asked for
    if cancelled is not None:
        raise cancelled


def _names(instances: tuple[Callable[..., Any], ...]) -> tuple[str, ...]:
    names = tuple(getattr(each, "__qualname__", type(each).__name__) for each in instances)
    if len(set(names)) == len(names):
        return names
    return tuple(f"instance {number}" for number in range(1, len(names) + 1))
