"""The resolved view against a naive list; codecs against their own round trip."""

import asyncio
import itertools
from dataclasses import dataclass, field

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.kernel import InvariantError
from outlast.log.wal import Run, RunKind, Wal, WalIdentity, WalSettings
from outlast.log.wal.cache import RunCache
from outlast.log.wal.core.frame import (
    ALIGN,
    HEADER_BYTES,
    body_holds,
    decode_header,
    encode_frame,
)
from outlast.log.wal.core.runs import decode_heads, decode_runs, encode_runs, merge, run_size
from outlast.log.wal.core.view import Places, View, place_frame, replay_heads, resolve
from tests.recovery.wal_disk import MemoryDisk, memory_world

ME = WalIdentity("c", "l", "n")


@dataclass
class Naive:
    """The log as a plain dict."""

    entries: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)
    base: tuple[int, int] = (0, 0)
    hard: tuple[int, str | None] = (0, None)

    @property
    def last(self) -> int:
        return max(self.entries, default=self.base[0])

    def apply(self, run: Run) -> None:
        if run.kind == RunKind.ENTRIES:
            for i, payload in enumerate(run.payloads):
                kind = run.kinds[i] if run.kinds else 0
                self.entries[run.first + i] = (run.term, kind, payload)
        elif run.kind == RunKind.HARD_STATE:
            self.hard = (run.term, run.payloads[0].decode() or None)
        elif run.kind == RunKind.TRUNCATE:
            self.entries = {i: e for i, e in self.entries.items() if i < run.first}
        else:
            self.entries, self.base = {}, (run.first, run.term)

    def term_at(self, index: int) -> int | None:
        if index == self.base[0]:
            return self.base[1]
        return self.entries[index][0] if index in self.entries else None


@st.composite
def stories(draw: st.DrawFn) -> list[list[Run]]:
    """Frames of runs as an engine would append them."""
    naive, term, frames = Naive(), 1, []
    for _ in range(draw(st.integers(1, 12))):
        frame = []
        for _ in range(draw(st.integers(1, 4))):
            term += draw(st.integers(0, 1))
            what = draw(st.sampled_from("EEEEETTHR"))
            low, last = naive.base[0] + 1, naive.last
            if what == "E":
                payloads = draw(st.lists(st.binary(max_size=9), min_size=1, max_size=4))
                kinds = draw(st.sampled_from([b"", bytes(range(len(payloads)))]))
                run = Run(RunKind.ENTRIES, last + 1, term, payloads, kinds)
            elif what == "T" and last >= low:
                first = draw(st.integers(low, last))
                run = Run(RunKind.TRUNCATE, first, naive.term_at(first - 1) or 0, [])
            elif what == "R":
                run = Run(RunKind.RESET, last + draw(st.integers(0, 3)), term, [])
            else:
                run = Run(
                    RunKind.HARD_STATE, 0, term, [draw(st.sampled_from([b"", b"n1", b"n2"]))]
                )
            naive.apply(run)
            frame.append(run)
        frames.append(frame)
    return frames


def told(frames: list[list[Run]]) -> Naive:
    naive = Naive()
    for frame in frames:
        for run in frame:
            naive.apply(run)
    return naive


@given(stories())
@settings(max_examples=60)
def test_view_and_places_agree_with_a_plain_dict(frames: list[list[Run]]) -> None:
    view, twin, places, disk = View(), View(), Places(), []
    for number, frame in enumerate(frames):
        stored = merge(frame)
        body = encode_runs(stored)
        view.apply(stored)
        replay_heads(twin, decode_heads(body))
        place_frame(places, decode_heads(body), 0, number, len(body))
        disk.append(body)
    naive = told(frames)
    for one in (view, twin):
        assert (one.last, one.base, one.hard) == (naive.last, naive.base, naive.hard)
        assert [one.term_at(i) for i in range(naive.last + 2)] == [
            naive.term_at(i) for i in range(naive.last + 2)
        ]
    for index in range(naive.base[0] + 1, naive.last + 1):
        found = places.find(index)
        assert found is not None
        place, following = found
        assert following is None or following > index
        got = resolve(decode_runs(disk[place.offset]), index, index)
        assert got == [(index, *naive.entries[index])]


