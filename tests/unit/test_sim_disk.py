"""The simulated disk: time, faults, crashes and their evidence."""

import contextlib
import errno

import pytest

from outlast.kernel import ConfigError, Prng
from outlast.log.files import read_whole, write_atomically
from outlast.sim.disk import DiskSettings, SimDisk
from tests.support.sim_disk import DiskClock, content, durable_file, make_disk


def test_each_operation_spends_time_as_its_settings_say():
    settings = DiskSettings(write_ns=(10, 10), read_ns=(3, 3), sync_ns=(500, 500), stall_ppm=0)
    disk, clock = make_disk(settings=settings)
    disk.makedirs("/d")
    file = disk.open("/d/f", create=True)
    for call, cost in (
        (lambda: file.pwrite(b"x", 0), 10),
        (lambda: file.pread(1, 0), 3),
        (file.fsync, 500),
        (file.fsync, 10),
        (lambda: file.truncate(5), 10),
        (lambda: disk.fsync_dir("/d"), 500),
    ):
        before = clock.now_ns
        call()
        assert clock.now_ns - before == cost


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="read_ns"):
        DiskSettings(read_ns=(5, 4))
    with pytest.raises(ConfigError, match="dirty_changes_max"):
        DiskSettings(dirty_changes_max=0)


def test_the_same_seed_gives_the_same_disk():
    def story(seed: int) -> tuple[object, ...]:
        disk, clock = make_disk(seed)
        durable_file(disk, "/d/f", b"o" * 5000)
        disk.open("/d/f").pwrite(b"n" * 5000, 100)
        disk.open("/d/g", create=True).pwrite(b"g", 0)
        loss = disk.power_cut()
        return loss, clock.now_ns, disk.files(), content(disk, "/d/f")

    assert story(4) == story(4)
    assert len({repr(story(seed)) for seed in range(5)}) > 1


def test_reserving_space_costs_no_memory_whether_written_or_not():
    disk, _ = make_disk()
    disk.makedirs("/d")
    chunk = bytes(1 << 20)
    written = disk.open("/d/written", create=True)
    for offset in range(0, 64 << 20, len(chunk)):
        written.pwrite(memoryview(chunk)[: 64 << 20], offset)
    hole = disk.open("/d/hole", create=True)
    hole.truncate(64 << 20)
    for file in (written, hole):
        file.fsync()
        assert not file.inode.base
        assert not file.inode.dirty
        assert file.size() == 64 << 20
        assert file.pread(10, 50 << 20) == bytes(10)
        file.pwrite(b"x", 40 << 20)
        assert file.pread(3, (40 << 20) - 1) == b"\0x\0"
    assert disk.used_bytes == 128 << 20


def test_zeros_over_a_page_that_is_still_to_be_merged_do_not_let_it_through():
    disk, clock = make_disk()
    disk.makedirs("/d")
    file = disk.open("/d/f", create=True)
    file.pwrite(b"x", 0)
    file.fsync()
    file.pwrite(bytes(5000), 0)
    clock.settle()
    file.fsync()
    assert file.pread(1, 0) == b"\0"


def test_memory_is_bounded_when_nothing_is_ever_synced():
    settings = DiskSettings(dirty_changes_max=100, dirty_bytes_max=10_000)
    disk, clock = make_disk(settings=settings)
    disk.makedirs("/d")
    file = disk.open("/d/f", create=True)
    for number in range(1000):
        file.pwrite(b"x" * 50, number * 50)
        disk.open("/d/g", create=True)
        disk.unlink("/d/g")
        clock.settle()
    folder = disk.parent_of("/d/f")[0]
    assert len(file.inode.changes) <= 201
    assert len(folder.changes) <= 512
    assert file.pread(50_000, 0) == b"x" * 50_000


def test_a_full_disk_refuses_growth_only_and_space_comes_back():
    disk, _ = make_disk()
    durable_file(disk, "/d/f", b"x" * 100)
    disk.faults.capacity_bytes = 150
    file = disk.open("/d/f")
    assert disk.free_bytes("/d") == 50
    file.pwrite(b"y" * 50, 100)
    for call in (lambda: file.pwrite(b"z", 150), lambda: file.truncate(151)):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.ENOSPC
    file.pwrite(b"z", 0)
    file.truncate(10)
    assert disk.free_bytes("/d") == 140
    disk.faults.full = True
    assert disk.free_bytes("/d") == 0
    with pytest.raises(OSError, match="No space"):
        file.pwrite(b"z", 10)
    disk.unlink("/d/f")
    assert disk.used_bytes == 10, "it has a handle"
    file.close()
    assert disk.used_bytes == 0
    assert disk.tally.enospc == 3


