"""A full disk on a volume of its own: no byte is left, and everything is gone afterwards."""

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from outlast.host import make_world
from outlast.host.process import start_process
from outlast.inject import Volume, disk, identify, is_alive, volume_permitted
from outlast.inject.guardian import Guardian
from outlast.kernel import ConfigError

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
WITHIN = 30.0

MIB = 1 << 20
WRITE = "import sys; open(sys.argv[1] + '/x', 'ab', 0).write(b'y' * int(sys.argv[2]))"


@pytest.fixture(autouse=True, params=["as we are", "without root"])
def rights(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each story with our rights, and in a user namespace as one without root would."""
    disk._volume_permitted.cache_clear()
    if request.param == "without root":
        monkeypatch.setattr(disk, "_is_root", lambda: False)
    why = volume_permitted()
    assert not why, f"this machine does not permit volumes: {why}"
    yield
    disk._volume_permitted.cache_clear()


def test_a_machine_that_was_too_busy_to_tell_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def late(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        if len(asked) == 1:
            raise subprocess.TimeoutExpired(command, 5)
        return subprocess.CompletedProcess(command, 0, b"", b"")

    monkeypatch.setattr(disk.subprocess, "run", late)
    monkeypatch.setattr(disk.shutil, "which", lambda tool: f"/bin/{tool}")
    disk._volume_permitted.cache_clear()
    try:
        assert "timed out" in volume_permitted()
        assert volume_permitted() == ""
        assert volume_permitted() == ""
    finally:
        disk._volume_permitted.cache_clear()
    assert len(asked) == 2


@asynccontextmanager
async def volume(path: Path, size: int = 4 * MIB):
    made = await Volume.create(make_world(), str(path), size_bytes=size)
    try:
        yield made
    finally:
        await made.close()


async def code(here: Volume, *command: str) -> int:
    process = await start_process([*here.prefix, *command], log="/dev/null")
    return await process.wait()


def read(here: Volume, name: str) -> bytes:
    return Path(here.inside(name)).read_bytes()


def put(here: Volume, name: str, content: bytes = b"z") -> None:
    Path(here.inside(name)).write_bytes(content)


def remove(here: Volume, name: str) -> None:
    Path(here.inside(name)).unlink()


def write(path: Path, size: int) -> list[str]:
    return [sys.executable, "-c", WRITE, str(path), str(size)]


def test_a_program_in_the_volume_writes_there_and_nowhere_else(tmp_path):
    async def story() -> None:
        async with volume(tmp_path) as here:
            assert await code(here, *write(tmp_path, 100)) == 0
            assert read(here, "x") == b"y" * 100
            assert list(tmp_path.iterdir()) == []
            assert await code(here, "sh", "-c", f'test "$(id -u)" = {os.geteuid()}') == 0

    asyncio.run(story())


def test_a_full_volume_takes_no_byte_until_it_is_freed(tmp_path):
    async def story() -> None:
        async with volume(tmp_path) as here:
            evidence = await here.fill(seconds=30)
            assert evidence.what == "disk full"
            assert evidence.facts["free_bytes"] == 0
            assert evidence.facts["bytes"] > 3 * MIB
            assert await code(here, *write(tmp_path, 10)) != 0
            with pytest.raises(OSError) as caught:
                put(here, "z")
            assert caught.value.errno == errno.ENOSPC
            freed = await here.free()
            assert freed.facts["free_bytes"] > 3 * MIB
            assert not freed.facts["by_lease"]
            assert await code(here, *write(tmp_path, 10)) == 0

    asyncio.run(story())


def test_a_full_volume_is_freed_by_itself_when_nobody_frees_it(tmp_path):
    async def story() -> None:
        async with volume(tmp_path) as here:
            begun = time.monotonic()
            await here.fill(seconds=0.3)
            while here.free_bytes() == 0:
                assert time.monotonic() - begun < WITHIN
                await asyncio.sleep(0.01)
            assert time.monotonic() - begun >= 0.29
            assert (await here.free()).facts["by_lease"]

    asyncio.run(story())


def test_a_lease_that_is_over_before_the_volume_is_full_leaves_it_free(tmp_path, monkeypatch):
    """A guardian that has acted is gone: what is filled after that would stay full for ever."""
    start = Guardian.start

    async def start_and_look_away(seconds: float, **more: list[str]) -> Guardian:
        guardian = await start(seconds, **more)
        await guardian._process.wait()
        return guardian

    monkeypatch.setattr(Guardian, "start", start_and_look_away)

    async def story() -> None:
        async with volume(tmp_path) as here:
            evidence = await here.fill(seconds=0.05)
            assert here.free_bytes() > 3 * MIB
            assert evidence.facts["free_bytes"] > 3 * MIB
            assert (await here.free()).facts["by_lease"]

    asyncio.run(story())


def test_the_content_survives_the_crash_of_the_program(tmp_path):
    async def story() -> None:
        async with volume(tmp_path) as here:
            line = f"echo kept > {tmp_path}/x; kill -9 $$"
            assert await code(here, "sh", "-c", line) != 0
            assert await code(here, "grep", "-q", "kept", f"{tmp_path}/x") == 0

    asyncio.run(story())


DRILL = """
import asyncio, sys
from outlast.host import make_world
from outlast.host.process import start_process
from outlast.inject import Volume, disk
async def main():
    if sys.argv[2] == "no":
        disk._is_root = lambda: False
    volume = await Volume.create(make_world(), sys.argv[1], size_bytes=1 << 21)
    node = await start_process([*volume.prefix, "sleep", "60"])
    await volume.fill(seconds=60)
    print(volume._holder.pid, node.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_nothing_is_left_when_the_drill_is_killed(tmp_path):
    root = "yes" if disk._is_root() else "no"
    drill = subprocess.Popen(
        [sys.executable, "-c", DRILL, str(tmp_path), root], stdout=subprocess.PIPE, text=True
    )
    assert drill.stdout is not None
    left = [identify(int(pid)) for pid in drill.stdout.readline().split()]
    assert len(left) == 2
    drill.kill()
    drill.wait(WITHIN)
    drill.stdout.close()
    end = time.monotonic() + WITHIN
    while any(map(is_alive, left)):
        assert time.monotonic() < end, "the holder or the node outlived the drill"
        time.sleep(0.01)


def test_wrong_settings_are_named(tmp_path):
    async def story() -> None:
        with pytest.raises(ConfigError, match="use 1048576 or more"):
            await Volume.create(make_world(), str(tmp_path), size_bytes=10)
        with pytest.raises(ConfigError, match="is not a directory"):
            await Volume.create(make_world(), str(tmp_path / "missing"))
        async with volume(tmp_path) as here:
            with pytest.raises(ConfigError, match="a lease is longer than 0"):
                await here.fill(seconds=0)

    asyncio.run(story())


def test_a_command_runs_in_the_directory_that_it_is_given(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").mkdir()

    async def story() -> None:
        async with volume(tmp_path / "disk") as here:
            for home, code in ((tmp_path / "home", 0), (tmp_path / "nowhere", 127)):
                command = [*here.prefix_in(str(home)), "sh", "-c", f'test "$(pwd)" = {home}']
                process = await start_process(command, log="/dev/null")
                assert await process.wait() == code

    asyncio.run(story())


def test_a_volume_is_used_once_something_lies_in_it(tmp_path):
    async def story() -> None:
        async with volume(tmp_path) as here:
            assert not here.used()
            await here.fill(seconds=30)
            assert not here.used(), "the ballast is ours"
            await here.free()
            put(here, "x")
            assert here.used()

    asyncio.run(story())


def test_what_a_program_frees_on_a_full_volume_is_taken_again_until_the_lease_ends(tmp_path):
    async def story() -> None:
        async with volume(tmp_path) as here:
            put(here, "old", b"z" * MIB)
            assert await here.top_up() == 0
            await here.fill(seconds=30)
            remove(here, "old")
            assert here.free_bytes() >= MIB
            assert await here.top_up() > 0
            assert here.free_bytes() == 0
            await here.free()
            assert await here.top_up() == 0
            assert here.free_bytes() > MIB

    asyncio.run(story())
