"""A sender of beats and an observer, as processes: ``python -m tests.support.detect_beats``.

The observer prints one line of JSON per change, after the line with its port; the sender one line
whenever the machine has kept it from sending for longer than a quarter of a second.
"""

import asyncio
import json
import sys

from outlast.detect import (
    AccusationPostponed,
    Heartbeat,
    HeartbeatMonitor,
    HeartbeatsMissed,
    LocalHealth,
    PeerSuspected,
)
from outlast.host import default_world


async def send(port: int) -> None:
    def told(event: object) -> None:
        if isinstance(event, HeartbeatsMissed) and event.late > 0.25:
            print("late", flush=True)

    default_world().events.subscribe(told)  # type: ignore[attr-defined]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port)
    )
    async with Heartbeat(lambda seq: transport.sendto(b"%d" % seq)):
        await loop.run_in_executor(None, sys.stdin.read)


async def observe(gated: bool) -> None:
    def told(event: object) -> None:
        reached = event.reached if isinstance(event, PeerSuspected) else ""
        if isinstance(event, PeerSuspected | AccusationPostponed):
            silence = getattr(event, "silence", 0.0)
            print(json.dumps([type(event).__name__, reached, silence]), flush=True)

    class Hears(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            if not monitor.peers():
                print("hears", flush=True)
            monitor.beat("sender", int(data))

    default_world().events.subscribe(told)  # type: ignore[attr-defined]
    loop = asyncio.get_running_loop()
    monitor = HeartbeatMonitor(local=LocalHealth() if gated else None)
    async with monitor:
        transport, _ = await loop.create_datagram_endpoint(Hears, local_addr=("127.0.0.1", 0))
        print(transport.get_extra_info("sockname")[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        print("end", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        asyncio.run(send(int(sys.argv[2])))
    else:
        asyncio.run(observe(sys.argv[2] == "gated"))
