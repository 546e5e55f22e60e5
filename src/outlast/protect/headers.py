"""What a call tells the other side in headers: time left, attempt, key.

The time left is relative on the wire, since clocks differ between machines; here it is an
instant. The transit is not known, so the sender keeps ``reserve`` back. What comes in is from
strangers: nothing in it raises, and what is not understood counts as absent.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Literal

from outlast.kernel import ConfigError, TooLateError, current_deadline, current_world
from outlast.kernel.call_key import KEY_CHARACTERS_MAX
from outlast.protect.call import CallInfo, current_attempt, current_call, current_call_var
from outlast.protect.deadline import deadline

Style = Literal["outlast", "grpc", "envoy", "ms"]
Headers = (
    Mapping[str, str] | Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]]
)  # what extract() reads: a mapping, or pairs as in ASGI

_NS = 1_000_000_000
_MS = 1_000_000
_HEADERS_MAX = 512
_ATTEMPT_MAX = 1000

_TIMEOUT_NAMES: Final[dict[Style, str]] = {
    "outlast": "Outlast-Timeout-Ms",
    "ms": "x-request-timeout-ms",
    "envoy": "x-envoy-expected-rq-timeout-ms",
    "grpc": "grpc-timeout",
}
_TIMEOUTS_MS: Final = frozenset(
    {"outlast-timeout-ms", "x-request-timeout-ms", "x-envoy-expected-rq-timeout-ms"}
)
_GRPC_UNITS: Final = (
    ("n", 1), ("u", 1_000), ("m", _MS), ("S", _NS), ("M", 60 * _NS), ("H", 3600 * _NS),
)  # fmt: skip
_GRPC_NS: Final = dict(_GRPC_UNITS)
_GRPC_DIGITS_MAX = 8


class Incoming:
    """What the headers of a request said. Not to be changed.

    Attributes:
        timeout: Seconds left for the caller, at most the cap; ``None`` if not told.
        attempt: Which attempt of the caller this is; 1 if not told.
        key: Idempotency key; ``None`` if there is none, or none that can be used.
        key_refused: Whether there was a key that cannot be used: too long, empty, with
            characters other than visible ASCII, or two that differ.
    """

    __slots__ = ("attempt", "key", "key_refused", "timeout")

    def __init__(
        self,
        timeout: float | None = None,
        attempt: int = 1,
        key: str | None = None,
        *,
        key_refused: bool = False,
    ) -> None:
        self.timeout = timeout
        self.attempt = attempt
        self.key = key
        self.key_refused = key_refused

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Incoming):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in Incoming.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Incoming(timeout={self.timeout!r}, attempt={self.attempt}, key={self.key!r})"


_incoming_var: ContextVar[Incoming | None] = ContextVar("outlast_incoming", default=None)


def current_incoming() -> Incoming | None:
    """Return what the headers of the request being served said, or ``None``."""
    return _incoming_var.get()


def inject(
    headers: MutableMapping[str, str],
    *,
    style: Style = "outlast",
    reserve: float = 0.005,
    key_header: str = "Idempotency-Key",
) -> None:
    """Write what the call under way should tell into ``headers``.

    That is the time left of the deadline, the number of the attempt from the second on, and the
    idempotency key of the logical call. Headers of these names are replaced, so that one dict
    may serve several attempts; what there is nothing to tell about is left alone.

    A key that came in is not handed on: it names the request that is being served and not the
    requests that are made to serve it, of which there may be several.

    Args:
        headers: Changed in place. With ``grpc`` and ``envoy`` the names are in small letters.
        style: Which header carries the time left: ``Outlast-Timeout-Ms`` (``outlast``),
            ``x-request-timeout-ms`` (``ms``), ``x-envoy-expected-rq-timeout-ms`` (``envoy``) or
            ``grpc-timeout`` (``grpc``).
        reserve: Seconds kept back for the way there and back.
        key_header: Under which name the key goes.

    Raises:
        TooLateError: Definite. The deadline has passed, or passes within ``reserve``.
        ConfigError: Definite. There is no such style.
    """
    name = _TIMEOUT_NAMES.get(style)
    if name is None:
        known = ", ".join(_TIMEOUT_NAMES)
        raise ConfigError(f"inject: style is {style!r}; it must be one of {known}")
    small = style in {"grpc", "envoy"}
    limit = current_deadline.get()
    if limit is not None and not limit.endless:
        left_ns = limit.left_ns(current_world().clock.monotonic_ns()) - int(reserve * _NS)
        if left_ns <= 0:
            raise TooLateError("the deadline leaves no time to send the request")
        _put(headers, name, encode_grpc(left_ns) if style == "grpc" else _milliseconds(left_ns))
    attempt = current_attempt()
    if attempt > 1:
        _put(headers, "outlast-attempt" if small else "Outlast-Attempt", str(attempt))
        if style == "grpc":
            _put(headers, "grpc-previous-rpc-attempts", str(attempt - 1))
        elif style == "envoy":
            _put(headers, "x-envoy-attempt-count", str(attempt))
    call = current_call()
    came_in = current_incoming()
    if call is None or call.key is None or (came_in is not None and call.key == came_in.key):
        return
    _put(headers, key_header.lower() if small else key_header, call.key)


def _put(headers: MutableMapping[str, str], name: str, value: str) -> None:
    """Set a header once, whatever the spelling of one that is there."""
    folded = name.lower()
    for other in [other for other in headers if other != name and other.lower() == folded]:
        del headers[other]
    headers[name] = value


def _milliseconds(left_ns: int) -> str:
    return str(max(1, left_ns // _MS))


def encode_grpc(left_ns: int) -> str:
    """Return ``left_ns`` as ``grpc-timeout`` writes it: at most 8 digits and a unit.

    Rounded down, in the finest unit that has room for it.

    >>> encode_grpc(1_500_000_000), encode_grpc(7)
    ('1500000u', '7n')
    """
    largest = 10**_GRPC_DIGITS_MAX - 1
    for unit, size in _GRPC_UNITS:
        if left_ns // size <= largest:
            return f"{max(0, left_ns // size)}{unit}"
    return f"{largest}H"


def extract(
    headers: Headers, *, cap: float = 30.0, key_header: str = "Idempotency-Key"
) -> Incoming:
    """Return what ``headers`` tell of the call. Never raises for what they hold.

    Read are the time left in any of the styles of :func:`inject` (the shortest counts), the
    number of the attempt (``Outlast-Attempt``, ``x-envoy-attempt-count``,
    ``grpc-previous-rpc-attempts``; the highest counts) and the key. At most 512 headers are
    looked at; numbers with anything but 1 to 12 digits, and attempts above 1000, are ignored.

    Args:
        headers: A mapping, or pairs of ``str`` or ``bytes`` (as in ASGI).
        cap: The longest time believed, in seconds. It bounds what is told; where nothing is
            told there is no limit.
        key_header: Under which name the key comes.

    Raises:
        ConfigError: Definite. ``cap`` is not above 0.
    """
    if not cap > 0:
        raise ConfigError(f"extract: cap is {cap!r}; it must be above 0 seconds")
    timeouts: list[int] = []
    attempts = [1]
    keys: list[str] = []
    key_name = key_header.lower()
    for name, value in _pairs(headers):
        if name in _TIMEOUTS_MS:
            number = _number(value)
            if number is not None:
                timeouts.append(number * _MS)
        elif name == "grpc-timeout":
            left_ns = _grpc(value)
            if left_ns is not None:
                timeouts.append(left_ns)
        elif name in {"outlast-attempt", "x-envoy-attempt-count"}:
            attempts.append(_number(value) or 1)
        elif name == "grpc-previous-rpc-attempts":
            attempts.append((_number(value) or 0) + 1)
        elif name == key_name:
            keys.append(value)
    key = _key(keys[0]) if keys and len(set(keys)) == 1 else None
    return Incoming(
        min(min(timeouts) / _NS, cap) if timeouts else None,
        max(number for number in attempts if number <= _ATTEMPT_MAX),
        key,
        key_refused=bool(keys) and key is None,
    )


def _pairs(headers: Headers) -> Iterator[tuple[str, str]]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    for count, (name, value) in enumerate(pairs):
        if count >= _HEADERS_MAX:
            return
        yield _text(name).lower(), _text(value).strip(" \t")


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _number(value: str) -> int | None:
    """Return a number of 1 to 12 ASCII digits: ``int`` alone also takes ``+1``, ``1_0``, ``٣``."""
    digits = 0 < len(value) <= 12 and value.isascii() and value.isdigit()
    return int(value) if digits else None


def _grpc(value: str) -> int | None:
    unit = _GRPC_NS.get(value[-1:])
    number = _number(value[:-1]) if len(value) <= _GRPC_DIGITS_MAX + 1 else None
    return None if unit is None or number is None else number * unit


def _key(value: str) -> str | None:
    """Return a usable key. The draft has it in quotes, most senders have it bare: equal here."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return value if usable_key(value) else None


