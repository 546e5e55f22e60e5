"""Settings and the log window of a Raft node."""

import pytest

from outlast.kernel import ConfigError, InvariantError, ProtocolError
from outlast.log.engines.raft.core.config import decode_config, decode_mark
from outlast.log.engines.raft.core.log import NodeLog
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import Entry
from tests.support.raft_disk import Image, View


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("election_timeout", 0, "election_timeout is 0; it must be above 0"),
        ("heartbeat", 0.2, "heartbeat 0.2 s is more than a third of election_timeout 0.5 s"),
        ("append_bytes_max", 1 << 30, "append_bytes_max is 1073741824, above inflight_bytes_max"),
        (
            "uncommitted_bytes_max",
            10,
            "entry_bytes_max is 1048576, above uncommitted_bytes_max 10",
        ),
        ("commit_notice", 0.07, "commit_notice is 0.07, above heartbeat 0.06"),
        ("stall", 0.01, "heartbeat is 0.06, above stall 0.01"),
        ("late_wake", 0.7, "late_wake is 0.7, above election_timeout 0.5"),
        ("lease_drift", 0.6, "lease_drift is 0.6; it must be at most 0.5"),
        ("chunk_window", 0, "chunk_window is 0; it must be above 0"),
        ("catch_up_silence", 0.4, "election_timeout is 0.5, above catch_up_silence 0.4"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_both_values(
    field: str, value: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        RaftSettings(**{field: value})  # type: ignore[arg-type]


def log_of(count: int, keep_bytes: int = 1 << 20) -> tuple[NodeLog, Image]:
    image = Image()
    log = NodeLog(View(image), 0, 0, keep_bytes)
    for index in range(1, count + 1):
        entry = Entry(index, 1 + index // 10, 0, bytes(100))
        log.append([entry])
        image.entries.append(entry)
    return log, image


def test_the_window_evicts_and_reads_older_entries_from_the_view() -> None:
    log, _ = log_of(100, keep_bytes=1000)
    log.evict(100)
    assert log._start > 80
    for first in (1, 50, 79, 95):
        entries, size = log.slice(first, 500)
        assert [e.index for e in entries][:1] == [first]
        assert size == sum(len(e.payload) + 24 for e in entries)
    assert [log.term_at(i) for i in (0, 1, 50, 100, 101)] == [0, 1, 6, 11, None]


def test_nothing_above_the_bound_is_evicted() -> None:
    log, _ = log_of(100, keep_bytes=1000)
    log.evict(5)
    assert log._start == 6


def test_entries_must_follow_the_end() -> None:
    log, _ = log_of(3)
    with pytest.raises(InvariantError, match=r"5\.\.5 do not follow 3"):
        log.append([Entry(5, 1, 0, b"")])


def test_truncation_and_reset_move_the_end() -> None:
    log, _ = log_of(30)
    log.truncate(12)
    assert (log.last_index, log.last_term) == (11, 2)
    log.reset(50, 9)
    assert (log.last_index, log.last_term, log.slice(50, 10)) == (50, 9, ([], 0))
    assert log.term_at(11) is None


def test_a_whole_term_is_found_by_binary_search() -> None:
    log, _ = log_of(95)
    assert log.first_of_term(6, 57) == 50
    assert log.last_at_most(6, 90) == 59
    assert log.last_at_most(0, 90) == 0


@pytest.mark.parametrize("decode", [decode_config, decode_mark])
def test_records_that_cannot_be_read_are_named(decode: object) -> None:
    with pytest.raises(ProtocolError, match="of 3 bytes unreadable"):
        decode(b"\x93\x01\x02")  # type: ignore[operator]
