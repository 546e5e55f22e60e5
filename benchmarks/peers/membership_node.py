"""One member as a process of its own: says what it sees, one line of JSON each.

    python -m benchmarks.peers.membership_node NAME HOST:PORT SEED PROFILE KEY

SEED is - for none, KEY hexadecimal. SIGTERM leaves; SIGUSR1 says what was sent and received.
"""

import asyncio
import gc
import json
import signal
import sys
from typing import Any

from outlast.detect.members import Members


def say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def main(name: str, bind: str, seed: str, profile: Any, key: str) -> None:
    members = Members(
        name, bind=bind, seeds=[] if seed == "-" else [seed], key=bytes.fromhex(key),
        profile=profile,
    )  # fmt: skip
    until = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, until.set)
    loop.add_signal_handler(
        signal.SIGUSR1, lambda: say(kind="Traffic", **members.snapshot()["traffic"])
    )
    events = members.events()

    async def tell() -> None:
        async for event in events:
            member = getattr(event, "member", None)
            if member is not None:
                say(kind=type(event).__name__, member=member.name, state=member.state)

    telling = loop.create_task(tell())
    async with members:
        say(kind="Started", address=members.address)
        gc.freeze()
        await until.wait()
    await telling


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
