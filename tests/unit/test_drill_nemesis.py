"""The nemesis: each fault is injected when it is due, shown by evidence, and healed in time."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from outlast.drill import breaking as module
from outlast.drill.breaking import ProcessBreaker
from outlast.drill.core.schedule import Planned
from outlast.drill.nemesis import Nemesis
from outlast.inject import LinkFault, parse_faults
from outlast.kernel import Evidence
from tests.support.drill_load import NS, in_virtual_time, virtual_world

SPARE = 1.5
"""Seconds that a lease is longer than planned."""


class FakeLink:
    """Notes what is set and cleared, and counts as if traffic had met each fault."""

    def __init__(self, source: str, target: str) -> None:
        self.name, self.source, self.target = f"{source}-{target}", source, target
        self.story: list[tuple[float, str, str, Any]] = []
        self.held = 100

    def _note(self, what: str, way: str, more: Any) -> None:
        self.story.append((asyncio.get_running_loop().time(), what, way, more))

    def set(self, way: str, fault: LinkFault, until_ns: int) -> None:
        self._note("set", way, (fault, until_ns / NS))

    def clear(self, way: str) -> None:
        self._note("clear", way, None)

    def mark(self) -> str:
        return self.name

    def evidence(self, since: str) -> dict[str, Any]:
        assert since == self.name
        way = {
            "withheld_bytes": self.held, "chunks_delayed": self.held, "delay_ms_max": 80.0,
            "chunks_lost": self.held, "bytes_dropped": self.held,
        }  # fmt: skip
        return {"attempts_stalled": 0, "resets": self.held, "forward": way, "backward": way}

    @property
    def in_force(self) -> "frozenset[str]":
        """The directions in which something was set and not cleared since."""
        left = frozenset[str]()
        for _, what, way, _ in self.story:
            ways = {"forward", "backward"} if way == "both" else {way}
            left = left | ways if what == "set" else left - ways
        return left


class FakeLab:
    """Three nodes that only note what is done to them."""

    def __init__(self, *, talk: bool = True) -> None:
        names = ["n1", "n2", "n3"]
        self.nodes = {
            name: SimpleNamespace(
                process=SimpleNamespace(pid=100 + n),
                wanted=True,
                paused=False,
                starts=1,
                running=True,
            )
            for n, name in enumerate(names, 1)
        }
        self.nodes_talk = talk
        self.peers = [FakeLink(a, b) for a in names for b in names if a != b]
        self.clients = {
            (name, pinned): FakeLink("pinned" if pinned else "clients", name)
            for name in names
            for pinned in (False, True)
        }
        self.story: list[tuple[float, str, str]] = []

    @property
    def links(self) -> list[FakeLink]:
        return [*self.peers, *self.clients.values()]

    def peer_links(self) -> list[FakeLink]:
        return self.peers

    def client_link(self, name: str, *, pinned: bool) -> FakeLink:
        return self.clients[name, pinned]

    def links_of(self, name: str) -> list[FakeLink]:
        return [link for link in self.links if name in {link.source, link.target}]

    def note(self, what: str, whom: str) -> None:
        self.story.append((round(asyncio.get_running_loop().time(), 3), what, whom))

    async def start_node(self, name: str) -> None:
        self.note("start", name)


class Sent:
    """What stands in place of the signals."""

    def __init__(self, lab: FakeLab, *, works: bool = True) -> None:
        self.lab, self.works = lab, works

    async def crash(self, world: Any, pid: int) -> Evidence:
        self.lab.note("crash", f"n{pid - 100}")
        return Evidence("killed", 0, {"gone": self.works, "pids": [pid]})

    async def pause(self, world: Any, pid: int, *, seconds: float, journal: Any) -> Any:
        name = f"n{pid - 100}"
        self.lab.note(f"pause for {seconds:g}", name)

        async def resume() -> None:
            self.lab.note("resume", name)

        evidence = Evidence("stopped", 0, {"stopped": self.works})
        return SimpleNamespace(evidence=evidence, resume=resume, active=True)


class FakeVolume:
    """A disk that only notes when it was full."""

    def __init__(self, lab: FakeLab, name: str) -> None:
        self.lab, self.name, self.left = lab, name, 0

    async def fill(self, *, seconds: float) -> Evidence:
        self.lab.note(f"fill for {seconds:g}", self.name)
        return Evidence("disk full", 0, {"free_bytes": self.left})

    def used(self) -> bool:
        return True

    async def top_up(self) -> int:
        return self.left

    async def free(self) -> None:
        self.lab.note("free", self.name)


def planned(*names: str) -> list[Planned]:
    """Each fault for 2 s: at 3 s, 10 s, …"""
    return [
        Planned(fault, (3 + 7 * n) * NS, 2 * NS, draw=n)
        for n, fault in enumerate(parse_faults(names))
    ]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    made = FakeLab()
    sent = Sent(made)
    monkeypatch.setattr(module, "crash", sent.crash)
    monkeypatch.setattr(module, "pause", sent.pause)
    return made


def nemesis_of(lab: FakeLab, plan: Sequence[Planned], **more: Any) -> Nemesis:
    """A nemesis where n1 leads and the load makes progress half a second after healing."""

    async def progress(at_ns: int) -> int | None:
        assert not any(link.in_force for link in lab.links), "what is healed is not in force"
        await asyncio.sleep(0.5)
        return NS // 2

    volumes: Any = more.pop("volumes", {name: FakeVolume(lab, name) for name in lab.nodes})
    faked: Any = lab
    world = virtual_world()
    breaker = ProcessBreaker(world, faked, None, volumes)  # type: ignore[arg-type]
    given = {"pinned": True, **more}
    return Nemesis(world, faked, plan, 0, lambda: "n1", progress, breaker, **given)


def carried_out(lab: FakeLab, *names: str, **more: Any) -> Nemesis:
    """Carry out a plan of these faults."""
    made = nemesis_of(lab, planned(*names), **more)
    in_virtual_time(made.run())
    return made


# --- times -------------------------------------------------------------------------------------

ALL = ["crash@leader", "pause@leader", "disk:full@leader", "partition:halves@leader",
       "partition:isolate@leader", "partition:one-way@leader", "partition:flapping@leader",
       "link:slow@leader", "link:loss@leader", "link:reset@leader", "link:drop@leader",
       "link:bandwidth@leader", "link:jitter@leader"]  # fmt: skip


def test_each_fault_is_injected_at_its_time_for_its_time_with_evidence(lab: FakeLab) -> None:
    made = carried_out(lab, *ALL)
    for number, (one, name) in enumerate(zip(made.injected, ALL, strict=True)):
        assert str(one.planned.fault) == name
        assert one.start_ns / NS == pytest.approx(3 + 7 * number, abs=0.01)
        assert (one.end_ns - one.start_ns) / NS == pytest.approx(2, abs=0.01)
        assert one.evidence, name
        assert one.aim.victims == ("n1",)
        assert (one.leader, one.healed, one.recovered_ns) == ("n1", True, NS // 2)
    assert made.current is None


def test_every_fault_of_a_link_is_a_lease_that_ends_by_itself_soon_after_its_time(
    lab: FakeLab,
) -> None:
    carried_out(lab, *(name for name in ALL if name.startswith(("partition", "link"))))
    leases = [
        (at, more[1]) for link in lab.links for at, what, _, more in link.story if what == "set"
    ]
    assert leases
    assert all(at < until <= at + 2 + SPARE + 0.01 for at, until in leases)
    assert not any(link.in_force for link in lab.links)


def test_a_crashed_node_is_started_again_and_a_stopped_one_goes_on(lab: FakeLab) -> None:
    carried_out(lab, "crash@leader", "pause@leader", "disk:full@leader")
    assert lab.story == [
        (3.0, "crash", "n1"), (5.0, "start", "n1"),
        (10.0, "pause for 3.5", "n1"), (12.0, "resume", "n1"),
        (17.0, "fill for 3.5", "n1"), (19.0, "free", "n1"),
    ]  # fmt: skip
    assert not lab.nodes["n1"].paused


def test_a_fault_waits_until_the_target_is_back_from_the_one_before(lab: FakeLab) -> None:
    async def slow(at_ns: int) -> int | None:
        await asyncio.sleep(9)
        return None

    made = nemesis_of(lab, planned("crash", "crash"))
    made.progress = slow
    in_virtual_time(made.run())
    first, second = made.injected
    assert first.recovered_ns is None
    assert second.start_ns == first.end_ns + 9 * NS


@pytest.mark.parametrize("name", ALL)
def test_a_drill_that_is_cancelled_heals_what_is_in_force(lab: FakeLab, name: str) -> None:
    async def main() -> None:
        made = nemesis_of(lab, planned(name))
        task = asyncio.ensure_future(made.run())
        await asyncio.sleep(4)
        assert made.current is not None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)
        assert made.current is None

    in_virtual_time(main())
    assert not any(link.in_force for link in lab.links)
    begun = [(what.partition(" ")[0], whom) for _, what, whom in lab.story]
    undone = {"crash": "start", "pause": "resume", "fill": "free"}
    for what, whom in begun:
        if what in undone:
            assert (undone[what], whom) in begun


# --- evidence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in ALL if n.startswith(("partition", "link"))])
def test_a_fault_of_links_that_nothing_ran_into_has_no_evidence(lab: FakeLab, name: str) -> None:
    for link in lab.links:
        link.held = 0
    (one,) = carried_out(lab, name).injected
    assert one.evidence == ""


def test_a_kill_or_stop_that_did_not_happen_has_no_evidence(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Sent(lab, works=False)
    monkeypatch.setattr(module, "crash", sent.crash)
    monkeypatch.setattr(module, "pause", sent.pause)
    made = carried_out(lab, "crash@all", "pause@all")
    assert [one.evidence for one in made.injected] == ["", ""]


def test_a_node_that_was_gone_before_it_could_be_killed_leaves_no_evidence(lab: FakeLab) -> None:
    lab.nodes["n2"].process = None  # type: ignore[assignment]
    made = carried_out(lab, "crash@all", "pause@all")
    assert [one.evidence for one in made.injected] == ["", ""]
    assert (5.0, "start", "n2") in lab.story


def test_a_disk_with_room_left_is_no_evidence(lab: FakeLab) -> None:
    volumes = {name: FakeVolume(lab, name) for name in lab.nodes}
    volumes["n1"].left = 4096
    (one,) = carried_out(lab, "disk:full@leader", volumes=volumes).injected
    assert one.evidence == ""
    assert (5.0, "free", "n1") in lab.story


# --- cuts --------------------------------------------------------------------------------------


def cut_ways(lab: FakeLab) -> set[tuple[str, str]]:
    """Between whom packets did not arrive: source and target."""
    found = set()
    for link in lab.links:
        for _, what, way, _ in link.story:
            if what == "set" and way in {"forward", "both"}:
                found.add((link.source, link.target))
            if what == "set" and way in {"backward", "both"}:
                found.add((link.target, link.source))
    return found


@pytest.mark.parametrize("variant", ["halves", "isolate", "flapping"])
def test_a_node_is_cut_off_from_the_others_both_ways_and_not_from_clients(
    lab: FakeLab, variant: str
) -> None:
    carried_out(lab, f"partition:{variant}@leader")
    assert cut_ways(lab) == {("n1", "n2"), ("n2", "n1"), ("n1", "n3"), ("n3", "n1")}


def test_a_one_way_cut_withholds_what_the_others_send(lab: FakeLab) -> None:
    carried_out(lab, "partition:one-way@leader")
    assert cut_ways(lab) == {("n2", "n1"), ("n3", "n1")}


def test_nodes_that_do_not_talk_are_cut_off_from_clients() -> None:
    lab = FakeLab(talk=False)
    carried_out(lab, "partition:isolate@leader")
    assert cut_ways(lab) == {
        ("clients", "n1"), ("n1", "clients"), ("pinned", "n1"), ("n1", "pinned"),
    }  # fmt: skip


def test_reads_are_expected_at_nodes_that_are_cut_off_if_clients_stay_with_them(
    lab: FakeLab,
) -> None:
    made = carried_out(lab, "partition:isolate@leader", "crash@leader")
    assert [one.asked for one in made.injected] == [{"n1": 0}, {}]
    (one,) = carried_out(lab, "partition:isolate@leader", pinned=False).injected
    assert one.asked == {}


def test_flapping_cuts_and_heals_several_times(lab: FakeLab) -> None:
    (one,) = carried_out(lab, "partition:flapping@leader").injected
    assert one.facts["cuts"] >= 2
    assert one.evidence.startswith(f"{one.facts['cuts']} cuts; ")


# --- planted bugs ------------------------------------------------------------------------------


def test_a_nemesis_that_forgets_to_heal_is_noticed(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeLink, "clear", lambda self, way: None)
    with pytest.raises(AssertionError, match="what is healed is not in force"):
        carried_out(lab, "partition:isolate@leader")
