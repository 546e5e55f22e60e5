"""One idempotency key for each logical call: the sending half."""

import re
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from outlast.kernel import ConfigError, Prng, current_idempotency_key, current_world
from outlast.protect.headers import usable_key
from outlast.protect.part import Part

_HEADER = re.compile(r"[A-Za-z0-9_-]{1,64}")


class _Mint(threading.local):
    """A source of keys for this thread, split off the random source of a world."""

    of: Prng | None = None
    source: Prng | None = None


_mint = _Mint()
_lock = threading.Lock()
_recent: deque[int] = deque(maxlen=256)
_recent_of: list[Prng] = []


def mint_key() -> str:
    """Return a new key of 128 bits from the current world's random source, like a UUID.

    Each thread draws from a source of its own, which nobody else draws from: two threads that
    draw from one generator at the same moment may get the same number, and two calls with one
    key are one call to the other side.
    """
    shared = current_world().prng
    source = _mint.source
    if source is None or _mint.of is not shared:
        source = _split(shared)
        _mint.of, _mint.source = shared, source
    text = f"{source.bits64():016x}{source.bits64():016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _split(shared: Prng) -> Prng:
    """Return a generator of its own, with a seed that no other thread has got."""
    with _lock:
        if not _recent_of or _recent_of[0] is not shared:
            _recent_of[:] = [shared]
            _recent.clear()
        seed = shared.bits64()
        while seed in _recent:
            seed = shared.bits64()
        _recent.append(seed)
    return Prng(seed)


class Idempotency(Part):
    """Give each logical call a key, the same for all its retries and hedges.

    The key is, in this order: what ``key`` returns, that of the context
    (``with outlast.idempotency_key("order-17")``), or a new one of 128 bits. Integrations and
    :func:`outlast.protect.headers.inject` send it in ``header``; inside the call it is
    ``current_call().key``. A minted key dies with this process: to be recognised after a crash
    of the *caller*, use one of the other two.

    Args:
        header: Name of the header that carries it.
        key: Makes the key from the arguments of the call, such as
            ``lambda order: f"order-{order.id}"``. It must name the call and everything in it:
            two calls with one key are one call to the other side.
        require: Whether a key must come from the caller (``key=`` or the context) and none is
            minted: for calls that must be recognised after a crash of the caller.
        name: Name in events and settings.

    Raises:
        ConfigError: ``header`` is not a header name, or ``key`` not a function.
    """

    sees_arguments = True
    position: ClassVar[str] = "idempotency"
    settings: ClassVar[tuple[str, ...]] = ("header", "key", "require")

    __slots__ = ("header", "key", "require")

    def __init__(
        self,
        header: str = "Idempotency-Key",
        *,
        key: Callable[..., str] | None = None,
        require: bool = False,
        name: str = "",
    ) -> None:
        super().__init__(name)
        if not _HEADER.fullmatch(header):
            raise ConfigError(
                f"Idempotency: header is {header!r}; it must be letters, digits and hyphens"
            )
        if key is not None and not callable(key):
            raise ConfigError(f"Idempotency: key is {key!r}; it must be a function, or None")
        self.header = header
        self.key = key
        self.require = require

    def key_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the key of a logical call with these arguments. Once per logical call.

        Raises:
            ConfigError: Definite. The key cannot go into a header: it must be 1 to 255 visible
                ASCII characters. Or none was given and one is required.
        """
        made: object = current_idempotency_key()
        if self.key is not None:
            made = self.key(*args, **kwargs)
        elif not made:
            if self.require:
                raise ConfigError(
                    "Idempotency: a key is required and none was given; use key=, or "
                    'with outlast.idempotency_key("…")'
                )
            return mint_key()
        if not isinstance(made, str) or not usable_key(made):
            raise ConfigError(
                f"Idempotency: the key is {made!r}; it must be 1 to 255 visible ASCII characters"
            )
        return made
