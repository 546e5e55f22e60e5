"""Fault names: those that exist are read, all others are refused with a hint."""

import pytest

from outlast.inject import CATALOGUE, fault_row, parse_faults
from outlast.inject.core.catalogue import NEEDS, TARGETS
from outlast.kernel import ConfigError, Fault


def names(*given: str) -> list[str]:
    return [str(fault) for fault in parse_faults(given)]


def test_names_are_read_in_order_with_their_default_targets():
    assert names("crash", "pause@leader", "partition:halves") == [
        "crash@one",
        "pause@leader",
        "partition:halves@one",
    ]


def test_commas_and_blanks_separate_names_too():
    assert names("crash, pause,", "link:slow@all") == ["crash@one", "pause@one", "link:slow@all"]
    assert parse_faults("crash,pause") == parse_faults(["crash", "pause"])
    assert parse_faults([]) == ()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("partition:halfs", "fault 'partition:halfs': did you mean partition:halves?"),
        ("partition", "needs a variant: partition:halves, partition:isolate"),
        ("link", "needs a variant: link:slow"),
        ("disk", "needs a variant: disk:full"),
        ("crsh", "did you mean crash?"),
        ("crash:hard", "crash has no variants; write crash"),
        ("isolate", "did you mean partition:isolate?"),
        ("link:lag", "did you mean link:"),
        ("zzz", "`outlast faults` explains them"),
        ("partitoin:halves", "did you mean partition:halves?"),
        ("powercut", "`outlast faults` explains them"),
        ("@leader", "`outlast faults` explains them"),
        ("power-cut", "fault 'power-cut': so far only in the simulator: --world sim"),
        ("disk:eio@one", "fault 'disk:eio': so far only in the simulator: --world sim"),
        ("clock:skew", "only in the simulator"),
        ("dns:nxdomain", "only in the simulator"),
        ("memory:flip", "fault 'memory:flip': known by name, not built yet"),
        ("crash@leeder", "target 'leeder' does not fit; did you mean leader?"),
        ("crash@", "target '' does not fit; use leader"),
        ("partition:isolate@all", "target 'all' does not fit; use leader, follower or one"),
    ],
)
def test_what_cannot_be_injected_is_refused_with_a_hint(name, says):
    with pytest.raises(ConfigError) as caught:
        parse_faults(["crash", name])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_built_row_is_read_with_each_of_its_targets_and_with_none():
    for row in CATALOGUE:
        if row.built:
            for target in row.targets:
                assert names(f"{row.name}@{target}") == [f"{row.name}@{target}"]
            assert names(row.name) == [f"{row.name}@{row.target}"]
            assert fault_row(Fault.parse(row.name)) is row


def test_every_simulated_row_is_read_for_the_simulator():
    for row in CATALOGUE:
        if row.simulated:
            assert [str(f) for f in parse_faults([row.name], simulated=True)] == [
                f"{row.name}@{row.target}"
            ]
    with pytest.raises(ConfigError, match="known by name, not built yet"):
        parse_faults(["memory:flip"], simulated=True)
    with pytest.raises(ConfigError, match="there is crash"):
        parse_faults(["zzz"], simulated=True)


def test_rows_are_complete_and_have_one_name_each():
    assert len({row.name for row in CATALOGUE}) == len(CATALOGUE)
    for row in CATALOGUE:
        assert row.what
        assert set(row.needs) <= NEEDS.keys()
        assert row.target in row.targets
        assert set(row.targets) <= set(TARGETS)
        assert not row.built or (row.how and row.needs)
