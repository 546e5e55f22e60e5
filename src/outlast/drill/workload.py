"""Clients that run a workload's operations and write down what they were told.

A client invokes one operation at a time. When one ends without a known outcome, its process of
the history ends with it: the client goes on as another process, on a new connection. Clients
that are pinned to a node stay with it whatever happens; the others move on to the next node
after an operation that did not succeed.
"""

import asyncio
import contextlib
import inspect
import itertools
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlast.drill.api import Drill, Node, OperationSpec, Workload
from outlast.drill.core.generate import READS, Call, Generator, observes, reads_and_writes
from outlast.drill.core.timeline import Done, Outcome
from outlast.drill.report import InvariantReport
from outlast.kernel import (
    ConfigError,
    HistoryEvent,
    HistoryType,
    InvariantError,
    Prng,
    TaskHandle,
    World,
    happened,
)

_NS = 1_000_000_000
_PAUSE_NS = 100_000_000
_PAUSE_MAX_NS = 400_000_000
_CONNECT_SECONDS = 2.0
_ONCE_SECONDS = 60.0
"""What preparing the target, and verifying it, may take."""
_FINAL_KEYS_MAX = 400
_AS_INVOKED: Any = object()
_DEFECTS = (TypeError, AttributeError, NameError, ConfigError, InvariantError, NotImplementedError)
"""What an operation raises when its own code is wrong: the drill stops and says so."""


