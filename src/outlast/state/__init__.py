"""State that survives: machines on a log, replicas, sessions, snapshots.

Importing this needs msgspec; ``import outlast`` does it only when one of the names is used.
"""

from outlast.kernel import current_idempotency_key, idempotency_key
from outlast.state.client_session import ClientSession
from outlast.state.context import CommandRandom, Context
from outlast.state.core.client_session import RequestWindow, result_of
from outlast.state.core.digest import DigestBook, Odd
from outlast.state.core.envelope import Command, encode_command
from outlast.state.core.limits import Limits
from outlast.state.core.operation import (
    AcquireLease,
    Announce,
    Close,
    Configure,
    Fence,
    Forget,
    KeepAlive,
    Raise,
    Register,
    ReleaseLease,
    RenewLease,
    Resolve,
    TakeEpoch,
)
from outlast.state.core.reply import (
    Reply,
    decode_reply,
    decode_reply_error,
    encode_error_reply,
    encode_reply,
)
from outlast.state.embedded import Embedded, open
from outlast.state.faults import decode_error, encode_error
from outlast.state.lint import Finding, lint_machine
from outlast.state.loader import load_machine
from outlast.state.machine import Operation, StateMachine, command, query
from outlast.state.replica import Replica
from outlast.state.role import own_row
from outlast.state.runner import Runner
from outlast.state.settings import ReplicaSettings
from outlast.state.snapshot_store import DiskSnapshotStore
from outlast.state.spec import CommandSpec, FieldSpec, MachineSpec, machine_spec
from outlast.state.status import ReplicaStatus
from outlast.state.table import Table

__all__ = [
    "AcquireLease",
    "Announce",
    "ClientSession",
    "Close",
    "Command",
    "CommandRandom",
    "CommandSpec",
    "Configure",
    "Context",
    "DigestBook",
    "DiskSnapshotStore",
    "Embedded",
    "Fence",
    "FieldSpec",
    "Finding",
    "Forget",
    "KeepAlive",
    "Limits",
    "MachineSpec",
    "Odd",
    "Operation",
    "Raise",
    "Register",
    "ReleaseLease",
    "RenewLease",
    "Replica",
    "ReplicaSettings",
    "ReplicaStatus",
    "Reply",
    "RequestWindow",
    "Resolve",
    "Runner",
    "StateMachine",
    "Table",
    "TakeEpoch",
    "command",
    "current_idempotency_key",
    "decode_error",
    "decode_reply",
    "decode_reply_error",
    "encode_command",
    "encode_error",
    "encode_error_reply",
    "encode_reply",
    "idempotency_key",
    "lint_machine",
    "load_machine",
    "machine_spec",
    "open",
    "own_row",
    "query",
    "result_of",
]
