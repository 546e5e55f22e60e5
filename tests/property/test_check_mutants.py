"""Bugs planted in the judge, one by one: a fixed sample of small histories notices each.

A mutant that survives says that the sample, or the naive judge beside it, is too weak.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from outlast.check import History, Model, Operation, check, parse_lines
from outlast.check import judge as judge_driver
from outlast.check.core import cycles, queue_rules, zones
from outlast.check.core import history as history_module
from outlast.check.core import judge as judge_core
from outlast.check.core.model import VALID, Finding
from outlast.check.core.models import bank as bank_module
from outlast.check.core.models import register as register_module
from outlast.check.core.models.bank import Bank
from outlast.check.core.models.counter import Counter
from outlast.check.core.models.queue import Queue
from outlast.check.core.models.register import Kv, Register
from outlast.check.core.models.set import Set
from outlast.check.core.search import Search
from outlast.check.core.values import freeze
from outlast.kernel import Prng
from tests.support.check_brute import MODELS, has_order, small_history

SAMPLE = 1600  # histories on which the judge itself is compared
SAMPLE_MAX = 12_000  # histories looked at until one notices a bug
READS = frozenset({"read", "get", "dequeue"})
Patch = pytest.MonkeyPatch
Change = Callable[[Operation], Operation | None]


@functools.cache
def history(model: str, seed: int) -> tuple[str, ...]:
    """Return the lines of history number ``seed`` of the sample."""
    return tuple(small_history(model, Prng(seed).below, 8))


@functools.cache
def right(model: str, seed: int) -> str:
    """Return the verdict of the naive judge."""
    return "valid" if has_order(model, history(model, seed)) else "invalid"


def differences(models: Iterable[str], count: int) -> Iterator[tuple[str, int, str]]:
    """Yield the histories of the sample on which the two judges differ, and what ours said."""
    for seed in range(count):
        for model in models:
            verdict = check(parse_lines(history(model, seed)), model).verdict
            if verdict != right(model, seed):
                yield model, seed, verdict


def changed(patch: Patch, change: Change) -> None:
    """Let the judge see each operation as ``change`` returns it; ``None`` hides it."""
    original = judge_driver.judge

    def judge(history: History, model: str | Model, limits: Any) -> Any:
        seen = [after for op in history.operations if (after := change(op)) is not None]
        return original(replace(history, operations=tuple(seen)), model, limits)

    patch.setattr(judge_driver, "judge", judge)


def hidden(patch: Patch, hide: Callable[[Operation], bool]) -> None:
    """Hide the operations that ``hide`` chooses."""
    changed(patch, lambda op: None if hide(op) else op)


def nothing(*_: object, **__: object) -> None:
    """Find nothing."""


# --- any model -----------------------------------------------------------------------------------


def real_time_ignored(patch: Patch) -> None:
    """Operations may be put in any order: serializable is not linearizable."""
    changed(
        patch,
        lambda op: replace(op, start=op.index, end=None if op.end is None else 1000 + op.end),
    )


def time_decides(patch: Patch) -> None:
    """Events are ordered by their times and not by their lines."""

    def moved(op: Operation) -> Operation:
        end = None if op.end is None else max(op.start_ns, op.end_ns or 0) * 1000 + op.end
        return replace(op, start=op.start_ns * 1000 + op.start, end=end)

    changed(patch, moved)


def info_is_done(patch: Patch) -> None:
    """A change without an answer surely happened."""

    original = history_module._Pairing._complete

    def complete(self: Any, at: int, process: int, kind: str, event: dict[str, Any]) -> None:
        if kind == "info" and event["f"] not in {*READS, "txn"}:
            kind = "ok"
        original(self, at, process, kind, event)

    patch.setattr(history_module._Pairing, "_complete", complete)


def info_never_happened(patch: Patch) -> None:
    """A change without an answer has no effect."""
    hidden(patch, lambda op: op.kind == "info")


def info_ends_at_once(patch: Patch) -> None:
    """A change without an answer is dropped when something else began after it."""
    hidden(patch, lambda op: op.kind == "info" and op.process % 2 == 0)


def fail_may_have_happened(patch: Patch) -> None:
    """What failed is taken for something whose outcome nobody knows."""
    original = history_module._Pairing._complete

    def complete(self: Any, at: int, process: int, kind: str, event: dict[str, Any]) -> None:
        if kind != "fail":
            original(self, at, process, kind, event)
            return
        start, invoke = self._open.pop(process)
        self._done.append((start, invoke, None, None))

    patch.setattr(history_module._Pairing, "_complete", complete)


def open_ones_forgotten(patch: Patch) -> None:
    """An operation without any completion is not looked at."""
    original = history_module._Pairing.history

    def history(self: Any, header: Any) -> History:
        self._open.clear()
        return original(self, header)

    patch.setattr(history_module._Pairing, "history", history)


def only_cheap_rules(patch: Patch) -> None:
    """What no cheap rule refuses is called valid."""
    patch.setattr(judge_core, "find_order", lambda *_: Finding("valid"))


def memo_forgets(name: str) -> Callable[[Patch], None]:
    """What was looked at is remembered without one of its parts."""

    def plant(patch: Patch) -> None:
        original = Search._known

        def known(self: Search, node: Any) -> bool:
            kept = getattr(node, name)
            setattr(node, name, 0)
            try:
                return original(self, node)
            finally:
                setattr(node, name, kept)

        patch.setattr(Search, "_known", known)

    plant.__name__ = f"memo_forgets_{name}"
    return plant


def one_change_at_a_return(patch: Patch) -> None:
    """Only what returns is given its place, never another open operation before it."""
    original = Search.open_entries

    def open_entries(self: Search, node: Any) -> Any:
        chosen, infos = original(self, node)
        return [entry for entry in chosen if entry is self.plan.returns[node.at]], infos

    patch.setattr(Search, "open_entries", open_entries)


# --- keys and values -----------------------------------------------------------------------------


def keys_mixed(patch: Patch) -> None:
    """All keys are one object."""
    patch.setattr(Model, "partition", lambda _, history: [(None, history)])


def keys_as_text(patch: Patch) -> None:
    """Key 1 and key "1" are one object."""
    changed(patch, lambda op: replace(op, key=None if op.key is None else str(op.key)))


def null_never_judged(patch: Patch) -> None:
    """A read of null is taken for no answer."""
    hidden(patch, lambda op: op.kind == "ok" and op.f in READS and op.output is None)


def true_is_one(patch: Patch) -> None:
    """Values are compared as Python compares them."""
    original = register_module.freeze
    patch.setattr(
        register_module,
        "freeze",
        lambda value: 1 if type(value) in {bool, float} else original(value),
    )


# --- one model -----------------------------------------------------------------------------------


def differing_cas_hidden(patch: Patch) -> None:
    """A comparison that was seen to fail is dropped, as if it had failed."""
    hidden(patch, lambda op: op.f == "cas" and op.output is False)


def differing_cas_swaps(patch: Patch) -> None:
    """A comparison that was seen to fail is taken to have swapped."""
    changed(patch, lambda op: replace(op, output=True) if op.output is False else op)


def cas_without_comparison(patch: Patch) -> None:
    """A swap is a write of its second value."""

    def write(op: Operation) -> Operation:
        if op.f != "cas" or op.output is False:
            return op
        return replace(op, f="write", value=op.value[1], output=op.value[1])

    changed(patch, write)


def text_put_before(patch: Patch) -> None:
    """An append goes before the text that is there."""
    original = Register.step

    def step(self: Register, state: Any, op: Operation) -> Any:
        if op.f == "append" and isinstance(state, str) and op.result is None:
            return (op.value + state,)
        return original(self, state, op)

    patch.setattr(Register, "step", step)


def chain_given_up(patch: Patch) -> None:
    """Text that is not yet there is taken to be out of reach."""
    patch.setattr(Kv, "possible", lambda *_: False)


def delete_leaves_it(patch: Patch) -> None:
    """A delete changes nothing."""
    hidden(patch, lambda op: op.f == "delete")


def zone_inside_ignored(patch: Patch) -> None:
    """A value may come and go while another is surely there."""
    patch.setattr(zones, "_inside", lambda *_: VALID)


def zones_overlap(patch: Patch) -> None:
    """Two values may surely be there at one instant."""
    patch.setattr(zones, "_overlap", lambda *_: VALID)


def set_shows_twice(patch: Patch) -> None:
    """A value may be shown twice."""
    original = Set._values
    patch.setattr(
        Set, "_values", staticmethod(lambda op: [*{repr(v): v for v in original(op)}.values()])
    )


def set_loses(patch: Patch) -> None:
    """Reads need only be subsets of one another."""
    patch.setattr(Set, "_schedule", lambda *_: VALID)


def counter_only_grows(patch: Patch) -> None:
    """What is taken away is added."""
    original = Counter.change
    patch.setattr(Counter, "change", lambda self, op: (abs(original(self, op)[0]),))


def queue_without_order(patch: Patch) -> None:
    """Values may come out in any order."""
    patch.setattr(queue_rules, "_order", nothing)


def queue_never_empty(patch: Patch) -> None:
    """That the queue was seen empty is not judged."""
    hidden(patch, lambda op: op.f == "dequeue" and op.kind == "ok" and op.output is None)


def uncertain_take_only_sees(patch: Patch) -> None:
    """A dequeue without an answer takes nothing out."""
    hidden(patch, lambda op: op.f == "dequeue" and op.kind == "info")


def queue_takes_last(patch: Patch) -> None:
    """Last in, first out, where a search is needed."""
    original = Queue.step

    def step(self: Queue, state: Any, op: Operation) -> Any:
        if op.f == "dequeue" and op.output is not None:
            return (state[:-1],) if state and state[-1] == freeze(op.output) else ()
        return original(self, state, op)

    patch.setattr(Queue, "step", step)


def circle_without_time(patch: Patch) -> None:
    """Transactions are ordered by what they read only: serializable, not strictly."""
    patch.setattr(cycles._Graph, "_add_instants", nothing)


def unread_comes_anywhere(patch: Patch) -> None:
    """What nobody read need not come after every read."""
    patch.setattr(cycles._Rest, "precede", nothing)


def own_order_ignored(patch: Patch) -> None:
    """The additions of one transaction may be read in another order."""
    patch.setattr(cycles._Story, "_own_order", nothing)


def overdraft_allowed(patch: Patch) -> None:
    """A balance may fall below zero on the way."""
    original = Bank.__init__

    def init(self: Bank, accounts: Any = None) -> None:
        original(self, accounts)
        self.bounded = False

    patch.setattr(Bank, "__init__", init)


def repeat_pays_twice(patch: Patch) -> None:
    """A transfer that was asked for twice is carried out twice."""
    patch.setattr(Bank, "partition", lambda _, history: [(None, history)])


def id_of_two_transfers(patch: Patch) -> None:
    """One id may be acknowledged for two transfers."""
    patch.setattr(Bank, "_bad_transfer", nothing)


def repeat_waits_for_the_last(patch: Patch) -> None:
    """A transfer that was asked for twice may be done as late as its last answer."""
    original = bank_module._join

    def join(ops: list[Operation]) -> Operation:
        ends = [op.end for op in ops if op.end is not None]
        return replace(original(ops), end=max(ends)) if ends else original(ops)

    patch.setattr(bank_module, "_join", join)


ALL = MODELS
SEARCHED = ("register", "kv", "queue", "append", "bank")
MUTANTS: list[tuple[Callable[[Patch], None], tuple[str, ...]]] = [
    (real_time_ignored, ALL),
    (time_decides, ALL),
    (info_is_done, ("register", "kv", "set", "counter", "queue", "bank")),
    (info_never_happened, ALL),
    (info_ends_at_once, ALL),
    (fail_may_have_happened, ALL),
    (open_ones_forgotten, ALL),
    (only_cheap_rules, ("register", "kv", "counter", "queue", "append", "bank")),
    (memo_forgets("sid"), ("kv", "queue", "append", "bank")),
    (memo_forgets("mask"), ("register",)),
    (one_change_at_a_return, ("register", "kv", "queue", "append")),
    (keys_mixed, ("register", "kv", "set", "counter", "queue")),
    (keys_as_text, ("register", "kv", "set", "counter", "queue")),
    (null_never_judged, ("register", "kv")),
    (true_is_one, ("register", "kv")),
    (differing_cas_hidden, ("register", "kv")),
    (differing_cas_swaps, ("register", "kv")),
    (cas_without_comparison, ("register", "kv")),
    (text_put_before, ("kv",)),
    (chain_given_up, ("kv",)),
    (delete_leaves_it, ("kv",)),
    (zone_inside_ignored, ("register",)),
    (zones_overlap, ("register",)),
    (set_shows_twice, ("set",)),
    (set_loses, ("set",)),
    (counter_only_grows, ("counter",)),
    (queue_without_order, ("queue",)),
    (queue_never_empty, ("queue",)),
    (uncertain_take_only_sees, ("queue",)),
    (queue_takes_last, ("queue",)),
    (circle_without_time, ("append",)),
    (unread_comes_anywhere, ("append",)),
    (own_order_ignored, ("append",)),
    (overdraft_allowed, ("bank",)),
    (repeat_pays_twice, ("bank",)),
    (id_of_two_transfers, ("bank",)),
    (repeat_waits_for_the_last, ("bank",)),
]
CASES = [
    pytest.param(plant, model, id=f"{plant.__name__}-{model}")
    for plant, models in MUTANTS
    for model in models
]


@pytest.mark.timeout(120)
def test_on_the_whole_sample_the_judge_is_right():
    found = next(differences(MODELS, SAMPLE), None)
    assert found is None, f"{found}: {history(*found[:2])}"


def test_the_sample_has_both_verdicts_for_every_model():
    for model in MODELS:
        valid = sum(right(model, seed) == "valid" for seed in range(SAMPLE))
        assert SAMPLE * 0.2 < valid < SAMPLE * 0.9, f"{model}: {valid} of {SAMPLE} are valid"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("plant", "model"), CASES)
def test_a_planted_bug_is_noticed(plant, model, monkeypatch):
    plant(monkeypatch)
    found = next(differences((model,), SAMPLE_MAX), None)
    assert found is not None, f"{SAMPLE_MAX} histories of {model} did not notice: {plant.__doc__}"
