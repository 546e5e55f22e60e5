"""Runs: what a frame carries. Consecutive entries, hard state, truncations, resets.

A caller appends :class:`Run` values. Before they are written, runs of consecutive entries of
one term are merged, so that a frame with the entries of 256 callers usually holds one run.
On disk a run says how many entries it has before they come, so that recovery can resolve
(index -> term, place) without making an object of any entry.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum

import msgspec

from outlast.kernel import InvariantError


class RunKind(IntEnum):
    """What a run says; one byte on disk."""

    ENTRIES = 0
    HARD_STATE = 1
    TRUNCATE = 2
    RESET = 3
    MARK = 4


class Run(msgspec.Struct, array_like=True, gc=False):
    """One thing to append.

    ======================  =====================================================================
    ``ENTRIES``             ``payloads`` are the entries ``first``, ``first + 1``, … of one
                            ``term``; ``kinds`` has one byte per entry (empty: all 0)
    ``HARD_STATE``          ``term`` and ``payloads=[vote]`` (UTF-8, empty: none)
    ``TRUNCATE``            drop all entries at and above ``first``
    ``RESET``               drop everything; the log goes on after ``(first, term)``
    ======================  =====================================================================
    """

    kind: int
    first: int
    term: int
    payloads: list[bytes]
    kinds: bytes = b""


class StoredRun(msgspec.Struct, array_like=True, gc=False):
    """A run as it lies on disk. Of a ``TRUNCATE``, ``term`` is the term of ``first - 1``."""

    kind: int
    first: int
    term: int
    count: int
    kinds: bytes
    payloads: list[bytes]


class RunHead(msgspec.Struct, array_like=True, gc=False):
    """A stored run whose entries have been stepped over, not decoded."""

    kind: int
    first: int
    term: int
    count: int
    kinds: bytes
    payloads: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_runs = msgspec.msgpack.Decoder(list[StoredRun])
_heads = msgspec.msgpack.Decoder(list[RunHead])
_payloads = msgspec.msgpack.Decoder(list[bytes])

encode_runs = _encoder.encode
decode_runs = _runs.decode
decode_heads = _heads.decode


def run_size(run: Run) -> int:
    """Return an upper bound of the bytes that ``run`` takes in a frame's body."""
    payloads = run.payloads
    if len(payloads) == 1:
        return len(payloads[0]) + 56
    return sum(map(len, payloads)) + 6 * len(payloads) + 56


def vote_of(head: RunHead) -> str | None:
    """Return the vote of a ``HARD_STATE`` run."""
    return decode_vote(_payloads.decode(head.payloads))


def decode_vote(payloads: Sequence[bytes]) -> str | None:
    """Return the vote that a hard state's payloads stand for."""
    return payloads[0].decode() if payloads and payloads[0] else None


def merge(runs: Iterable[Run]) -> list[StoredRun]:
    """Return ``runs`` as they will be stored, with neighbours of one term made one.

    Raises:
        InvariantError: ``kinds`` is neither empty nor one byte per entry.
    """
    merged: list[StoredRun] = []
    last: StoredRun | None = None
    next_index = next_term = -1
    for run in runs:
        kind = run.kind
        count = len(run.payloads)
        kinds = run.kinds
        if kinds and len(kinds) != count:
            raise InvariantError(f"a run of {count} entries came with {len(kinds)} kinds")
        if kind == 0:
            if last is not None and run.first == next_index and run.term == next_term:
                if kinds or last.kinds:
                    last.kinds = (last.kinds or bytes(last.count)) + (kinds or bytes(count))
                last.payloads += run.payloads
                last.count += count
            else:
                last = StoredRun(0, run.first, run.term, count, kinds, list(run.payloads))
                merged.append(last)
                next_term = run.term
            next_index = run.first + count
        else:
            last = None
            merged.append(StoredRun(kind, run.first, run.term, count, kinds, run.payloads))
    return merged


def span(runs: Iterable[StoredRun]) -> tuple[int, int, int, int]:
    """Return (first index, last index, highest term, number of entries) of a frame's runs."""
    first = last = term = count = 0
    for run in runs:
        term = max(term, run.term)
        if run.kind == RunKind.ENTRIES and run.count:
            first = run.first if not first else min(first, run.first)
            last = max(last, run.first + run.count - 1)
            count += run.count
    return first, last, term, count
