"""Running digests: how replicas notice that one of them computed something else.

Each applied entry adds its replies and the changes it made to a chain of hashes. Replicas
that agree on the log agree on the chain; one whose memory, code or hash seed differs leaves
it at the first entry that shows the difference, and never comes back.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import msgspec

DIGEST_BYTES: Final = 16

_encode = msgspec.msgpack.Encoder().encode


def chain(previous: bytes, index: int, replies: Sequence[Any], changes: bytes) -> bytes:
    """Return the digest after an entry, from the one before it."""
    body = _encode((previous, index, replies, changes))
    return blake2b(body, digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Odd:
    """Replicas whose digest at ``index`` differs from the one that a majority has."""

    index: int
    majority: bytes
    replicas: tuple[str, ...]


class DigestBook:
    """Compares digests that replicas report at the same indices. Pure.

    Args:
        indices_max: Most indices remembered; the lowest goes first.
    """

    def __init__(self, indices_max: int = 64) -> None:
        self._indices_max = indices_max
        self._reports: dict[int, dict[str, bytes]] = {}

    def report(
        self, replica: str, index: int, digest: bytes, *, voters: Collection[str]
    ) -> Odd | None:
        """Take one report and return the odd ones out, if a majority of ``voters`` agrees.

        Only voters count, each once: a node that computes something else and comes back as
        another replica must not outvote the others by its own former reports. Without more
        than half of the voters agreeing, two at least, nobody is called odd.
        """
        row = self._reports.setdefault(index, {})
        row[replica] = digest
        while len(self._reports) > self._indices_max:
            del self._reports[min(self._reports)]
        return self._judge(index, row, voters)

    def disputed(self) -> list[int]:
        """Return the indices at which not all reports agree."""
        return sorted(i for i, row in self._reports.items() if len(Counter(row.values())) > 1)

    def _judge(self, index: int, row: dict[str, bytes], voters: Collection[str]) -> Odd | None:
        counts = Counter(value for name, value in row.items() if name in voters)
        digest, count = counts.most_common(1)[0] if counts else (b"", 0)
        if count * 2 <= max(2, len(voters)):
            return None
        odd = tuple(sorted(name for name, value in row.items() if value != digest))
        return Odd(index, digest, odd) if odd else None
