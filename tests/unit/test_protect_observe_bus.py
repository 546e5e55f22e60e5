"""The bus that threads share, and the registry of what is alive."""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from outlast.host import default_world
from outlast.kernel import Event, EventBus
from outlast.kernel import registry as registry_module
from outlast.kernel.registry import on_watch, watch, watched


@dataclass(frozen=True, slots=True, kw_only=True)
class Said(Event):
    """For these tests."""

    word: str = ""


class Thing:
    name = "thing"

    def describe(self) -> dict[str, Any]:
        return {}

    def snapshot(self) -> dict[str, Any]:
        return {}


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Other tests may have left things alive."""
    kept, hooks = dict(registry_module._live), list(registry_module._hooks)
    registry_module._live.clear()
    registry_module._hooks.clear()
    yield
    registry_module._live.clear()
    registry_module._live.update(kept)
    registry_module._hooks[:] = hooks


def test_subscribers_hear_each_event_in_the_order_of_subscription() -> None:
    bus, heard = EventBus(), list[str]()
    bus.subscribe(lambda event: heard.append("first"))
    bus.subscribe(lambda event: heard.append("second"))
    bus.emit(Said())
    assert heard == ["first", "second"]


def test_one_that_raises_is_dropped_and_the_others_hear_everything() -> None:
    bus, heard = EventBus(), list[Event]()

    def broken(event: Event) -> None:
        raise ValueError("no")

    bus.subscribe(broken)
    bus.subscribe(heard.append)
    bus.emit(Said())
    bus.emit(Said())
    assert len(heard) == 2
    assert [str(error) for error in bus.dropped] == ["no"]


def test_unsubscribing_takes_away_that_subscription_alone_and_a_second_time_nothing() -> None:
    bus, heard = EventBus(), list[Event]()
    first = bus.subscribe(heard.append)
    bus.subscribe(heard.append)
    first()
    first()
    bus.emit(Said())
    assert len(heard) == 1


def test_one_that_is_subscribed_twice_and_raises_twice_is_dropped_twice() -> None:
    bus = EventBus()

    def broken(event: Event) -> None:
        raise ValueError("no")

    bus.subscribe(broken)
    bus.subscribe(broken)
    bus.emit(Said())
    bus.emit(Said())
    assert len(bus.dropped) == 2


def test_a_subscriber_may_subscribe_and_unsubscribe_while_it_is_called() -> None:
    bus, heard = EventBus(), list[str]()
    end: list[Callable[[], None]] = []

    def once(event: Event) -> None:
        heard.append("once")
        end[0]()
        bus.subscribe(lambda event: heard.append("later"))

    end.append(bus.subscribe(once))
    bus.emit(Said())
    bus.emit(Said())
    assert heard == ["once", "later"]


def test_threads_that_subscribe_at_the_same_time_are_all_heard() -> None:
    bus = EventBus()
    counts = [0] * 8
    ready = threading.Barrier(8)

    def work(number: int) -> None:
        def count(event: Event) -> None:
            counts[number] += 1

        ready.wait()
        for _ in range(200):
            bus.subscribe(lambda event: None)()
            bus.emit(Said())
        bus.subscribe(count)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts[:] = [0] * 8
    bus.emit(Said())
    assert counts == [1] * 8
    assert len(bus._subscribers) == 8


def test_a_tuple_made_before_another_thread_subscribed_does_not_stay() -> None:
    bus, heard = EventBus(), list[str]()

    class Slow(dict[int, Any]):
        """Lets another subscription happen between the copy and what is made of it."""

        def copy(self) -> dict[int, Any]:
            made = dict(self)
            if len(self) == 1:
                self[99] = lambda event: heard.append("meanwhile")
            return made

    bus._entries = Slow()
    bus.subscribe(lambda event: heard.append("own"))
    bus.emit(Said())
    assert heard == ["own", "meanwhile"]


def test_the_bus_of_the_process_is_still_heard_in_a_child_of_fork() -> None:
    read, write = os.pipe()
    end = default_world().events.subscribe(  # type: ignore[attr-defined]
        lambda event: os.write(write, b"heard")
    )
    child = os.fork()
    if child == 0:
        default_world().events.emit(Said())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    end()
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"heard"


def test_what_is_watched_is_found_in_order_and_once() -> None:
    first, second = Thing(), Thing()
    watch(first)
    watch(second)
    watch(first)
    assert watched() == [first, second]


def test_what_has_died_is_not_found_and_its_id_may_be_used_again() -> None:
    for _ in range(50):
        watch(Thing())
    gc.collect()
    assert watched() == []
    assert registry_module._live == {}


def test_a_hook_sees_what_begins_to_be_watched_until_it_is_removed() -> None:
    seen: list[object] = []
    remove = on_watch(seen.append)
    first, second = Thing(), Thing()
    watch(first)
    remove()
    remove()
    watch(second)
    assert seen == [first]


def test_what_a_hook_refuses_is_not_watched() -> None:
    def refuse(thing: object) -> None:
        assert watched() == [thing]
        raise ValueError("no")

    on_watch(refuse)
    one = Thing()
    with pytest.raises(ValueError, match="no"):
        watch(one)
    assert watched() == []
