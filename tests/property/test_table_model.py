"""A Table against a plain dict: the same under every operation, and back when taken back."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.state.table import MISSING, Table, Undo, _Holed, roll_back, settle

KEYS = st.integers(0, 7)
STEP = st.one_of(
    st.tuples(st.just("set"), KEYS, st.integers(0, 99)),
    st.tuples(st.just("del"), KEYS),
    st.tuples(st.just("pop"), KEYS),
    st.tuples(st.just("popitem")),
    st.tuples(st.just("setdefault"), KEYS, st.integers(0, 99)),
    st.tuples(st.just("update"), st.dictionaries(KEYS, st.integers(0, 99), max_size=3)),
    st.tuples(st.just("ior"), st.dictionaries(KEYS, st.integers(0, 99), max_size=3)),
    st.tuples(st.just("clear")),
)
COMMANDS = st.lists(st.tuples(st.lists(STEP, max_size=8), st.booleans()), max_size=6)


def act(target: dict[int, int], step: tuple[Any, ...]) -> object:
    """Do one step; return what it gave, the kind of error included."""
    name, *args = step
    try:
        if name == "set":
            target[args[0]] = args[1]
            return None
        if name == "del":
            del target[args[0]]
            return None
        if name == "ior":
            target |= args[0]
            return None
        return getattr(target, name)(*args)
    except KeyError:
        return "KeyError"


def same(table: Table[int, int], model: dict[int, int]) -> None:
    assert list(table.items()) == list(model.items())
    assert list(table) == list(table.keys()) == list(model)
    assert list(table.values()) == list(model.values())
    assert list(reversed(table)) == list(reversed(model))
    assert len(table) == len(model)
    assert bool(table) == bool(model)
    assert dict(table) == model == table.copy()
    assert {**table} == model
    assert table == model
    assert not table != model  # noqa: SIM202 - the operator itself is under test
    assert (table | {99: 1}, {99: 1} | table) == (model | {99: 1}, {99: 1} | model)
    assert repr(table) == f"Table({model!r})"
    for key in range(8):
        assert table.get(key, "no") == model.get(key, "no")
        assert (key in table) == (key in model)
        assert act(table, ("__getitem__", key)) == act(model, ("__getitem__", key))


@given(st.dictionaries(KEYS, st.integers(0, 99)), COMMANDS)
def test_a_table_is_a_dict_whose_commands_can_be_taken_back(
    start: dict[int, int], commands: list[tuple[list[tuple[Any, ...]], bool]]
) -> None:
    table, model, undo = Table(start), dict(start), Undo()
    table._undo = undo
    for steps, ends_well in commands:
        trial = dict(model)
        for step in steps:
            assert act(table, step) == act(trial, step)
            same(table, trial)
        if ends_well:
            if isinstance(table, _Holed):
                settle(table)
            undo.clear()
            model = trial
        else:
            roll_back(undo)
        assert type(table) is Table
        same(table, model)


@given(st.dictionaries(KEYS, st.integers(0, 99)), COMMANDS)
def test_the_shadow_gives_back_the_pairs_at_the_cut(
    start: dict[int, int], commands: list[tuple[list[tuple[Any, ...]], bool]]
) -> None:
    table, undo = Table(start), Undo()
    keys, shadow = list(table), dict[int, int]()
    table._undo, table._shadow = undo, shadow
    for steps, ends_well in commands:
        for step in steps:
            act(table, step)
        if not ends_well:
            roll_back(undo)
        elif isinstance(table, _Holed):
            settle(table)
        undo.clear()
    cut = [(key, shadow[key] if key in shadow else table[key]) for key in keys]
    assert cut == list(start.items())
    assert all(value is MISSING for key, value in shadow.items() if key not in start)


@settings(max_examples=20)
@given(st.dictionaries(KEYS, st.integers(0, 99)), st.lists(STEP, max_size=8))
def test_outside_a_machine_a_table_is_a_dict(
    start: dict[int, int], steps: list[tuple[Any, ...]]
) -> None:
    table, model = Table(start), dict(start)
    for step in steps:
        assert act(table, step) == act(model, step)
        same(table, model)
