"""What a Table shares with dict beyond its operations."""

import copy
import json
import pickle
from typing import Any

import msgspec
import pytest

from outlast.state import Table


def pickled(table: Any) -> Any:
    return pickle.loads(pickle.dumps(table))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
def test_copies_are_tables_outside_the_machine(again: Any) -> None:
    table = Table(a=1)
    table._undo = []
    other = again(table)
    other["b"] = 2
    assert (type(other), other, table, table._undo) == (Table, {"a": 1, "b": 2}, {"a": 1}, [])


def test_it_reads_like_a_dict_everywhere_after_a_deletion_in_a_command() -> None:
    table = Table(a=1, b=2)
    table._undo = []
    del table["a"]
    assert isinstance(table, Table)
    assert isinstance(table, dict)
    assert json.dumps(table) == '{"b": 2}'
    assert Table(table) == {"b": 2}
    assert dict(**table) == {"b": 2}
    assert sorted(table.items()) == [("b", 2)]
    assert "{b}".format_map(table) == "2"


def test_a_missing_key_is_named() -> None:
    table: Table[str, int] = Table()
    for undo in (None, []):
        table._undo = undo
        with pytest.raises(KeyError, match="nobody"):
            del table["nobody"]
        with pytest.raises(KeyError, match="nobody"):
            table.pop("nobody")
        with pytest.raises(KeyError):
            table.popitem()


def test_msgspec_encodes_it_as_a_map() -> None:
    assert msgspec.json.encode(Table(a=1)) == b'{"a":1}'
