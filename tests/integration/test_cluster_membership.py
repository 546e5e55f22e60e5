"""Members come and go while clients move money; a lost disk costs a vote and no data."""

from pathlib import Path
from typing import Any

import pytest

from outlast.kernel import OutlastError
from tests.support.cluster import Lab, loaded, running

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]


async def test_all_three_nodes_are_replaced_one_by_one_under_load(tmp_path: Path) -> None:
    """Clients that were only ever told the old addresses go on at the new ones."""
    async with running(tmp_path) as lab, loaded(lab) as load:
        await load.more(50)
        now = ["n1", "n2", "n3"]
        for old, new in (("n1", "n4"), ("n2", "n5"), ("n3", "n6")):
            address = lab.new_node(new)
            told = await lab.administer("member-add", new, address)
            assert told.startswith(f"{new} added: ")
            await lab.start(new)
            now.append(new)
            await lab.voters(*now)
            await load.more(20)
            assert await lab.administer("member-remove", old) == f"{old} removed"
            now.remove(old)
            await lab.voters(*now)
            await lab.end(old)
            del lab.addresses[old]
            await load.more(20)
        # A kill shows that the new ones do not lean on the old ones.
        leader = await lab.leader()
        await lab.end(leader)
        await load.more(50)
        await lab.start(leader)
        await load.judge("n4", "n5", "n6")
        assert load.bank.counts.fail == load.bank.counts.info == 0


async def test_a_leader_that_is_removed_hands_over(tmp_path: Path) -> None:
    async with running(tmp_path) as lab, loaded(lab) as load:
        leader = await lab.leader()
        rest = [node for node in lab.addresses if node != leader]
        await load.more(50)
        assert await lab.administer("member-remove", leader) == f"{leader} removed"
        assert await lab.leader(*rest) in rest
        await lab.voters(*rest)
        await load.more(50)
        await lab.end(leader)
        del lab.addresses[leader]
        await load.more(50)
        await load.judge(*rest)
        assert load.bank.counts.fail == load.bank.counts.info == 0


async def test_a_node_that_was_never_added_is_told_how(tmp_path: Path) -> None:
    async with running(tmp_path) as lab:
        lab.new_node("n4")
        await lab.start("n4")
        assert await lab.ended("n4") == 2
        line = lab.log_text("n4").splitlines()[-1]
        assert line.startswith("outlast: node n4 is not a member (members: n1, n2, n3)")
        assert "outlast member add n4" in line


async def wiped_while_another_is_down(lab: Lab, part: str) -> tuple[str, str, str]:
    """Kill a follower for good and wipe the other; return (leader, wiped, down)."""
    leader = await lab.leader()
    wiped, down = (node for node in ("n1", "n2", "n3") if node != leader)
    await lab.end(down)
    await lab.end(wiped)
    lab.wipe(wiped, part)
    await lab.start(wiped)

    async def waits() -> bool:
        return "WaitingForAdmission" in lab.log_text(wiped)

    await lab.until(f"{wiped} waits for admission", waits)
    return leader, wiped, down


@pytest.mark.parametrize("part", ["", "log"])
async def test_a_wiped_node_elects_nobody_and_comes_back_as_another(
    tmp_path: Path, part: str
) -> None:
    """One of three is wiped while another is down: no vote of the wiped one counts."""
    async with running(tmp_path) as lab, lab.client() as client:
        await client.call_json("deposit", {"account": "alice", "amount": 30})
        leader, wiped, down = await wiped_while_another_is_down(lab, part)

        async def has_stepped_down() -> dict[str, Any] | None:
            facts = await lab.status(leader)
            return facts if facts and facts["role"] != "leader" else None

        before = await lab.until(f"{leader} notices that it has no majority", has_stepped_down)
        line = next(
            line for line in lab.log_text(wiped).splitlines() if "WaitingForAdmission" in line
        )
        assert str(lab.directory(wiped)) in line

        async def neither_is_ready() -> bool:
            return all(lab.get(node, "/readyz")[0] == 503 for node in (leader, wiped))

        await lab.until(f"{leader} and {wiped} are not ready", neither_is_ready)
        # The wiped node is asked for nothing and grants nothing, for several elections.
        with pytest.raises(OutlastError):
            async with lab.client(timeout=3.0) as hasty:
                await hasty.call_json("deposit", {"account": "alice", "amount": 1})
        facts = await lab.facts(leader)
        assert facts["role"] != "leader"
        assert facts["term"] == before["term"]  # pre-votes fail, so terms stand still

        await lab.start(down)

        async def votes_again() -> int:
            replicas = await lab.voters("n1", "n2", "n3")
            number = int(replicas[wiped].partition("#")[2])
            return number if number >= 2 else 0

        number = await lab.until(f"{wiped} votes under another incarnation", votes_again)
        assert (await lab.facts(wiped))["incarnation"] == number

        async def is_ready() -> bool:
            return lab.get(wiped, "/readyz")[0] == 200

        await lab.until(f"{wiped} is ready", is_ready)

        # And it counts as much as any other: it carries the cluster with the one that was
        # down, and with the old leader.
        for gone in (leader, down):
            await lab.end(gone)
            found = await client.call_json("balances", {}, query=True)
            assert found["alice"] in {30, 31}
            await client.call_json("deposit", {"account": "bob", "amount": 1})
            await lab.start(gone)
            await lab.voters("n1", "n2", "n3")
        assert (await client.call_json("balances", {}, query=True))["bob"] == 2
