"""Any order of taking, giving back, cancelling and resizing keeps every permit."""

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import outlast.host  # noqa: F401 - waiters find the real world
from outlast.kernel import RejectedError
from outlast.protect.adaptive import AdaptiveLimit
from outlast.protect.permits import NORMAL

SIZES = st.integers(1, 5)


class Limits(RuleBasedStateMachine):
    """Coroutines of one loop, stepped by hand, beside a model that is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.held: list[int] = []
        self.waiting: list[tuple[int, int, asyncio.Task[int]]] = []  # level, number, task
        self.number = 0

    @initialize(size=SIZES, queue=st.integers(0, 4), reserve=st.sampled_from([0.0, 0.5]))
    def begin(self, size: int, queue: int, reserve: float) -> None:
        self.size, self.queue = size, queue
        self.limit = AdaptiveLimit(initial=size, max=10, queue=queue, reserve=reserve)

    def turn(self) -> None:
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))

    def settle(self) -> None:
        """Let things happen, and compare who got a permit with the model's order."""
        self.turn()
        left, gone = [], []
        for level, number, task in self.waiting:
            if not task.done():
                left.append((level, number, task))
            elif task.cancelled() or task.exception() is not None:
                assert task.cancelled() or isinstance(task.exception(), RejectedError)
            else:
                gone.append((level, number))
                self.held.append(task.result())
        for level, number in gone:  # nobody who goes before them was passed over
            assert all((-level, number) < (-other, later) for other, later, _ in left)
        self.waiting = left

    @rule(level=st.integers(0, 3))
    def take(self, level: int) -> None:
        self.number += 1
        task = self.loop.create_task(self.limit.acquire(priority=level))
        before = len(self.waiting)
        lowest = min((other for other, _, _ in self.waiting), default=level)
        newest = max((n for other, n, _ in self.waiting if other == lowest), default=0)
        victims = {n: t for _, n, t in self.waiting}
        self.waiting.append((level, self.number, task))
        self.settle()
        if task.done() and not task.cancelled() and task.exception() is not None:
            assert before >= self.queue
            assert level <= lowest
        elif before >= self.queue and not task.done():
            assert lowest < level
            assert victims[newest].exception() is not None

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1))
        self.limit.release(self.held.pop(index))
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), release=st.booleans())
    def cancel(self, data: st.DataObject, release: bool) -> None:
        index = data.draw(st.integers(0, len(self.waiting) - 1))
        if release and self.held:
            self.limit.release(self.held.pop())  # perhaps to the one that is cancelled
        self.waiting[index][2].cancel()
        self.settle()

    @rule(size=SIZES)
    def resize(self, size: int) -> None:
        self.size = size
        self.limit._fit(size)
        self.settle()

    @rule()
    def take_now(self) -> None:
        permit = self.limit.try_acquire()
        if permit is not None:
            assert not self.waiting
            self.held.append(permit)

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "limit"):
            return
        limit = self.limit
        assert limit.in_flight == len(self.held)
        assert limit.waiting == len(self.waiting) <= self.queue
        free = len(limit._free) + len(limit._reserved)
        assert free == max(0, self.size - len(self.held))
        if any(level > NORMAL for level, _, _ in self.waiting):
            assert free == 0
        if self.waiting:
            assert limit.attention
            assert not limit._free

    def teardown(self) -> None:
        for _, _, task in self.waiting:
            task.cancel()
        self.turn()
        if hasattr(self, "limit"):
            for permit in self.held:
                self.limit.release(permit)
            assert self.limit.in_flight == 0
            assert not self.limit.attention
            assert len(self.limit._free) + len(self.limit._reserved) == self.size
        self.loop.close()


def test_permits_are_conserved_and_nobody_is_passed_over() -> None:
    run: Callable[..., Any] = run_state_machine_as_test
    run(Limits, settings=settings(max_examples=40, stateful_step_count=20, deadline=None))