def usable_key(key: str) -> bool:
    """Whether ``key`` can go into a header: 1 to 255 visible ASCII characters."""
    fits = 0 < len(key) <= KEY_CHARACTERS_MAX
    return fits and key.isascii() and key.isprintable() and " " not in key


class incoming:
    """Serve a request under what its headers said: ``with incoming(headers):``.

    Inside, the deadline of the caller counts (nested only shortens; in a task the block is
    cancelled when time is up, as with :func:`outlast.deadline`), ``current_call()`` has the
    caller's key and attempt, so that retries inside an attempt above 1 are not multiplied, and
    :func:`current_incoming` returns all of it. For ``with`` and ``async with``; used once.

    Args:
        headers: As for :func:`extract`, or what it returned.
        cap: The longest time believed, in seconds.

    Raises:
        DeadlineError: Indefinite. Time was up inside the block of a coroutine.
    """

    __slots__ = ("_call_token", "_deadline", "_token", "info")

    def __init__(self, headers: "Headers | Incoming", *, cap: float = 30.0) -> None:
        self.info = headers if isinstance(headers, Incoming) else extract(headers, cap=cap)
        self._deadline = None if self.info.timeout is None else deadline(self.info.timeout)
        self._token: Token[Incoming | None] | None = None
        self._call_token: Token[CallInfo | None] | None = None

    @property
    def expired(self) -> bool:
        """Whether the caller's deadline ended the block."""
        return self._deadline is not None and self._deadline.expired

    def passed(self) -> bool:
        """Whether the caller's deadline has passed by now."""
        now_ns = current_world().clock.monotonic_ns()
        return self._deadline is not None and self._deadline.at.passed(now_ns)

    def __enter__(self) -> Incoming:
        """Set deadline, attempt and key."""
        if self._token is not None:
            raise RuntimeError("incoming: this object was entered before; make another one")
        self._token = _incoming_var.set(self.info)
        self._call_token = current_call_var.set(CallInfo(self.info.key, self.info.attempt))
        if self._deadline is not None:
            self._deadline.__enter__()
        return self.info

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore what was there before."""
        if self._call_token is not None and self._token is not None:
            current_call_var.reset(self._call_token)
            _incoming_var.reset(self._token)
        if self._deadline is not None:
            self._deadline.__exit__(kind, error, trace)

    async def __aenter__(self) -> Incoming:
        """Set deadline, attempt and key."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore what was there before."""
        self.__exit__(kind, error, trace)
