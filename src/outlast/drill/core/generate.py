"""What the clients do: operations drawn from the seed, in the words of the model.

A model of ``outlast check`` says which operations there are and what they take. Written values
are unique as far as the model lets them be, so that a read tells which write it saw. Keys are
used for a while and then replaced by new ones: many short histories are judged faster, and
tell more, than one long one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlast.kernel import ConfigError, Prng

READS: Mapping[str, frozenset[str]] = {
    "register": frozenset({"read"}),
    "kv": frozenset({"get", "read"}),
    "set": frozenset({"read"}),
    "counter": frozenset({"read"}),
    "queue": frozenset(),
    "bank": frozenset({"read"}),
    "append": frozenset(),
}
"""The operations of each model that change nothing: one that failed had no effect."""

WRITES: Mapping[str, frozenset[str]] = {
    "register": frozenset({"write", "cas"}),
    "kv": frozenset({"put", "append", "delete", "cas", "write"}),
    "set": frozenset({"add"}),
    "counter": frozenset({"add"}),
    "queue": frozenset({"enqueue", "dequeue"}),
    "bank": frozenset({"transfer"}),
    "append": frozenset({"txn"}),
}
"""The operations of each model that may change something."""

_VALUES_SEEN = 64
_READ_AND_WRITTEN = frozenset({"dequeue", "txn"})
"""Operations that show what is there, and may change it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operation to run.

    Attributes:
        f: Its name.
        key: Of the history's event, ``None`` where the model has no keys.
        value: Of the invocation, as the model takes it.
        arguments: By parameter name, as the operation's method takes them.
    """

    f: str
    key: Any
    value: Any
    arguments: Mapping[str, Any]


def observes(call: Call, output: Any) -> bool:
    """Whether ``call`` counts as a read: it showed what is there and is no proof of a write.

    A comparison that failed and a transaction without an append changed nothing, and what was
    taken from a queue shows what had been written.

    Args:
        call: What was run.
        output: What it returned, if it did.
    """
    if call.f == "cas":
        return output is False
    if call.f == "txn":
        return all(operation[0] == "r" for operation in call.value)
    return call.f == "dequeue" or any(call.f in reads for reads in READS.values())


def reads_and_writes(model: str, names: Collection[str]) -> tuple[bool, bool]:
    """Return whether a workload of these operations ever reads, and whether it ever writes.

    >>> reads_and_writes("queue", ["enqueue"]), reads_and_writes("append", ["txn"])
    ((False, True), (True, True))
    """
    reads = any(name in READS[model] | _READ_AND_WRITTEN for name in names)
    return reads, any(name in WRITES[model] - {"dequeue"} for name in names)


@dataclass(slots=True)
class Generator:
    """Draws the operations of one workload.

    Args:
        model: Of ``outlast check``.
        weights: How often each operation comes, by name, relative to the others.
        prng: Where they are drawn from.
        keyed: Whether the operations take a key.
        key_count: How many keys are in use at a time.
        operations_per_key: After so many operations a key is replaced.
        accounts: Names of the accounts, for the bank.
        amount_max: Largest amount of a transfer or addition.
    """

    model: str
    weights: Mapping[str, int]
    prng: Prng
    keyed: bool = False
    key_count: int = 4
    operations_per_key: int = 160
    accounts: Sequence[str] = ()
    amount_max: int = 5
    keys: list[str] = field(default_factory=list)
    _live: list[str] = field(default_factory=list)
    _used: dict[str, int] = field(default_factory=dict)
    _seen: dict[Any, Any] = field(default_factory=dict)
    _value: int = 0

    def __post_init__(self) -> None:
        """Check that the operations are the model's.

        Raises:
            ConfigError: Definite. Unknown model or operation, or the bank has no accounts.
        """
        if self.model not in READS:
            message = f"model {self.model!r}: there are {', '.join(READS)}"
            raise ConfigError(message)
        known = READS[self.model] | WRITES[self.model]
        for f in self.weights:
            if f not in known:
                message = (
                    f"operation {f!r}: model {self.model} has {', '.join(sorted(known))}; name"
                    " the method so"
                )
                raise ConfigError(message)
        if not self.weights:
            message = (
                f"model {self.model}: no operation to run during the drill; add @drill.operation"
                f" async def {min(WRITES[self.model])}(…)"
            )
            raise ConfigError(message)
        if self.model == "bank" and len(self.accounts) < 2:
            message = "the bank needs at least two accounts: accounts = {'a': 100, 'b': 100}"
            raise ConfigError(message)

    @property
    def reads(self) -> frozenset[str]:
        """The operations of this workload that change nothing."""
        return READS[self.model] & self.weights.keys()

    def next(self, *, reads_only: bool = False) -> Call:
        """Draw the next operation; one that changes nothing if asked for and if there is one."""
        names = [f for f in self.weights if not reads_only or not self.reads or f in self.reads]
        total = sum(self.weights[f] for f in names)
        draw = self.prng.below(total)
        for f in names:
            draw -= self.weights[f]
            if draw < 0:
                return self.make(f)
        return self.make(names[-1])

    def make(self, f: str, key: Any = None) -> Call:
        """Draw the arguments of operation ``f``."""
        if self.model == "bank" and f == "transfer":
            return self._transfer()
        if self.model == "append" and f == "txn":
            return self._transaction()
        if self.keyed and key is None:
            key = self._key()
        named = {} if not self.keyed else {"key": key}
        if f in READS[self.model] or f in {"delete", "dequeue"}:
            return Call(f, key, None, named)
        if f == "cas":
            old, new = self._seen.get(key), self._next_value()
            return Call(f, key, [old, new], {**named, "old": old, "new": new})
        if self.model == "counter":
            value: Any = self.prng.between(1, self.amount_max)
        else:
            value = self._next_value()
            if f == "append":
                value = f"{value} "
        return Call(f, key, value, {**named, "value": value})

    def heard(self, call: Call, output: Any) -> None:
        """Learn from an acknowledged operation, so that comparisons sometimes succeed."""
        if call.f in {"read", "get"} and self.model in {"register", "kv"}:
            self._seen[call.key] = output
        elif call.f in {"write", "put"}:
            self._seen[call.key] = call.value
        if len(self._seen) > _VALUES_SEEN:
            del self._seen[next(iter(self._seen))]

    def _next_value(self) -> Any:
        self._value += 1
        return str(self._value) if self.model == "kv" else self._value

    def _key(self) -> str:
        if len(self._live) < self.key_count:
            key = f"k{len(self.keys) + 1}"
            self.keys.append(key)
            self._live.append(key)
        else:
            key = self.prng.choice(self._live)
        self._used[key] = self._used.get(key, 0) + 1
        if self._used[key] >= self.operations_per_key:
            self._live.remove(key)
        return key

    def _transfer(self) -> Call:
        self._value += 1
        names = list(self.accounts)
        source = self.prng.choice(names)
        names.remove(source)
        target = self.prng.choice(names)
        amount = self.prng.between(1, self.amount_max)
        identity = f"t{self._value}"
        value = {"from": source, "to": target, "amount": amount, "id": identity}
        arguments = {"source": source, "target": target, "amount": amount, "id": identity}
        return Call("transfer", None, value, arguments)

    def _transaction(self) -> Call:
        operations: list[list[Any]] = []
        for _ in range(self.prng.between(1, 4)):
            key = self._key()
            if self.prng.chance(1, 2):
                operations.append(["r", key, None])
            else:
                self._value += 1
                operations.append(["append", key, self._value])
        return Call("txn", None, operations, {"operations": operations})
