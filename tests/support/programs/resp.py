"""A small server that speaks Redis' protocol over asyncio streams, with an append-only file.

It knows of no simulator, and its clients are redis-py's. ``early`` plants a bug: answers leave
before the file is synced.
"""

import asyncio
import contextlib
import json
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = bytes | int | None | list[Any]
STATUS = {b"OK", b"PONG", b"QUEUED"}


class RedisError(Exception):
    """What is answered as an error."""


def encode(answer: Any) -> bytes:
    if answer is None:
        return b"$-1\r\n"
    if isinstance(answer, RedisError):
        return f"-{answer}\r\n".encode()
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, list):
        return b"*%d\r\n" % len(answer) + b"".join(map(encode, answer))
    if answer in STATUS:
        return b"+%s\r\n" % answer
    return b"$%d\r\n%s\r\n" % (len(answer), answer)


async def read_command(reader: asyncio.StreamReader) -> list[bytes]:
    """Return the words of the next command; none at the end."""
    head = await reader.readline()
    if not head.endswith(b"\n"):
        return []
    words = []
    for _ in range(int(head[1:])):
        length = int((await reader.readline())[1:])
        words.append((await reader.readexactly(length + 2))[:-2])
    return words


class Server:
    """Keys and sets, and who listens to which channel."""

    def __init__(self, path: Path, *, early: bool) -> None:
        self.path = path
        self.early = early
        self.keys: dict[bytes, bytes] = {}
        self.sets: defaultdict[bytes, dict[bytes, None]] = defaultdict(dict)
        self.lists: defaultdict[bytes, list[bytes]] = defaultdict(list)
        self.pushed = asyncio.Condition()
        self.channels: defaultdict[bytes, dict[asyncio.StreamWriter, None]] = defaultdict(dict)
        self.writing = asyncio.Lock()
        self.later: set[asyncio.Task[None]] = set()

    # --- the file ---

    def load(self) -> None:
        with self.path.open("ab+") as file:
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            file.truncate(whole)
            os.fsync(file.fileno())
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        for line in content[:whole].splitlines():
            self.change([word.encode() for word in json.loads(line)])

    def append(self, words: list[bytes]) -> None:
        line = json.dumps([word.decode() for word in words]).encode() + b"\n"
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    # --- commands ---

    def change(self, words: list[bytes]) -> Answer:
        """Carry out what changes something."""
        match [words[0].upper(), *words[1:]]:
            case [b"SET", key, value, *options]:
                if b"NX" in (option.upper() for option in options) and key in self.keys:
                    return None
                self.keys[key] = value
                return b"OK"
            case [b"INCR" | b"INCRBY", key, *by]:
                count = int(self.keys.get(key, b"0")) + int(by[0] if by else 1)
                self.keys[key] = b"%d" % count
                return count
            case [b"DEL", *keys]:
                return sum(self.keys.pop(key, None) is not None for key in keys)
            case [b"SADD", key, *members]:
                before = len(self.sets[key])
                self.sets[key].update(dict.fromkeys(members))
                return len(self.sets[key]) - before
            case [b"RPUSH", key, *values]:
                self.lists[key] += values
                return len(self.lists[key])
        raise RedisError(f"ERR unknown command '{words[0].decode()}'")

    def look(self, words: list[bytes]) -> Answer:
        match [words[0].upper(), *words[1:]]:
            case [b"PING", *_]:
                return b"PONG"
            case [b"CLIENT", *_] | [b"SELECT", _]:
                return b"OK"
            case [b"GET", key]:
                return self.keys.get(key)
            case [b"SCARD", key]:
                return len(self.sets[key])
            case [b"SMEMBERS", key]:
                return list(self.sets[key])
        raise RedisError(f"ERR unknown command '{words[0].decode()}'")

    async def execute(self, words: list[bytes]) -> Any:
        name = words[0].upper()
        if name == b"BLPOP":
            return await self.pop(words[1], float(words[2]))
        if name not in {b"SET", b"INCR", b"INCRBY", b"DEL", b"SADD", b"RPUSH"}:
            return self.look(words)
        async with self.writing:
            if self.early:
                self.later.add(task := asyncio.create_task(asyncio.to_thread(self.append, words)))
                task.add_done_callback(self.later.discard)
            else:
                try:
                    await asyncio.to_thread(self.append, words)
                except OSError as error:
                    return RedisError(f"MISCONF {error}")
            answer = self.change(words)
        if name == b"RPUSH":
            async with self.pushed:
                self.pushed.notify_all()
        return answer

    async def pop(self, key: bytes, seconds: float) -> Answer:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds or None), self.pushed:
                await self.pushed.wait_for(lambda: self.lists[key])
                return [key, self.lists[key].pop(0)]
        return None

    def publish(self, channel: bytes, message: bytes) -> int:
        for writer in self.channels[channel]:
            writer.write(encode([b"message", channel, message]))
        return len(self.channels[channel])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while words := await read_command(reader):
                match [words[0].upper(), *words[1:]]:
                    case [b"SUBSCRIBE", channel]:
                        self.channels[channel][writer] = None
                        answer: Any = [b"subscribe", channel, 1]
                    case [b"PUBLISH", channel, message]:
                        answer = self.publish(channel, message)
                    case _:
                        try:
                            answer = await self.execute(words)
                        except RedisError as error:
                            answer = error
                writer.write(encode(answer))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for listeners in self.channels.values():
                listeners.pop(writer, None)
            writer.close()


async def main(
    host: str = "0.0.0.0",
    port: int = 6379,
    path: Path = Path("appendonly.jsonl"),
    *,
    early: bool = False,
    ready: Callable[[int], None] = lambda _: None,
) -> None:
    server = Server(path, early=early)
    await asyncio.to_thread(server.load)
    listening = await asyncio.start_server(server.serve, host, port)
    ready(listening.sockets[0].getsockname()[1])
    async with listening:
        await listening.serve_forever()
