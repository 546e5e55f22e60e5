"""What is probably not meant in a combination of policies, and why."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

Severity = Literal["warning", "note"]


class Finding(NamedTuple):
    """One thing that is probably not meant.

    Attributes:
        code: Short and stable, for those who want to ignore it.
        severity: ``"warning"``: a part does not do what it says; ``"note"``: worth a thought.
        message: What happens, with the values.
        advice: What would be right.
    """

    code: str
    severity: Severity
    message: str
    advice: str

    def __str__(self) -> str:
        return f"{self.severity} {self.code}: {self.message}; {self.advice}"


Described = Mapping[str, Any]
_REFUSALS: Final = ("RejectedError", "CircuitOpenError")
"""What a breaker raises; broader classes, such as ``Exception``, do not mean it."""
_CUT_OFF: Final = (
    "DeadlineError", "IndefiniteError", "OutlastError", "TimeoutError", "OSError", "Exception",
)  # fmt: skip
"""What an attempt that was cut off raises, and what that is."""


def findings(described: Described, order: Sequence[str]) -> list[Finding]:
    """Return what is to be said of a policy.

    Args:
        described: What ``Policy.describe`` returns.
        order: All positions from outside to inside.
    """
    found = [*_times(described), *_retries(described), *_breakers(described)]
    found.extend(_waits(described))
    found.extend(_hedges(described))
    found.extend(_orders(described, order))
    return found


def _attempt(described: Described) -> float | None:
    limit = described.get("attempt_timeout")
    return limit["hard"] if isinstance(limit, Mapping) else limit


def _names(value: Any) -> list[str]:
    listed = value if isinstance(value, list) else [value]
    return [str(name).rpartition(".")[2] for name in listed]


def _repeats_doubtful(described: Described) -> bool:
    """Whether attempts that may have happened are repeated, as those that were cut off."""
    retry = described.get("retry") or {}
    return bool(retry.get("repeat_indefinite")) or "idempotency" in described


def _times(described: Described) -> Iterator[Finding]:
    whole, attempt = described.get("timeout"), _attempt(described)
    retry = described.get("retry")
    if whole is not None and attempt is not None and attempt >= whole:
        yield Finding(
            "attempt-timeout-idle",
            "warning",
            f"attempt_timeout ({attempt:g} s) is not below timeout ({whole:g} s): that ends first",
            "make attempt_timeout shorter, or leave it out",
        )
    if whole is not None and attempt is None and retry is not None:
        yield Finding(
            "one-attempt-takes-all",
            "warning",
            f"one attempt that hangs uses up the whole timeout of {whole:g} s, and no retry "
            "follows",
            "give an attempt_timeout"
            if _repeats_doubtful(described)
            else "give an attempt_timeout, and repeat_indefinite=True or idempotency= if the call "
            "may be repeated",
        )
    yield from _cut_off(described, attempt)
    if whole is None or attempt is None or retry is None or retry.get("attempts") is None:
        return
    if not _repeats_doubtful(described):
        return
    needed = attempt * retry["attempts"]
    if attempt < whole < needed:
        yield Finding(
            "attempts-do-not-fit",
            "note",
            f"{retry['attempts']} attempts of {attempt:g} s need {needed:g} s and timeout is "
            f"{whole:g} s: if all of them hang, the last ones are not made",
            "this is fine if they usually fail sooner",
        )


def _cut_off(described: Described, attempt: float | None) -> Iterator[Finding]:
    retry = described.get("retry")
    if attempt is None or retry is None or _repeats_doubtful(described):
        return
    meant = [name for name in _names(retry.get("on")) if name in _CUT_OFF]
    if meant:
        yield Finding(
            "attempt-timeouts-not-retried",
            "warning",
            f"retry names {meant[0]}, but an attempt that is cut off after {attempt:g} s may have "
            "happened, and is not repeated",
            "give repeat_indefinite=True if the call may be repeated, or idempotency= if a repeat "
            "is recognised",
        )


def _retries(described: Described) -> Iterator[Finding]:
    retry = described.get("retry")
    if retry is None:
        return
    if retry.get("attempts") is None and described.get("timeout") is None:
        yield Finding(
            "retry-without-end",
            "warning",
            "attempts=None without a timeout goes on for ever unless the caller sets a deadline",
            "give a timeout, or a number of attempts",
        )
    refused = [name for name in _names(retry.get("on")) if name in _REFUSALS]
    if refused and "breaker" in described:
        yield Finding(
            "retry-of-refusals",
            "warning",
            f"retry names {refused[0]}, which the breaker of this policy raises itself: attempts "
            "are spent on calls that are not made",
            "name the errors of the callee",
        )
    if retry.get("jitter") == "none":
        yield Finding(
            "retry-in-step",
            "note",
            "without jitter callers that failed together come back together",
            'use jitter="full"',
        )


def _breakers(described: Described) -> Iterator[Finding]:
    breaker = described.get("breaker")
    if breaker is None:
        return
    attempt = _attempt(described)
    slow, probe = breaker.get("slow_call"), breaker.get("probe_timeout")
    if slow is not None and attempt is not None and slow >= attempt:
        yield Finding(
            "nothing-is-slow",
            "warning",
            f"slow_call ({slow:g} s) is not below attempt_timeout ({attempt:g} s): what is slow "
            "has failed before",
            "make slow_call shorter",
        )
    if probe is not None and attempt is not None and probe < attempt:
        yield Finding(
            "probe-given-up",
            "warning",
            f"a probe's place is given away after probe_timeout ({probe:g} s) while its call may "
            f"take attempt_timeout ({attempt:g} s): good probes are not counted",
            "make probe_timeout as long",
        )
    if attempt is None and described.get("timeout") is None:
        yield Finding(
            "breaker-sees-no-hang",
            "warning",
            "calls that hang never end, so the breaker never hears of them",
            "give an attempt_timeout",
        )


def _waits(described: Described) -> Iterator[Finding]:
    whole = described.get("timeout")
    for position in ("limit", "rate"):
        part = described.get(position)
        wait = part.get("max_wait") if isinstance(part, Mapping) else None
        if whole is not None and wait is not None and wait >= whole:
            yield Finding(
                "waits-too-long",
                "warning",
                f"{position}: max_wait ({wait:g} s) is not below timeout ({whole:g} s): who waits "
                "so long has no time left to call",
                "make max_wait a fraction of it",
            )


def _hedges(described: Described) -> Iterator[Finding]:
    hedge = described.get("hedge")
    if hedge is None:
        return
    after, attempt = hedge.get("after"), _attempt(described)
    if after is not None and attempt is not None and after >= attempt:
        yield Finding(
            "hedge-too-late",
            "warning",
            f"the hedge starts after {after:g} s, when attempt_timeout ({attempt:g} s) has ended "
            "the first attempt",
            "make after shorter",
        )
    if not hedge.get("budget"):
        yield Finding(
            "hedge-without-budget",
            "note",
            "when everything is slow, every call is hedged and the load doubles",
            "give it a Budget, the same as the retry's",
        )


def _orders(described: Described, order: Sequence[str]) -> Iterator[Finding]:
    here = [name for name in order if name in described]

    def outside(one: str, other: str) -> bool:
        return one in here and other in here and here.index(one) < here.index(other)

    if outside("breaker", "retry"):
        yield Finding(
            "breaker-outside-retry",
            "warning",
            "the breaker stands outside of the retry: it sees one failure for several failed "
            "attempts, and attempts go on while it would be open",
            "keep the canonical order",
        )
    if outside("limit", "retry"):
        yield Finding(
            "permit-held-while-waiting",
            "warning",
            "the limit stands outside of the retry: a permit is held during the waits between "
            "attempts",
            "keep the canonical order",
        )
    if outside("retry", "fallback"):
        yield Finding(
            "fallback-inside-retry",
            "warning",
            "the fallback stands inside of the retry: it answers the first failure, and no "
            "attempt follows",
            "keep the canonical order",
        )
