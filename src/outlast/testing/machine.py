"""``check_machine``: would replicas of this class stay equal?

Commands are drawn from their annotations and run beside what a cluster does to a machine: a
replica that was restored from a checkpoint just before, a checkpoint that is written while
commands go on, another process with another hash seed. Answers and states must agree. The
first command after which they do not is named, with what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import msgspec

from outlast.kernel import DataError, Prng
from outlast.state.context import Context
from outlast.state.faults import decode_error
from outlast.state.hints import source_hints
from outlast.state.machine import StateMachine
from outlast.state.runner import NODE_FAILURES, Runner
from outlast.state.spec import CommandSpec, MachineSpec, machine_spec
from outlast.state.values import shown
from outlast.testing.draws import draw_value
from outlast.testing.rerun import rerun

_encode = msgspec.msgpack.Encoder().encode
_MISUSE = "MisuseError"
_HELD_CUTS = 7
"""Every so many commands a checkpoint is begun that ends that many commands later."""

Draws = Mapping[str, Callable[[Prng], object]]


class MachineCheckError(AssertionError):
    """A machine whose replicas would differ. One line; it names the command."""


class Step(NamedTuple):
    """One drawn call: name, encoded arguments, and what its context is made of."""

    name: str
    args: bytes
    now_ns: int
    place: int
    seed: int
    version: int

    def context(self) -> Context:
        """Return a context of its own: its random source starts anew."""
        return Context(self.now_ns, self.place, self.seed, self.version)


@dataclass(frozen=True)
class MachineReport:
    """What a check did.

    Attributes:
        commands: Calls that were run.
        raised: Those that answered with an error.
        checkpoints: Checkpoints that were written while commands went on, and restored.
        other_hash_seed: Whether it was repeated in a process with another hash seed; not
            possible for a class that is defined inside a function.
    """

    commands: int
    raised: int
    checkpoints: int
    other_hash_seed: bool


def check_machine(
    cls: type[StateMachine],
    *,
    commands: int = 200,
    seed: int = 0,
    start: Callable[[], StateMachine] | None = None,
    draw: Draws | None = None,
) -> MachineReport:
    """Check that replicas of ``cls`` agree, whatever a cluster does to them.

    Fails when a command answers or changes state differently on a second replica, on one that
    was restored from a checkpoint, or under another hash seed; raises after changing a plain
    field or behind a Table's journal; leaves derived fields that ``__post_init__`` would not
    rebuild; keeps state outside its fields; returns what its annotation does not say; or reads
    the clock, a random source or the machine.

    Args:
        cls: The machine class.
        commands: How many calls to draw, from 1.
        seed: Where the draws start; a failure names it.
        start: Makes the machine that calls are run on; an empty one by default.
        draw: How to draw an argument, by ``"parameter"`` or ``"command.parameter"``, where the
            annotation is too wide to reach the interesting cases.

    Raises:
        MachineCheckError: An ``AssertionError`` of one line.
        ConfigError: The class itself is refused, or an argument cannot be drawn.
    """
    spec = machine_spec(cls)
    check = _Check(spec, commands, seed)
    check.source()
    steps = _drawn(spec, commands, seed, draw or {})
    first = Runner(spec, start() if start else None)
    begin = list(first.checkpoint())
    answers = [check.step(first, number, step) for number, step in enumerate(steps)]
    checkpoints = check.checkpoints_under_way(begin, steps, answers)
    elsewhere = rerun(spec, begin, steps)
    if elsewhere is not None:
        check.agree_elsewhere(steps, answers, elsewhere, first.digest())
    raised = sum(status for status, _ in answers)
    return MachineReport(len(steps), raised, checkpoints, elsewhere is not None)


def _drawn(spec: MachineSpec, count: int, seed: int, draw: Draws) -> list[Step]:
    prng, steps = Prng(seed), []
    names, now_ns = [*spec.commands, *spec.queries], 1_700_000_000_000_000_000
    for number in range(count if names else 0):
        plan = spec.operation(prng.choice(names))
        now_ns += prng.below(2_000_000_000)
        version = spec.version if number >= count // 4 else 1
        args = _arguments(plan, prng, draw)
        steps.append(Step(plan.name, args, now_ns, number + 1, prng.bits64(), version))
    return steps


def _arguments(plan: CommandSpec, prng: Prng, draw: Draws) -> bytes:
    given: dict[str, Any] = {}
    for name, kind in plan.parameters.items():
        if name in plan.defaults and prng.chance(1, 3):
            continue
        own = draw.get(f"{plan.name}.{name}") or draw.get(name)
        given[name] = own(prng) if own else draw_value(kind, prng)
    return plan.encode_args((), given)


class _Check:
    """The rules; each failure goes through :meth:`fail`, which words the line."""

    def __init__(self, spec: MachineSpec, count: int, seed: int) -> None:
        self.spec = spec
        self.count = count
        self.seed = seed

    def fail(self, step: Step | None, reason: str, number: int = -1) -> NoReturn:
        if step is None:
            raise MachineCheckError(f"{self.spec.place}: {reason}")
        raise MachineCheckError(
            f"{self.spec.place}.{step.name}: {reason} "
            f"(command {number + 1} of {self.count}, seed={self.seed})"
        )

    def source(self) -> None:
        for hint in source_hints(self.spec.cls):
            raise MachineCheckError(
                f"{self.spec.place}.{hint.operation}: {hint.found} in line {hint.line} differs "
                f"between replicas; {hint.instead}"
            )

    def step(self, runner: Runner, number: int, step: Step) -> tuple[int, bytes]:
        """Run one call on ``runner`` and on a replica that is restored just before it."""
        before = self.state(runner, step, number)
        other = self.restored(self.cut(runner, step, number), step, number)
        answer = self.run(runner, step, number)
        again = self.run(other, step, number)
        if answer != again:
            self.fail(
                step,
                f"answered {self.said(step, answer)}, and {self.said(step, again)} on a replica "
                f"restored just before: it uses something that is not in the state",
                number,
            )
        self.behaved(runner, step, number, before, answer)
        if runner.digest() != other.digest():
            self.fail(step, "left another state on a replica restored just before it", number)
        if runner.take_changes() != other.take_changes():
            self.fail(step, "changed Tables in another order on a restored replica", number)
        self.rebuilt(runner, step, number)
        return answer

    def run(self, runner: Runner, step: Step, number: int) -> tuple[int, bytes]:
        try:
            if step.name in self.spec.queries:
                return runner.query(step.name, step.args, step.context())
            return runner.execute(step.name, step.args, step.context())
        except NODE_FAILURES as error:
            self.fail(step, f"raised {type(error).__name__}, which stops the node", number)

    def state(self, runner: Runner, step: Step, number: int) -> dict[str, Any]:
        """Return every saved field in plain bytes: Tables pair by pair, in order."""
        found: dict[str, Any] = {}
        for field in self.spec.state:
            value = getattr(runner.machine, field.name)
            try:
                if field.table is None:
                    found[field.name] = _encode(value)
                else:
                    found[field.name] = {_encode(k): _encode(v) for k, v in value.items()}
            except (TypeError, ValueError, OverflowError) as error:
                self.fail(step, f"left field {field.name!r} that cannot be saved: {error}", number)
        return found

    def cut(self, runner: Runner, step: Step, number: int) -> list[bytes]:
        try:
            return list(runner.checkpoint())
        except DataError as error:
            self.fail(step, f"left state that cannot be saved: {error}", number)

    def restored(self, chunks: list[bytes], step: Step, number: int) -> Runner:
        other = Runner(self.spec)
        try:
            other.restore(chunks, version=self.spec.version, schema=self.spec.schema)
        except DataError as error:
            self.fail(step, f"is run on state that cannot be restored: {error}", number)
        return other

    def behaved(
        self,
        runner: Runner,
        step: Step,
        number: int,
        before: dict[str, Any],
        answer: tuple[int, bytes],
    ) -> None:
        """Judge one call by what it changed and how it ended."""
        after = self.state(runner, step, number)
        self.cut(runner, step, number)
        status, body = answer
        if status:
            error = decode_error(body, self.spec)
            name = getattr(error, "type_name", "") or type(error).__name__
            if name == _MISUSE:
                self.fail(step, str(error), number)
            self.unchanged(step, number, f"raised {name} after changing", before, after)
        elif step.name in self.spec.queries:
            self.unchanged(step, number, "is a query and changed", before, after)
        else:
            self.journalled(runner, step, number, before, after)
        if not status:
            try:
                self.spec.decode_result(step.name, body)
            except Exception as error:
                self.fail(step, str(error), number)
        extra = vars(runner.machine).keys() - {f.name for f in self.spec.fields} - {"ctx"}
        for name in sorted(extra):
            reason = f"sets {name!r}, which is not a field and is lost in a checkpoint; declare it"
            self.fail(step, reason, number)

    def unchanged(
        self, step: Step, number: int, what: str, before: dict[str, Any], after: dict[str, Any]
    ) -> None:
        for field in self.spec.state:
            old, new = before[field.name], after[field.name]
            if field.table is None:
                advice = "plain fields are not taken back; change them last, or use a Table"
            else:
                advice = "it was changed without its journal; use its own methods on new values"
                old, new = list(old.items()), list(new.items())
            if old != new:
                kind = "Table" if field.table else "field"
                self.fail(step, f"{what} {kind} {field.name!r}; {advice}", number)

    def journalled(
        self,
        runner: Runner,
        step: Step,
        number: int,
        before: dict[str, Any],
        after: dict[str, Any],
    ) -> None:
        """Every change of a Table must be in its journal."""
        touched = _touched(runner._commits)
        for field in self.spec.state:
            if field.table is None:
                continue
            old, new = before[field.name], after[field.name]
            for key in dict.fromkeys([*old, *new]):
                if old.get(key) != new.get(key) and (field.name, key) not in touched:
                    shown_key = shown(msgspec.msgpack.decode(key))
                    self.fail(
                        step,
                        f"changed Table {field.name!r} at {shown_key} without its journal, so "
                        f"rollback and checkpoints miss it; set the key to a new value",
                        number,
                    )

    def rebuilt(self, runner: Runner, step: Step, number: int) -> None:
        """Restore the state after a call; saved and derived fields must be as they are."""
        other = self.restored(self.cut(runner, step, number), step, number)
        if other.digest() != runner.digest():
            self.fail(step, "left state that a restore does not give back", number)
        for field in self.spec.fields:
            if not field.derived:
                continue
            ours = getattr(runner.machine, field.name, None)
            theirs = getattr(other.machine, field.name, None)
            compares = getattr(type(ours), "__eq__", None) is not object.__eq__
            if compares and ours != theirs:
                self.fail(
                    step,
                    f"left derived field {field.name!r} other than __post_init__ rebuilds it "
                    f"from the saved fields",
                    number,
                )

    def said(self, step: Step, answer: tuple[int, bytes]) -> str:
        status, body = answer
        if status:
            error = decode_error(body, self.spec)
            name = getattr(error, "type_name", "") or type(error).__name__
            return f"{name}{error.args!r}"[:80]
        value = msgspec.msgpack.decode(body)
        return shown(value) if not isinstance(value, list | dict) else repr(value)[:80]

    def checkpoints_under_way(
        self, begin: list[bytes], steps: list[Step], answers: list[tuple[int, bytes]]
    ) -> int:
        """Run everything again with checkpoints that are written while commands go on."""
        if not steps:
            return 0
        runner, count = self.restored(begin, steps[0], 0), 0
        held: Any = iter(())
        chunks: list[bytes] = []
        digest = b""
        for number, step in enumerate(steps):
            if number % _HELD_CUTS == 0:
                digest = runner.digest()
                held, chunks = runner.checkpoint(), []
            chunks.extend(chunk for chunk in [next(held, None)] if chunk is not None)
            if self.run(runner, step, number) != answers[number]:
                self.fail(step, "answered otherwise when it was run a second time", number)
            if number % _HELD_CUTS == _HELD_CUTS - 1 or number == len(steps) - 1:
                chunks.extend(held)
                if self.restored(chunks, step, number).digest() != digest:
                    self.fail(step, "changed a checkpoint that was being written", number)
                count += 1
        return count

    def agree_elsewhere(
        self,
        steps: list[Step],
        answers: list[tuple[int, bytes]],
        elsewhere: tuple[list[tuple[int, bytes]], bytes],
        digest: bytes,
    ) -> None:
        for number, (step, ours, theirs) in enumerate(
            zip(steps, answers, elsewhere[0], strict=True)
        ):
            if ours != theirs:
                self.fail(
                    step,
                    f"answered {self.said(step, ours)}, and {self.said(step, theirs)} under "
                    f"another PYTHONHASHSEED: does it iterate over a set?",
                    number,
                )
        if digest != elsewhere[1]:
            self.fail(None, "ends in another state under another PYTHONHASHSEED (or process)")


def _touched(commits: list[bytes]) -> set[tuple[str, bytes]]:
    """Return (table, encoded key) of every change in a runner's commits."""
    found: set[tuple[str, bytes]] = set()
    for commit in commits:
        parts = msgspec.msgpack.decode(commit, type=list[msgspec.Raw])
        if _is_array(parts[0]):
            groups = [
                (msgspec.msgpack.decode(p, type=list[msgspec.Raw]), n)
                for p, n in zip(parts, (3, 2, 3), strict=True)
            ]
        else:
            groups = [(parts, 3)]
        for items, width in groups:
            for at in range(0, len(items), width):
                found.add((msgspec.msgpack.decode(items[at], type=str), bytes(items[at + 1])))
    return found


def _is_array(raw: msgspec.Raw) -> bool:
    first = bytes(raw)[0]
    return 0x90 <= first <= 0x9F or first in {0xDC, 0xDD}


__all__ = ["MachineCheckError", "MachineReport", "check_machine"]
