"""Who runs, who failed and what follows, among attempts at one call that run side by side.

The first attempt that succeeds wins and the others are lost (Dean and Barroso, "The Tail at
Scale", 2013). An attempt that fails does not lose the call while another runs. One error ends it
at once: an answer of the other side, which another attempt would only repeat.
"""

from typing import Literal

from outlast.kernel.errors import happened
from outlast.protect.core.note import add_note, set_mark

Next = Literal["wait", "start", "end"]


class Sides:
    """The attempts at one logical call. Numbers begin at 0. Not thread-safe.

    Args:
        attempts: How many may be started, the first included.

    Attributes:
        started: How many were started.
        running: How many of them have not ended.
        final: The error that ended the call before its time.
    """

    __slots__ = ("_errors", "attempts", "final", "running", "started")

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts
        self.started = 1
        self.running = 1
        self.final: BaseException | None = None
        self._errors: dict[int, BaseException] = {}

    @property
    def more(self) -> bool:
        """Whether another attempt may be started."""
        return self.started < self.attempts

    def start(self) -> int:
        """Count another attempt and return its number."""
        number = self.started
        self.started += 1
        self.running += 1
        return number

    def stop(self) -> None:
        """Start no other."""
        self.attempts = self.started

    @property
    def first_failed(self) -> bool:
        """Whether the first attempt has failed, so that nothing is known of its latency."""
        return 0 in self._errors

    def succeeded(self) -> None:
        """Count an attempt that ended with an answer."""
        self.running -= 1

    def failed(self, number: int, error: BaseException, *, again: bool, answer: bool) -> Next:
        """Say what follows the failure of an attempt.

        Args:
            number: Which one.
            error: How it failed.
            again: Whether another attempt may be started because of such an error.
            answer: Whether the error is an answer that ends the call.
        """
        self.running -= 1
        self._errors[number] = error
        if answer:
            self.final = error
            return "end"
        if again and self.more:
            return "start"
        return self.rest()

    def rest(self) -> Next:
        """Say what follows if nothing is started."""
        return "wait" if self.running else "end"

    def verdict(self) -> BaseException:
        """Return the error for the caller: the final one, or else that of the first attempt.

        Notes tell of the others. Where it surely had no effect and another attempt may have had
        one, its ``happened`` becomes ``"maybe"``.
        """
        number = min(self._errors)
        error = self.final
        if error is None:
            error = self._errors[number]
        for other, raised in sorted(self._errors.items()):
            if raised is not error:
                add_note(error, f"hedge: attempt {other + 1} failed too: {type(raised).__name__}")
        doubt = self.running or any(happened(each) != "no" for each in self._errors.values())
        if self.started > 1 and doubt and happened(error) == "no":
            set_mark(error, "happened", "maybe")
        return error
