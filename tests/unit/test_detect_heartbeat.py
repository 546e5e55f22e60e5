"""Sending and hearing beats, on a loop in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from outlast import sim
from outlast.detect import (
    AccusationPostponed,
    Fixed,
    Heartbeat,
    HeartbeatFailed,
    HeartbeatMonitor,
    HeartbeatsMissed,
    Levels,
    LocalHealth,
    PeerSuspected,
    PeerTrusted,
    PhiAccrual,
)
from outlast.detect.core.heartbeat import Change, Postponed, Watchlist
from outlast.detect.core.scale import NEVER
from outlast.kernel import ConfigError, Event, current_world
from outlast.kernel.registry import watched

MS = 1_000_000
STEP = 100 * MS


def fixed() -> Fixed:
    return Fixed(0.5, interval=0.1)


def in_sim(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return sim.run(main, seed=5)


def heard() -> list[Event]:
    events: list[Event] = []
    current_world().events.subscribe(events.append)  # type: ignore[attr-defined]
    return events


async def sleep(seconds: float) -> None:
    await current_world().timers.sleep(seconds)


# --- the rules -----------------------------------------------------------------------------------


def listed(peers_max: int = 10) -> Watchlist:
    return Watchlist(fixed, Levels(), peers_max)


def test_a_silent_peer_rises_through_the_levels_at_their_deadlines() -> None:
    made = listed()
    made.beat("a", None, 0)
    seen = []
    while (now := made.next_ns()) != NEVER:
        seen += [(now // MS, one) for one in made.due(now)]
    assert [(at, one.before, one.after) for at, one in seen if isinstance(one, Change)] == [
        (150, "trusted", "watch"), (250, "watch", "avoid"), (500, "avoid", "evict"),
    ]  # fmt: skip
    assert made.level("a") == "evict"


def test_one_that_was_looked_at_late_takes_all_levels_at_once() -> None:
    made = listed()
    made.beat("a", None, 0)
    assert [
        (one.before, one.after, one.silence_ns // MS)
        for one in made.due(900 * MS)
        if isinstance(one, Change)
    ] == [("trusted", "evict", 900)]


def test_the_next_beat_is_trust_again() -> None:
    made = listed()
    made.beat("a", None, 0)
    made.due(600 * MS)
    assert made.beat("a", None, 700 * MS) == Change("a", "evict", "trusted", 0.0, 700 * MS)
    assert made.beat("a", None, 800 * MS) is None
    assert made.quality("a", 800 * MS).mistakes == 1
    assert made.next_ns() == 850 * MS


def test_an_old_beat_is_no_sign_of_life() -> None:
    made = listed()
    made.beat("a", 7, 0)
    made.due(600 * MS)
    assert made.beat("a", 7, 700 * MS) is None
    assert made.beat("a", 3, 700 * MS) is None
    assert made.level("a") == "evict"


def test_peers_beyond_the_bound_are_counted_and_forgotten() -> None:
    made = listed(2)
    for name in "abcd":
        made.beat(name, None, 0)
    assert not made.watch("e", 0)
    assert made.watch("a", 0)
    assert (made.names(), made.refused) == (["a", "b"], 3)
    assert made.forget("a")
    assert not made.forget("a")
    assert made.watch("e", 0)
    with pytest.raises(KeyError):
        made.level("d")


def test_one_who_was_never_heard_is_suspected_too() -> None:
    made = listed()
    made.watch("a", 0)
    made.due(500 * MS)
    assert made.level("a") == "evict"


def test_an_accusation_is_put_off_and_looked_at_again() -> None:
    made = listed()
    made.beat("a", None, 0)
    made.beat("b", None, 0)
    put_off = made.due(200 * MS, may_accuse=False, retry_ns=550 * MS)
    assert put_off == [Postponed("a", 2.0), Postponed("b", 2.0)]
    assert made.next_ns() == 550 * MS
    made.beat("b", None, 540 * MS)
    assert made.due(550 * MS, may_accuse=False, retry_ns=600 * MS) == []  # told once
    assert [(one.peer, one.after) for one in made.due(600 * MS) if isinstance(one, Change)] == [
        ("a", "evict")
    ]
    assert made.level("b") == "trusted"


def test_a_deadline_that_moves_forward_is_not_slept_through() -> None:
    made = Watchlist(lambda: PhiAccrual(first=5.0, window=4, cap=60.0), Levels(), 10)
    for n in range(10):
        made.beat("a", n, n * STEP)
    assert made.next_ns() < 1500 * MS
    made.due(1500 * MS)
    assert made.level("a") == "evict"


def test_a_retry_in_the_past_does_not_go_round_for_ever() -> None:
    made = listed()
    made.beat("a", None, 0)
    assert len(made.due(200 * MS, may_accuse=False, retry_ns=0)) == 1
    assert made.next_ns() == 200 * MS + 1


def test_the_heap_stays_small_however_many_come_and_go() -> None:
    made = listed(3)
    for n in range(1000):
        made.beat("a", None, n * MS)
        made.beat(str(n), None, n * MS)
        made.forget(str(n))
        made.due(n * MS)
    assert len(made._heap) <= 22


def test_a_stop_that_is_known_is_a_detection() -> None:
    made = listed()
    made.beat("a", None, 0)
    made.stopped("a", 10 * MS)
    made.due(500 * MS)
    assert made.quality("a", 600 * MS).detection == 0.49
    assert made.snapshot(600 * MS)["a"]["level"] == "evict"


# --- the monitor ---------------------------------------------------------------------------------


def test_changes_come_as_events_by_callback_and_by_iterator() -> None:
    async def main() -> tuple[list[Any], list[Any], list[Event]]:
        events, called = heard(), list[Any]()
        async with HeartbeatMonitor(fixed, on_change=called.append, name="m") as monitor:
            changes = monitor.changes()
            monitor.beat("a", 1)
            await sleep(0.3)
            monitor.beat("a", 2)
            await sleep(0.1)
        return [one async for one in changes], called, events

    iterated, called, events = in_sim(main)
    assert iterated == called == events
    assert [type(one) for one in iterated] == [PeerSuspected, PeerSuspected, PeerTrusted]
    first, second, last = iterated
    assert (first.monitor, first.peer, first.reached) == ("m", "a", "watch")
    assert first.silence == pytest.approx(0.15, abs=0.002)
    assert (second.reached, last.before) == ("avoid", "avoid")
    assert last.silence == pytest.approx(0.3, abs=0.002)


def test_a_stopped_sender_is_evicted_within_half_a_second_by_default() -> None:
    async def main() -> tuple[str, float]:
        world = current_world()
        async with HeartbeatMonitor() as monitor:
            async with Heartbeat(lambda seq: monitor.beat("a", seq)):
                await sleep(30.0)
                assert monitor.level("a") == "trusted"
            stopped = world.clock.monotonic_ns()
            async for change in monitor.changes():
                assert isinstance(change, PeerSuspected)
                if change.reached == "evict":
                    break
            monitor.forget("b")
            return monitor.level("a"), (world.clock.monotonic_ns() - stopped) / 1e9

    level, took = in_sim(main)
    assert level == "evict"
    assert 0.3 < took <= 0.5


def test_a_stop_of_our_own_accuses_nobody() -> None:
    async def main(gated: bool) -> tuple[list[Event], int]:
        world, events = current_world(), heard()
        local = LocalHealth() if gated else None
        async with HeartbeatMonitor(fixed, local=local) as monitor:

            async def other_side() -> None:
                # Beats arrive while we stand still, and are read when we go on.
                for n in range(40):
                    await sleep(0.1)
                    world.timers.call_at(
                        world.clock.monotonic_ns() + MS, lambda n=n: monitor.beat("a", n)
                    )

            task = world.spawn.task(other_side(), name="other side")
            await sleep(2.0)
            world.clock.pause(0.9)
            await sleep(1.0)
            task.cancel()
            return [one for one in events if isinstance(one, PeerSuspected)], monitor.postponed

    accused, _ = in_sim(lambda: main(False))
    assert accused
    accused, postponed = in_sim(lambda: main(True))
    assert accused == []
    assert postponed >= 1


def test_who_really_stopped_meanwhile_is_accused_when_we_are_well() -> None:
    async def main() -> tuple[list[Event], str]:
        world, events = current_world(), heard()
        local = LocalHealth()
        async with HeartbeatMonitor(fixed, local=local) as monitor:
            monitor.beat("a", 0)
            await sleep(0.1)
            world.clock.pause(0.9)
            await sleep(0.2)
            assert monitor.level("a") == "trusted"
            assert monitor.suspicion("a") > 8.0
            await sleep(0.35)
            level = monitor.level("a")
        assert not local.running
        return [one for one in events if isinstance(one, AccusationPostponed)], level

    postponed, level = in_sim(main)
    assert level == "evict"
    assert len(postponed) == 1


def test_a_health_that_was_started_elsewhere_goes_on() -> None:
    async def main() -> bool:
        async with LocalHealth() as local:
            async with HeartbeatMonitor(local=local):
                pass
            return local.running

    assert in_sim(main)


def test_a_callback_that_fails_stops_nothing() -> None:
    async def main() -> tuple[list[str], str]:
        failures: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context["message"]))

        def fails(_: object) -> None:
            raise ValueError

        async with HeartbeatMonitor(fixed, on_change=fails) as monitor:
            monitor.beat("a")
            await sleep(1.0)
            return failures, monitor.level("a")

    failures, level = in_sim(main)
    assert (len(failures), level) == (3, "evict")


def test_an_iterator_nobody_reads_keeps_the_newest_and_counts() -> None:
    async def main() -> tuple[int, int]:
        async with HeartbeatMonitor(lambda: Fixed(0.002), levels=Levels(8.0, 8.0)) as monitor:
            changes, dropped = monitor.changes(), monitor.changes()
            del dropped
            for n in range(600):
                monitor.beat("a", n)
                await sleep(0.01)
        kept = [one async for one in changes]
        return len(kept), changes.lost

    kept, lost = in_sim(main)
    assert kept == 1024
    assert kept + lost == 1199


def test_waiting_for_a_change_can_be_cancelled_and_loses_none() -> None:
    async def main() -> Any:
        async with HeartbeatMonitor(fixed) as monitor:
            changes = monitor.changes()
            monitor.beat("a")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(changes)
            return await anext(changes)

    assert in_sim(main).reached == "watch"


def test_peers_can_be_watched_before_they_speak_and_forgotten_after() -> None:
    async def main() -> tuple[dict[str, str], dict[str, str]]:
        async with HeartbeatMonitor(fixed, peers_max=2) as monitor:
            assert monitor.watch("a")
            assert monitor.watch("b")
            assert not monitor.watch("c")
            await sleep(0.6)
            before = monitor.peers()
            assert monitor.forget("a")
            return dict(before), dict(monitor.peers())

    assert in_sim(main) == ({"a": "evict", "b": "evict"}, {"b": "evict"})


def test_a_monitor_is_found_by_name_and_tells_settings_and_state() -> None:
    async def main() -> None:
        monitor = HeartbeatMonitor(fixed, local=LocalHealth(), name="seen")
        assert monitor in watched()
        assert monitor.snapshot() == {"running": False, "peers": {}, "refused": 0, "postponed": 0}
        with pytest.raises(ConfigError, match="it does not run"):
            monitor.beat("a")
        async with monitor:
            with pytest.raises(ConfigError, match="it runs already"):
                monitor.start()
            monitor.beat("a")
            await sleep(0.2)
            monitor.stopped("a")
            assert monitor.quality("a").mistakes == 0
            snapshot = monitor.snapshot()["peers"]["a"]
            assert (snapshot["level"], snapshot["beats"]) == ("watch", 1)
            assert repr(monitor) == "<HeartbeatMonitor 'seen' peers=1 suspected=1>"
        settings = monitor.describe()
        assert settings["detector"]["kind"] == "Fixed"
        assert settings["levels"] == {"watch": 1.0, "avoid": 3.0, "evict": 8.0}
        assert settings["local"]["kind"] == "LocalHealth"
        monitor.stop()

    in_sim(main)


def test_the_number_of_peers_is_checked() -> None:
    with pytest.raises(ConfigError, match="peers_max is 0"):
        HeartbeatMonitor(peers_max=0)


# --- the sender ----------------------------------------------------------------------------------


def test_beats_keep_to_the_grid_and_are_numbered_by_the_wall_clock() -> None:
    async def main() -> tuple[list[tuple[int, int]], int]:
        world = current_world()
        start, wall = world.clock.monotonic_ns(), world.clock.wall_ns()
        sent: list[tuple[int, int]] = []

        async def send(seq: int) -> None:
            sent.append((seq, world.clock.monotonic_ns() - start))
            await sleep(0.03)

        async with Heartbeat(send) as heartbeat:
            await sleep(1.05)
            assert heartbeat.snapshot()["sent"] == 11
        return sent, wall // STEP

    sent, first = in_sim(main)
    assert [seq - first for seq, _ in sent] == list(range(11))
    assert all(abs(at - n * STEP) < 2 * MS for n, (_, at) in enumerate(sent))


def test_beats_whose_time_has_passed_are_left_out_and_told() -> None:
    async def main() -> tuple[list[int], list[Event], Heartbeat]:
        world, events, sent = current_world(), heard(), list[int]()
        async with Heartbeat(sent.append, name="h") as heartbeat:
            await sleep(0.25)
            world.clock.pause(0.5)
            await sleep(0.3)
        return sent, events, heartbeat

    sent, events, heartbeat = in_sim(main)
    steps = [b - a for a, b in pairwise(sent)]
    assert sum(steps) == 10
    (missed,) = events
    assert isinstance(missed, HeartbeatsMissed)
    assert missed.count == heartbeat.missed == 10 - len(steps)
    assert missed.late > 0.2
    assert missed.heartbeat == "h"


def test_a_send_that_fails_is_told_once_and_tried_again() -> None:
    async def main() -> tuple[list[Event], Heartbeat]:
        events, tries = heard(), list[int]()

        def send(seq: int) -> None:
            tries.append(seq)
            if 3 < len(tries) < 7:
                raise ConnectionError("gone")

        async with Heartbeat(send) as heartbeat:
            await sleep(0.95)
        return events, heartbeat

    events, heartbeat = in_sim(main)
    assert (heartbeat.sent, heartbeat.failed) == (7, 3)
    (failed,) = events
    assert isinstance(failed, HeartbeatFailed)
    assert failed.error == "ConnectionError: gone"


def test_a_send_that_hangs_is_cancelled_before_the_beat_after_the_next() -> None:
    async def main() -> Heartbeat:
        async def send(_: int) -> None:
            await sleep(1000.0)

        async with Heartbeat(send) as heartbeat:
            await sleep(1.05)
        return heartbeat

    heartbeat = in_sim(main)
    assert heartbeat.sent == 0
    assert heartbeat.failed >= 5


def test_a_sender_that_was_started_again_goes_on_above() -> None:
    async def main() -> list[int]:
        sent: list[int] = []
        heartbeat = Heartbeat(sent.append)
        async with heartbeat:
            with pytest.raises(ConfigError, match="it runs already"):
                heartbeat.start()
            await sleep(0.05)
        heartbeat.stop()
        async with heartbeat:
            await sleep(0.05)
        return sent

    first, second = in_sim(main)
    assert second == first + 1


def test_a_sender_is_found_by_name_and_checks_its_settings() -> None:
    heartbeat = Heartbeat(print, 0.5, name="found")
    assert heartbeat in watched()
    assert heartbeat.describe() == {"kind": "Heartbeat", "name": "found", "interval": 0.5}
    assert repr(heartbeat) == "<Heartbeat 'found' seq=None sent=0 missed=0>"
    with pytest.raises(ConfigError, match="send is 3"):
        Heartbeat(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"interval is 0\.0"):
        Heartbeat(print, 0.0)


def test_one_seed_gives_one_story() -> None:
    async def main() -> list[tuple[str, float]]:
        events = heard()
        async with HeartbeatMonitor(local=LocalHealth()) as monitor:
            async with Heartbeat(lambda seq: monitor.beat("a", seq)):
                await sleep(3.0)
                current_world().clock.pause(0.3)
                await sleep(1.0)
            await sleep(1.0)
            return [(type(one).__name__, getattr(one, "silence", 0.0)) for one in events]

    assert in_sim(main) == in_sim(main)