def test_a_read_only_disk_refuses_every_change():
    disk, _ = make_disk()
    durable_file(disk, "/d/f", b"x")
    file = disk.open("/d/f")
    disk.faults.readonly = True
    for call in (
        lambda: file.pwrite(b"y", 0),
        lambda: file.truncate(0),
        lambda: disk.open("/d/f"),
        lambda: disk.open("/d/g", create=True),
        lambda: disk.rename("/d/f", "/d/g"),
        lambda: disk.unlink("/d/f"),
        lambda: disk.rmtree("/d"),
        lambda: disk.makedirs("/e"),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EROFS
    assert disk.open("/d/f", write=False).pread(1, 0) == b"x"
    assert disk.tally.erofs == 8
    disk.faults.clear()
    disk.unlink("/d/f")


def test_chosen_operations_fail_with_eio_and_do_nothing():
    disk, _ = make_disk()
    durable_file(disk, "/d/f", b"old")
    file = disk.open("/d/f")
    disk.faults.read_eio_next = disk.faults.write_eio_next = disk.faults.sync_eio_next = 1
    for call in (
        lambda: file.pread(1, 0),
        lambda: file.pwrite(b"new", 0),
        lambda: disk.fsync_dir("/d"),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EIO
        call()
    assert file.pread(3, 0) == b"new"
    assert disk.tally.eio == 3


def test_random_errors_come_as_often_as_asked():
    disk, _ = make_disk()
    durable_file(disk, "/d/f", b"x")
    file = disk.open("/d/f")
    disk.faults.read_eio_ppm = 250_000
    for _ in range(400):
        with contextlib.suppress(OSError):
            file.pread(1, 0)
    assert 60 < disk.tally.eio < 140


def test_a_slow_and_a_stuck_disk_take_their_time_and_count_it():
    disk, clock = make_disk()
    durable_file(disk, "/d/f", b"x")
    file = disk.open("/d/f")
    disk.faults.slow_ns = (1_000_000, 2_000_000)
    before = clock.now_ns
    file.pread(1, 0)
    assert clock.now_ns - before >= 1_000_000
    disk.faults.clear()
    disk.faults.stuck_until_ns = clock.now_ns + 5_000_000_000
    file.pread(1, 0)
    assert clock.now_ns >= disk.faults.stuck_until_ns
    before = clock.now_ns
    file.pread(1, 0)
    assert clock.now_ns - before < 1_000_000
    assert disk.tally.stuck == 1
    assert disk.tally.slow_ns > 5_000_000_000


def test_rot_flips_one_durable_bit_and_says_where():
    disk, clock = make_disk()
    durable_file(disk, "/d/f", b"x" * 6000)
    durable_file(disk, "/e/g", b"y" * 10)
    disk.open("/e/empty", create=True)
    clock.settle()
    assert disk.rot(Prng(1), "/e/empty") == ""
    assert disk.rot(Prng(1), "/none") == ""
    assert disk.rot(Prng(1), "/d/f").startswith("/d/f: a bit of byte ")
    assert disk.rot(Prng(1), "/e").startswith("/e/g: ")
    changed = [
        bin(a ^ ord(was)).count("1")
        for path, was in (("/d/f", "x"), ("/e/g", "y"))
        for a in content(disk, path)
    ]
    assert sorted(changed)[-3:] == [0, 1, 1]
    assert disk.tally.rotted == 2


def test_rot_spares_what_is_not_durable():
    disk, clock = make_disk()
    disk.makedirs("/d")
    disk.open("/d/f", create=True).pwrite(b"x", 0)
    clock.settle()
    assert disk.rot(Prng(1)) == ""


def test_a_lost_sync_shows_when_the_cache_is_dropped():
    shown = set()
    for seed in range(20):
        disk, _ = make_disk(seed)
        durable_file(disk, "/d/f", b"o" * 2048)
        file = disk.open("/d/f")
        file.pwrite(b"n" * 2048, 0)
        disk.faults.sync_eio_next = 1
        with pytest.raises(OSError):
            file.fdatasync()
        assert file.pread(2048, 0) == b"n" * 2048
        file.fdatasync()
        file.drop_cache()
        shown.add(file.pread(2048, 0))
        assert disk.tally.lost_bytes == file.pread(2048, 0).count(b"o")
    assert len(shown) > 2


def test_a_killed_process_loses_handles_and_locks_but_no_write():
    disk, _ = make_disk()
    durable_file(disk, "/d/f", b"old")
    file = disk.open("/d/f")
    assert file.lock()
    file.pwrite(b"new", 0)
    disk.open("/d/g", create=True)
    disk.process_killed()
    with pytest.raises(OSError) as caught:
        file.pread(1, 0)
    assert caught.value.errno == errno.EBADF
    file.close()
    assert content(disk, "/d/f") == b"new"
    assert disk.exists("/d/g")
    assert disk.open("/d/f").lock()


def test_a_kill_does_not_make_a_sync_that_was_under_way_count():
    for seed in range(20):
        disk, clock = make_disk(seed)
        durable_file(disk, "/d/f", b"o" * 512)
        file = disk.open("/d/f")
        file.pwrite(b"n" * 512, 0)
        at_ns = clock.now_ns
        file.fsync()
        disk.process_killed(at_ns)
        assert content(disk, "/d/f") == b"n" * 512
        disk.power_cut()
        if content(disk, "/d/f") == b"o" * 512:
            return
    pytest.fail("in 20 runs a sync that never ended made a write durable")


def replaced_twice(seed: int) -> tuple[SimDisk, list[int]]:
    """Return a disk and the instants of the operations of the second replacement."""
    disk, clock = make_disk(seed)
    disk.makedirs("/d")
    write_atomically(disk, "/d/mark", b"first")
    instants = [clock.now_ns]
    spend = disk._spend

    def noted(ns: int) -> None:
        spend(ns)
        instants.append(clock.now_ns)

    disk._spend = noted
    write_atomically(disk, "/d/mark", b"second")
    return disk, instants


def test_a_cut_in_the_middle_of_a_call_keeps_only_what_came_before():
    found = set()
    for seed in range(8):
        _, instants = replaced_twice(seed)
        for at_ns in (*instants, *(one - 1 for one in instants[1:])):
            disk, _ = replaced_twice(seed)
            disk.power_cut(at_ns)
            mark = read_whole(disk, "/d/mark")
            assert mark in {b"first", b"second"}, (seed, at_ns)
            assert mark == b"second" or at_ns < instants[-1], (seed, at_ns)
            found.add((mark, at_ns == instants[0]))
    assert found == {(b"first", True), (b"first", False), (b"second", False)}


def test_the_report_of_a_power_cut_and_the_tally_agree_with_what_is_gone():
    torn = lost = names = 0
    for seed in range(30):
        disk, _ = make_disk(seed)
        durable_file(disk, "/d/f", b"o" * 4096)
        disk.open("/d/f").pwrite(b"n" * 4096, 0)
        disk.open("/d/g", create=True)
        loss = disk.power_cut()
        found = content(disk, "/d/f")
        assert loss.lost_bytes == found.count(b"o")
        assert loss.torn_writes == (0 < loss.lost_bytes < 4096)
        assert loss.lost_writes == (loss.lost_bytes == 4096)
        assert loss.lost_names == (not disk.exists("/d/g"))
        assert disk.tally.lost_bytes == loss.lost_bytes
        torn, lost, names = (
            torn + loss.torn_writes,
            lost + loss.lost_writes,
            names + loss.lost_names,
        )
    assert min(torn, lost, names) > 0


def test_a_rename_across_directories_is_never_half_done():
    places = set()
    for seed in range(40):
        disk, _ = make_disk(seed)
        durable_file(disk, "/a/f", b"x")
        disk.makedirs("/b")
        disk.open("/a/before", create=True)
        disk.open("/b/before", create=True)
        disk.move("/a/f", "/b/f")
        disk.open("/b/after", create=True)
        disk.power_cut()
        there = disk.exists("/a/f"), disk.exists("/b/f")
        assert there in {(True, False), (False, True)}
        if there[1]:
            assert disk.exists("/a/before")
            assert disk.exists("/b/before")
        places.add(there)
    assert len(places) == 2
    disk, _ = make_disk()
    durable_file(disk, "/a/f", b"x")
    disk.makedirs("/b")
    disk.move("/a/f", "/b/f")
    disk.fsync_dir("/b")
    disk.power_cut()
    assert disk.files() == ["/b/f"]


def test_storage_renames_only_within_a_directory():
    disk, _ = make_disk()
    durable_file(disk, "/a/f", b"x")
    disk.makedirs("/b")
    with pytest.raises(OSError) as caught:
        disk.rename("/a/f", "/b/f")
    assert caught.value.errno == errno.EXDEV


def test_what_two_callers_do_to_one_file_happens_in_order():
    disk, clock = make_disk()
    disk.makedirs("/d")
    start = clock.now_ns
    disk.open("/d/f", create=True).pwrite(b"ahead", 0)
    ended = clock.now_ns
    clock.now_ns = start  # another callback of the host, at an earlier instant
    assert content(disk, "/d/f") == b"ahead"
    assert clock.now_ns >= ended, "it has waited for the write"


def test_a_handle_for_reading_does_not_write():
    disk, _ = make_disk()
    durable_file(disk, "/d/f", b"x")
    with pytest.raises(OSError) as caught:
        disk.open("/d/f", write=False).pwrite(b"y", 0)
    assert caught.value.errno == errno.EBADF


def test_without_a_floor_a_disk_remembers_for_a_second():
    clock = DiskClock()
    disk = SimDisk(Prng(1), clock.now, clock.spend)
    durable_file(disk, "/d/f", b"x")
    before = clock.now_ns
    file = disk.open("/d/f")
    for _ in range(100):
        file.pwrite(b"y", 0)
        file.fsync()
    disk.power_cut(before)
    assert content(disk, "/d/f") in {b"x", b"y"}
