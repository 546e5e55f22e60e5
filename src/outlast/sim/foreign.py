"""Packages of others that need a hand: anyio's worker threads, and gRPC, which must be refused.

anyio (and with it Starlette and FastAPI, for endpoints that are plain functions) runs blocking
calls in worker threads of its own. Here they take the way of ``loop.run_in_executor``, and each
host has its own limit of workers, as each process has. gRPC's core is C code with threads and
sockets of its own; refused any later it would bring the whole process down.
"""

import asyncio
import importlib
import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final

from outlast.sim import escape, fakes
from outlast.sim.hosts import LIFE

Patch = tuple[Any, str, Any]

_ANYIO: Final = "anyio._backends._asyncio"
_FROM_THREAD: Final = (
    "a coroutine called from a worker thread",
    "let the function return, and await the coroutine in its caller",
)
_GRPC: Final = "grpc._cython.cygrpc"
_GRPC_NAMES: Final = ("AioChannel", "AioServer", "Channel", "Server", "init_grpc_aio")
_GRPC_REFUSED: Final = (
    "gRPC, whose core is C code with threads and sockets of its own,",
    "put the service behind a protocol of asyncio, or test it by a drill on real processes",
)

_made: dict[str, tuple[Any, list[Patch]]] = {}


def stand_ins() -> list[Patch]:
    """Return what to replace in packages that are loaded: owner, name, stand-in.

    None of them has a public interface for that. The methods of anyio's backend have had these
    names and arguments since anyio 4.0.
    """
    if "anyio" in sys.modules and _ANYIO not in sys.modules:
        with suppress(ImportError):
            importlib.import_module(_ANYIO)
    return [*_patches(_ANYIO, _anyio), *_patches(_GRPC, _grpc)]


def _patches(name: str, make: Callable[[Any], list[Patch]]) -> list[Patch]:
    module = sys.modules.get(name)
    if module is None:
        return []
    if name not in _made or _made[name][0] is not module:
        with suppress(AttributeError):
            _made[name] = (module, make(module))
    return _made[name][1] if name in _made else []


# --- anyio ---------------------------------------------------------------------------------------


def _anyio(module: Any) -> list[Patch]:
    backend = module.AsyncIOBackend
    run, token = backend.run_sync_in_worker_thread, backend.current_token
    run_async, run_sync = backend.run_async_from_thread, backend.run_sync_from_thread

    async def run_sync_in_worker_thread(
        cls: Any,
        func: Any,
        args: tuple[Any, ...],
        abandon_on_cancel: bool = False,
        limiter: Any = None,
    ) -> Any:
        if not fakes.here():
            return await run(func, args, abandon_on_cancel, limiter)
        await cls.checkpoint()
        async with limiter or cls.current_default_thread_limiter():
            with module.CancelScope(shield=not abandon_on_cancel) as scope:
                context = copy_context()
                context.run(module.set_current_async_library, None)
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(None, call, context, scope, func, args)

    def call(context: Any, scope: Any, func: Any, args: tuple[Any, ...]) -> Any:
        module.threadlocals.current_cancel_scope = scope
        try:
            with module.claim_worker_thread(backend, None):
                return context.run(func, *args)
        finally:
            del module.threadlocals.current_cancel_scope

    def current_token(cls: Any) -> object:
        """Return what holds the variables of a run: here, those of one life of a host."""
        return (LIFE.get(None) or token()) if fakes.here() else token()

    def run_async_from_thread(cls: Any, func: Any, args: tuple[Any, ...], token: object) -> Any:
        if fakes.here():
            escape.refuse(*_FROM_THREAD)
        return run_async(func, args, token)

    def run_sync_from_thread(cls: Any, func: Any, args: tuple[Any, ...], token: object) -> Any:
        return func(*args) if fakes.here() else run_sync(func, args, token)

    found = (
        run_sync_in_worker_thread, current_token, run_async_from_thread, run_sync_from_thread
    )  # fmt: skip
    return [
        *((backend, each.__name__, classmethod(each)) for each in found),
        (module.CancelScope, "__init__", _orderly(module.CancelScope.__init__)),
    ]


class _Ordered(dict[Any, None]):
    """A set that is gone through in the order in which things were added."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)

    def remove(self, item: Any) -> None:
        del self[item]


def _orderly(init: Callable[..., None]) -> Callable[..., None]:
    """Let a scope cancel what is below it in the same order in every run.

    It keeps scopes and tasks in sets, where their place follows from their address.
    """

    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if fakes.here():
            self._child_scopes, self._tasks = _Ordered(), _Ordered()

    return made


# --- gRPC ----------------------------------------------------------------------------------------


def _grpc(module: Any) -> list[Patch]:
    return [
        (module, name, _refusing(getattr(module, name)))
        for name in _GRPC_NAMES
        if hasattr(module, name)
    ]


def _grpc_is_imported() -> None:
    """A simulated program imports gRPC: its core is loaded when ``grpc.aio`` is begun.

    The stand-ins stay; outside of a simulation they do nothing.
    """
    for owner, name, fake in _patches(_GRPC, _grpc):
        setattr(owner, name, fake)


escape.AFTER_IMPORT["grpc.aio"] = _grpc_is_imported


def _refusing(real: Any) -> Any:
    def refused(*args: Any, **kwargs: Any) -> Any:
        escape.refuse(*_GRPC_REFUSED)
        return real(*args, **kwargs)

    return refused


__all__ = ["stand_ins"]
