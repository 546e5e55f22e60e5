"""``Members``: who else is in the group, and who has failed, as one of its members sees it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from outlast.detect.core.swim import api
from outlast.detect.core.swim.api import Member, MemberState
from outlast.detect.core.swim.settings import SwimSettings
from outlast.detect.members_driver import Confirm, Driver
from outlast.detect.members_events import SeedsUnanswered
from outlast.detect.members_feed import Audience, EventFeed
from outlast.detect.members_net import resolve
from outlast.detect.members_pause import Fitness
from outlast.detect.members_seal import check_keys, make_key, make_seal
from outlast.detect.members_view import DEFAULT_PORT
from outlast.kernel import ConfigError, DeadlineError, Prng, World, current_world
from outlast.kernel.registry import watch
from outlast.wire.address import Address, is_loopback, parse_address

if TYPE_CHECKING:
    from outlast.detect.core.swim.node import SwimNode

Profile = Literal["lan", "fast", "wan"]

_PROFILES: Final = {"lan": SwimSettings.lan, "fast": SwimSettings.fast, "wan": SwimSettings.wan}
_ANY: Final = ("0.0.0.0", "::")  # noqa: S104 - what stands for all addresses, not bound to here
_THERE: Final = (MemberState.ALIVE, MemberState.SUSPECT)


class Members:
    """A member of a group that knows who else is in it: SWIM with Lifeguard's refinements.

    Each member probes another one every ``probe_interval``, directly, then through three others
    and over TCP; who does not answer is suspected, may object, and is removed if it does not.
    News travel on the probes. What one member sends does not grow with the group. A process
    whose port refuses connections is gone, and is removed sooner than one that is silent.

    Use it as ``async with``, or :meth:`start` and :meth:`leave`. Not thread-safe: it belongs to
    the loop on which it was started. After a fork the child has none. What :meth:`members`
    returns are opinions of this member, and others may hold different ones for a while: where
    two must never act at once, decide by a lease or a log.

    Args:
        name: Its identity in the group; 1 to 64 characters. A second living process of the same
            name is not obeyed (:class:`~outlast.detect.NameConflict`).
        bind: ``HOST:PORT`` for UDP and TCP; port 0 takes a free one.
        seeds: Addresses of members to join through, in any order; its own is skipped. With none,
            it waits for others to join it.
        key: Shared secret of 32 bytes (:meth:`make_key`), or several: the first closes, all
            open, so that keys can be changed one after another. Without, ``bind`` must be a
            loopback address.
        encrypt: Encrypt messages; ``False`` only authenticates them. Equal on all members.
        advertise: ``HOST[:PORT]`` where others reach it, if that is not ``bind``. A name is
            looked up once.
        metadata: What it says of itself; at most 512 bytes as sent.
        profile: ``"lan"``, ``"fast"``, ``"wan"``, or :class:`~outlast.detect.SwimSettings`.
        on_unreachable: Asked before a member is removed: ``True`` says that it is dead, ``False``
            keeps it as ``unreachable`` until the next time. A function or coroutine function.
            One that raises, or takes longer than 10 s, keeps it.
        local: Whether this process itself is fit to accuse others, such as
            :class:`~outlast.detect.LocalHealth`; by default judged by the lateness of its timer.
        insecure: Accept an address that is not loopback without a key: whoever reaches the port
            may then say who is alive.
        join_timeout: Seconds that :meth:`start` waits for a first seed, which need not answer.
        events_max: How many events a slow reader may be behind.
        world: Clock, timers, events; the current world at the start by default.

    Raises:
        ConfigError: Definite. An argument is wrong.

    Attributes:
        name: Its name.
        address: Where others reach it, ``IP:PORT``; empty before the start.
        settings: Its :class:`~outlast.detect.SwimSettings`.
    """

    def __init__(
        self,
        name: str,
        *,
        bind: str = f"127.0.0.1:{DEFAULT_PORT}",
        seeds: Sequence[str] = (),
        key: bytes | Sequence[bytes] | None = None,
        encrypt: bool = True,
        advertise: str | None = None,
        metadata: Mapping[str, str] | None = None,
        profile: Profile | SwimSettings = "lan",
        on_unreachable: Confirm | None = None,
        local: Fitness | None = None,
        insecure: bool = False,
        join_timeout: float = 5.0,
        events_max: int = 1024,
        world: World | None = None,
    ) -> None:
        if not (1 <= len(name.encode()) <= 64 and name.isprintable()):
            raise ConfigError(f"Members: name is {name!r}; 1 to 64 bytes, all printable")
        if not 0 < join_timeout < 1e6 or events_max < 1:
            message = f"join_timeout is {join_timeout}, events_max {events_max}; both above 0"
            raise ConfigError(f"Members {name}: {message}")
        self.name = name
        self.address = ""
        keys = check_keys(key)
        self._bind = parse_address(bind, default_port=DEFAULT_PORT)
        self._advertise = _advertised(name, self._bind, advertise)
        if not (keys or insecure or is_loopback(self._bind.host)):
            message = (
                f"Members {name}: bind is {bind}; without a key only a loopback address is"
                " accepted: give key=Members.make_key(), the same to all, or insecure=True"
            )
            raise ConfigError(message)
        self._seeds = _parse_seeds(seeds)
        self._metadata = dict(metadata or {})
        self._hook = on_unreachable
        self.settings = replace(_settings(profile), confirm=on_unreachable is not None)
        self._modes = ("none", "signed", "encrypted")[bool(keys) + bool(keys and encrypt)]
        self._seal = make_seal(keys, encrypt=encrypt)
        self._local = local
        self._join_timeout = join_timeout
        self._world = world
        self._audience = Audience(name, events_max)
        self._driver: Driver | None = None
        self._state: Literal["new", "running", "leaving", "closed"] = "new"

    # --- life --------------------------------------------------------------------------------

    @staticmethod
    def make_key() -> bytes:
        """Return a new key, for all members of one group."""
        return make_key()

    async def start(self) -> None:
        """Listen, and join: returns when a seed has answered, or none does.

        It goes on asking then, and emits :class:`~outlast.detect.SeedsUnanswered`. Cancellation
        closes.

        Raises:
            OSError: Definite. The port is in use, the address not ours, or a name not found.
            ConfigError: Definite. It was started before, the metadata is too long, or it was
                closed meanwhile.
        """
        if self._state != "new":
            raise ConfigError(f"Members {self.name} was started before; make a new one")
        self._state = "running"
        world = self._world or current_world()
        driver = self._driver = Driver(
            self.name, world, self._seal, self._audience, hook=self._hook, local=self._local
        )
        try:
            bind = parse_address(await resolve(self._bind.host, self._bind.port))
            await driver.net.open(bind.host, bind.port)
            port = self._advertise.port or driver.net.port
            self.address = await resolve(self._advertise.host, port)
            seeds = await _resolved(self._seeds)
            self._check_open()
            driver.node = _make_node(self, self._metadata, world)
            watch(self)
            join = driver.expect(seeds, self.address)
            driver.feed(api.Started(seeds))
            answered = join is None or await driver.joined(join, self._join_timeout)
            self._check_open()
        except BaseException:
            await self.close()
            raise
        if not answered:
            after = self._join_timeout
            driver.tell(SeedsUnanswered(node=self.name, seeds=seeds, after=after))

    async def join(self, seeds: Sequence[str], *, timeout: float = 5.0) -> None:
        """Join through further seeds; returns when one of them has told us all it knows.

        Raises:
            DeadlineError: Indefinite. None has answered within ``timeout`` seconds, or all
                refused; it goes on asking.
            OSError: Definite. A name is not found.
            ConfigError: Definite. A seed is no address, or this member does not run.
        """
        driver = self._running()
        found = await _resolved(_parse_seeds(seeds))
        join = driver.expect(found, self.address)
        driver.feed(api.Started(found))
        if join is not None and not await driver.joined(join, timeout):
            raise DeadlineError(f"Members {self.name}: none of {', '.join(found)} has answered")

    async def leave(self) -> None:
        """Say good-bye, so that nobody suspects it, and close. A second time only waits.

        Waits for a few to acknowledge, at most ``leave_timeout`` of the settings and a bit.
        Cancellation closes at once.
        """
        driver = self._driver
        try:
            if self._state == "running" and driver is not None and driver.node is not None:
                self._state = "leaving"
                driver.feed(api.Leave())
            if self._state == "leaving" and driver is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.leave_timeout + 1.0):
                        # Shielded: it may be awaited twice, and cancelled once.
                        await asyncio.shield(driver.left)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close without a word: the others will find out. A second time does nothing."""
        self._state = "closed"
        try:
            if self._driver is not None:
                await self._driver.close()
        finally:
            self._audience.end()

    async def __aenter__(self) -> Self:
        """Start; see :meth:`start`."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave; see :meth:`leave`."""
        await self.leave()

    # --- what is known -----------------------------------------------------------------------

    def members(self) -> tuple[Member, ...]:
        """Return all members that are known, itself and those lately removed included."""
        node = self._core()
        return () if node is None else node.members()

    def member(self, name: str) -> Member | None:
        """Return what is known of one member, ``None`` for nothing."""
        node = self._core()
        return None if node is None else node.member(name)

    def alive(self) -> tuple[Member, ...]:
        """Return those that are there: alive, or suspected, which is no fact yet."""
        return tuple(member for member in self.members() if member.state in _THERE)

    def events(self) -> EventFeed:
        """Return the events from now on, to be read with ``async for``; ends when this does.

        All of them go to ``world.events``, too.
        """
        feed = self._audience.feed()
        if self._state == "closed":
            feed.end()
        return feed

    def watch(self, callback: Callable[[Member], None]) -> Callable[[], None]:
        """Call ``callback`` with each member that changes; return a function that ends that.

        It must return at once. One that raises is removed, and the loop's exception handler told.
        """
        return self._audience.watch(callback)

    def set_metadata(self, metadata: Mapping[str, str]) -> None:
        """Replace what this member says of itself, and tell the others.

        Raises:
            ConfigError: Definite. It is longer than 512 bytes as sent, or this does not run.
        """
        self._running().feed(api.SetMetadata(dict(metadata)))

    def describe(self) -> dict[str, Any]:
        """Return the settings, as values that JSON knows."""
        names = self.settings.__slots__
        return {
            "name": self.name,
            "bind": str(self._bind),
            "seeds": [str(seed) for seed in self._seeds],
            "protection": self._modes,
            "settings": {name: getattr(self.settings, name) for name in names},
        }

    def snapshot(self) -> dict[str, Any]:
        """Return the live state, as values that JSON knows."""
        driver, node = self._driver, self._core()
        net = None if driver is None else driver.net
        counts = ("sent_packets", "sent_bytes", "received_packets", "received_bytes", "dropped")
        return {
            "state": self._state,
            "address": self.address,
            "members": [] if driver is None else driver.rows(),
            "traffic": {name: getattr(net, name, 0) for name in counts},
            "core": {} if node is None else node.snapshot(),
        }

    def __repr__(self) -> str:
        """Return name, address and counts."""
        known, there = len(self.members()), len(self.alive())
        return f"<Members {self.name} {self._state} {self.address} {there} of {known} there>"

    def _core(self) -> "SwimNode | None":
        return None if self._driver is None else self._driver.node

    def _check_open(self) -> None:
        if self._state not in ("running", "leaving"):
            raise ConfigError(f"Members {self.name} was closed while it started")

    def _running(self) -> Driver:
        driver = self._driver
        if self._state != "running" or driver is None or driver.node is None:
            raise ConfigError(f"Members {self.name} is {self._state}; start it first")
        return driver


