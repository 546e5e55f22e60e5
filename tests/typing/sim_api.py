"""How users simulate their programs, as their type checker sees it."""

from typing import assert_type

from outlast import sim


async def serve() -> None:
    """A program."""


async def main(lab: sim.Lab) -> float:
    host = lab.host("api", serve, may_exit=True)
    assert_type(host, sim.Host)
    with lab.cut("api"):
        await lab.sleep(1.0)
    assert_type(lab.disk("api", "full"), sim.Undo)
    lab.power_cut("api")
    await lab.heal()
    return lab.now


assert_type(sim.run(main, seed=7), float)


@sim.test(seeds=20, faults=["crash", "link:slow"])
async def test_program(lab: sim.Lab) -> None:
    assert_type(lab.seed, int)
    lab.host("api", serve)


test_program()
