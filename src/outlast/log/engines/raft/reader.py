"""Turns the entries of the Raft log into batches for readers.

Only ``NORMAL`` entries are delivered. What the engine wrote for itself (no-ops, memberships,
the seal) is passed over by ``Batch.through``, so indices skip but never surprise.
"""

from collections.abc import Sequence

from outlast.kernel import LogIndex
from outlast.log.api import Batch
from outlast.log.engines.raft.core.types import Entry


def batch_of(entries: Sequence[Entry]) -> Batch:
    """Return the first batch of consecutive ``entries``, of which there is at least one.

    It reaches as far as its normal entries have consecutive indices, and over the engine's
    own entries before and after them; the reader goes on at ``through + 1``.
    """
    first = entries[0].index
    payloads = [entry.payload for entry in entries if not entry.kind]
    if len(payloads) == len(entries):  # nearly always
        return Batch(LogIndex(first), payloads, LogIndex(first + len(payloads) - 1))
    payloads = []
    through = first
    for entry in entries:
        if not entry.kind:
            if not payloads:
                first = entry.index
            elif first + len(payloads) != entry.index:
                break
            payloads.append(entry.payload)
        through = entry.index
    return Batch(LogIndex(first), payloads, LogIndex(through))
