"""Which entries killed the process, and how often, over many starts."""

from dataclasses import replace
from pathlib import Path

from outlast.host import default_world
from outlast.state.poison import ApplyMarker


def die(folder: Path, index: int) -> None:
    """Begin to apply ``index`` and end without taking it back, as a dead process does."""
    marker = ApplyMarker(default_world(), str(folder))
    marker.begin(index)
    marker.close()


def found(folder: Path) -> dict[int, int]:
    marker = ApplyMarker(default_world(), str(folder))
    marker.close()
    return marker.suspects


def test_deaths_at_one_entry_are_counted(tmp_path: Path) -> None:
    for deaths in (1, 2, 3):
        die(tmp_path, 7)
        assert found(tmp_path) == {7: deaths}
    assert found(tmp_path) == {7: 3}


def test_a_second_suspect_does_not_make_it_forget_the_first(tmp_path: Path) -> None:
    die(tmp_path, 7)
    die(tmp_path, 7)
    die(tmp_path, 12)
    assert found(tmp_path) == {12: 1, 7: 2}
    die(tmp_path, 7)
    assert found(tmp_path) == {7: 3, 12: 1}


def test_what_an_earlier_start_of_the_machine_left_behind_is_not_believed(
    tmp_path: Path,
) -> None:
    """After a power cut the file may be of any age: it says nothing of the last process."""
    die(tmp_path, 7)
    die(tmp_path, 7)
    die(tmp_path, 12)
    world = default_world()

    class Restarted:
        monotonic_ns, wall_ns = world.clock.monotonic_ns, world.clock.wall_ns

        def boot_id(self) -> str:
            return "another"

    later = replace(world, clock=Restarted())
    marker = ApplyMarker(later, str(tmp_path))
    assert marker.suspects == {}
    marker.begin(9)
    marker.close()
    again = ApplyMarker(later, str(tmp_path))
    again.close()
    assert again.suspects == {9: 1}


def test_a_file_that_a_power_cut_left_incomplete_is_not_believed(tmp_path: Path) -> None:
    die(tmp_path, 7)
    die(tmp_path, 7)
    path = tmp_path / "applying"
    path.write_bytes(path.read_bytes()[:-8])
    assert found(tmp_path) == {}


def test_what_was_taken_back_is_no_death(tmp_path: Path) -> None:
    marker = ApplyMarker(default_world(), str(tmp_path))
    marker.begin(7)
    marker.end()
    marker.close()
    assert found(tmp_path) == {}


def test_the_file_keeps_its_size(tmp_path: Path) -> None:
    for index in range(1, 40):
        die(tmp_path, index)
    suspects = found(tmp_path)
    assert len(suspects) == 16
    assert list(suspects)[:2] == [39, 38]
    assert (tmp_path / "applying").stat().st_size == 8 + 16 * 16 + 8


def test_a_forgiven_entry_is_forgotten_in_the_file_too(tmp_path: Path) -> None:
    for index in (7, 7, 12, 9):
        die(tmp_path, index)
    marker = ApplyMarker(default_world(), str(tmp_path))
    marker.forgive(7)
    marker.forgive(99)
    marker.close()
    assert marker.suspects == found(tmp_path) == {9: 1, 12: 1}
    die(tmp_path, 7)
    assert found(tmp_path)[7] == 1