@dataclass(slots=True)
class Running:
    """One workload while it runs.

    Args:
        world: Clock, timers, tasks.
        workload: What people wrote.
        nodes: Where clients connect, in order.
        first_process: Number of the first process of its history.
        seed: Of its operations.
        began_ns: When the load began, on the monotonic clock.
        pinned: Where the clients connect that stay with one node.
        record: Called with each history event.
        answered: Called with the node of a pinned client after each of its operations, and
            whether the node answered at all.
        bytes_from: Says how many bytes a node has sent to its pinned clients so far: an
            operation that failed was answered if there are more afterwards.
        spawn: Starts a client's task: called with its coroutine, ``name``, and ``pinned``, the
            node that it stays with.
    """

    world: World
    workload: Workload
    nodes: Sequence[Node]
    seed: int
    first_process: int
    began_ns: int = 0
    pinned: Sequence[Node] = ()
    record: Callable[[HistoryEvent], None] | None = None
    answered: Callable[[str, bool], None] = lambda _node, _ok: None
    bytes_from: Callable[[str], int] = lambda _: 0
    spawn: Callable[..., TaskHandle] | None = None
    events: list[HistoryEvent] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"ok": 0, "fail": 0, "info": 0})
    refused: int = 0
    """Reads that a node did not serve to its pinned client: it does not lead, or it is down."""
    errors: dict[str, int] = field(default_factory=dict)
    generator: Generator = field(init=False)
    _specs: dict[str, OperationSpec] = field(init=False)
    _methods: dict[str, Any] = field(init=False)
    _tasks: list[TaskHandle] = field(default_factory=list)
    _next_process: int = field(init=False)
    _defect: Exception | None = None
    _stopping: bool = False
    _ending: bool = False

    def __post_init__(self) -> None:
        """Read the operations."""
        self._specs = self.workload.operations()
        self._methods = {name: getattr(self.workload, name) for name in self._specs}
        during = {name: spec.weight for name, spec in self._specs.items() if not spec.final}
        self.generator = Generator(
            self.workload.model,
            during,
            Prng(self.seed),
            keyed=any("key" in spec.parameters for spec in self._specs.values()),
            accounts=tuple(self.workload.accounts),
        )
        self._next_process = self.first_process

    @property
    def name(self) -> str:
        """Of the workload."""
        return self.workload.name or type(self.workload).__name__

    @property
    def model(self) -> str:
        """That judges its history."""
        return self.workload.model

    @property
    def needed(self) -> list[tuple[str, bool]]:
        """Kinds of operation that must succeed around each fault: name, and whether a read."""
        kinds = {f in self.generator.reads or f == "dequeue" for f in self.generator.weights}
        return [(self.name, read) for read in sorted(kinds)]

    @property
    def unseen(self) -> list[str]:
        """What its operations never do, final ones and ``verify`` included: read, or write."""
        reads, writes = reads_and_writes(self.model, list(self._specs))
        reads = reads or type(self.workload).verify is not Workload.verify
        missing = ([] if reads else ["reads"]) + ([] if writes else ["writes"])
        return [f"{self.name}: it never {what}" for what in missing]

    @property
    def header(self) -> dict[str, Any]:
        """The first line of the history's file."""
        accounts = dict(self.workload.accounts)
        return {"model": self.model, **({"accounts": accounts} if accounts else {})}

    @property
    def pinned_count(self) -> int:
        """Clients that stay with a node: one for each, if the workload reads."""
        return len(self.nodes) if self.workload.pinned and self.generator.reads else 0

    @property
    def client_count(self) -> int:
        """All clients."""
        return self.pinned_count + self.workload.clients

    async def setup(self) -> None:
        """Prepare the target, through the first node.

        Raises:
            ConfigError: Definite. It did not work, with the line of the drill's own code.
        """
        try:
            async with (
                asyncio.timeout(_ONCE_SECONDS),
                _connected(self.workload, self.nodes[0]) as client,
            ):
                await self.workload.setup(client)
        except Exception as error:
            raise ConfigError(f"setup of {self._defect_line(_cause(error))}") from error

    # --- load ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the clients: one pinned to each node, and those that move about."""
        count = len(self.nodes)
        pinned = self.pinned_count
        spawn = self.spawn or self._spawn
        for number in range(self.client_count):
            stays = number < pinned
            task = spawn(
                self._guarded(number % count, Prng(self.seed + number + 1), pinned=stays),
                name=f"{self.name} client {number}",
                pinned=self.nodes[number % count].name if stays else "",
            )
            self._tasks.append(task)

    def _spawn(self, coroutine: Any, *, name: str, pinned: str) -> TaskHandle:
        return self.world.spawn.task(coroutine, name=name)

    async def stop(self, within: float) -> None:
        """Let each client end its operation; what takes longer counts as unknown.

        Raises:
            ConfigError: A client ended before its time, by a defect in the drill's own code.
        """
        self._stopping = True
        tasks: list[Any] = list(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within)
            self._ending = True
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self.check()

    def check(self) -> None:
        """Raise the defect that ended a client, if one has ended before its time.

        Raises:
            ConfigError: With the line of the drill's own code.
        """
        if self._defect is not None:
            raise ConfigError(self._defect_line(self._defect)) from self._defect

    def _defect_line(self, error: Exception) -> str:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = {code.co_filename for code in _codes(type(self.workload))}
        own = [f for f in frames if f.filename in theirs]
        frame = (own or frames)[-1]
        where = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        return f"workload {self.name}, {where}: {type(error).__name__}: {error}"

    async def _guarded(self, start: int, prng: Prng, *, pinned: bool) -> None:
        try:
            await self._client(start, prng, pinned=pinned)
        except asyncio.CancelledError as error:
            if self._ending or _is_being_cancelled():
                raise
            told = RuntimeError("CancelledError outside an operation, and nobody cancelled it")
            self._defect = told.with_traceback(error.__traceback__)
        except Exception as error:
            self._defect = error

    def _process(self) -> int:
        self._next_process += 1
        return self._next_process - 1

    def _now(self) -> int:
        return self.world.clock.monotonic_ns() - self.began_ns

    async def _client(self, start: int, prng: Prng, *, pinned: bool) -> None:
        where, process, misses = start, self._process(), 0
        pause_ns = int(_NS / self.workload.rate)
        await self.world.timers.sleep(prng.below(pause_ns) / _NS)
        while not self._stopping:
            node = (self.pinned if pinned else self.nodes)[where % len(self.nodes)]
            try:
                async with _connected(self.workload, node) as client:
                    while not self._stopping:
                        began = self._now()
                        call = self.generator.next(reads_only=pinned)
                        outcome = await self._run(process, client, call, node)
                        if outcome == "info":
                            process = self._process()
                        misses = 0 if outcome == "ok" else misses + 1
                        if outcome != "ok" and (outcome == "info" or not pinned):
                            break
                        left_ns = pause_ns * prng.between(50, 150) // 100 - (self._now() - began)
                        if left_ns > 0:
                            await self.world.timers.sleep(left_ns / _NS)
            except _NotConnectedError:
                misses += 1
            if not pinned:
                where += 1
            if not self._stopping:
                await self.world.timers.sleep(_pause_ns(misses, prng) / _NS)

    async def _run(self, process: int, client: Any, call: Call, node: Node) -> Outcome:
        began = self._now()
        self._note(process, "invoke", call)
        spec = self._specs[call.f]
        arguments = {name: call.arguments.get(name) for name in spec.parameters}
        outcome: Outcome = "ok"
        answered, output = True, None
        before = self.bytes_from(node.name) if node.pinned else 0
        try:
            async with asyncio.timeout(self.workload.timeout):
                output = await self._methods[call.f](client, **arguments)
        except _DEFECTS:
            raise
        except asyncio.CancelledError:
            if not self._ending and _is_being_cancelled():
                raise
            # At the end, or raised by the client's own library, which must not end the client.
            outcome, answered = self._unknown(call), False
            if not self._ending:
                self._erred("CancelledError that nobody asked for")
        except Exception as error:
            surely_not = happened(error) == "no"
            outcome = "fail" if surely_not else self._unknown(call)
            answered = bool(node.pinned) and self.bytes_from(node.name) > before
            if not (node.pinned and outcome == "fail"):
                self._erred(f"{type(error).__name__}: {error}")
        if outcome == "ok":
            value, result = self._observed(call, output)
            self.generator.heard(call, output)
            ended = self._note(process, "ok", call, value=value, result=result)
        else:
            ended = self._note(process, outcome, call)
        if node.pinned and outcome == "fail":
            self.refused += 1
        else:
            self.counts[outcome] += 1
            observed = observes(call, output)
            self.done.append(Done(self.name, observed, began, ended, outcome))
        if node.pinned:
            self.answered(node.name, answered)
        return outcome

    def _erred(self, what: str) -> None:
        text = what[:160]
        self.errors[text] = self.errors.get(text, 0) + 1

    def _reads(self, call: Call) -> bool:
        return call.f in READS[self.model]

    def _unknown(self, call: Call) -> Outcome:
        """Return how an operation without an answer ends: a read has surely changed nothing."""
        return "fail" if self._reads(call) else "info"

    def _observed(self, call: Call, output: Any) -> tuple[Any, Any]:
        """Return value and result of the ``ok`` event: reads carry what was read."""
        if self._reads(call) or call.f in {"dequeue", "txn"}:
            many = isinstance(output, (set, frozenset, tuple))
            return (list(output) if many else output), None
        return call.value, (False if call.f == "cas" and output is False else None)

    def _note(
        self,
        process: int,
        kind: HistoryType,
        call: Call,
        *,
        value: Any = _AS_INVOKED,
        result: Any = None,
    ) -> int:
        """Write an event into the history and return its time."""
        now = self._now()
        said = call.value if value is _AS_INVOKED else value
        event = HistoryEvent(process, kind, call.f, said, call.key, now, result)
        self.events.append(event)
        if self.record is not None:
            self.record(event)
        return now

    async def verify(self) -> Sequence[InvariantReport]:
        """Check the workload's invariants, through the first node.

        Raises:
            ConfigError: Definite. The drill's own code is wrong; the line is in the message.
            Exception: Whatever else kept it from an answer.
        """
        try:
            async with (
                asyncio.timeout(_ONCE_SECONDS),
                _connected(self.workload, self.nodes[0]) as client,
            ):
                return await self.workload.verify(client, self.events)
        except _DEFECTS as error:
            raise ConfigError(f"verify of {self._defect_line(error)}") from error
        except _NotConnectedError as error:
            raise _cause(error) from error

    # --- end -----------------------------------------------------------------------------------

    async def final(self, within: float) -> list[str]:
        """Run each read once more: on every node, or for every key. Return what did not work.

        Keys are read at the nodes in turn. A read that fails is repeated for up to ``within``
        seconds.
        """
        problems = []
        for name, spec in self._specs.items():
            if name not in READS[self.model] and not spec.final:
                continue
            if "key" in spec.parameters:
                keys: Sequence[Any] = self.generator.keys[-_FINAL_KEYS_MAX:]
                around = itertools.cycle(self.nodes)
                rows = [(next(around), self.generator.make(name, key)) for key in keys]
            else:
                rows = [(node, self.generator.make(name)) for node in self.nodes]
            for node, call in rows:
                if not await self._insist(node, call, within):
                    problems.append(f"{self.name}: final {name} at {node.name} never succeeded")
                    break
        if "dequeue" in self._specs:
            problems += await self._empty(within)
        return problems

    async def _empty(self, within: float) -> list[str]:
        """Take everything out of a queue: what was lost at its end shows only then."""
        for _ in range(sum(event.f == "enqueue" for event in self.events) + 1):
            if not await self._insist(self.nodes[0], self.generator.make("dequeue"), within):
                return [f"{self.name}: the queue could not be emptied"]
            if self.events[-1].value is None:
                break
        return []

    async def _insist(self, node: Node, call: Call, within: float) -> bool:
        end = self._now() + int(within * _NS)
        while True:
            with contextlib.suppress(_NotConnectedError):
                async with _connected(self.workload, node) as client:
                    if await self._run(self._process(), client, call, node) == "ok":
                        return True
            if self._now() > end:
                return False
            await self.world.timers.sleep(_PAUSE_NS / _NS)


