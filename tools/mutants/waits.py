"""Mutants of waiting: a timeout that is taken away. The mode of ``sim.Waits`` must miss each."""

from functools import partial

from tools.mutants.table import mutant

_wait = partial(
    mutant, level="detect", tests=("sim/test_sim_timeouts.py",),
    section="waits (ours), timeout everything",
)  # fmt: skip

WAITS = (
    _wait(
        "dial-without-a-timeout",
        "wire/dial.py",
        "lambda: _late(dialler, timeout)",
        "lambda: None",
        breaks="A dial ends in time",
        faults="a peer that accepts and says nothing",
    ),
    _wait(
        "answer-without-a-timeout",
        "detect/members_stream.py",
        "    async with asyncio.timeout(timeout):\n        reader, writer",
        "    async with asyncio.timeout(None):\n        reader, writer",
        breaks="An answer of a member is waited for in time",
        faults="a peer that accepts and says nothing",
    ),
    _wait(
        "close-without-a-timeout",
        "detect/members.py",
        "async with asyncio.timeout(self.settings.leave_timeout + 1.0):",
        "async with asyncio.timeout(None):",
        breaks="Members leave in time",
        faults="none: the wait alone is enough",
    ),
    _wait(
        "stop-without-a-timeout",
        "cluster/process.py",
        "await asyncio.wait_for(node.stop(), 10.0)",
        "await node.stop()",
        breaks="A node that is asked to stop ends",
        faults="none: the wait alone is enough",
    ),
    _wait(
        "body-without-a-timeout",
        "cluster/gateway.py",
        "            async with asyncio.timeout(timeout):\n",
        "            async with asyncio.timeout(None):\n",
        breaks="A request that stops in its middle ends",
        faults="a client that goes silent in the middle of its body",
    ),
    _wait(
        "lookup-without-a-timeout",
        "pool/discovery.py",
        "asyncio.timeout(_ASK_SECONDS)",
        "asyncio.timeout(None)",
        breaks="A look-up of instances ends, and is told of if it does not",
        faults="a function that never returns",
    ),
)