def _settings(profile: object) -> SwimSettings:
    if isinstance(profile, SwimSettings):
        return profile
    made = _PROFILES.get(profile) if isinstance(profile, str) else None
    if made is None:
        names = ", ".join(_PROFILES)
        raise ConfigError(f"Members: profile is {profile!r}; one of {names}, or SwimSettings")
    return made()


def _parse_seeds(seeds: Sequence[str]) -> tuple[Address, ...]:
    given = seeds.split(",") if isinstance(seeds, str) else list(seeds)
    found = (parse_address(one, default_port=DEFAULT_PORT) for one in given if one.strip())
    return tuple(dict.fromkeys(found))


def _advertised(name: str, bind: Address, given: str | None) -> Address:
    """Return where others reach it; port 0 stands for the one that is bound."""
    found = bind if given is None else parse_address(given, default_port=bind.port)
    if found.host in _ANY:
        message = (
            f"Members {name}: others cannot reach {found.host}; give advertise, the address of"
            " this machine in their network"
        )
        raise ConfigError(message)
    return found


async def _resolved(seeds: Sequence[Address]) -> tuple[str, ...]:
    found = [await resolve(seed.host, seed.port) for seed in seeds]
    return tuple(dict.fromkeys(found))


def _make_node(members: Members, metadata: Mapping[str, str], world: World) -> "SwimNode":
    try:
        from outlast.detect.core.swim.node import SwimNode
    except ModuleNotFoundError as error:
        if error.name != "msgspec":
            raise
        message = 'Members needs msgspec: pip install "outlast[members]"'
        raise ConfigError(message) from None
    me = api.Me(members.name, members.address, metadata)
    return SwimNode(members.settings, me, Prng(world.prng.bits64()))
