"""The event loop that our own processes run on."""

import asyncio


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a uvloop loop where it is installed (extra ``fast``), asyncio's own elsewhere."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
