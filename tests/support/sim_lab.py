"""A small service and short cuts for tests of the lab."""

import asyncio
import contextlib
from typing import Any

from outlast import sim
from outlast.sim.core.plan import read_faults
from outlast.sim.running import Options, Outcome, run_case

PORT = 7000


async def echo(port: int = PORT) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)

    server = await asyncio.start_server(connected, None, port)
    await server.serve_forever()


async def ask(host: str, within: float = 1.0, port: int = PORT) -> str:
    """Return what came of asking: an answer, or the name of an error."""
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection(host, port)
            with contextlib.closing(writer):
                writer.write(b"hello\n")
                return (await reader.readline()).decode().strip() or "closed"
    except (OSError, TimeoutError) as error:
        return type(error).__name__


async def forever() -> None:
    await asyncio.Event().wait()


def outcome(main: Any, seed: int = 1, **options: Any) -> Outcome:
    options["faults"] = read_faults(options.get("faults", ()))
    return run_case(main, seed, Options(**options))


def run(main: Any) -> Any:
    return sim.run(main, seed=1)


async def failing() -> None:
    await asyncio.sleep(0.1)
    raise ZeroDivisionError("by nothing")
