"""What people write: operations, command lines of nodes, and what is refused with a reason."""

from typing import Any

import pytest

from outlast import drill
from outlast.drill.api import workloads_of
from outlast.drill.running import prepare
from outlast.drill.target import CommandTarget
from outlast.host import make_world
from outlast.kernel import ConfigError

NODES = drill.Nodes("shop --port {port} --data {dir}")


class Shop(drill.Drill):
    """No acknowledged order is lost.

    More is said here.
    """

    nodes = NODES
    model = "set"

    @drill.operation
    async def add(self, client: Any, value: int) -> None: ...

    @drill.operation(final=True)
    async def read(self, client: Any) -> list[int]:
        return []


# --- operations --------------------------------------------------------------------------------


def test_operations_are_found_in_order_with_what_they_take() -> None:
    add, read = Shop.operations().values()
    assert (add.name, add.weight, add.final, add.parameters) == ("add", 1, False, ("value",))
    assert (read.name, read.weight, read.final, read.parameters) == ("read", 0, True, ())


def test_an_operation_stays_a_plain_coroutine_method() -> None:
    import asyncio

    assert asyncio.run(Shop().read(None)) == []


def test_operations_of_a_base_are_inherited_and_may_be_replaced() -> None:
    class Other(Shop):
        @drill.operation(weight=7)
        async def add(self, client: Any, value: int) -> None: ...

    assert {f: spec.weight for f, spec in Other.operations().items()} == {"add": 7, "read": 0}


def test_the_promise_is_the_first_line_of_the_docstring() -> None:
    assert Shop.promise() == "No acknowledged order is lost."


def plain(self: Any, client: Any) -> None: ...
async def unknown(self: Any, client: Any, colour: str) -> None: ...
async def fine(self: Any, client: Any, key: str) -> None: ...


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        (plain, {}, r"@drill.operation plain: write `async def plain\(self, client, …\)`"),
        (unknown, {}, "@drill.operation unknown: unknown parameter 'colour'; models give key, va"),
        (fine, {"weight": 0}, "@drill.operation fine: weight 0; give at least 1"),
    ],
)
def test_what_cannot_be_an_operation_is_refused_where_it_stands(
    method: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        drill.operation(**options)(method)


# --- nodes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"count": 0}, "Nodes: count is 0; give 1 to 9"),
        ({"count": 10}, "Nodes: count is 10; give 1 to 9"),
        ({"command": "  "}, "Nodes: the command is empty"),
        ({"command": "shop {prot}"}, "Nodes: command 'shop {prot}': 'prot'; there are {port}"),
        ({"command": "shop {"}, "Nodes: command 'shop {': .*; there are {port}, {dir}, {node}"),
        ({"command": "shop {0}"}, "Nodes: command 'shop {0}': "),
        ({"command": "shop {port.x}"}, "Nodes: command 'shop {port.x}': "),
        ({"ready": "readyz"}, "Nodes: ready is 'readyz'; give a path such as '/readyz', or None"),
        ({"start_seconds": 0}, "Nodes: start_seconds is 0; give more than 0"),
    ],
)
def test_impossible_nodes_are_refused_before_anything_starts(
    given: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        drill.Nodes(**{"command": "shop", **given})
    import re

    assert re.search(says.replace("{", r"\{"), str(caught.value))


def test_each_placeholder_is_filled_in_and_stands_in_the_environment_too(tmp_path: Any) -> None:
    nodes = drill.Nodes(
        "python -m shop {port} {dir} {node} {host} {peers} 'two words' {{}}",
        count=2,
        environment={"SHOP_LOSES": "1"},
    )
    target = CommandTarget(make_world(), nodes, str(tmp_path), "/home")
    peers = {"n2": "127.0.0.1:99"}
    port, directory = str(target.ports["n1"]), f"{tmp_path}/n1"
    python, *words = target.command("n1", peers)
    assert python.startswith("/")
    assert words == [
        "-m", "shop", port, directory, "n1", "127.0.0.1", "n2=127.0.0.1:99", "two words", "{}",
    ]  # fmt: skip
    environment = target.environment("n1", peers)
    assert environment["OUTLAST_NODE"] == "n1"
    assert environment["OUTLAST_PORT"] == port
    assert environment["OUTLAST_DIR"] == directory
    assert environment["OUTLAST_PEERS"] == "n2=127.0.0.1:99"
    assert environment["SHOP_LOSES"] == "1"
    assert environment["PYTHONPATH"].startswith("/home")
    assert len(set(target.ports.values())) == 2


def test_a_directory_with_a_blank_stays_one_word(tmp_path: Any) -> None:
    target = CommandTarget(make_world(), NODES, str(tmp_path / "my data"), ".")
    assert target.command("n1", {})[-1] == f"{tmp_path}/my data/n1"


def test_a_node_is_known_by_its_addresses() -> None:
    node = drill.Node("n1", "127.0.0.1", 4711)
    assert (node.address, node.url) == ("127.0.0.1:4711", "http://127.0.0.1:4711")


# --- drills ------------------------------------------------------------------------------------


def test_a_drill_with_workloads_runs_those_and_one_without_runs_its_own_operations() -> None:
    class Both(drill.Drill):
        workloads = (Shop,)

    shop = Shop()
    assert workloads_of(shop) == [shop]
    assert [type(one) for one in workloads_of(Both())] == [Shop]


class Empty(drill.Drill):
    nodes = NODES


class Homeless(Shop):
    """Without nodes."""


class Lonely(Shop):
    nodes = drill.Nodes("shop", count=1)
    faults = ("partition:halves",)


class Misnamed(drill.Drill):
    nodes = NODES
    model = "set"

    @drill.operation
    async def put(self, client: Any, value: int) -> None: ...


@pytest.mark.parametrize(
    ("chosen", "options", "says"),
    [
        (Empty, {}, "Empty: no operations; mark coroutine methods with @drill.operation"),
        (Misnamed, {}, "operation 'put': model set has add, read; name the method so"),
        (Lonely, {}, "partition:halves.*: needs at least 2 nodes; there is 1"),
        (Shop, {"seconds": 0}, "--seconds 0: give more than 0"),
        (Shop, {"seconds": 2}, "--seconds 2: 1 faults? needs? at least [0-9.]+ s"),
        (Shop, {"faults": ["crahs"]}, "crahs.*did you mean.*crash"),
        (Shop, {"faults": ["crash@everyone"]}, "crash@everyone"),
        (int, {}, "int.* is not a Drill class; write class Shop"),
        (Shop(), {}, "is not a Drill class"),
    ],
)
def test_a_drill_that_cannot_run_is_refused_before_anything_starts(
    chosen: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        prepare(chosen, **{"seconds": 20, "seed": 1, **options})


def test_a_drill_without_nodes_is_told_to_have_some(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(drill.Drill):
        model = "set"

        @drill.operation
        async def add(self, client: Any, value: int) -> None: ...

    with pytest.raises(ConfigError, match=r'Bare: no nodes; write nodes = drill.Nodes\("…"\)'):
        prepare(Bare, seconds=20, seed=1)
