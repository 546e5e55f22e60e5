"""``HttpxTransport`` and ``AsyncHttpxTransport``: every request of an httpx client, protected."""

from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import suppress
from typing import Any, Final, get_args

from outlast.kernel import ConfigError, DeadlineError, current_deadline, current_world
from outlast.protect.beside import abandoned
from outlast.protect.careful import Asked, StatusFailure, asked_var, careful, current_asked
from outlast.protect.checks import check_whole
from outlast.protect.core.repeat import RETRY_STATUSES, SAFE, fit
from outlast.protect.deadline import remaining
from outlast.protect.headers import Style, inject
from outlast.protect.policy import Policy

try:
    import httpx
except ImportError as error:
    message = 'HttpxTransport needs httpx: pip install "outlast[httpx]"'
    raise ConfigError(message) from error

_LIMITS: Final = ("connect", "read", "write", "pool")
_MEBIBYTE: Final = 1 << 20
_LONGEST: Final = 1 << 40


class _Status(StatusFailure, httpx.HTTPStatusError):
    """A response with a failing status; the transport returns the response in the end."""

    def __init__(self, request: httpx.Request, response: httpx.Response) -> None:
        response.request = request
        self.status = response.status_code
        message = f"{self.status} for {request.method} at {request.url.host}"
        httpx.HTTPStatusError.__init__(self, message, request=request, response=response)


