"""A bank: ``transfer`` {from, to, amount, id} and ``read`` -> {account: balance}.

The first line of the history names the accounts. Cheap rules come first: a read shows every
account and no other, the same total, no balance below zero, and nothing outside the bounds that
the transfers leave. Then the search looks for an order. A transfer that has an id is carried out
once, however often it was asked for: its repeats are one operation, done by the time the first
of them was acknowledged. One that would overdraw has no effect, and cannot be acknowledged.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from outlast.check.core.bounds import Outside, find_outside
from outlast.check.core.history import History
from outlast.check.core.model import DeltaModel, Finding, Model, invalid
from outlast.check.core.operation import Operation
from outlast.check.core.values import BadValueError, freeze, number, show
from outlast.kernel import ConfigError


def _account(value: Any) -> str:
    """Return the name of an account as JSON objects spell it."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadValueError(f"{show(value)} is no account; a name or an integer would be right")


class Bank(DeltaModel):
    """Balances of accounts. Made by :meth:`prepare` from the first line of the history."""

    name: ClassVar[str] = "bank"
    functions: ClassVar[frozenset[str]] = frozenset({"transfer", "read"})
    reads: ClassVar[frozenset[str]] = frozenset({"read"})
    keyed: ClassVar[bool] = False
    how: ClassVar[str] = "totals, ids, overdrafts; linearizable"

    def __init__(self, accounts: Mapping[str, Any] | None = None) -> None:
        self.accounts = dict(accounts or {})
        self._place = {name: n for n, name in enumerate(self.accounts)}
        self.bounded = all(balance >= 0 for balance in self.accounts.values())

    def prepare(self, history: History) -> Model:
        """Return the bank with the accounts of the history's first line."""
        accounts = history.header.get("accounts")
        if not isinstance(accounts, Mapping) or not accounts:
            if self.accounts:
                return self
            raise ConfigError(
                f"{history.name}:1: no accounts for the model bank; a first line "
                '{"model": "bank", "accounts": {"a": 100, "b": 100}} would be right'
            )
        try:
            balances = {
                _account(name): number(balance, f"account {name}")
                for name, balance in accounts.items()
            }
        except BadValueError as error:
            raise ConfigError(f"{history.name}:1: {error}") from None
        return type(self)(balances)

    def init(self, key: Any) -> Hashable:
        """Return the balances of the first line."""
        return tuple(self.accounts.values())

    # --- operations -----------------------------------------------------------------------------

    def _transfer(self, op: Operation) -> tuple[str, str, Any]:
        value = op.value
        if not isinstance(value, Mapping) or not {"from", "to", "amount"} <= value.keys():
            raise BadValueError(
                f"transfer has the value {show(value)}; "
                '{"from": "a", "to": "b", "amount": 5, "id": 1} would be right'
            )
        return _account(value["from"]), _account(value["to"]), number(value["amount"], "amount")

    def _shown(self, op: Operation) -> dict[str, Any]:
        if not isinstance(op.output, Mapping):
            raise BadValueError(
                f"read has the value {show(op.output)}; balances by account would be right"
            )
        return {
            _account(name): None if balance is None else number(balance, f"balance of {name}")
            for name, balance in op.output.items()
        }

    def change(self, op: Operation) -> tuple[Any, ...]:
        """Return what each account gains."""
        source, sink, amount = self._transfer(op)
        gains: list[Any] = [0] * len(self.accounts)
        gains[self._place[source]] -= amount
        gains[self._place[sink]] += amount
        return tuple(gains)

    def target(self, op: Operation) -> tuple[Any, ...]:
        """Return the balances read, in the order of the first line."""
        shown = self._shown(op)
        return tuple(shown.get(name) for name in self.accounts)

    def fits(self, state: tuple[Any, ...]) -> bool:
        """Tell whether no balance is below zero."""
        return not self.bounded or min(state) >= 0

    def token(self, op: Operation) -> Hashable | None:
        """Return the transfer or the balances; what moves nothing can be left out."""
        if op.f == "read":
            return None if op.kind == "info" else ("read", self.target(op))
        source, sink, amount = self._transfer(op)
        if op.result is False or not amount or source == sink:
            return None
        if op.kind == "info" and not {source, sink} <= self.accounts.keys():
            return None
        return ("transfer", source, sink, amount)

    def relevant(
        self, operations: Sequence[Operation], optional: Collection[Operation] = ()
    ) -> Sequence[Operation]:
        """Drop uncertain transfers after the last read, where none could be needed for cover."""
        last = max((op.end or 0 for op in operations), default=0)
        return [op for op in operations if op.kind == "ok" or op.start < last]

    # --- judging --------------------------------------------------------------------------------

    def partition(self, history: History) -> list[tuple[Any, History]]:
        """Return the whole bank, with the repeats of a transfer joined.

        An id names one transfer: where one was acknowledged, another that came under its id was
        never carried out. Where none was, more than one of them may be taken to have been.
        """
        groups: dict[tuple[Hashable, tuple[str, str, Any]], list[Operation]] = {}
        others: list[Operation] = []
        for op in history.operations:
            ident = op.value.get("id") if isinstance(op.value, Mapping) else None
            if op.f == "transfer" and ident is not None and op.result is not False:
                groups.setdefault((freeze(ident), self._transfer(op)), []).append(op)
            else:
                others.append(op)
        told = {ident for (ident, _), ops in groups.items() if any(op.end for op in ops)}
        joined = [
            ops[0] if len(ops) == 1 else _join(ops)
            for (ident, _), ops in groups.items()
            if ident not in told or any(op.end for op in ops)
        ]
        kept = sorted([*others, *joined], key=lambda op: op.start)
        return [(None, history.only(kept))]

    def decide(self, key: Any, part: History) -> Finding | None:
        """Refuse by ids, accounts, totals, overdrafts and bounds."""
        transfers = [op for op in part.operations if op.f == "transfer"]
        reads = [op for op in part.operations if op.f == "read" and op.kind == "ok"]
        found = self._bad_transfer(transfers)
        if found is not None:
            return found
        for op in reads:
            reason = self._bad_read(self._shown(op))
            if reason:
                who = f"{self.describe(op)} by process {op.process}"
                return invalid(f"{who}: {reason}", [op], op)
        moving = [op for op in transfers if self.token(op) is not None]
        outside = find_outside(
            tuple(self.accounts.values()), reads, moving, self.target, self.change
        )
        return None if outside is None else self._outside(outside)

    def _bad_transfer(self, transfers: Sequence[Operation]) -> Finding | None:
        acknowledged: dict[Hashable, Operation] = {}
        for op in transfers:
            if op.kind != "ok" or op.result is False:
                continue
            source, sink, amount = self._transfer(op)
            for name in (source, sink):
                if name not in self.accounts:
                    reason = (
                        f"{self.describe(op)} was acknowledged, but there is no account {name}"
                    )
                    return invalid(reason, [op], op)
            ident = op.value.get("id")
            if ident is None:
                continue
            other = acknowledged.setdefault(freeze(ident), op)
            if self._transfer(other) != (source, sink, amount):
                reason = f"id {show(ident)} was acknowledged for two different transfers"
                return invalid(reason, [other, op], op)
        return None

    def _bad_read(self, shown: Mapping[str, Any]) -> str:
        for name in self.accounts:
            if shown.get(name) is None:
                return f"account {name} is missing"
        for name, balance in shown.items():
            if name not in self.accounts:
                return f"there is no account {name}"
            if self.bounded and balance < 0:
                return f"account {name} is overdrawn: {show(balance)}"
        total, right = sum(shown.values()), sum(self.accounts.values())
        if total != right:
            return f"the total is {show(total)}; {show(right)} would be right"
        return ""

    def _outside(self, found: Outside) -> Finding:
        name = list(self.accounts)[found.part]
        side = "less" if found.below else "more"
        edge = "at least" if found.below else "at most"
        reason = (
            f"{self.describe(found.read)} by process {found.read.process} shows {side} in account "
            f"{name} than the transfers allow, which is {edge} {show(found.bound)}"
        )
        shown = [found.read, *found.changes]
        if found.before is not None:
            shown.append(found.before)
        return invalid(reason, shown, found.read)

    def describe_state(self, state: Any) -> str:
        """Return the balances by account."""
        return show(
            {
                name: value if isinstance(value, int) else float(value)
                for name, value in zip(self.accounts, state, strict=True)
            }
        )


def _join(ops: Sequence[Operation]) -> Operation:
    """Return one operation for a transfer that was asked for several times."""
    done = [op for op in ops if op.end is not None]
    if not done:
        return ops[0]
    soonest = min(done, key=lambda op: op.end or 0)
    return replace(soonest, start=min(op.start for op in ops))
