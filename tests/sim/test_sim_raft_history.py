"""The judge of histories: what clients of a list may see, and what not."""

import zlib

import pytest

from tests.support.raft_disk import BrokenError
from tests.support.raft_history import History


def hash_of(items: list[bytes]) -> int:
    found = 0
    for item in items:
        found = zlib.crc32(item, found)
    return found


def history(*events: tuple[object, ...]) -> History:
    """Make one of ("w", args), ("ok", args, place), ("r", ticket), ("see", ticket, items)."""
    made = History()
    for kind, *facts in events:
        if kind == "w":
            made.write_begins(*facts)  # type: ignore[arg-type]
        elif kind == "ok":
            made.write_ends(*facts)  # type: ignore[arg-type]
        elif kind == "r":
            made.read_begins(*facts)  # type: ignore[arg-type]
        else:
            ticket, items = facts
            made.read_ends(ticket, len(items), hash_of(items))  # type: ignore[arg-type]
    return made


def test_a_write_that_was_never_answered_may_stand_or_not() -> None:
    made = history(("w", b"a"), ("w", b"b"), ("ok", b"b", 0))
    made.judge([b"b"])
    made.judge([b"b", b"a"])


def test_concurrent_reads_may_see_the_write_or_not() -> None:
    made = history(("w", b"a"), ("r", 1), ("r", 2), ("see", 1, []), ("see", 2, [b"a"]))
    made.judge([b"a"])


@pytest.mark.parametrize(
    ("events", "order", "why"),
    [
        ([("w", b"a"), ("ok", b"a", 0)], [], "is not at 0"),
        ([("w", b"a"), ("ok", b"a", 0)], [b"a", b"a"], "executed twice"),
        ([("w", b"a")], [b"a", b"x"], "never asked for"),
        (
            [("w", b"a"), ("ok", b"a", 0), ("r", 1), ("see", 1, [])],
            [b"a"],
            "stale read",
        ),
        (
            [("w", b"a"), ("r", 1), ("see", 1, [b"a"]), ("r", 2), ("see", 2, [])],
            [b"a"],
            "stale read",
        ),
        ([("w", b"a"), ("r", 1), ("see", 1, [b"x"])], [b"a"], "another list"),
        ([("r", 1), ("see", 1, [b"a"]), ("w", b"a")], [b"a"], "had not begun"),
        (
            [("w", b"a"), ("ok", b"a", 1), ("w", b"b"), ("ok", b"b", 0)],
            [b"b", b"a"],
            "stands before",
        ),
    ],
)
def test_a_history_that_no_list_explains(
    events: list[tuple[object, ...]], order: list[bytes], why: str
) -> None:
    with pytest.raises(BrokenError, match=why):
        history(*events).judge(order)


def test_one_write_is_told_one_place() -> None:
    with pytest.raises(BrokenError, match="told 0, then 1"):
        history(("w", b"a"), ("ok", b"a", 0), ("ok", b"a", 1))
