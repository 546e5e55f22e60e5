"""What stands around a function: fused frames, and parts that wrap, from outside to inside."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from outlast.protect.aio import guard_async
from outlast.protect.blocking import guard_blocking
from outlast.protect.core.tally import Tally
from outlast.protect.kinds import Kind
from outlast.protect.part import Part
from outlast.protect.plan import Plan
from outlast.protect.settle import call_first

_WRAPPING = ("cache", "hedge", "inject")


class Layers:
    """The layers of one policy.

    Args:
        name: Of the policy.
        groups: Positions by frame, outermost first.
        parts: By position.
        tally: What the outermost frame counts in.
        hard: A limit on attempts that gives up threads, if any.
    """

    __slots__ = ("_hard", "_keyed", "_layers", "_name", "_one", "_parts", "_timed_out")

    def __init__(
        self,
        name: str,
        groups: Sequence[tuple[str, ...]],
        parts: dict[str, Any],
        tally: Tally,
        hard: Any,
    ) -> None:
        self._name = name
        self._parts = parts
        self._hard = hard
        self._timed_out = tally.timed_out
        self._one: dict[Kind, Any] = {}
        self._layers: list[Plan | Part] = []
        for part in parts.values():
            self._check_name(part)
        # Parts that are chosen by a key are not here yet: there is nothing to lay out.
        self._keyed = any(getattr(part, "keyed", False) for part in parts.values())
        if not self._keyed:
            self._lay(groups, tally)

    def _check_name(self, part: Any) -> None:
        """Name the budget of a part, and refuse to share with processes without a name."""
        for one in (part, getattr(part, "budget", None)):
            if not isinstance(one, Part):
                continue
            # The parts themselves have the name of their policy by now.
            one.name = one.name or self._name
            if getattr(one, "store", None) is not None:
                from outlast.protect.shared_key import check_shared

                check_shared(one)

    def _lay(self, groups: Sequence[tuple[str, ...]], tally: Tally) -> None:
        plan: Plan | None = None
        for group in groups:
            if group[0] in _WRAPPING:
                self._layers.append(self._parts[group[0]])
                continue
            parts = {name: self._parts[name] for name in group if name in self._parts}
            if plan is None and "idempotency" in self._parts:
                parts["idempotency"] = self._parts["idempotency"]
            if plan is not None:
                plan.wraps = True
            plan = Plan(self._name, tally if plan is None else tally.inner(), group, **parts)
            plan.keyed = "idempotency" in self._parts
            self._layers.append(plan)

    def bound(self, timeout: float | None, attempt_timeout: float | None) -> None:
        """Give each frame the limits of time that stand in it, in seconds."""
        for layer in self._layers:
            if isinstance(layer, Plan):
                layer.bound(
                    timeout if "deadline" in layer.positions else None,
                    attempt_timeout if "attempt_timeout" in layer.positions else None,
                )

    def force(self, failing: Any) -> None:
        """Let attempts fail; see ``Policy.forced``."""
        for layer in self._layers:
            if isinstance(layer, Plan) and "attempt_timeout" in layer.positions:
                layer.force(failing)

    def begin_anew(self) -> None:
        """This is another world: the event loops of the last one are over."""
        for layer in self._layers:
            if isinstance(layer, Plan):
                layer.attempt_watches.forget_closed()
                layer.whole_watches.forget_closed()

    def guard(self, function: Callable[..., Any], kind: Kind) -> Any:
        """Return ``function`` with all layers around it.

        Raises:
            TypeError: A part cannot protect a function of this kind.
        """
        if kind in {"generator", "async generator"}:
            return self._guard_stream(function, kind)
        guarded = function
        if kind == "blocking":
            self._refuse_blocking()
        if self._hard is not None:
            if kind == "async":
                message = (
                    "attempt_timeout=Hard(…) is for plain functions; a coroutine is cancelled: "
                    "give the seconds"
                )
                raise TypeError(message)
            guarded = self._hard.wrap_blocking(guarded, self._name, self._timed_out)
        for layer in reversed(self._layers):
            if isinstance(layer, Plan):
                guard: Any = guard_async if kind == "async" else guard_blocking
                guarded = guard(layer, guarded)
            else:
                guarded = self._wrapped(layer, guarded, kind)
        return guarded

    def _wrapped(self, part: Any, function: Callable[..., Any], kind: Kind) -> Any:
        """Return ``function`` with a part around it that wraps."""
        wrap = part.wrap_async if kind == "async" else part.wrap_blocking
        retry = self._parts.get("retry")
        if part.position == "hedge" and retry is not None and retry.budget is part.budget:
            # One budget for both hears of each call once: from the retry.
            return wrap(function, self._name, deposit=False)
        return wrap(function, self._name)

    def _guard_stream(self, function: Callable[..., Any], kind: Kind) -> Any:
        from outlast.protect.streams import guard_async_generator, guard_generator

        plan = self.only(f"{'a' if kind == 'generator' else 'an'} {kind}")
        if kind == "generator":
            self._refuse_blocking()
        return (guard_generator if kind == "generator" else guard_async_generator)(plan, function)

    def _refuse_blocking(self) -> None:
        """Refuse what a plain function cannot wait for."""
        for position in ("fallback", "retry"):
            if position in self._parts:
                self._parts[position].refuse_blocking()

    def one(self, kind: Kind) -> Any:
        """Return the frame that calls its first argument with the others."""
        frame = self._one.get(kind)
        if frame is None:
            frame = self._one[kind] = self.guard(_acall if kind == "async" else call_first, kind)
        return frame

    def only(self, what: str) -> Plan:
        """Return the one frame of the policy, for what is no function.

        Raises:
            TypeError: The policy cannot protect it.
        """
        wrong = [name for name in (*_WRAPPING, "fallback") if name in self._parts]
        if wrong:
            raise TypeError(f"{what} cannot be protected by {' and '.join(wrong)}; use a function")
        if self._hard is not None:
            raise TypeError(f"attempt_timeout=Hard(…) cannot bound {what}; use a plain function")
        if self._keyed:
            raise TypeError(f"{what} has no arguments from which a key could be taken")
        plans = [layer for layer in self._layers if isinstance(layer, Plan)]
        if len(plans) != 1:
            raise TypeError(f"{what} needs a policy in canonical order")
        return plans[0]


async def _acall(function: Callable[..., Awaitable[Any]], /, *args: Any, **kwargs: Any) -> Any:
    return await function(*args, **kwargs)
