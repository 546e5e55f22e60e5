"""Gathers commands into entries, and gives each command the answer that its apply gave.

All commands submitted in one turn of the event loop go into one entry, so the busier a node
is, the fewer entries, frames and messages each command costs. Many entries are under way at
once. A repeat of a request that is under way waits for the same apply; a repeat of one that
was applied is answered from its session without a new entry.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from outlast.kernel import (
    ConfigError,
    Deadline,
    KeyReusedError,
    LogFailedError,
    OutlastError,
    OverloadedError,
    ProtocolError,
    World,
)
from outlast.log import Log
from outlast.state.core.envelope import Command, decode_command, overhead_bytes
from outlast.state.core.reply import Reply, encode_reply, error_reply
from outlast.state.core.session import Kept, SessionTable, fingerprint
from outlast.state.settings import ReplicaSettings

Answer = Callable[[bytes], None]
"""Takes one encoded :class:`.Reply`; must not raise and not wait."""


class _Waiting:
    """Those who wait for the apply of one request."""

    __slots__ = ("answers", "command")

    def __init__(self, command: Command, answer: Answer) -> None:
        self.command = command
        self.answers = [answer]


class Batcher:
    """Turns commands into entries. Driven from one event loop.

    Args:
        world: Clock and tasks.
        log: Takes the entries.
        pack: Builds the entry from encoded commands, stamped with this moment.
        settings: Bounds.
    """

    def __init__(
        self,
        world: World,
        log: Log,
        pack: Callable[[list[bytes]], bytes],
        settings: ReplicaSettings,
    ) -> None:
        self._world = world
        self._log = log
        self._pack = pack
        self._settings = settings
        self._bytes_max = min(
            settings.entry_bytes_max, log.traits.entry_bytes_max - overhead_bytes()
        )
        self._append_ns = int(settings.append_seconds * 1e9)
        self._waiting: dict[tuple[int, int], _Waiting] = {}
        self._keys: list[tuple[int, int]] = []
        self._bodies: list[bytes] = []
        self._pending_bytes = 0
        self._inflight = 0
        self._scheduled = False
        self._stopped: OutlastError | None = None
        self.entry_count = 0
        self.command_count = 0

    @property
    def waiting_count(self) -> int:
        """How many requests wait for their apply."""
        return len(self._waiting)

    @property
    def pending_bytes(self) -> int:
        """Bytes of commands not yet handed to the log."""
        return self._pending_bytes

    def submit(self, body: bytes, answer: Answer, sessions: SessionTable) -> None:
        """Take one encoded command; ``answer`` is called once with its reply.

        The command is decoded in full although its bytes go on as they are: one that cannot
        be read would stop every replica that applies the entry.
        """
        try:
            command = decode_command(body)
        except msgspec.MsgspecError as error:
            message = f"{len(body)} bytes are no command: {error}"
            answer(encode_reply(error_reply(ProtocolError(message))))
            return
        key = (command.session, command.seq)
        waiting = self._waiting.get(key)
        if waiting is not None:
            _join(waiting, command, answer)
            return
        row = sessions.get(command.session)
        if row is not None and command.seq in row.replies:
            answer(_recorded(sessions, command) or _NOTHING)
            return
        size = len(body)
        refused = self._refusal(size)
        if refused is not None:
            answer(encode_reply(error_reply(refused)))
            return
        self._waiting[key] = _Waiting(command, answer)
        self._keys.append(key)
        self._bodies.append(body)
        self._pending_bytes += size
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def deliver(self, commands: Sequence[Command], replies: Sequence[Kept]) -> None:
        """Give those who wait the replies of an applied entry."""
        waiting = self._waiting
        if not waiting:
            return
        for command, kept in zip(commands, replies, strict=True):
            found = waiting.pop((command.session, command.seq), None)
            if found is None:
                continue
            reply = encode_reply(Reply(kept.status, kept.index, kept.digest, kept.body))
            for answer in found.answers:
                answer(reply)

    def settle(self, sessions: SessionTable, error: OutlastError) -> None:
        """Answer all who wait after the state was replaced: what is recorded, or ``error``."""
        waiting, self._waiting = self._waiting, {}
        pending = dict.fromkeys(self._keys)
        for key, found in waiting.items():
            if key in pending:
                self._waiting[key] = found
                continue
            reply = _recorded(sessions, found.command) or encode_reply(error_reply(error))
            for answer in found.answers:
                answer(reply)

    def stop(self, error: OutlastError) -> None:
        """Refuse new commands with ``error``; those under way end as indefinite."""
        self._stopped = error
        unsent = dict.fromkeys(self._keys)
        self._keys, self._bodies, self._pending_bytes = [], [], 0
        waiting, self._waiting = self._waiting, {}
        unknown = LogFailedError(f"the replica stopped while it was under way: {error}")
        definite = encode_reply(error_reply(error))
        indefinite = encode_reply(error_reply(unknown))
        for key, found in waiting.items():
            for answer in found.answers:
                answer(definite if key in unsent else indefinite)

    def _refusal(self, size: int) -> OutlastError | None:
        if self._stopped is not None:
            return self._stopped
        if size > self._bytes_max:
            return ConfigError(
                f"a command of {size} bytes; one entry takes at most {self._bytes_max}"
            )
        if self._pending_bytes + size > self._settings.queue_bytes_max:
            return OverloadedError(
                f"{self._pending_bytes} bytes of commands wait already; at most "
                f"{self._settings.queue_bytes_max}",
                retry_after=0.05,
            )
        return None

    def _flush(self) -> None:
        self._scheduled = False
        while self._bodies and self._inflight < self._settings.inflight_entries_max:
            bodies, keys = self._take()
            self._inflight += 1
            self.entry_count += 1
            self.command_count += len(bodies)
            entry = self._pack(bodies)
            self._world.spawn.task(self._append(entry, keys), name="state-append")

    def _take(self) -> tuple[list[bytes], list[tuple[int, int]]]:
        """Return the commands of the next entry: all that wait, up to the bounds."""
        settings = self._settings
        if len(self._bodies) <= settings.entry_commands_max and (
            self._pending_bytes <= self._bytes_max
        ):
            bodies, keys = self._bodies, self._keys
            self._bodies, self._keys, self._pending_bytes = [], [], 0
            return bodies, keys
        count = size = 0
        for body in self._bodies[: settings.entry_commands_max]:
            if count and size + len(body) > self._bytes_max:
                break
            size += len(body)
            count += 1
        bodies, self._bodies = self._bodies[:count], self._bodies[count:]
        keys, self._keys = self._keys[:count], self._keys[count:]
        self._pending_bytes -= size
        return bodies, keys

    async def _append(self, entry: bytes, keys: list[tuple[int, int]]) -> None:
        deadline = Deadline(self._world.clock.monotonic_ns() + self._append_ns)
        try:
            await self._log.append(entry, deadline=deadline)
        except OutlastError as error:
            self._fail(keys, error)
        except BaseException as error:
            self._fail(keys, LogFailedError(f"append ended with {type(error).__name__}: {error}"))
            raise
        finally:
            self._inflight -= 1
            if self._bodies and not self._scheduled:
                self._flush()

    def _fail(self, keys: list[tuple[int, int]], error: OutlastError) -> None:
        reply = encode_reply(error_reply(error))
        for key in keys:
            found = self._waiting.pop(key, None)
            if found is not None:
                for answer in found.answers:
                    answer(reply)


def _join(waiting: _Waiting, command: Command, answer: Answer) -> None:
    """Wait for the apply of a request that is under way, if it is the same one."""
    first = waiting.command
    if (first.name, first.args) == (command.name, command.args):
        waiting.answers.append(answer)
        return
    error = KeyReusedError(
        f"session {first.session}: request {first.seq} is under way with another command or "
        "other arguments"
    )
    answer(encode_reply(error_reply(error)))


def _recorded(sessions: SessionTable, command: Command) -> bytes | None:
    """Return the encoded reply that a session holds for ``command``, if any."""
    print_ = fingerprint(command.name, command.args, command.key)
    kept = sessions.recorded(command.session, command.seq, print_)
    if kept is None:
        return None
    return encode_reply(Reply(kept.status, kept.index, kept.digest, kept.body))


_NOTHING = encode_reply(error_reply(ProtocolError("the request is not recorded any more")))
