"""SimDisk against a naive second version: bytes in a dict, and a list of operations."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.kernel import ConfigError, Prng
from outlast.sim.disk import SimDisk
from outlast.sim.inode import SECTOR, Change, Inode
from tests.support.sim_disk import content, durable_file, make_disk

NAMES = ("a", "b", "c")
SIZE_MAX = 9_000

OPERATIONS = st.one_of(
    st.tuples(
        st.just("write"),
        st.sampled_from(NAMES),
        st.integers(0, SIZE_MAX),
        st.integers(1, SIZE_MAX),
    ),
    st.tuples(st.just("zeros"), st.sampled_from(NAMES), st.integers(0, SIZE_MAX), st.just(5_000)),
    st.tuples(st.just("truncate"), st.sampled_from(NAMES), st.integers(0, SIZE_MAX), st.just(0)),
    st.tuples(st.just("sync"), st.sampled_from(NAMES), st.just(0), st.just(0)),
    st.tuples(st.just("fail"), st.sampled_from(NAMES), st.just(0), st.just(0)),
    st.tuples(st.just("sync_dir"), st.just(""), st.just(0), st.just(0)),
    st.tuples(st.just("unlink"), st.sampled_from(NAMES), st.just(0), st.just(0)),
    st.tuples(st.just("rename"), st.sampled_from(NAMES), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("settle"), st.just(""), st.just(0), st.just(0)),
)


@dataclass
class Written:
    """One write or (offset -1) truncation."""

    offset: int
    data: bytes
    at_ns: int
    synced_ns: int | None = None
    dropped_ns: int | None = None


@dataclass
class Plain:
    """One file of the naive version."""

    number: int
    data: bytearray = field(default_factory=bytearray)
    history: list[Written] = field(default_factory=list)


@dataclass
class Names:
    """One state of the directory and the instants at which it began and was durable."""

    names: dict[str, int]
    at_ns: int
    synced_ns: int | None = None


def durable(one: Written | Names, at_ns: int) -> bool:
    """Whether a sync that covers it had ended."""
    return one.synced_ns is not None and one.synced_ns <= at_ns


class Both:
    """Does everything to the disk and to the naive version."""

    def __init__(self, disk: SimDisk, clock: object) -> None:
        self.disk = disk
        self.clock = clock
        self.files: list[Plain] = []
        self.names: dict[str, int] = {}
        self.states = [Names({}, 0, 0)]
        disk.makedirs("/d")
        self.made_ns = self.now_ns

    @property
    def now_ns(self) -> int:
        return self.clock.now()  # type: ignore[attr-defined,no-any-return]

    def instant(self, share: int) -> int:
        """Return an instant at which a crash may come."""
        low = max(self.made_ns, self.clock.floor())  # type: ignore[attr-defined]
        return low + (self.now_ns - low) * share // 100

    def named(self) -> None:
        self.states.append(Names(dict(self.names), self.now_ns))

    def file(self, name: str) -> tuple[object, Plain]:
        handle = self.disk.open(f"/d/{name}", create=True)
        if name not in self.names:
            self.names[name] = len(self.files)
            self.files.append(Plain(len(self.files)))
            self.named()
        return handle, self.files[self.names[name]]

    def do(self, serial: int, what: str, name: str, first: int, second: int) -> None:
        if what == "settle":
            self.clock.settle()  # type: ignore[attr-defined]
        elif what == "sync_dir":
            self.disk.fsync_dir("/d")
            for state in self.states:
                if state.synced_ns is None:
                    state.synced_ns = self.now_ns
        elif what == "unlink":
            if name in self.names:
                self.disk.unlink(f"/d/{name}")
                del self.names[name]
                self.named()
        elif what == "rename":
            target = NAMES[first]
            if name in self.names and name != target:
                self.disk.rename(f"/d/{name}", f"/d/{target}")
                self.names[target] = self.names.pop(name)
                self.named()
        else:
            self.content(serial, what, name, first, second)

    def content(self, serial: int, what: str, name: str, first: int, second: int) -> None:
        handle, plain = self.file(name)
        if what in {"write", "zeros"}:
            data = bytes([serial % 255 + 1]) * second if what == "write" else bytes(second)
            handle.pwrite(data, first)  # type: ignore[attr-defined]
            plain.data.extend(bytes(max(0, first + len(data) - len(plain.data))))
            plain.data[first : first + len(data)] = data
            plain.history.append(Written(first, data, self.now_ns))
        elif what == "truncate" and first != len(plain.data):
            handle.truncate(first)  # type: ignore[attr-defined]
            plain.history.append(Written(-1, bytes(first), self.now_ns))
            del plain.data[first:]
            plain.data.extend(bytes(first - len(plain.data)))
        elif what in {"sync", "fail"}:
            self.disk.faults.sync_eio_next = int(what == "fail")
            try:
                handle.fdatasync()  # type: ignore[attr-defined]
                for one in plain.history:
                    if one.dropped_ns is None:
                        one.synced_ns = one.synced_ns or self.now_ns
            except OSError:
                for one in plain.history:
                    if one.synced_ns is None:
                        one.dropped_ns = one.dropped_ns or self.now_ns
            self.disk.faults.sync_eio_next = 0
        handle.close()  # type: ignore[attr-defined]

    def check_content(self) -> None:
        assert self.disk.listdir("/d") == sorted(self.names)
        for name, number in self.names.items():
            assert content(self.disk, f"/d/{name}") == self.files[number].data

    def explain_names(self, at_ns: int) -> None:
        """The names are those of some instant between the last durable one and the crash."""
        last = max(i for i, one in enumerate(self.states) if durable(one, at_ns))
        there = self.disk.listdir("/d")
        possible = [one.names for one in self.states[last:] if one.at_ns <= at_ns]
        assert there in [sorted(names) for names in possible]
        assert any(
            sorted(names) == there
            and all(explained(self.files[n], content(self.disk, f"/d/{f}"), at_ns)
                    for f, n in names.items())
            for names in possible
        ), f"names or content that no order of events explains: {there}"  # fmt: skip


def explained(plain: Plain, found: bytes, at_ns: int) -> bool:
    """Whether each sector is what some choice of the unsynced writes leaves."""
    history = [one for one in plain.history if one.at_ns <= at_ns]
    sure = [durable(one, at_ns) for one in history]
    sizes = {0}
    for one, certain in zip(history, sure, strict=True):
        if one.offset < 0:
            moved = {len(one.data)}
        else:
            end = one.offset + len(one.data)
            marks = {end}
            if not certain:
                marks |= set(range(one.offset - one.offset % SECTOR + SECTOR, end, SECTOR))
            moved = {max(size, mark) for size in sizes for mark in marks}
        sizes = moved if certain else sizes | moved
    if len(found) not in sizes:
        return False
    for at in range(len(found)):
        values = {0}
        for one, certain in zip(history, sure, strict=True):
            if one.offset < 0:
                values = values | {0} if at >= len(one.data) else values
            elif one.offset <= at < one.offset + len(one.data):
                value = one.data[at - one.offset]
                values = {value} if certain else values | {value}
        if found[at] not in values:
            return False
    return True


@settings(max_examples=150, deadline=None)
@given(st.lists(OPERATIONS, max_size=25), st.integers(0, 1 << 30))
def test_programs_see_what_a_plain_file_would_show(
    operations: list[tuple[str, str, int, int]], seed: int
) -> None:
    both = Both(*make_disk(seed))
    for serial, operation in enumerate(operations):
        both.do(serial, *operation)
    both.check_content()
    both.disk.process_killed()
    both.check_content()


def crash(
    operations: list[tuple[str, str, int, int]], seed: int, share: int, *, noop: bool = False
) -> None:
    both = Both(*make_disk(seed, sync_is_noop=noop))
    for serial, operation in enumerate(operations):
        both.do(serial, *operation)
    at_ns = both.instant(share)
    both.disk.power_cut(at_ns)
    both.explain_names(at_ns)


@settings(max_examples=200, deadline=None)
@given(st.lists(OPERATIONS, max_size=20), st.integers(0, 1 << 30), st.integers(0, 100))
def test_after_a_cut_at_any_instant_what_was_synced_is_there_and_the_rest_is_explained(
    operations: list[tuple[str, str, int, int]], seed: int, share: int
) -> None:
    crash(operations, seed, share)


def crash_all(story: list[tuple[str, str, int, int]]) -> None:
    for seed in range(20):
        crash(story, seed, 100, noop=True)


def test_a_sync_that_does_nothing_is_noticed() -> None:
    story = [("write", "a", 0, 4000), ("sync", "a", 0, 0), ("sync_dir", "", 0, 0)]
    with pytest.raises(AssertionError):
        crash_all(story)


@settings(max_examples=100, deadline=None)
@given(st.lists(OPERATIONS, max_size=20), st.integers(0, 1 << 30), st.integers(0, 100))
def test_a_kill_at_any_instant_keeps_all_that_was_written_by_then(
    operations: list[tuple[str, str, int, int]], seed: int, share: int
) -> None:
    both = Both(*make_disk(seed))
    for serial, operation in enumerate(operations):
        if operation[0] != "fail":  # what a failed sync has lost may leave the cache at any time
            both.do(serial, *operation)
    at_ns = both.instant(share)
    both.disk.process_killed(at_ns)
    names = [state.names for state in both.states if state.at_ns <= at_ns][-1]
    assert both.disk.listdir("/d") == sorted(names)
    for name, number in names.items():
        data = bytearray()
        for one in both.files[number].history:
            if one.at_ns > at_ns:
                break
            if one.offset < 0:
                del data[len(one.data) :]
                data.extend(bytes(len(one.data) - len(data)))
            else:
                data.extend(bytes(max(0, one.offset + len(one.data) - len(data))))
                data[one.offset : one.offset + len(one.data)] = one.data
        assert content(both.disk, f"/d/{name}") == data


# --- planted bugs ------------------------------------------------------------------------------

KINDS = ("write", "write", "zeros", "truncate", "sync", "sync", "fail", "sync_dir", "sync_dir",
         "unlink", "rename", "settle")  # fmt: skip


def crash_many(count: int = 150) -> None:
    """Crash that many drawn stories."""
    for seed in range(count):
        prng = Prng(seed)
        story = [
            (prng.choice(KINDS), prng.choice(NAMES), prng.below(3_000), prng.between(1, 3_000))
            for _ in range(prng.below(16))
        ]
        story = [
            (what, name, first % 3 if what == "rename" else first, second)
            for what, name, first, second in story
        ]
        crash(story, seed, prng.below(101))


def ignore_the_instant(patch: pytest.MonkeyPatch) -> None:
    honest = Inode.cut
    patch.setattr(Inode, "cut", lambda self, _at, prng, loss: honest(self, 1 << 61, prng, loss))


def durable_too_early(patch: pytest.MonkeyPatch) -> None:
    honest = Inode.cover
    patch.setattr(Inode, "cover", lambda self, end_ns, *rest: honest(self, end_ns * 9, *rest))


def wild_data(patch: pytest.MonkeyPatch) -> None:
    def tear(change: Change, prng: Prng) -> list[Change]:
        size = change.size
        return [Change(change.offset, size, prng.bytes(size), change.written_ns)]

    patch.setattr("outlast.sim.inode._landed", tear)


def names_are_kept_only_by_the_last_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("outlast.sim.disk.cover_names", lambda folder, end_ns: None)


BUGS = (ignore_the_instant, durable_too_early, wild_data, names_are_kept_only_by_the_last_sync)


def test_drawn_stories_are_explained() -> None:
    crash_many()


@pytest.mark.parametrize("plant", BUGS)
def test_a_planted_bug_of_the_disk_is_noticed(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        crash_many()


def test_a_crash_before_what_is_merged_is_refused() -> None:
    disk, clock = make_disk()
    disk.makedirs("/d")
    file = disk.open("/d/f", create=True)
    at_ns = clock.now()
    file.pwrite(b"x", 0)
    file.fsync()
    clock.settle()
    file.fsync()
    with pytest.raises(ConfigError, match="floor_ns"):
        disk.power_cut(at_ns)


def test_what_a_failed_sync_has_lost_does_not_come_back_with_the_next() -> None:
    for seed in range(20):
        disk, _ = make_disk(seed)
        durable_file(disk, "/d/f", b"o" * 4096)
        file = disk.open("/d/f")
        file.pwrite(b"n" * 4096, 0)
        disk.faults.sync_eio_next = 1
        with pytest.raises(OSError, match="Input/output"):
            file.fsync()
        assert file.pread(1, 0) == b"n", "the page cache still shows it"
        file.fsync()
        disk.power_cut()
        if content(disk, "/d/f") != b"n" * 4096:
            return
    pytest.fail("a sync that failed has lost nothing in 20 runs")
