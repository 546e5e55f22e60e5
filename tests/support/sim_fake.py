"""Runnables for tests of campaigns: no simulator, but seeds, faults, digests and misbehaviour."""

import itertools
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from outlast.kernel import EscapeError, Prng
from outlast.testing.campaign import Trace
from outlast.testing.campaign.loading import Origin

_runs = itertools.count()


@dataclass
class FakeFault:
    index: int
    fault: str
    felt: bool = True

    def __str__(self) -> str:
        return f"0.{self.index} s  {self.fault} api"


@dataclass
class FakeOutcome:
    error: BaseException | None
    digest: int
    faults: list[FakeFault]
    sometimes: dict[str, int]
    steps: int = 100
    virtual_seconds: float = 10.0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Fake:
    """Draws twenty faults from the seed. What it does wrong is chosen by name.

    Args:
        bad: Seeds at which it misbehaves.
        how: What it does there.
        needs: Fault steps without which it does not fail.
    """

    faults = ("crash", "pause")
    sometimes = ()
    command = "outlast sim fake.py::fake"
    name = "fake"
    place = "fake.py::fake"

    def __init__(self, how: str, bad: list[int], needs: list[int]) -> None:
        self.how = how
        self.bad = frozenset(bad)
        self.needs = frozenset(needs)

    def run(
        self, seed: int, *, only: frozenset[int] | None = None, trace: Trace | None = None
    ) -> FakeOutcome:
        prng = Prng(seed)
        steps = [
            FakeFault(index, prng.choice(self.faults))
            for index in range(20)
            if only is None or index in only
        ]
        lines = [f"fault {step.index}" for step in steps] + ["end"]
        error: BaseException | None = None
        hit = seed in self.bad and self.needs <= {step.index for step in steps}
        if hit:
            lines, error = self._misbehave(seed, lines)
        for number, line in enumerate(lines):
            if trace is not None:
                trace(number * 1_000_000, "api", line)
        digest = sum(ord(c) << n % 40 for n, c in enumerate("\n".join(lines)))
        notes = ["shop.py:41 writes orders.json"] if self.how == "notes" else []
        sometimes = {"retried": int(hit), "called": 3} if self.how == "sometimes" else {}
        if self.how == "quiet":
            steps = []
        return FakeOutcome(error, digest, steps, sometimes, notes=notes)

    def _misbehave(self, seed: int, lines: list[str]) -> tuple[list[str], BaseException | None]:
        if self.how == "fails":
            print(f"about to fail at {seed}")
            acked = {1, 2, 3}
            try:
                assert acked <= {1, 2}
            except AssertionError as error:
                return [*lines, "problem lost", "after it"], error
        if self.how == "two":
            kind: type[Exception] = ValueError if seed % 2 else KeyError
            return lines, kind(f"order {seed}")
        if self.how == "spins":
            while True:
                try:
                    sum(range(1000))
                except Exception:  # noqa: S112 - what it is about
                    continue
        if self.how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "leaks":
            return [*lines, f"run {next(_runs)}"], None
        if self.how == "hashes":
            return [*lines, f"hash {hash('text')}"], None
        if self.how == "escapes":
            return lines, EscapeError("shop.py:41 in connect: a real socket cannot be simulated")
        return lines, None


def make(how: str, bad: list[int] | None = None, needs: list[int] | None = None) -> list[Fake]:
    return [Fake(how, bad or [], needs or [])]


def origin(how: str, **more: Any) -> Origin:
    options: Mapping[str, Any] = {"how": how, **more}
    return Origin("tests.support.sim_fake:make", options)
