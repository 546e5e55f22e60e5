"""A Redis server of one's own, on a socket in a folder: started, killed, started again."""

import signal
import subprocess
import time
from pathlib import Path

from tools import engines


class RedisServer:
    """A real Redis (tools/engines.py) that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "redis.sock"
        self.log = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        """Start it and return when it answers."""
        program = engines.ensure("redis")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(program), "--port", "0", "--unixsocket", str(self.path), "--save", "",
                    "--appendonly", "no", "--dir", str(self.path.parent),
                ],
                stdout=log, stderr=log, env=engines.environment("redis"),
            )  # fmt: skip
        import redis

        until = time.monotonic() + 60
        while True:
            try:
                with redis.Redis.from_url(self.url) as client:
                    client.ping()
                return
            except redis.ConnectionError:
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() < until, self.log.read_text()
                time.sleep(0.01)

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(60)
            self._process = None
