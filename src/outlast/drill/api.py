"""What people write: a class with operations that clients run while faults are injected."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar, overload

from outlast.drill.core.generate import READS, WRITES
from outlast.drill.report import InvariantReport
from outlast.kernel import ConfigError, HistoryEvent

P = ParamSpec("P")
R = TypeVar("R")

Method = Callable[P, Awaitable[R]]

_MARK = "__outlast_operation__"
_ARGUMENTS = ("key", "value", "old", "new", "source", "target", "amount", "id", "operations")


@dataclass(frozen=True, slots=True)
class OperationSpec:
    """One operation of a workload.

    Attributes:
        name: Of the method: the ``f`` of its history.
        weight: How often it comes relative to the others; 0 for a final one.
        final: Whether it runs only at the end.
        parameters: What its method takes beside the client.
    """

    name: str
    weight: int
    final: bool
    parameters: tuple[str, ...]


@overload
def operation(method: Method[P, R], /) -> Method[P, R]: ...


@overload
def operation(
    *, final: bool = ..., weight: int = ...
) -> Callable[[Method[P, R]], Method[P, R]]: ...


def operation(
    method: Method[P, R] | None = None, /, *, final: bool = False, weight: int = 1
) -> Any:
    """Make a coroutine method an operation that clients run.

    Its name is an operation of the model. It takes a client and what the model gives, by name:
    ``key``, ``value``; ``old`` and ``new`` for ``cas``; ``source``, ``target``, ``amount`` and
    ``id`` for ``transfer``; ``operations`` for ``txn``. What it returns is what was observed.
    Returning is ``ok``; an exception for which :func:`outlast.happened` says ``"no"`` is
    ``fail``, and so is any exception of a read; every other one is ``info``: it may have
    happened.

    Reads run once more at the end, when everything was healed: on each node, or for each key
    where the operation takes one.

    Args:
        method: The coroutine method, when used without parentheses.
        final: Run it only then.
        weight: How often it comes relative to the others, at least 1.

    Raises:
        ConfigError: Definite. Not a coroutine function, an unknown parameter, or no weight.
    """

    def mark(function: Method[P, R]) -> Method[P, R]:
        name = getattr(function, "__name__", "")
        if not inspect.iscoroutinefunction(function):
            message = f"@drill.operation {name}: write `async def {name}(self, client, …)`"
            raise ConfigError(message)
        if weight < 1:
            message = f"@drill.operation {name}: weight {weight}; give at least 1"
            raise ConfigError(message)
        parameters = tuple(inspect.signature(function).parameters)[2:]
        for parameter in parameters:
            if parameter not in _ARGUMENTS:
                message = (
                    f"@drill.operation {name}: unknown parameter {parameter!r}; models give"
                    f" {', '.join(_ARGUMENTS)}"
                )
                raise ConfigError(message)
        spec = OperationSpec(name, 0 if final else weight, final, parameters)
        setattr(function, _MARK, spec)
        return function

    return mark if method is None else mark(method)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Processes to run, by a command line.

    Args:
        command: How one node is started. ``{port}`` is where it must listen, ``{dir}`` its own
            directory, empty at first and kept over restarts; ``{node}`` its name, ``{host}``
            its address, ``{peers}`` the other nodes as ``n2=127.0.0.1:4711,…``: their
            addresses for this node, each with a fault proxy in between. The same stands in the
            environment as ``OUTLAST_NODE``, ``OUTLAST_PORT``, ``OUTLAST_DIR`` and
            ``OUTLAST_PEERS``. A program called ``python`` is the Python that runs the drill.
        count: How many, 1 to 9.
        ready: Path that answers with 2xx once the node serves, such as ``/readyz``; ``None``
            for a node that is ready when its port accepts connections.
        start_seconds: How long a start may take.
        environment: More environment.
        main: For ``--world sim``, where there are no processes: a coroutine function that is
            called in place of the command, with those of ``port``, ``dir``, ``node``, ``host``
            and ``peers`` that it takes. Without it, a command ``python -m MODULE …`` or
            ``python FILE.py …`` is run up to its ``asyncio.run``, on each host anew.
    """

    command: str
    count: int = 3
    ready: str | None = None
    start_seconds: float = 20.0
    environment: Mapping[str, str] = field(default_factory=dict)
    main: Callable[..., Awaitable[Any]] | None = None

    def __post_init__(self) -> None:
        """Check what can be checked before anything is started.

        Raises:
            ConfigError: Definite. An impossible count, an unknown placeholder, no command.
        """
        if not 1 <= self.count <= NODES_MAX:
            message = f"Nodes: count is {self.count}; give 1 to {NODES_MAX}"
            raise ConfigError(message)
        if not self.command.split():
            message = "Nodes: the command is empty; write it as in a shell"
            raise ConfigError(message)
        if self.ready is not None and not self.ready.startswith("/"):
            message = f"Nodes: ready is {self.ready!r}; give a path such as '/readyz', or None"
            raise ConfigError(message)
        if not self.start_seconds > 0:
            message = f"Nodes: start_seconds is {self.start_seconds:g}; give more than 0"
            raise ConfigError(message)
        try:
            self.command.format_map(dict.fromkeys(PLACEHOLDERS, ""))
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            message = f"Nodes: command {self.command!r}: {error}; there are {known}"
            raise ConfigError(message) from error


NODES_MAX = 9
SERVES_WITH = ("majority", "healing")
PLACEHOLDERS = ("port", "dir", "node", "host", "peers")


