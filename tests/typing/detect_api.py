"""Noticing failure as a user's type checker sees it; read by checkers, never run.

Each line with an ignore must be an error: both checkers are told to object to needless ones.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedCallResult=false

from collections.abc import Awaitable, Callable
from typing import assert_type

from outlast import Drain, Health, HeartbeatMonitor, Members, Pool, Supervisor, Watchdogs
from outlast.detect import (
    Child,
    ChildStatus,
    Detector,
    Ending,
    Fixed,
    GroupHealth,
    Guard,
    Heartbeat,
    Ladder,
    LevelName,
    LocalHealth,
    LoopWatchdog,
    Member,
    MemberDead,
    PeerTrusted,
    PhiAccrual,
    Plan,
    Status,
    checks,
    for_goal,
)
from outlast.kernel import Event
from outlast.pool import Endpoint, Outlier, http_check, p2c, peak_ewma

health = Health(name="shop")
health.add("queue", checks.tcp("127.0.0.1:5672"), every=2.0, fail_after=2)
health.add("disk", checks.disk_space("/", min_free=1), groups=("liveness", "readiness"))


@health.check("warm", group="startup")
def warm(limit: int = 3) -> tuple[Status, str]:
    """A decorated check stays what it was."""
    return Status.OK, str(limit)


@health.check("database", every=2.0)
async def database() -> bool:
    """A coroutine function, too."""
    return True


def of(queue: str) -> bool:
    """No check: nobody gives it its argument."""
    return bool(queue)


def said() -> str:
    """No check: text is no finding."""
    return "well"


async def healthy() -> None:
    assert_type(warm(limit=5), tuple[Status, str])
    assert_type(await database(), bool)
    warm(limit="5")  # type: ignore[arg-type]
    health.check("number")(of)  # type: ignore[type-var]
    health.check("said")(said)  # type: ignore[type-var]
    health.add("number", 5)  # type: ignore[arg-type]
    health.add("late", database, groups="someday")  # type: ignore[arg-type]
    health.progress("consumer", within=30.0).stamp()
    health.progress("consumer", 30.0)  # type: ignore[call-arg]
    async with health as same, Drain(health, delay=5, within=25) as drain:
        assert_type(same, Health)
        assert_type(health.read("readiness"), GroupHealth)
        assert_type(health.read("readiness").results[0].status, Status)
        with drain.working():
            drain.begin("done")
        assert_type(await drain.wait(), int)
    health.read("ready")  # type: ignore[arg-type]


async def member(found: Member) -> None:
    """Asked before a member is removed."""
    assert_type(found.name, str)


async def group() -> None:
    key = Members.make_key()
    async with Members("n1", key=key, seeds=["10.0.0.2"], profile="fast") as members:
        assert_type(members, Members)
        assert_type(members.alive(), tuple[Member, ...])
        assert_type(members.member("n2"), Member | None)
        async for event in members.events():
            assert_type(event, Event)
            if isinstance(event, MemberDead):
                assert_type(event.member, Member)
                assert_type(event.accusers, tuple[str, ...])
        end = members.watch(lambda changed: print(changed.state))
        assert_type(end, Callable[[], None])
    Members("n1", profile="slow")  # type: ignore[arg-type]
    Members("n1", on_unreachable=5)  # type: ignore[arg-type]


def beats(detector: Detector) -> None:
    assert_type(detector.suspicion(0), float)
    detectors: list[Detector] = [PhiAccrual(), Fixed(0.5)]
    detectors.append(5)  # type: ignore[arg-type]


async def monitored() -> None:
    plan = for_goal(detect_within=1.0, mistakes_per_day=1, loss=0.01)
    assert_type(plan, Plan)
    async with HeartbeatMonitor(plan.detector, local=LocalHealth()) as monitor:
        async with Heartbeat(lambda number: monitor.beat("db", number), interval=0.1):
            assert_type(monitor.level("db"), LevelName)
        async for change in monitor.changes():
            if not isinstance(change, PeerTrusted):
                assert_type(change.silence, float)
    HeartbeatMonitor(PhiAccrual())  # type: ignore[arg-type]


async def watched() -> None:
    act = Ladder(("event", "not_ready"), after=(0, 5))
    async with Watchdogs(LoopWatchdog(stall=0.5, act=act), health=health, guard=Guard()) as all_:
        assert_type(all_, Watchdogs)
    Ladder(("shout",))  # type: ignore[arg-type]


async def consume(queue: str) -> None:
    """A child."""
    print(queue)


def blocks() -> None:
    """A thread's function, called every so often."""


async def supervised() -> None:
    inner = Supervisor(Child.task("consumer", consume, args=("q",)), name="intake")
    tree = Supervisor(
        Child.command("web", ["python", "-m", "web"], ready=8080, restart="transient"),
        Child.thread("poller", blocks, every=1.0),
        inner,
        strategy="rest_for_one",
        health=health,
    )
    async with tree as same:
        assert_type(same, Supervisor)
        assert_type(same.child("web"), ChildStatus)
        assert_type(same.child("web").restarts, int)
        assert_type(await same.ended(), Ending)
    assert_type(tree.run(), int)
    Supervisor(consume)  # type: ignore[arg-type]
    Supervisor(inner, strategy="all_for_one")  # type: ignore[arg-type]
    Child.task("poller", blocks)  # type: ignore[arg-type]


pool = Pool(
    "shop",
    ["http://a", "http://b"],
    pick=p2c(peak_ewma()),
    eject=Outlier(consecutive=3),
    check=http_check("/readyz"),
)


def order(endpoint: Endpoint, number: int, *, twice: bool = False) -> str:
    """Plain."""
    return f"{endpoint} {number} {twice}"


async def order_async(endpoint: Endpoint, number: int) -> bytes:
    """A coroutine."""
    return f"{endpoint} {number}".encode()


async def called() -> None:
    """A call keeps arguments and result, and is given the instance."""
    async with pool:
        assert_type(pool.call(order, 5, twice=True), str)
        assert_type(await pool.call(order_async, 5), bytes)
        assert_type(pool.acall(order_async, 5), Awaitable[bytes])
        pool.call(order)  # type: ignore[call-arg]
        pool.call(order, "five")  # type: ignore[arg-type]
        pool.call(order, 5, thrice=True)  # type: ignore[call-arg]
        pool.call(len)  # type: ignore[arg-type]
        with pool.endpoint() as one:
            assert_type(one, Endpoint)
            assert_type(one.address, str)
        async with pool.endpoint(avoid=["http://a"]) as other:
            other.lied("wrong total")
    Pool("shop", pick="best")  # type: ignore[call-arg]
