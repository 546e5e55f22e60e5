"""The book of digests names the odd one out, and only against a majority."""

import pytest

from outlast.state import DigestBook, Odd
from outlast.state.core.log_time import HolderClock


def test_the_odd_one_out_of_a_majority_is_named() -> None:
    book = DigestBook()
    assert book.report("a", 100, b"x", replicas=3) is None
    assert book.report("b", 100, b"y", replicas=3) is None
    assert book.disputed() == [100]
    assert book.report("c", 100, b"x", replicas=3) == Odd(100, b"x", ("b",))


def test_without_a_majority_nobody_is_odd() -> None:
    book = DigestBook()
    book.report("a", 5, b"x", replicas=4)
    book.report("b", 5, b"x", replicas=4)
    assert book.report("c", 5, b"y", replicas=4) is None
    assert book.report("d", 5, b"y", replicas=4) is None


def test_the_book_is_bounded() -> None:
    book = DigestBook(indices_max=2)
    for index in (1, 2, 3):
        book.report("a", index, b"x", replicas=2)
        book.report("b", index, b"y", replicas=2)
    assert book.disputed() == [2, 3]


@pytest.mark.parametrize("held", [True, False])
def test_a_holder_stamps_the_time_since_it_applied_its_epoch(held: bool) -> None:
    clock = HolderClock()
    clock.begin(9, log_time_ns=1_000, now_ns=50)
    assert clock.stamp(60) == 1_010
    if not held:
        clock.end()
    assert bool(clock.stamp(70)) is held
