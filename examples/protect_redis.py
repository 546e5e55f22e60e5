"""Protect Redis by redis-py: connections of its own, and sockets that keep to the deadline."""

import socketserver
from threading import Thread
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry as RedisRetry

from outlast import Bulkhead, CircuitBreaker, Fallback, Policy, Retry, deadline, happened
from outlast.protect import classify, remaining


class Connection(redis.Connection):
    """Waits on its socket no longer than the deadline of the call that uses it."""

    def _connect(self) -> Any:
        self.socket_connect_timeout = remaining(1.0)
        return super()._connect()

    def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        self.update_current_socket_timeout(remaining(self.socket_timeout))
        super().send_packed_command(*args, **kwargs)


def client(host: str, port: int, size: int) -> redis.Redis:
    pool = redis.ConnectionPool(
        connection_class=Connection, host=host, port=port, max_connections=size, protocol=2,
        socket_timeout=2.0, retry=RedisRetry(NoBackoff(), 0))  # fmt: skip
    return redis.Redis.from_pool(pool)


def failed(error: Exception) -> bool:
    """Whether Redis failed; that it says no, or we do, is no failure."""
    return isinstance(error, redis.RedisError) and classify(error) != "permanent"


# As many permits as connections: callers wait in the queue, where their deadline counts.
READS = Policy(
    "prices", timeout=1, retry=Retry(on=failed, base=0.01), limit=Bulkhead(10, queue=50),
    breaker=CircuitBreaker(5, 30, counts=failed), fallback=Fallback(b"a price of yesterday"),
)  # fmt: skip
# The same parts for what must not be done twice.
UNSENT = Retry(on=lambda error: failed(error) and happened(error) == "no", base=0.01)
CHANGES = READS.replace(name="changes", fallback=None, retry=UNSENT)
KEPT = dict[bytes, bytes]()


class Server(socketserver.StreamRequestHandler):  # which never answers about "slow"
    def handle(self) -> None:
        while head := self.rfile.readline():
            sizes = (int(self.rfile.readline()[1:]) for _ in range(int(head[1:])))
            match [self.rfile.read(size + 2)[:-2] for size in sizes]:
                case [b"GET", b"slow"]:
                    pass
                case [b"GET", key]:
                    self.wfile.write(b"$%d\r\n%s\r\n" % (len(KEPT[key]), KEPT[key]))
                case [_, *words]:
                    KEPT[words[0]] = words[-1]
                    self.wfile.write(b"+OK\r\n")


def main() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        prices = client(*server.server_address, size=10)
        print("set:", CHANGES.call(prices.set, "EUR", "1.08"))
        print("get:", READS.call(prices.get, "EUR"))
        with deadline(0.1):  # the socket would wait for 2 s
            print("slow:", READS.call(prices.get, "slow"))
        prices.close()
        server.shutdown()


def test_it_runs() -> None:
    main()


if __name__ == "__main__":
    main()
