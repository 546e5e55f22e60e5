"""State that survives: machines on a log, replicas, sessions, snapshots.

Importing this needs msgspec; ``import outlast`` does it only when one of the names is used.
"""

from outlast.state.context import CommandRandom, Context
from outlast.state.faults import decode_error, encode_error
from outlast.state.lint import Finding, lint_machine
from outlast.state.loader import load_machine
from outlast.state.machine import Operation, StateMachine, command, query
from outlast.state.runner import Runner
from outlast.state.spec import CommandSpec, FieldSpec, MachineSpec, machine_spec
from outlast.state.table import Table

__all__ = [
    "CommandRandom",
    "CommandSpec",
    "Context",
    "FieldSpec",
    "Finding",
    "MachineSpec",
    "Operation",
    "Runner",
    "StateMachine",
    "Table",
    "command",
    "decode_error",
    "encode_error",
    "lint_machine",
    "load_machine",
    "machine_spec",
    "query",
]