@dataclass(frozen=True, slots=True)
class Node:
    """One node as a client sees it: every address leads through a fault proxy.

    Attributes:
        name: Such as ``n1``.
        host: Where clients connect.
        port: Where clients connect.
        everyone: Addresses of all nodes for this client, by name.
        pinned: Whether this client stays with this node whatever happens, and only reads if
            the workload has reads.
    """

    name: str
    host: str
    port: int
    everyone: Mapping[str, str] = field(default_factory=dict)
    pinned: bool = False

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """``http://HOST:PORT``."""
        return f"http://{self.address}"


class Workload:
    """Operations on a target, and the model that judges their history.

    Attributes:
        model: ``register``, ``kv``, ``set``, ``counter``, ``queue``, ``bank`` or ``append``.
        name: In the report; the class's name by default.
        clients: How many run side by side.
        pinned: Whether a client stays with each node besides, and reads.
        rate: Operations per second of one client, at most.
        timeout: Seconds after which an operation counts as unknown.
        accounts: What each account holds at first, for the bank.
    """

    model: ClassVar[str] = "register"
    name: ClassVar[str] = ""
    clients: ClassVar[int] = 4
    pinned: ClassVar[bool] = True
    rate: ClassVar[float] = 25.0
    timeout: ClassVar[float] = 2.0
    accounts: ClassVar[Mapping[str, int]] = {}

    async def connect(self, node: Node) -> Any:
        """Return a client of ``node``; it is closed by its ``aclose``, ``close`` or ``__aexit__``.

        A client that is an asynchronous context manager is entered first. Each client gets a
        new one after an operation that did not succeed, so making one should be cheap: an HTTP
        client that loads certificates each time stops the drill for 25 ms.
        """
        raise NotImplementedError

    async def setup(self, client: Any) -> None:
        """Prepare the target once, before the load; nothing by default."""

    async def verify(
        self, client: Any, events: Sequence[HistoryEvent]
    ) -> Sequence[InvariantReport]:
        """Check invariants at the end, when everything was healed; none by default.

        Args:
            client: A client of the first node.
            events: The history of this workload.
        """
        return ()

    @classmethod
    def operations(cls) -> dict[str, OperationSpec]:
        """Return the operations by the name of their method, in order of definition.

        A class takes one of its base back by setting the name to ``None``.
        """
        found: dict[str, OperationSpec] = {}
        for base in reversed(cls.__mro__):
            for name, value in vars(base).items():
                spec = getattr(value, _MARK, None)
                if spec is not None:
                    found[name] = spec
                elif not callable(value):  # as in ``read = None``: taken back
                    found.pop(name, None)
        return found


class Drill(Workload):
    """A target, what its clients do, which faults it must survive, and what it promises.

    The docstring's first line is the promise that the report shows.

    Attributes:
        nodes: The processes: :class:`Nodes`.
        faults: Names of faults, as ``outlast faults`` lists them.
        workloads: Several workloads to run side by side; by default the drill's own operations.
        serves_with: ``majority`` if clients must be served while a majority of the nodes can
            talk to each other; ``healing`` if only once everything is healed.
        recover_within: Seconds after healing within which every workload must make progress.
        may_exit: Whether a node may end by itself, to be started again.
    """

    nodes: ClassVar[Any]
    faults: ClassVar[Sequence[str]] = ("crash",)
    workloads: ClassVar[Sequence[type[Workload]]] = ()
    serves_with: ClassVar[Literal["majority", "healing"]] = "majority"
    recover_within: ClassVar[float] = 5.0
    may_exit: ClassVar[bool] = False

    @classmethod
    def promise(cls) -> str:
        """Return the first line of the docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]


def workloads_of(drill: Drill) -> list[Workload]:
    """Return what runs side by side: the drill's workloads, or the drill itself.

    Raises:
        ConfigError: Definite. There are no operations, one is not the model's, or a number of
            the workload makes no sense.
    """
    found: list[Workload] = [make() for make in type(drill).workloads] or [drill]
    for workload in found:
        _check_workload(workload, workload.operations())
    return found


def _check_workload(workload: Workload, operations: Mapping[str, OperationSpec]) -> None:
    name = type(workload).__name__
    if not operations:
        message = f"{name}: no operations; mark coroutine methods with @drill.operation"
        raise ConfigError(message)
    known = READS.get(workload.model, frozenset()) | WRITES.get(workload.model, frozenset())
    for f in operations:
        if known and f not in known:
            message = (
                f"{name}: operation {f!r}: model {workload.model} has"
                f" {', '.join(sorted(known))}; name the method so"
            )
            raise ConfigError(message)
    if workload.clients < 1:
        message = f"{name}: clients is {workload.clients}; give at least 1"
        raise ConfigError(message)
    for field_name in ("rate", "timeout"):
        value = getattr(workload, field_name)
        if not 0 < value < inf:
            message = f"{name}: {field_name} is {value:g}; give more than 0"
            raise ConfigError(message)


def check_drill(drill: type[Drill]) -> None:
    """Check what a drill says of itself beside its workloads.

    Raises:
        ConfigError: Definite. It has no nodes, or a word or number makes no sense.
    """
    name = drill.__name__
    nodes = getattr(drill, "nodes", None)
    if not hasattr(nodes, "start_seconds"):
        said = "no nodes" if nodes is None else f"nodes is {nodes!r}"
        raise ConfigError(f'{name}: {said}; write nodes = drill.Nodes("…")')
    if drill.serves_with not in SERVES_WITH:
        message = f"{name}: serves_with is {drill.serves_with!r}; use {' or '.join(SERVES_WITH)}"
        raise ConfigError(message)
    if not 0 < drill.recover_within < inf:
        message = f"{name}: recover_within is {drill.recover_within:g}; give more than 0"
        raise ConfigError(message)