@given(stories(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_log_agrees_with_a_plain_dict_before_and_after_reopening(
    frames: list[list[Run]], cached: bool
) -> None:
    sizes = WalSettings(
        segment_bytes=64 << 10, first_segment_bytes=64 << 10, disk_reserve_bytes=0,
        hard_state_reserve_bytes=1024, idle=30.0, cache_bytes_max=(1 << 20) if cached else 1,
    )  # fmt: skip

    async def tell() -> None:
        disk, naive = MemoryDisk(), told(frames)
        wal = await Wal.open(memory_world(disk), "/d", ME, sizes)
        waiting = [wal.append(frame) for frame in frames]
        for log in (wal, wal, None):
            if log is None:
                await wal.close()
                log = await Wal.open(memory_world(disk), "/d", ME, sizes)  # noqa: PLW2901
            assert log.last == (naive.last, naive.term_at(naive.last))
            assert log.base == naive.base
            assert log.entries(naive.base[0] + 1, naive.last, 1 << 30) == [
                (index, *entry) for index, entry in sorted(naive.entries.items())
            ]
            await asyncio.gather(*waiting)
            assert log.hard_state == naive.hard
        await log.close()

    asyncio.run(tell())


@given(stories(), st.integers(0, 2000), st.integers(0, 400))
@settings(max_examples=60)
def test_the_cache_agrees_with_a_plain_dict(
    frames: list[list[Run]], bytes_max: int, most: int
) -> None:
    naive, cache = Naive(), RunCache(bytes_max)
    for frame in frames:
        for run in frame:
            naive.apply(run)
            if run.kind == RunKind.ENTRIES:
                cache.add(run, run_size(run))
            elif run.kind == RunKind.TRUNCATE:
                cache.truncate(run.first)
            elif run.kind == RunKind.RESET:
                cache.clear()
        cache.evict(naive.last)
        assert cache.bytes <= bytes_max
    first = cache.first
    if first is not None:
        out: list[tuple[int, int, int, bytes]] = []
        cache.get(first, naive.last, max(1, most), out)
        expected = [(i, *naive.entries[i]) for i in range(first, naive.last + 1)]
        assert out == expected[: len(out)]
        size = sum(len(entry[3]) for entry in out)
        assert len(out) == len(expected) or size >= max(1, most)


@given(st.lists(st.binary(max_size=700), max_size=5), st.binary(min_size=16, max_size=16),
       st.integers(1, 1 << 60))  # fmt: skip
def test_a_frame_round_trips_and_only_under_its_own_seed(
    payloads: list[bytes], uuid: bytes, seq: int
) -> None:
    seed = crc32c(uuid)
    body = encode_runs(merge([Run(0, 1, 2, payloads)]))
    data, body_crc = encode_frame(body, seed, seq=seq, durable=seq - 1, span=(1, 9, 2, 5))
    assert len(data) % ALIGN == 0
    header = decode_header(memoryview(data), 0, seed)
    assert header is not None
    assert header.size == len(data)
    assert (header.seq, header.durable, header.first, header.last) == (seq, seq - 1, 1, 9)
    assert header.body_crc == body_crc
    assert body_holds(memoryview(data), 0, header, seed)
    assert [run.payloads for run in decode_runs(memoryview(data)[HEADER_BYTES:][: len(body)])] == [
        payloads
    ]
    assert decode_header(memoryview(data), 0, seed ^ 1) is None


@given(stories())
@settings(max_examples=60)
def test_merging_leaves_no_two_neighbours_that_could_be_one(frames: list[list[Run]]) -> None:
    for frame in frames:
        stored = merge(frame)
        for one, two in itertools.pairwise(stored):
            both = one.kind == two.kind == RunKind.ENTRIES and one.term == two.term
            assert not (both and one.first + one.count == two.first)
        assert sum(map(run_size, frame)) + 16 >= len(encode_runs(stored))


def test_kinds_of_another_length_are_our_bug() -> None:
    with pytest.raises(InvariantError):
        merge([Run(0, 1, 1, [b"a", b"b"], b"\1")])
