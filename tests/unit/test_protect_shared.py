"""The link to a store: what it asks, what it leaves alone, and what goes on without it."""

import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import (
    CircuitOpenError,
    ConfigError,
    Event,
    InvariantError,
    RateLimitedError,
    UnavailableError,
)
from outlast.protect.breaker import CircuitBreaker
from outlast.protect.budget import Budget
from outlast.protect.core.fleet import Lease
from outlast.protect.events import StoreLost, StoreRegained
from outlast.protect.policy import Policy
from outlast.protect.rate import RateLimit
from outlast.protect.shared import LOST, Shared, share_breaker, shared_of
from outlast.protect.store import (
    KeyedStore,
    MemoryStore,
    RedisStore,
    SqliteStore,
    Store,
    open_store,
)
from outlast.protect.store.keyed import Rule
from outlast.testing import virtual_time
from tests.support.store_bench import Bytes, HandClock, hand_world

MS = 1_000_000


class Flaky(Bytes):
    """Counts what it is asked, and may be away."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.asked = 0
        self.away = False

    def transact(self, key: str, rule: Rule) -> Any:
        self.asked += 1
        if self.away:
            raise ConnectionError("away")
        return super().transact(key, rule)


class Scene:
    def __init__(self, clock: HandClock, events: list[Event]) -> None:
        self.clock = clock
        self.events = events
        self.store = Flaky(node="me")

    def pass_ms(self, ms: int) -> None:
        self.clock.now_ns += ms * MS

    def said(self) -> list[type[Event]]:
        return [type(one) for one in self.events if isinstance(one, StoreLost | StoreRegained)]


@pytest.fixture
def scene() -> Iterator[Scene]:
    clock = HandClock()
    events: list[Event] = []
    with hand_world(clock) as world:
        world.events.subscribe(events.append)  # type: ignore[attr-defined]
        yield Scene(clock, events)


def others(store: KeyedStore, breaker: CircuitBreaker, nodes: str = "ab") -> int:
    """Let other nodes agree that the callee fails, and return the epoch."""
    link: Any = breaker.shared
    for node in nodes:
        epoch = store.view("api").epoch
        view = store.report("api", node, epoch, True, link.rules())
        view = store.report("api", node, view.epoch, True, link.rules())
    return int(view.epoch)


# --- breakers ------------------------------------------------------------------------------------


def test_a_breaker_opens_and_closes_with_the_others(scene: Scene) -> None:
    breaker = CircuitBreaker(recovery_timeout=1, name="api", store=scene.store)
    shared = shared_of(scene.store)
    shared.sync()
    others(scene.store, breaker)
    shared.sync()
    assert breaker.state == "OPEN"
    with pytest.raises(CircuitOpenError):
        breaker.try_admit()
    scene.pass_ms(1_001)
    breaker.try_admit().succeed()
    assert breaker.state == "CLOSED"
    assert scene.store.view("api").state == "closed"


def test_a_probe_of_the_fleet_is_had_by_one_and_not_asked_for_again_at_once(
    scene: Scene,
) -> None:
    breaker = CircuitBreaker(recovery_timeout=1, name="api", store=scene.store)
    epoch = others(scene.store, breaker)
    shared_of(scene.store).sync()
    scene.pass_ms(1_001)
    link: Any = breaker.shared
    theirs = scene.store.lease_probe("api", "a", epoch, 5_000, link.rules())
    for _ in range(3):
        asked = scene.store.asked
        with pytest.raises(CircuitOpenError, match="others have its probes"):
            breaker.try_admit()
    assert scene.store.asked == asked
    assert theirs is not None
    scene.store.settle(theirs, True, link.rules())
    shared_of(scene.store).sync()
    assert breaker.state == "CLOSED"


def test_a_cancelled_probe_gives_its_lease_back(scene: Scene) -> None:
    breaker = CircuitBreaker(recovery_timeout=1, name="api", store=scene.store)
    epoch = others(scene.store, breaker)
    shared_of(scene.store).sync()
    scene.pass_ms(1_001)
    breaker.try_admit().cancel()
    link: Any = breaker.shared
    assert isinstance(scene.store.lease_probe("api", "a", epoch, 9, link.rules()), Lease)


def test_a_breaker_that_opened_alone_probes_alone_and_asks_nobody(scene: Scene) -> None:
    breaker = CircuitBreaker(1, 1.0, name="api", store=scene.store)
    shared_of(scene.store).sync()
    breaker.try_admit().fail(OSError())
    asked = scene.store.asked
    scene.pass_ms(1_001)
    breaker.try_admit().succeed()
    assert breaker.state == "CLOSED"
    assert scene.store.asked == asked


def test_what_is_to_be_shared_needs_a_name(scene: Scene) -> None:
    limit = RateLimit(1, per=60, store=scene.store)
    budget = Budget(floor=1, window=1, store=scene.store)
    with pytest.raises(ConfigError, match="RateLimit: store= needs a name"):
        limit.try_acquire()
    with pytest.raises(ConfigError, match="Budget: store= needs a name"):
        budget.try_spend()
    with pytest.raises(ConfigError, match="CircuitBreaker: store= needs a name"):
        CircuitBreaker(1, 1.0, store=scene.store).call(lambda: 1)
    with pytest.raises(ConfigError, match="CircuitBreaker: store= needs a name"):
        CircuitBreaker(1, 1.0, store=scene.store).try_admit()
    shared_of(scene.store).close()
    assert scene.store.asked == 0


def test_a_disabled_breaker_reports_nothing(scene: Scene) -> None:
    breaker = CircuitBreaker(name="api", store=scene.store)
    breaker.disable()
    shared_of(scene.store).sync()
    assert scene.store.view("api").reporters == 0
    breaker.enable()
    shared_of(scene.store).sync()
    assert scene.store.view("api").reporters == 1


def test_close_takes_the_report_back_and_asks_nothing_more(scene: Scene) -> None:
    breaker = CircuitBreaker(name="api", store=scene.store)
    shared = shared_of(scene.store)
    shared.sync()
    shared.close()
    assert scene.store.view("api").reporters == 0
    asked = scene.store.asked
    shared.sync()
    assert scene.store.asked == asked
    assert breaker.state == "CLOSED"


def test_a_breaker_that_nobody_holds_is_let_go(scene: Scene) -> None:
    import gc

    breaker = CircuitBreaker(name="api", store=scene.store)
    assert len(shared_of(scene.store)._clients) == 1
    del breaker
    gc.collect()
    assert len(shared_of(scene.store)._clients) == 0


# --- a store that is away ------------------------------------------------------------------------


def test_a_lost_store_is_told_once_left_alone_for_a_while_and_regained(scene: Scene) -> None:
    breaker = CircuitBreaker(1, 1.0, name="api", store=scene.store)
    shared = shared_of(scene.store)
    shared.sync()
    scene.store.away = True
    for _ in range(5):
        shared.sync()
    assert scene.said() == [StoreLost]
    asked = scene.store.asked
    breaker.try_admit().fail(OSError())
    scene.pass_ms(200)
    shared.sync()
    assert scene.store.asked == asked
    scene.store.away = False
    scene.pass_ms(1_000)
    shared.sync()
    assert scene.said() == [StoreLost, StoreRegained]
    assert scene.store.view("api").bad == 1
    assert not shared.lost


def test_a_store_that_is_lost_while_half_open_leaves_the_probe_to_the_node(scene: Scene) -> None:
    breaker = CircuitBreaker(recovery_timeout=1, name="api", store=scene.store)
    others(scene.store, breaker)
    shared_of(scene.store).sync()
    scene.store.away = True
    scene.pass_ms(1_001)
    breaker.try_admit().succeed()
    assert breaker.state == "CLOSED"


def test_an_invariant_error_is_not_taken_for_a_lost_store(scene: Scene) -> None:
    def broken() -> None:
        raise InvariantError("our bug")

    with pytest.raises(InvariantError):
        Shared(scene.store).ask(broken)


def test_any_other_error_of_a_store_is_a_lost_store(scene: Scene) -> None:
    def odd() -> None:
        raise ZeroDivisionError

    shared = Shared(scene.store)
    assert shared.ask(odd) is LOST
    assert shared.lost


# --- rates and budgets ---------------------------------------------------------------------------


def test_slots_are_leased_some_at_a_time(scene: Scene) -> None:
    limit = RateLimit(1_000, burst=100, store=scene.store, name="r")
    assert all(limit.try_acquire() for _ in range(100))
    assert not limit.try_acquire()
    assert scene.store.asked <= 4


def test_processes_together_start_no_more_than_the_burst_the_rate_and_one_lease(
    scene: Scene,
) -> None:
    limits = []
    for number in range(5):
        store: Any = Flaky(node=f"n{number}")
        store._values, store._lock = scene.store._values, scene.store._lock
        limits.append(RateLimit(200, burst=20, store=store, name="r"))
    started = 0
    for _ in range(100):
        scene.pass_ms(10)
        started += sum(limit.try_acquire() for limit in limits)
    assert 180 <= started <= 20 + 200 * 1.05


def test_slots_that_were_not_used_in_time_are_given_up(scene: Scene) -> None:
    limit = RateLimit(100, burst=5, store=scene.store, name="r")
    assert limit.try_acquire()
    scene.pass_ms(60)
    asked = scene.store.asked
    assert limit.try_acquire()
    assert scene.store.asked > asked


def test_a_shared_rate_waits_refuses_and_takes_back(scene: Scene) -> None:
    limit = RateLimit(1, burst=1, max_wait=1.5, store=scene.store, name="r")
    assert limit.reserve(scene.clock.now_ns) == 0
    assert limit.reserve(scene.clock.now_ns) == 1_000 * MS
    with pytest.raises(RateLimitedError) as caught:
        limit.reserve(scene.clock.now_ns)
    assert caught.value.retry_after == pytest.approx(0.5)
    assert limit.give_back(scene.clock.now_ns + 1_000 * MS)
    assert limit.reserve(scene.clock.now_ns) == 1_000 * MS
    assert RateLimit(10, burst=5, store=scene.store, name="c").try_acquire(cost=5)


def test_a_slot_that_begins_later_than_a_caller_can_wait_stays(scene: Scene) -> None:
    limit = RateLimit(1, burst=1, max_wait=5, store=scene.store, name="r")
    limit.reserve(scene.clock.now_ns)
    due = scene.clock.now_ns + limit.reserve(scene.clock.now_ns)
    limit.give_back(due)
    assert not limit.try_acquire()
    assert limit.reserve(scene.clock.now_ns) == 1_000 * MS


def test_a_rate_whose_store_is_lost_is_kept_locally(scene: Scene) -> None:
    limit = RateLimit(1, burst=2, store=scene.store, name="r")
    scene.store.away = True
    assert [limit.try_acquire() for _ in range(3)] == [True, True, False]
    assert not limit.core.give_back(0)
    assert scene.said() == [StoreLost]


def test_a_budget_is_earned_by_the_calls_of_all(scene: Scene) -> None:
    two: Any = Flaky(node="two")
    two._values = scene.store._values
    mine = Budget(ratio=0.1, floor=0, store=scene.store, name="b")
    theirs = Budget(ratio=0.1, floor=0, store=two, name="b")
    for _ in range(50):
        theirs.deposit()
    shared_of(two).sync()
    assert [mine.try_spend() for _ in range(6)] == [True] * 5 + [False]
    assert mine.snapshot()["refused"] == 1
    assert not theirs.try_spend()


def test_tokens_that_were_lately_spent_are_held_ready(scene: Scene) -> None:
    budget = Budget(ratio=1, floor=0, store=scene.store, name="b")
    for _ in range(8):
        budget.deposit()
    assert [budget.try_spend() for _ in range(3)] == [True] * 3
    shared_of(scene.store).sync()
    asked = scene.store.asked
    assert [budget.try_spend() for _ in range(3)] == [True] * 3
    assert scene.store.asked == asked


def test_a_budget_whose_store_is_lost_is_kept_locally_and_its_deposits_are_not_lost(
    scene: Scene,
) -> None:
    budget = Budget(ratio=1, floor=1, window=1, store=scene.store, name="b")
    budget.try_spend()
    scene.store.away = True
    for _ in range(4):
        budget.deposit()
    assert budget.try_spend()
    scene.store.away = False
    scene.pass_ms(2_000)
    shared_of(scene.store).sync()
    assert sum(budget.try_spend() for _ in range(9)) >= 4


# --- the rest ------------------------------------------------------------------------------------


def test_in_a_simulation_a_task_does_what_the_thread_does() -> None:
    async def main(lab: sim.Lab) -> tuple[int, float]:
        store = MemoryStore(interval=0.5)
        breaker = CircuitBreaker(name="api", store=store)
        shared = shared_of(store)
        import asyncio

        task = asyncio.create_task(shared.pump())
        await lab.sleep(10)
        task.cancel()
        assert breaker.state == "CLOSED"
        assert shared._thread is None
        return store.view("api").reporters, lab.now

    assert sim.run(main)[0] == 1


@pytest.mark.parametrize(
    ("url", "kind"), [("memory:", "MemoryStore"), ("memory://", "MemoryStore"),
                      ("sqlite:a.db", "SqliteStore"), ("redis://h/0", "RedisStore")],
)  # fmt: skip
def test_a_url_names_a_store(url: str, kind: str) -> None:
    store = open_store(url, interval=2.0)
    assert type(store).__name__ == kind
    assert isinstance(store, Store)
    assert store.interval == 2.0


@pytest.mark.parametrize("url", ["", "memory:x", "sqlite:", "http://x", "redis:", "x" * 90])
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="names no store"):
        open_store(url)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("timeout", 0), ("interval", -1), ("interval", float("inf")), ("quorum", 0), ("quorum", 1.1),
     ("min_nodes", 0), ("min_nodes", True), ("min_nodes", 1.5), ("node", "x" * 65)],
)  # fmt: skip
def test_settings_of_a_store_are_checked(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=setting):
        MemoryStore(**{setting: value})


def test_an_sqlite_file_that_cannot_be_opened_is_a_store_that_cannot_answer(
    tmp_path: Any,
) -> None:
    store = SqliteStore(tmp_path / "no" / "such.db")
    with pytest.raises(UnavailableError, match="cannot answer"):
        store.view("x")
    (tmp_path / "junk.db").write_bytes(b"not a database" * 100)
    with pytest.raises(UnavailableError, match="DatabaseError"):
        SqliteStore(tmp_path / "junk.db").view("x")


def test_an_sqlite_file_is_for_its_owner_only(tmp_path: Any) -> None:
    store = SqliteStore(tmp_path / "state.db")
    store.take("r", 1, 1_000, 1, 0)
    assert (tmp_path / "state.db").stat().st_mode & 0o077 == 0
    store.close()


def test_records_that_expired_leave_the_sqlite_file(tmp_path: Any) -> None:
    clock = HandClock()
    with hand_world(clock):
        store = SqliteStore(tmp_path / "state.db")
        for number in range(60):
            store.begin(f"k{number}", "", MS, "t")
        clock.now_ns += 10 * MS
        for _ in range(10):
            store.take("r", 1, 1_000, 1, 0)
        left = store._connection.execute("SELECT count(*) FROM outlast_state").fetchone()[0]
        assert left == 1
        store.close()


def test_two_links_to_one_store_in_one_process_are_two_nodes(scene: Scene) -> None:
    links = [Shared(scene.store, node=name) for name in "ab"]
    breakers = [CircuitBreaker(1, name="api") for _ in links]
    for link, breaker in zip(links, breakers, strict=True):
        share_breaker(breaker, link)
    for _ in range(2):
        for link in links:
            link.sync()
        for breaker in breakers:
            if breaker.state == "CLOSED":
                breaker.try_admit().fail(OSError())
    assert scene.store.view("api").state == "open"


def test_a_memory_store_forgets_what_expires_first_when_it_is_full(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.protect.store.memory._KEYS_MAX", 3)
    store = MemoryStore()
    for number in range(5):
        store.take(f"r{number}", 1_000 * (9 - number), 10**6, 1, 0)
    assert len(store._values) == 3


def test_without_the_redis_package_the_command_to_install_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r'the redis store needs redis: pip install "outlast'):
        open_store("redis://h/0")


def test_a_redis_store_needs_a_url_that_is_one() -> None:
    with pytest.raises(ConfigError, match="url is not one"):
        RedisStore("http://h/0")
    with pytest.raises(ConfigError, match="either url or client"):
        RedisStore()


def test_policies_ask_the_store_for_their_slots() -> None:
    store = MemoryStore()
    one, two = (Policy(rate=RateLimit(2, per=3600.0, store=store, name="r")) for _ in range(2))
    with virtual_time():
        assert [one.call(int), two.call(int)] == [0, 0]
        for policy in (one, two):
            with pytest.raises(RateLimitedError):
                policy.call(int)


# --- the thread ----------------------------------------------------------------------------------


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "outlast-shared"]


def gone(thread: threading.Thread) -> bool:
    thread.join(15.0)
    return not thread.is_alive()


class Apart(MemoryStore):
    """As if it were in another process."""

    local = False


def test_parts_of_one_store_have_one_thread_and_it_ends_when_the_store_is_closed() -> None:
    before = threads()
    store = Apart(interval=60.0)
    breakers = [CircuitBreaker(5, 30, store=store, name=f"b{n}") for n in range(3)]
    limit = RateLimit(5, store=store, name="r")
    (thread,) = set(threads()) - set(before)
    shared_of(store).close()
    assert gone(thread)
    assert limit.try_acquire()
    assert breakers[0].state == "CLOSED"


def test_a_store_that_nobody_uses_any_more_leaves_no_thread_behind() -> None:
    before = threads()
    for _ in range(5):
        CircuitBreaker(5, 30, store=Apart(interval=60.0), name="b")
    started = set(threads()) - set(before)
    assert 1 <= len(started) <= 5
    while started & set(threads()):  # one at work holds its store for a moment
        gc.collect()
        threading.Event().wait(0.01)


def test_the_thread_goes_on_while_a_part_of_the_store_is_used() -> None:
    before = threads()
    breaker = CircuitBreaker(5, 30, store=Apart(interval=0.01), name="b")
    (thread,) = set(threads()) - set(before)
    gc.collect()
    shared_of(breaker.store).wake()
    thread.join(0.05)
    assert thread.is_alive()
    shared_of(breaker.store).close()
    assert gone(thread)


def test_in_virtual_time_there_is_no_thread() -> None:
    before = threads()
    with virtual_time():
        breaker = CircuitBreaker(5, 30, store=Apart(), name="b")
        assert set(threads()) <= set(before)
    assert breaker.state == "CLOSED"
