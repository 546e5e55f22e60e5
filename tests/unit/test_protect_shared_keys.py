"""Parts that processes share: under the name that they need, and by the key of ``Keyed``."""

import enum
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from outlast.kernel import ConfigError, Event, RateLimitedError, current_world
from outlast.protect import Budget, CircuitBreaker, Hedge, Keyed, Policy, RateLimit, Retry
from outlast.protect.shared import shared_of
from outlast.protect.shared_key import key_digest
from outlast.protect.store import KeyedStore, MemoryStore
from outlast.testing import virtual_time


@pytest.fixture(autouse=True)
def virtual() -> Iterator[Any]:
    with virtual_time() as clock:
        yield clock


def get(host: Any) -> Any:
    if host == "down":
        raise ConnectionError(host)
    return host


def hosts(store: KeyedStore) -> Keyed[CircuitBreaker]:
    return Keyed(lambda: CircuitBreaker(1, 10, store=store), by=lambda host: host)


def process(node: str, backend: MemoryStore) -> MemoryStore:
    """Return what another process has for a store: the same records, another link to them."""
    store = MemoryStore(node=node, min_nodes=1)
    store._values = backend._values
    return store


# --- by key --------------------------------------------------------------------------------------


def test_a_host_that_is_down_closes_no_other_hosts_circuit() -> None:
    store = MemoryStore(min_nodes=1)
    policy = Policy("web", breaker=hosts(store))
    with pytest.raises(ConnectionError):
        policy.call(get, "down")
    policy.call(get, "up")
    for _ in range(5):
        shared_of(store).sync()
        assert policy.call(get, "up") == "up"
    assert policy.snapshot()["breaker"] == {"keys": 2, "states": {"CLOSED": 1, "OPEN": 1}}


def test_the_same_key_is_one_breaker_in_all_processes() -> None:
    backend = MemoryStore()
    stores = [process(name, backend) for name in "ab"]
    mine, theirs = (hosts(store) for store in stores)
    ask, ask_too = Policy("web", breaker=mine)(get), Policy("web", breaker=theirs)(get)
    ask_too("up")
    theirs.part("down")
    with pytest.raises(ConnectionError):
        ask("down")
    for _ in range(3):
        for store in stores:
            shared_of(store).sync()
    assert theirs.part("down").state == "OPEN"
    assert theirs.part("up").state == "CLOSED"
    assert all(key.startswith("breaker:web:") for key in backend._values)


def test_each_customer_has_a_rate_of_its_own_and_it_is_one_for_all_processes() -> None:
    backend = MemoryStore()
    policies = [
        Policy("api", rate=Keyed(lambda s=s: RateLimit(1, per=60, store=s), by=str))  # type: ignore[misc]
        for s in (process("a", backend), process("b", backend))
    ]
    for host in ("x", "y"):
        assert policies[0].call(get, host) == host
    for host in ("x", "y"):
        with pytest.raises(RateLimitedError):
            policies[1].call(get, host)
    assert policies[1].call(get, "z") == "z"


def test_events_name_the_policy_and_not_the_key() -> None:
    events: list[Event] = []
    current_world().events.subscribe(events.append)  # type: ignore[attr-defined]
    with pytest.raises(ConnectionError):
        Policy("web", breaker=hosts(MemoryStore())).call(get, "down")
    assert {event.name for event in events} == {"web"}  # type: ignore[attr-defined]


def test_a_name_that_was_given_in_make_is_shared_by_key_too() -> None:
    store = MemoryStore()
    keyed = Keyed(lambda: CircuitBreaker(1, 10, store=store, name="h"), by=str)
    names = {keyed.part(key).shared.store_name for key in "ab"}  # type: ignore[union-attr]
    assert len(names) == 2
    assert all(name.startswith("h:") for name in names)


class Colour(enum.IntEnum):
    RED = 1


class Place(NamedTuple):
    host: str
    port: int


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True), (1, Colour.RED), ("a", Text("a")), (("h", 1), Place("h", 1)),
        ((b"x", (None, 2)), (b"x", (None, 2))),
    ],
)  # fmt: skip
def test_keys_that_are_equal_are_one_key_in_the_store(one: Any, other: Any) -> None:
    assert one == other
    assert key_digest(one) == key_digest(other)


def test_keys_that_differ_are_different_keys_in_the_store() -> None:
    keys = ["1", 1, b"1", ("1",), (1,), ((1,),), ("1", "1"), "", (), None, "é", "e", "'1', '1'"]
    assert len({key_digest(key) for key in keys}) == len(keys)
    # Known to processes of other versions, too.
    assert key_digest(("é", 1)) == "4742074091011edff9eebd77c444d5d9"


@pytest.mark.parametrize("key", [object(), 1.5, frozenset({1}), ("a", 2.0), get])
def test_a_key_that_differs_between_processes_is_refused_where_they_share(key: Any) -> None:
    shared, alone = hosts(MemoryStore()), Keyed(lambda: CircuitBreaker(1, 10), by=str)
    with pytest.raises(ConfigError, match="Keyed: with store= a key is"):
        Policy("web", breaker=shared).call(get, key)
    assert len(shared) == 0
    assert alone.part(key).state == "CLOSED"


# --- under a name --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("CircuitBreaker", lambda s: {"breaker": CircuitBreaker(5, 30, store=s)}),
        ("RateLimit", lambda s: {"rate": RateLimit(5, store=s)}),
        ("Budget", lambda s: {"retry": Retry(on=OSError, budget=Budget(store=s))}),
        ("Budget", lambda s: {"hedge": Hedge(1.0, budget=Budget(store=s))}),
        ("Keyed", lambda s: {"breaker": hosts(s)}),
    ],
)
def test_a_policy_without_a_name_cannot_share_a_part_without_one(kind: str, part: Any) -> None:
    store = MemoryStore()
    with pytest.raises(ConfigError, match=f"{kind}: store= needs a name"):
        Policy(**part(store))
    assert Policy("web", **part(store)).call(get, "up") == "up"


def test_a_part_with_a_name_is_shared_by_a_policy_without_one() -> None:
    policy = Policy(breaker=CircuitBreaker(5, 30, store=MemoryStore(), name="b"))
    assert policy.call(get, "up") == "up"


@pytest.mark.parametrize("part", [CircuitBreaker, RateLimit])
def test_a_part_without_a_name_cannot_be_shared_alone(part: Any) -> None:
    with pytest.raises(ConfigError, match=f"{part.__name__}: store= needs a name"):
        part(5, 30, store=MemoryStore())(get)


def extra_attempts(*nodes: str) -> int:
    backend, budgets = MemoryStore(), list[Budget]()
    for node in nodes:
        budgets.append(Budget(0, 1, 10, store=process(node, backend)))
        Policy("web", retry=Retry(on=OSError, budget=budgets[-1]))
    granted = sum(budget.try_spend() for _ in range(50) for budget in budgets)
    assert list(backend._values) == ["budget:web"]
    return granted


def test_a_budget_is_shared_under_the_name_of_its_policy() -> None:
    assert extra_attempts("a", "b") == extra_attempts("a") > 0
