"""The shared records of a rate, of a budget and of an idempotency key: pure rules and bytes.

Each rule takes what a store held, or ``None``, and returns what it holds from now on. A store
runs it in a transaction, with its own clock. What is in a store may have been put there by
anybody: what does not fit in type or size is as good as nothing there.
"""

import json
from typing import Final, NamedTuple

from outlast.protect.core.fleet import number
from outlast.protect.core.idempotency import BEGUN, MISMATCH, Answer, Done, InFlight

NS: Final = 1_000_000_000
OUTCOME_BYTES_MAX: Final = 4 << 20
_HEAD_BYTES_MAX: Final = 4_096
_RATE_AHEAD_MAX_NS: Final = 3_600 * NS
"""A rate that was ever promised further ahead than this is damaged, or its clock went back."""
_BALANCE_MAX: Final = 10**12


# --- rate -------------------------------------------------------------------------------------


class Taken(NamedTuple):
    """What a rate answered: ``granted`` after a wait, or refused and when to come again."""

    granted: bool
    wait_ns: int


def take(
    data: bytes | None,
    now_ns: int,
    *,
    interval_ns: int,
    burst_ns: int,
    cost: int,
    max_wait_ns: int,
) -> tuple[int, Taken]:
    """Take ``cost`` slots of a rate by the generic cell rate algorithm (ITU-T I.371).

    The record is one number, the theoretical arrival time: up to when the slots given out so far
    reach. A slot moves it by ``interval_ns``; it may run ahead of the clock by ``burst_ns``
    without a wait.

    Returns:
        The number to keep, and the answer. A refusal keeps the number.
    """
    reach = whole(data)
    if reach is None or reach < now_ns or reach > now_ns + burst_ns + _RATE_AHEAD_MAX_NS:
        reach = now_ns
    after = reach + cost * interval_ns
    wait_ns = max(0, after - burst_ns - now_ns)
    if wait_ns > max_wait_ns:
        return reach, Taken(granted=False, wait_ns=wait_ns)
    return after, Taken(granted=True, wait_ns=wait_ns)


def whole(data: bytes | None) -> int | None:
    """Return the number that ``data`` is the text of, or ``None``."""
    if data is None or not 0 < len(data) <= 19 or not data.isdigit():
        return None
    return int(data)


# --- budget -----------------------------------------------------------------------------------


def spend(
    data: bytes | None,
    now_ns: int,
    *,
    deposit_milli: int,
    floor_milli_per_s: int,
    cap_milli: int,
    want: int,
) -> tuple[bytes, int]:
    """Put thousandths of tokens into a budget and take up to ``want`` whole ones out.

    The budget also grows by ``floor_milli_per_s``. It does not grow above ``cap_milli``; what a
    node with a higher cap has put there stays. A new one holds what a second of the floor gives.

    Returns:
        The bytes to keep, and how many tokens were granted.
    """
    balance, at_ns = floor_milli_per_s, now_ns
    parts = data.split(b" ") if data is not None and len(data) <= 40 else []
    if len(parts) == 2:
        left, at = whole(parts[0]), whole(parts[1])
        if left is not None and left <= _BALANCE_MAX and at is not None and at <= now_ns + NS:
            balance, at_ns = left, min(at, now_ns)
    # The part of a thousandth that has grown is kept by moving the instant only so far.
    grown = (now_ns - at_ns) * floor_milli_per_s // NS
    if floor_milli_per_s:
        at_ns += grown * NS // floor_milli_per_s
    balance = max(balance, min(cap_milli, balance + deposit_milli + grown))
    granted = max(0, min(want, balance // 1000))
    return b"%d %d" % (balance - granted * 1000, at_ns), granted


# --- idempotency ------------------------------------------------------------------------------


class _Held(NamedTuple):
    """A record of a key: in flight until ``until_ns``, or done and kept until then."""

    done: bool
    token: str
    fingerprint: str
    until_ns: int
    outcome: bytes

    def encode(self) -> bytes:
        head = [1, self.done, self.token, self.fingerprint, self.until_ns]
        return json.dumps(head, separators=(",", ":")).encode() + b"\n" + self.outcome


def _held(data: bytes | None) -> _Held | None:
    if data is None:
        return None
    head, _, outcome = data.partition(b"\n")
    if len(head) > _HEAD_BYTES_MAX or len(outcome) > OUTCOME_BYTES_MAX:
        return None
    try:
        version, done, token, fingerprint, until_ns = json.loads(head)
        if version != 1 or not isinstance(done, bool):
            return None
        if not isinstance(token, str) or not isinstance(fingerprint, str):
            return None
        return _Held(done, token, fingerprint, number(until_ns), outcome)
    except (ValueError, TypeError, RecursionError):
        return None


class Step(NamedTuple):
    """What becomes of a record: ``data`` to keep for ``keep_ns``, and the answer.

    ``data`` is ``None`` to leave the record as it is, ``b""`` to remove it.
    """

    data: bytes | None
    keep_ns: int
    answer: object


def begin(data: bytes | None, now_ns: int, token: str, fingerprint: str, lease_ns: int) -> Step:
    """Start the work of a key; see :class:`outlast.protect.store.api.RecordStore`."""
    held = _held(data)
    if held is not None and now_ns < held.until_ns:
        answer: Answer | None = None
        if held.fingerprint and fingerprint and held.fingerprint != fingerprint:
            answer = MISMATCH
        elif held.done:
            answer = Done(held.outcome)
        elif held.token != token:
            answer = InFlight(held.until_ns - now_ns)
        if answer is not None:
            return Step(None, 0, answer)
    return Step(_Held(False, token, fingerprint, now_ns + lease_ns, b"").encode(),
                2 * lease_ns, BEGUN)  # fmt: skip


def finish(data: bytes | None, now_ns: int, token: str, outcome: bytes, ttl_ns: int) -> Step:
    """Keep the outcome of the holder."""
    held = _held(data)
    if held is None or held.token != token:
        return Step(None, 0, False)
    if held.done:
        return Step(None, 0, True)
    kept = _Held(True, token, held.fingerprint, now_ns + ttl_ns, outcome)
    return Step(kept.encode(), ttl_ns, True)


def release(data: bytes | None, token: str) -> Step:
    """Forget a key in flight."""
    held = _held(data)
    mine = held is not None and held.token == token and not held.done
    return Step(b"" if mine else None, 0, None)


def renew(data: bytes | None, now_ns: int, token: str, lease_ns: int) -> Step:
    """Prolong the lease of the holder."""
    held = _held(data)
    if held is None or held.token != token or held.done:
        return Step(None, 0, False)
    return Step(held._replace(until_ns=now_ns + lease_ns).encode(), 2 * lease_ns, True)
