"""State shared by the processes of a fleet, in Redis."""

from typing import Any, Final

from outlast.kernel import ConfigError, UnavailableError, current_world
from outlast.protect.core.shares import NS, OUTCOME_BYTES_MAX, Taken
from outlast.protect.store.keyed import KeyedStore, Rule, key_of

_VALUE_MAX: Final = OUTCOME_BYTES_MAX + 65_536
_ROUNDS_MAX: Final = 32

_READ: Final = """
local now = redis.call('TIME')
local value = redis.call('GETRANGE', KEYS[1], 0, ARGV[1])
return {now[1], now[2], value}
"""
# Set, or delete, if the value is still what the rule was applied to. '' stands for none: no
# record of ours is empty.
_SWAP: Final = """
if redis.call('GETRANGE', KEYS[1], 0, ARGV[1]) ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return 1
"""
# The rule of shares.take, in one round trip since it is the one under contention. Numbers are
# doubles here, so it counts in microseconds; the record is in nanoseconds as everywhere.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = ARGV[1] / 1000, ARGV[2] / 1000
local cost, most = tonumber(ARGV[3]), ARGV[4] / 1000
local held = redis.call('GETRANGE', KEYS[1], 0, 18)
local reach = now
if string.len(held) > 3 and string.match(held, '^%d+$') then
  reach = tonumber(string.sub(held, 1, -4)) + tonumber(string.sub(held, -3)) / 1000
end
if reach < now or reach > now + burst + 3600000000 then
  reach = now
end
local after = reach + cost * interval
local wait = math.max(0, after - burst - now)
if wait > most then
  return {0, string.format('%.0f', wait * 1000)}
end
local whole = math.floor(after)
local rest = math.min(999, math.floor((after - whole) * 1000 + 0.5))
redis.call('SET', KEYS[1], string.format('%.0f%03d', whole, rest),
           'PX', string.format('%.0f', (after - now) / 1000 + 60000))
return {1, string.format('%.0f', wait * 1000)}
"""


class RedisStore(KeyedStore):
    """A store in Redis (5 or later), for processes on many hosts.

    Every key begins with ``prefix`` and has a time to live. Leases and rates run by the server's
    clock. A record is changed by a script that compares what the rule saw with what is there, a
    rate by a script that is the rule. Several servers behind one address (a cluster, a replica
    that takes over) may forget the last changes: then a probe too many is made, and no more.

    Safe to share between threads and to carry through a fork. Connects on first use.

    Args:
        url: ``redis://host:6379/0``, or ``rediss://…``; as redis-py takes it.
        prefix: What keys begin with.
        client: A ``redis.Redis`` of your own instead of ``url``; with timeouts set, and without
            ``decode_responses``.
        **settings: As for every store; see ``KeyedStore``.

    Raises:
        ConfigError: A value is out of range, or the package ``redis`` is missing.
    """

    def __init__(
        self, url: str = "", *, prefix: str = "outlast:", client: Any = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ModuleNotFoundError as error:
            message = 'the redis store needs redis: pip install "outlast[redis]"'
            raise ConfigError(message) from error
        if bool(url) == (client is not None):
            raise ConfigError("RedisStore: either url or client is needed")
        if client is None:
            try:
                client = redis.Redis.from_url(
                    url, socket_timeout=self.timeout, socket_connect_timeout=self.timeout,
                    retry=Retry(NoBackoff(), 0),
                )  # fmt: skip
            except ValueError as error:
                message = "RedisStore: url is not one; redis://host:port/number would be right"
                raise ConfigError(message) from error
        self.prefix = prefix
        self._client = client
        self._read = client.register_script(_READ)
        self._swap = client.register_script(_SWAP)
        self._take = client.register_script(_TAKE)

    def transact(self, key: str, rule: Rule) -> Any:
        """Read, apply ``rule``, swap; again while others were faster and there is time."""
        keys = [self.prefix + key]
        clock = current_world().clock
        until_ns = clock.monotonic_ns() + int(self.timeout * NS)
        for _ in range(_ROUNDS_MAX):
            seconds, micros, value = self._read(keys=keys, args=[_VALUE_MAX])
            now_ns = int(seconds) * NS + int(micros) * 1000
            data, keep_ns, answer = rule(value or None, now_ns)
            if data is None:
                return answer
            keep_ms = max(1, -(-keep_ns // 1_000_000))
            if self._swap(keys=keys, args=[_VALUE_MAX, value, data, keep_ms]):
                return answer
            if clock.monotonic_ns() > until_ns:
                break
        raise UnavailableError(f"the store {self.where()} cannot answer: too many at one record")

    def take(
        self, name: str, interval_ns: int, burst_ns: int, cost: int, max_wait_ns: int
    ) -> Taken:
        """Take slots; see ``FleetStore.take``."""
        granted, wait_ns = self._script(name, [interval_ns, burst_ns, cost, max_wait_ns])
        return Taken(granted=bool(granted), wait_ns=int(wait_ns))

    def _script(self, name: str, args: list[int]) -> Any:
        try:
            return self._take(keys=[self.prefix + key_of("rate", name)], args=args)
        except Exception as error:
            message = f"the store {self.where()} cannot answer: {type(error).__name__}: {error}"
            raise UnavailableError(message) from error

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        self._client.close()

    def where(self) -> str:
        """Return ``redis:`` and the address, without user or password."""
        given = self._client.connection_pool.connection_kwargs
        place = given.get("path") or f"{given.get('host', '')}:{given.get('port', '')}"
        return f"redis:{place}"
