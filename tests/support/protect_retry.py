"""A callee that fails a number of times, and a retry that is easily reckoned."""

from typing import Any

from outlast.protect import Retry, current_attempt

NS = 1_000_000_000


class Callee:
    """Fails a number of times, and notes when it was called."""

    def __init__(self, failures: int = 99, error: Any = ConnectionError) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0
        self.attempts: list[int] = []

    def ask(self) -> str:
        self.calls += 1
        self.attempts.append(current_attempt())
        if self.calls <= self.failures:
            raise self.error if isinstance(self.error, BaseException) else self.error("no answer")
        return "fine"

    async def ask_async(self) -> str:
        return self.ask()


def again(**settings: Any) -> Retry:
    return Retry(**{"on": ConnectionError, "base": 1.0, "jitter": "none", "cap": 60.0, **settings})
