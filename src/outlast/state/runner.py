"""One live machine: executes commands, takes back what a raising one did, saves and restores.

The replica drives it, one call at a time. All that is decided per class is prepared in
:func:`outlast.state.spec.machine_spec`; what is left per command is decode, call, encode, and a
walk over the journal.
"""

from collections.abc import Generator, Iterable
from hashlib import blake2b
from typing import Any, NoReturn

import msgspec

from outlast.kernel import (
    CommandError,
    CommandTypeError,
    DataError,
    InvariantError,
    invariant,
)
from outlast.state.checkpoint import SLICE_KEYS_MAX, chunks_of, slice_step
from outlast.state.commands import CommandSpec
from outlast.state.context import Context
from outlast.state.faults import encode_error
from outlast.state.machine import StateMachine
from outlast.state.restore import restored
from outlast.state.spec import MachineSpec
from outlast.state.table import HOLED, Table, Undo, roll_back, settle
from outlast.state.values import MisuseError, checker

_encode = msgspec.msgpack.Encoder().encode
_physical = dict.__getitem__
_put = dict.__setitem__
NODE_FAILURES = (MemoryError, RecursionError, OSError, InvariantError)
"""Raised by a command, these are failures of the node and not results."""


class Runner:
    """A machine and the journal of its Tables. Not thread-safe; never waits.

    Args:
        spec: What :func:`machine_spec` said about the class.
        machine: The machine to run, which the runner then owns; a new empty one by default.
    """

    def __init__(self, spec: MachineSpec, machine: StateMachine | None = None) -> None:
        self.spec = spec
        self._undo: Undo = []
        self._shapes = {shape.name: shape for shape in spec.table_shapes()}
        self._saved = tuple(f.name for f in spec.state if f.table is not None)
        self._plain = tuple(f for f in spec.state if f.table is None)
        self._values = {f.name: checker(f.type) for f in self._plain if f.value}
        self._commits: list[bytes] = []
        self._cut: object | None = None
        self.adopt(spec.cls() if machine is None else machine)

    def adopt(self, machine: StateMachine) -> None:
        """Run ``machine`` from here on, and own it; what ran before is let go."""
        invariant(type(machine) is self.spec.cls, f"{machine!r} is not a {self.spec.name}")
        self.machine = machine
        self._tables: list[tuple[str, Table[Any, Any]]] = []
        for name, shape in self._shapes.items():
            table = getattr(machine, name)
            if not isinstance(table, Table):
                table = Table(table)
                setattr(machine, name, table)
            table._undo = self._undo
            table._shape = shape
            table._shadow = None
            self._tables.append((name, table))
        self._undo.clear()
        self._commits.clear()
        self._cut = None
        self._last = {name: getattr(machine, name) for name in self._values}
        self._seen = dict(self._last)
        self._vars: dict[str, Any] = machine.__dict__

    # --- execution -------------------------------------------------------------------------

    def execute(self, name: str, args: bytes, context: Context) -> tuple[int, bytes]:
        """Run one command; its Tables change only if it ends well.

        Returns:
            ``(0, encoded result)``, or ``(1, encoded error)`` when it raised, was unknown at the
            version in force, or its arguments did not fit; see :func:`decode_error`.

        Raises:
            MemoryError, RecursionError, OSError, InvariantError: The node fails; not a result.
        """
        plan = self.spec.commands.get(name)
        if plan is None or plan.since > context.version:
            return self._unknown(plan, name, context)
        try:
            given = plan.decode(args)
        except msgspec.DecodeError as error:
            return 1, encode_error(plan.bad_args(args, error))
        undo = self._undo
        self._vars["ctx"] = context
        try:
            result = plan.call(self.machine, given)
            for field, table in self._tables:
                if getattr(self.machine, field) is not table:
                    self._replaced(plan, field)
            if self._values:
                self._check_values()
            if undo:
                commit, holed = self._commit(undo)
                body = _encode(_plain(result) if holed else result)
                for table in holed:
                    settle(table)
                undo.clear()
                if commit:
                    self._commits.append(commit)
                return 0, body
            return 0, _encode(result)
        except CommandError as error:
            self._take_back()
            return 1, encode_error(error)
        except NODE_FAILURES:
            self._take_back()
            raise
        except Exception as error:
            self._take_back()
            return 1, encode_error(error)
        except BaseException:
            self._take_back()
            raise

    def _take_back(self) -> None:
        roll_back(self._undo)
        for name, table in self._tables:
            if getattr(self.machine, name) is not table:
                setattr(self.machine, name, table)

    def query(self, name: str, args: bytes, context: Context) -> tuple[int, bytes]:
        """Run one query; answers as :meth:`execute` does. What it changes is taken back."""
        plan = self.spec.queries.get(name)
        if plan is None or plan.since > context.version:
            return self._unknown(plan, name, context)
        undo = self._undo
        try:
            given = plan.decode_args(args)
            self._vars["ctx"] = context
            body = _encode(plan.call(self.machine, given))
            if undo:
                table = undo[0][0]._shape.name
                raise MisuseError(
                    f"query {self.spec.name}.{name} changed Table {table!r}; make it a command"
                )
            return 0, body
        except CommandError as error:
            return 1, encode_error(error)
        except NODE_FAILURES:
            raise
        except Exception as error:
            return 1, encode_error(error)
        finally:
            self._take_back()

    def _unknown(self, plan: CommandSpec | None, name: str, context: Context) -> tuple[int, bytes]:
        if plan is not None:
            text = (
                f"{self.spec.name}.{name} needs version {plan.since}; version "
                f"{context.version} is in force until every replica runs the new code"
            )
            return 1, encode_error(CommandTypeError(text))
        try:
            found = self.spec.operation(name)
        except CommandTypeError as error:
            return 1, encode_error(error)
        use = "query" if found.kind == "query" else "call"
        return 1, encode_error(
            CommandTypeError(f"{self.spec.name}.{name} is a {found.kind}; use {use}")
        )

    def _replaced(self, plan: CommandSpec, field: str) -> NoReturn:
        raise MisuseError(
            f"{self.spec.name}.{plan.name} replaced Table {field!r}, which could not be taken "
            f"back; change it in place (clear, update)"
        )

    def _check_values(self) -> None:
        """Bring plain fields that were set to their types; set back one that does not fit."""
        for name, to_value in self._values.items():
            value = getattr(self.machine, name)
            if value is not self._seen[name]:
                try:
                    again = to_value(value)
                except MisuseError as error:
                    setattr(self.machine, name, self._seen[name])
                    raise MisuseError(f"field {name!r}: {error}") from None
                self._seen[name] = again
                if again is not value:
                    setattr(self.machine, name, again)

    def _commit(self, undo: Undo) -> tuple[bytes, list[Table[Any, Any]]]:
        """Check the types of all that changed and encode it; change nothing yet."""
        changes: list[Any] = []
        holed: list[Table[Any, Any]] = []
        for table, key, _ in undo:
            if key is HOLED:
                holed.append(table)
                continue
            shape = table._shape
            value = _physical(table, key)
            if type(key) not in shape.key_types:
                shape.check_key(key)
            if type(value) not in shape.value_types:
                again = shape.checked(value)
                if again is not value:
                    value = again
                    _put(table, key, value)
            if not shape.derived:
                changes += (shape.name, key, value)
        if not holed:
            return (_encode(changes) if changes else b""), holed
        return self._commit_holed(undo, holed), holed

    def _commit_holed(self, undo: Undo, holed: list[Table[Any, Any]]) -> bytes:
        sets: list[Any] = []
        for table, key, _ in undo:
            if key is HOLED or table._shape.derived:
                continue
            sets += (table._shape.name, key, _physical(table, key))
        holes: list[Any] = []
        tails: list[Any] = []
        for table in holed:
            shape = table._shape
            for key, value in table._tail.items():
                shape.check_key(key)
                table._tail[key] = shape.checked(value)
            if not shape.derived:
                holes += (item for key in table._holes for item in (shape.name, key))
                tails += (x for k, v in table._tail.items() for x in (shape.name, k, v))
        return _encode([sets, holes, tails])

    def take_changes(self) -> bytes:
        """Return what the commands since the last call changed, in canonical bytes.

        A msgpack array: per command the Table keys set, deleted and set anew; at the end the
        plain fields that can only change by being set (numbers, text, tuples, …). Plain
        containers are not seen; they are part of :meth:`digest` and of checkpoints.
        """
        commits = self._commits
        if self._values:
            changed = {}
            for name in self._values:
                value = getattr(self.machine, name)
                last = self._last[name]
                if value is not last and (value != last or type(value) is not type(last)):
                    changed[name] = value
                    self._last[name] = value
            if changed:
                commits.append(_encode(changed))
        if not commits:
            return b""
        taken = b"".join((b"\xdd", len(commits).to_bytes(4, "big"), *commits))
        commits.clear()
        return taken

    # --- checkpoint and restore ------------------------------------------------------------

    def checkpoint(self) -> Generator[bytes, None, None]:
        """Cut the state here and return its chunks, to be taken while commands go on.

        The cut notes the keys of every Table and encodes the plain fields; a command that then
        changes a key leaves the old value for the checkpoint. Each step of the iterator encodes
        at most 1,000 keys. A second checkpoint abandons the first; close an iterator that is
        not used up.

        Raises:
            DataError: A plain field does not hold what its annotation says, or (from the
                iterator) a later checkpoint abandoned this one.
        """
        invariant(not self._undo, "a checkpoint is cut between commands")
        plain = self._encoded_plain()
        cut = self._cut = object()
        tables = []
        for name, table in self._tables:
            if name in self._saved:
                table._shadow = {}
                tables.append((name, table, list(table), table._shadow))
        return self._chunks(cut, plain, tables)

    def _encoded_plain(self) -> dict[str, msgspec.Raw]:
        encoded = {}
        for field in self._plain:
            value = getattr(self.machine, field.name)
            try:
                encoded[field.name] = msgspec.Raw(_encode(checker(field.type)(value)))
            except MisuseError as error:
                raise DataError(f"{self.spec.place}: field {field.name!r}: {error}") from None
        return encoded

    def _chunks(
        self,
        cut: object,
        plain: dict[str, msgspec.Raw],
        tables: list[tuple[str, Table[Any, Any], list[Any], dict[Any, Any]]],
    ) -> Generator[bytes, None, None]:
        try:
            yield from chunks_of(["plain", plain])
            for name, table, keys, shadow in tables:
                place, step = 0, SLICE_KEYS_MAX
                while place < len(keys):
                    if self._cut is not cut:
                        raise DataError("this checkpoint was abandoned: a later one was begun")
                    part = keys[place : place + step]
                    if shadow:
                        pairs = [(k, shadow[k] if k in shadow else table[k]) for k in part]
                    else:
                        pairs = [(k, table[k]) for k in part]
                    place += len(part)
                    size = 0
                    for chunk in chunks_of(["table", name, pairs]):
                        size += len(chunk)
                        yield chunk
                    step = slice_step(len(part), size)
            yield from chunks_of(["end", {name: len(keys) for name, _, keys, _ in tables}])
        finally:
            if self._cut is cut:
                self._cut = None
                for _, table, _, _ in tables:
                    table._shadow = None

    def restore(
        self, chunks: Iterable[bytes], *, version: int, schema: dict[str, Any] | None
    ) -> None:
        """Replace the state by a checkpoint's.

        Args:
            chunks: What :meth:`checkpoint` gave.
            version: The machine version of the code that took it; a lower one is migrated.
            schema: The ``spec.schema`` of the code that took it.

        Raises:
            DataError: Fields changed without a new version, the checkpoint is of a newer version
                or damaged, or what ``migrate`` returned does not fit. The state is as before.
        """
        self.adopt(self.read(chunks, version=version, schema=schema))

    def read(
        self, chunks: Iterable[bytes], *, version: int, schema: dict[str, Any] | None
    ) -> StateMachine:
        """Return the machine that a checkpoint holds, for :meth:`adopt`; nothing changes here.

        May run in a thread beside queries. Arguments and errors as of :meth:`restore`.
        """
        return restored(self.spec, chunks, version, schema)

    def digest(self) -> bytes:
        """Return 16 bytes that are equal on replicas with equal state. Reads all of it."""
        state = blake2b(digest_size=16)
        shadows = [(table, table._shadow) for _, table in self._tables]
        cut = self._cut
        for chunk in self.checkpoint():
            state.update(len(chunk).to_bytes(4, "little"))
            state.update(chunk)
        self._cut = cut
        for table, shadow in shadows:
            table._shadow = shadow
        return state.digest()


def _plain(value: Any) -> Any:
    """Copy Tables out of a result: one with holes does not look like a dict to the encoder."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if type(value) is tuple:
        return tuple(_plain(item) for item in value)
    return value


__all__ = ["NODE_FAILURES", "Runner"]
