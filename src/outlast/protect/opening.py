"""What stands around all attempts of one call: the limit on the whole, and its key."""

from contextvars import Token
from typing import Any

from outlast.kernel import Deadline, current_deadline
from outlast.protect.call import CallInfo, current_call_var
from outlast.protect.plan import Plan
from outlast.protect.story import begin_deadline, put_back


class Opening:
    """The context of one call. Made when it begins, closed once when it ends.

    Attributes:
        at_ns: When the whole must end; 0 for never.
    """

    __slots__ = ("_call", "_deadline", "at_ns")

    def __init__(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._deadline: Token[Deadline | None] | None = None
        self._call: Token[CallInfo | None] | None = None
        self.at_ns = 0
        try:
            if plan.idempotency is not None:
                self._call = current_call_var.set(minted_call(plan, args, kwargs))
            if plan.whole_ns:
                self._deadline, self.at_ns = begin_deadline(plan.whole_ns)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """The call has ended, or what follows is not bound by it."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            put_back(current_deadline, deadline)
        call, self._call = self._call, None
        if call is not None:
            put_back(current_call_var, call)


def minted_call(plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallInfo | None:
    """Return a new logical call with its key; ``None`` where the plan mints none."""
    if plan.idempotency is None:
        return None
    outer = current_call_var.get()
    key = plan.idempotency.key_for(args, kwargs)
    return CallInfo(key, 1 if outer is None else outer.attempt, policy=plan.name)