class _Once(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that can be read only once; tells when that happens."""

    def __init__(self, stream: Any, asked: Asked) -> None:
        self._stream = stream
        self._asked = asked

    def __iter__(self) -> Iterator[bytes]:
        self._asked.spent = True
        yield from self._stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._asked.spent = True
        async for chunk in self._stream:
            yield chunk

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Shared:
    """What both transports share: settings, requests as they are sent, judging of statuses."""

    def __init__(
        self,
        policy: Policy,
        *,
        retry_statuses: Collection[int],
        may_repeat: Callable[[httpx.Request], bool] | None,
        style: Style | None,
        replay_max: int,
        read_max: int,
    ) -> None:
        where = type(self).__name__
        if not isinstance(policy, Policy):
            raise ConfigError(f"{where}: policy is {policy!r}; a Policy would be right")
        if "cache" in policy.parts:
            raise ConfigError(
                f"{where}: a response is read once and cannot be kept; put the cache= of policy "
                f"{policy.name!r} around the function that reads it"
            )
        check_whole(where, "replay_max", replay_max, 0, _LONGEST)
        check_whole(where, "read_max", read_max, 0, _LONGEST)
        for status in retry_statuses:
            check_whole(where, "retry_statuses", status, 400, 599)
        if style not in {None, *get_args(Style)}:
            known = ", ".join(get_args(Style))
            raise ConfigError(f"{where}: style is {style!r}; it must be None or one of {known}")
        self.policy = policy
        self._statuses = frozenset(retry_statuses)
        self._may_repeat = may_repeat
        self._style = style
        self._replay_max = replay_max
        self._read_max = read_max
        named = policy.parts.get("idempotency")
        self._key_header = "Idempotency-Key" if named is None else named.header
        self._repeats = not policy.parts.keys().isdisjoint({"retry", "hedge"})
        self._framed: tuple[int, Any] | None = None

    @staticmethod
    def by_host(request: httpx.Request) -> str:
        """Return host and port, for ``Keyed(…, by=HttpxTransport.by_host)``."""
        return request.url.netloc.decode("ascii")

    def _frame(self, attempt: Callable[..., Any], drop: Any, *, can_wait: bool) -> Any:
        """Return ``attempt`` protected; made anew when a limit of time was changed."""
        version, framed = self.policy.version, self._framed
        if framed is None or framed[0] != version:
            policy = careful(self.policy, self._statuses, drop, can_wait=can_wait)
            framed = self._framed = version, policy(attempt)
        return framed[1]

    def _ask(self, request: httpx.Request) -> Asked:
        """Return what is known of a request before it is sent."""
        promised = self._key_header in request.headers or (
            self._may_repeat is not None and bool(self._may_repeat(request))
        )
        asked = Asked(request, request.method.upper(), promised=promised)
        asked.once = not isinstance(request.stream, httpx.ByteStream)
        return asked

    def _can_hold(self, request: httpx.Request) -> bool:
        """Whether the body is to be held in memory, so that it can be sent again."""
        length = _length(request.headers)
        return self._repeats and length is not None and length <= self._replay_max

    def _prepare(self, asked: Asked) -> httpx.Request:
        """Return the request as one attempt sends it.

        Raises:
            TooLateError: Definite. The deadline leaves no time.
        """
        request = asked.request
        told: dict[str, str] = {}
        inject(told, style=self._style or "outlast", key_header=self._key_header)
        small = self._style in {"grpc", "envoy"}
        key = told.pop(self._key_header.lower() if small else self._key_header, None)
        headers = request.headers.copy()
        if self._style is not None:
            headers.update(told)
        if key is not None and asked.method not in SAFE and self._key_header not in headers:
            headers[self._key_header] = key
        asked.promised = asked.promised or self._key_header in headers
        own = request.extensions.get("timeout", {})
        limits = fit({**dict.fromkeys(_LIMITS), **own}, remaining())
        return httpx.Request(
            request.method,
            request.url,
            headers=headers,
            stream=_Once(request.stream, asked) if asked.once else request.stream,
            extensions={**request.extensions, "timeout": limits},
        )

    def _judge(self, asked: Asked, response: httpx.Response) -> httpx.Response:
        """Return a response, or raise it if its status is a failure."""
        status = response.status_code
        if status >= 500 or status in self._statuses:
            raise _Status(asked.request, response)
        return response

    def _is_short(self, response: httpx.Response) -> bool:
        """Whether the body is to be read within the attempt."""
        length = _length(response.headers)
        return length is not None and length <= self._read_max

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.policy!r})"


class HttpxTransport(_Shared, httpx.BaseTransport):
    """Protects every request of an ``httpx.Client`` by a policy.

    ::

        policy = Policy("rates", timeout=5, retry=Retry(httpx.TransportError), attempt_timeout=2)
        client = httpx.Client(transport=HttpxTransport(policy), base_url="https://rates.example")

    *What is repeated.* After errors that ``Retry(on=…)`` names, and after ``retry_statuses``;
    but only if the attempt surely did nothing (it could not connect, or the status is a refusal
    such as 429), if the method is idempotent (GET, HEAD, OPTIONS, TRACE, PUT, DELETE), if an
    idempotency key goes with the request, or if ``may_repeat`` says so. The same holds for
    hedges. So ``Retry(…, repeat_indefinite=True)`` is harmless here, and ``on`` may name
    ``DeadlineError`` for the ``attempt_timeout``. A wish in ``Retry-After`` is kept to. The last
    response is returned as it is; an earlier one is closed before the wait.

    *What is a failure*, for the breaker, an adaptive limit and the fallback: errors, and a status
    of 5xx, which ``CircuitBreaker(counts=…)`` and ``Fallback(on=…)`` see as an
    ``httpx.HTTPStatusError``. 429 and the like tell the limit to slow down, and the breaker that
    the server works. What a fallback gives must be a new ``httpx.Response`` each time.

    *Time.* What is left of the deadline (of the context, ``timeout=`` and ``attempt_timeout=``)
    bounds each of httpx's own timeouts, and is told to the server. An attempt ends, and its
    permit is given back, when the headers of the response have come, and with them the body
    where its length is known and at most ``read_max``. Longer and streamed bodies are the
    caller's to read, bounded by httpx's timeouts. A server that keeps to the time it was told
    ends them, too: for long streams use a policy without limits, or ``style=None``.

    *Bodies* that are not bytes (files, multipart, iterators) are held in memory to be sent again,
    where their length is known and at most ``replay_max``. A request with any other is repeated
    only if nothing of it was read; the error has a note that says so.

    A part of its own for each host: ``Keyed(lambda: CircuitBreaker(5, 30),
    by=HttpxTransport.by_host)``. A transport has its own pool of connections: one transport for
    each service keeps a slow one from using up the connections of the others. Give the wrapped
    transport no ``retries``: those the policy does not see.

    Args:
        policy: What protects each request; its parts are shared with other holders of them.
        transport: What sends requests; ``httpx.HTTPTransport()`` by default. Closed with this.
        retry_statuses: Statuses after which to ask again, if the policy has a retry.
        may_repeat: Tells of a request that it does no harm the second time, such as a POST that
            only searches.
        style: How time left and attempt are told in headers; ``None`` to tell nothing but the
            idempotency key. See :func:`outlast.protect.headers.inject`.
        replay_max: Longest request body held in memory, in bytes.
        read_max: Longest response body that is part of the attempt, in bytes.

    Raises:
        ConfigError: Definite. A setting is wrong, the policy has ``cache=``, or httpx is not
            installed.
    """

    def __init__(
        self,
        policy: Policy,
        transport: httpx.BaseTransport | None = None,
        *,
        retry_statuses: Collection[int] = RETRY_STATUSES,
        may_repeat: Callable[[httpx.Request], bool] | None = None,
        style: Style | None = "outlast",
        replay_max: int = _MEBIBYTE,
        read_max: int = _MEBIBYTE,
    ) -> None:
        super().__init__(
            policy, retry_statuses=retry_statuses, may_repeat=may_repeat, style=style,
            replay_max=replay_max, read_max=read_max,
        )  # fmt: skip
        self._transport = transport or httpx.HTTPTransport()
        self._frame(self._attempt, _drop, can_wait=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, protected; what is raised is as httpx raises it, or a refusal."""
        asked, kept = self._ask(request), None
        right = isinstance(request.stream, httpx.SyncByteStream)
        if asked.once and right and self._can_hold(request):
            request.read()
            asked.once = False
        token = asked_var.set(asked)
        try:
            kept = self._frame(self._attempt, _drop, can_wait=False)(request)
        except _Status as failure:
            kept = failure.response
        finally:
            asked_var.reset(token)
            asked.ended = True
            _drop(asked, kept)
        return kept

    def _attempt(self, request: httpx.Request) -> httpx.Response:
        asked = current_asked()
        response = self._transport.handle_request(self._prepare(asked))
        asked.opened.append(response)
        if asked.ended or abandoned():
            response.close()  # a thread that nobody waits for any more
        elif self._is_short(response):
            response = _with_stream(response, b"".join(_timely(response)))
        return self._judge(asked, response)

    def close(self) -> None:
        """Close the wrapped transport."""
        self._transport.close()


class AsyncHttpxTransport(_Shared, httpx.AsyncBaseTransport):
    """Protects every request of an ``httpx.AsyncClient`` by a policy.

    As :class:`HttpxTransport`, argument by argument. Limits of time also cancel what they bound.

    Args:
        policy: What protects each request.
        transport: What sends requests; ``httpx.AsyncHTTPTransport()`` by default.
        retry_statuses: Statuses after which to ask again, if the policy has a retry.
        may_repeat: Tells of a request that it does no harm the second time.
        style: How time left and attempt are told in headers; ``None`` for the key alone.
        replay_max: Longest request body held in memory, in bytes.
        read_max: Longest response body that is part of the attempt, in bytes.

    Raises:
        ConfigError: Definite. A setting is wrong, the policy has ``cache=``, or httpx is not
            installed.
    """

    def __init__(
        self,
        policy: Policy,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        retry_statuses: Collection[int] = RETRY_STATUSES,
        may_repeat: Callable[[httpx.Request], bool] | None = None,
        style: Style | None = "outlast",
        replay_max: int = _MEBIBYTE,
        read_max: int = _MEBIBYTE,
    ) -> None:
        super().__init__(
            policy, retry_statuses=retry_statuses, may_repeat=may_repeat, style=style,
            replay_max=replay_max, read_max=read_max,
        )  # fmt: skip
        self._transport = transport or httpx.AsyncHTTPTransport()
        self._frame(self._attempt, _adrop, can_wait=True)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, protected; what is raised is as httpx raises it, or a refusal."""
        asked, kept = self._ask(request), None
        right = isinstance(request.stream, httpx.AsyncByteStream)
        if asked.once and right and self._can_hold(request):
            await request.aread()
            asked.once = False
        token = asked_var.set(asked)
        try:
            kept = await self._frame(self._attempt, _adrop, can_wait=True)(request)
        except _Status as failure:
            kept = failure.response
        finally:
            asked_var.reset(token)
            asked.ended = True
            await _adrop(asked, kept)
        return kept

    async def _attempt(self, request: httpx.Request) -> httpx.Response:
        asked = current_asked()
        response = await self._transport.handle_async_request(self._prepare(asked))
        asked.opened.append(response)
        if self._is_short(response):
            stream: Any = response.stream
            read = b"".join([chunk async for chunk in stream])
            await response.aclose()
            response = _with_stream(response, read)
        return self._judge(asked, response)

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._transport.aclose()


def _drop(asked: Asked, kept: httpx.Response | None = None) -> None:
    """Close all responses but ``kept``."""
    for response in asked.drain():
        if response is not kept:
            with suppress(Exception):  # nobody wants it any more, whatever is wrong with it
                response.close()


async def _adrop(asked: Asked, kept: httpx.Response | None = None) -> None:
    """Close all responses but ``kept``."""
    for response in asked.drain():
        if response is not kept:
            with suppress(Exception):  # nobody wants it any more, whatever is wrong with it
                await response.aclose()


def _timely(response: httpx.Response) -> Iterator[bytes]:
    """Yield the chunks of a body while there is time, and close it: nothing interrupts a thread.

    Raises:
        DeadlineError: Indefinite. The deadline passed before the end.
    """
    limit, left = current_deadline.get(), _length(response.headers) or 0
    stream: Any = response.stream
    for chunk in stream:
        yield chunk
        left -= len(chunk)
        now_ns = current_world().clock.monotonic_ns()
        if left > 0 and limit is not None and limit.passed(now_ns):
            raise DeadlineError("the deadline passed while the body of the response was read")
    response.close()


def _with_stream(response: httpx.Response, read: bytes) -> httpx.Response:
    """Return a response like ``response`` whose body has been read."""
    return httpx.Response(
        response.status_code, headers=response.headers, stream=httpx.ByteStream(read),
        extensions=response.extensions,
    )  # fmt: skip


def _length(headers: httpx.Headers) -> int | None:
    """Return the length of a body, if it is told; the one that counts is the wire's."""
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
