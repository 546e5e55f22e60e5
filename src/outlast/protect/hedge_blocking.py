"""Hedging plain functions: attempts on threads, and a caller who waits for the first success."""

from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from outlast.kernel import DeadlineError, World, current_deadline, current_world
from outlast.protect.beside import Race, side_by_side
from outlast.protect.call import current_call_var
from outlast.protect.core.hedge import Sides

if TYPE_CHECKING:
    from outlast.protect.hedge import Hedge


class _Caller:
    """One call and its attempts."""

    __slots__ = ("call", "hedge", "name", "race", "sides", "world")

    def __init__(self, hedge: "Hedge", call: Callable[[], Any], name: str, world: World) -> None:
        self.hedge = hedge
        self.call = call
        self.name = name
        self.world = world
        self.sides = Sides(hedge.attempts)
        self.race: Race = side_by_side(hedge.crew, world)

    def run(self, begun_ns: int, delay_ns: int) -> Any:
        """Return what the first attempt that succeeds returns."""
        race, sides, hedge, clock = self.race, self.sides, self.hedge, self.world.clock
        if not race.start(0, self.call):
            return self.call()
        limit = current_deadline.get()
        limit_ns = None if limit is None or limit.endless else limit.at_ns
        due_ns = begun_ns + delay_ns
        try:
            while True:
                until_ns = due_ns if sides.more else limit_ns
                if until_ns is not None and limit_ns is not None:
                    until_ns = min(until_ns, limit_ns)
                ended = race.next(until_ns)
                now_ns = clock.monotonic_ns()
                if ended is None:
                    if limit_ns is not None and now_ns >= limit_ns:
                        raise DeadlineError("the deadline passed while attempts were under way")
                    following = "start"
                elif ended.error is None:
                    if hedge.percentile is not None and not sides.first_failed:
                        learn = hedge.learn_lost if ended.number else hedge.learn
                        learn(now_ns - begun_ns, now_ns)
                    if ended.number:
                        hedge.tell_won(self.world, self.name, ended.number)
                    return ended.answer
                elif isinstance(ended.error, Exception):
                    following = hedge.failed(sides, ended.number, ended.error)
                else:
                    raise ended.error
                if following == "start":
                    self.start(now_ns)
                    due_ns = now_ns + delay_ns
                    following = sides.rest()
                if following == "end":
                    raise sides.verdict()
        finally:
            race.leave()

    def start(self, now_ns: int) -> None:
        """Start another attempt, if the budget allows it and a thread is free."""
        number = self.sides.started
        call = partial(_numbered, number, self.name, self.call)
        # The budget is asked last: what it grants to an attempt that has no thread is gone.
        free = not self.hedge.crew.full
        if free and self.hedge.grant(now_ns) and self.race.start(number, call):
            self.sides.start()
            self.hedge.tell_started(self.world, self.name, number)
        else:
            self.sides.stop()


def _numbered(number: int, name: str, call: Callable[[], Any]) -> Any:
    from outlast.protect.hedge import hedge_context

    current_call_var.set(hedge_context(number, name))
    return call()


def hedge_blocking(
    hedge: "Hedge", function: Callable[..., Any], name: str, *, deposit: bool
) -> Callable[..., Any]:
    """Return a function that hedges ``function``; see ``Hedge``."""

    @wraps(function)
    def hedged(*args: Any, **kwargs: Any) -> Any:
        world = current_world()
        if deposit and hedge.budget is not None:
            hedge.budget.deposit()
        call = partial(function, *args, **kwargs) if args or kwargs else function
        begun_ns = world.clock.monotonic_ns()
        delay_ns = hedge.delay_ns
        if delay_ns is not None:
            return _Caller(hedge, call, name, world).run(begun_ns, delay_ns)
        result = call()
        now_ns = world.clock.monotonic_ns()
        hedge.learn(now_ns - begun_ns, now_ns)
        return result

    return hedged