def _is_being_cancelled() -> bool:
    """Whether somebody has asked the current task to end."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _pause_ns(misses: int, prng: Prng) -> int:
    """Return how long to wait after so many operations in a row that did not succeed."""
    longest = min(_PAUSE_NS << max(0, misses - 1), _PAUSE_MAX_NS)
    return longest * prng.between(50, 150) // 100


class _NotConnectedError(Exception):
    """No client could be made of a node: nothing was invoked."""


def _cause(error: Exception) -> Exception:
    """Return why no client could be made, or the error itself."""
    cause = error.__cause__
    if isinstance(error, _NotConnectedError) and isinstance(cause, Exception):
        return cause
    return error


def _codes(workload: type[Workload]) -> list[Any]:
    """Return the code of what people wrote in their class and its bases."""
    return [
        inspect.unwrap(value).__code__
        for base in workload.__mro__
        if base not in {Drill, Workload, object}
        for value in vars(base).values()
        if inspect.isfunction(value)
    ]


@contextlib.asynccontextmanager
async def _connected(workload: Workload, node: Node) -> Any:
    """Make a client, enter it if it can be entered, and close it however that is called."""
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            client = await workload.connect(node)
            if hasattr(client, "__aenter__"):
                client = await client.__aenter__()
    except _DEFECTS:
        raise
    except Exception as error:
        raise _NotConnectedError from error
    try:
        yield client
    finally:
        await _close(client)


async def _close(client: Any) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CONNECT_SECONDS):
            if hasattr(client, "__aexit__"):
                await client.__aexit__(None, None, None)
                return
            for name in ("aclose", "close"):
                close = getattr(client, name, None)
                if close is not None:
                    closing = close()
                    if asyncio.iscoroutine(closing):
                        await closing
                    return


def by_name(running: Sequence[Running]) -> Mapping[str, Running]:
    """Return workloads by name.

    Raises:
        ConfigError: Definite. Two have the same name.
    """
    found: dict[str, Running] = {}
    for one in running:
        if one.name in found:
            message = f"two workloads are called {one.name!r}: give each a name of its own"
            raise ConfigError(message)
        found[one.name] = one
    return found
