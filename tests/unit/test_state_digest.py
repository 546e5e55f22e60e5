"""The book of digests names the odd one out, and only against a majority."""

import pytest

from outlast.state import DigestBook, Odd
from outlast.state.core.log_time import HolderClock


def test_the_odd_one_out_of_a_majority_is_named() -> None:
    book = DigestBook()
    assert book.report("a", 100, b"x", voters="abc") is None
    assert book.report("b", 100, b"y", voters="abc") is None
    assert book.disputed() == [100]
    assert book.report("c", 100, b"x", voters="abc") == Odd(100, b"x", ("b",))


def test_without_a_majority_nobody_is_odd() -> None:
    book = DigestBook()
    book.report("a", 5, b"x", voters="abcd")
    book.report("b", 5, b"x", voters="abcd")
    assert book.report("c", 5, b"y", voters="abcd") is None
    assert book.report("d", 5, b"y", voters="abcd") is None


def test_the_book_is_bounded() -> None:
    book = DigestBook(indices_max=2)
    for index in (1, 2, 3):
        book.report("a", index, b"x", voters="ab")
        book.report("b", index, b"y", voters="ab")
    assert book.disputed() == [2, 3]


@pytest.mark.parametrize("held", [True, False])
def test_a_holder_stamps_the_time_since_it_applied_its_epoch(held: bool) -> None:
    clock = HolderClock()
    clock.begin(9, log_time_ns=1_000, now_ns=50)
    assert clock.stamp(60) == 1_010
    if not held:
        clock.end()
    assert bool(clock.stamp(70)) is held


def test_only_present_voters_count_each_once():
    """One that returns as another replica would else outvote the others by its past."""
    book = DigestBook()
    for name, digest in (("c1", b"bad"), ("a", b"x"), ("c2", b"bad")):
        assert book.report(name, 5, digest, voters=["a", "b", "c2"]) is None
    odd = book.report("b", 5, b"x", voters=["a", "b", "c2"])
    assert odd == Odd(5, b"x", ("c1", "c2"))


def test_a_lone_voter_condemns_nobody():
    book = DigestBook()
    book.report("a", 5, b"x", voters=["a"])
    assert book.report("learner", 5, b"y", voters=["a"]) is None
