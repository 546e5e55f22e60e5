"""``HttpxPoolTransport`` and ``AsyncHttpxPoolTransport``: an httpx client of a whole pool."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final

from outlast.kernel import ConfigError, DeadlineError, InvariantError
from outlast.pool.endpoint import Endpoint
from outlast.pool.failover import Guard
from outlast.pool.pool import Pool
from outlast.protect.careful import Asked
from outlast.protect.httpx_transport import AsyncHttpxTransport, HttpxTransport

try:
    import httpx
except ImportError as error:  # pragma: no cover - told by the transport of protect first
    message = 'HttpxPoolTransport needs httpx: pip install "outlast[httpx]"'
    raise ConfigError(message) from error

_tried: Final[ContextVar[list[str] | None]] = ContextVar("outlast_pool_tried", default=None)
_endpoint: Final[ContextVar[Endpoint | None]] = ContextVar("outlast_pool_endpoint", default=None)


class _Held(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that the caller reads; the instance is busy with it until it is closed."""

    def __init__(self, pool: Pool, endpoint: Endpoint, stream: Any) -> None:
        self._pool = pool
        self._held = endpoint
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except Exception as error:
            self._pool.end(self._held, error)
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except Exception as error:
            self._pool.end(self._held, error)
            raise

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._pool.end(self._held, None)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._pool.end(self._held, None)


class _Pooled:
    """What both transports share: policy, requests as they go to an instance, wrong answers."""

    pool: Pool
    _pool_guard: Guard

    def _begin(self, pool: Pool) -> Guard:
        given: object = pool
        if not isinstance(given, Pool):
            where = type(self).__name__
            raise ConfigError(f"{where}: pool is {given!r}; a Pool would be right")
        self.pool = pool
        # What may be repeated is decided by the request: see HttpxTransport.
        on = (httpx.TransportError, DeadlineError)
        self._pool_guard = Guard(f"{pool.name}.http", pool.policy, pool.attempts, on)
        return self._pool_guard

    def _is_ours(self, request: httpx.Request) -> bool:
        """Whether a request is for the pool: by its name, or redirected to an instance."""
        url = request.url
        if url.host == self.pool.name.lower():
            return True
        place = (url.scheme, url.host, url.port)
        there = (httpx.URL(address) for address in self.pool.addresses)
        return any(place == (one.scheme, one.host, one.port) for one in there)

    def _addressed(self, request: httpx.Request) -> httpx.Request:
        """Return a request as it goes to the instance that was chosen."""
        endpoint = _endpoint.get()
        if endpoint is None:
            raise InvariantError("no instance was chosen")
        base = httpx.URL(endpoint.address)
        raw_path = base.raw_path.partition(b"?")[0].rstrip(b"/") + request.url.raw_path
        url = request.url.copy_with(
            scheme=base.scheme, host=base.host, port=base.port, raw_path=raw_path
        )
        headers, extensions = request.headers.copy(), dict(request.extensions)
        host = endpoint.instance.host
        port = "" if base.port is None else f":{base.port}"
        headers["Host"] = f"{host}{port}" if host else base.netloc.decode("ascii")
        if host and base.scheme == "https":
            extensions.setdefault("sni_hostname", host)
        return httpx.Request(
            request.method, url, headers=headers, stream=request.stream, extensions=extensions
        )

    def _answer(
        self,
        endpoint: Endpoint,
        request: httpx.Request,
        response: httpx.Response,
        read: bytes | None,
    ) -> httpx.Response:
        """Return a response that can be believed.

        Raises:
            httpx.RemoteProtocolError: It cannot.
        """
        pool = self.pool
        if read is None:
            endpoint.answered()
            response.stream = _Held(pool, endpoint, response.stream)
            if response.is_closed:  # a thread that nobody waits for: it will not be closed again
                pool.end(endpoint, None)
            return response
        if pool.valid is not None and not endpoint.lie:
            sample = _copy(response, read)
            sample.request = request
            sample.read()
            if not pool.valid(sample):
                endpoint.lied("the answer is not valid")
        if endpoint.lie:
            said = f"{pool.name}: {endpoint.address} gave a wrong answer: {endpoint.lie}"
            raise httpx.RemoteProtocolError(said)
        pool.end(endpoint, None)
        return _copy(response, read)

    def _too_long(self, endpoint: Endpoint, most: int) -> httpx.DecodingError:
        return httpx.DecodingError(
            f"{self.pool.name}: the answer of {endpoint.address} is longer than "
            f"read_max={most} bytes and cannot be judged by valid="
        )


class HttpxPoolTransport(_Pooled, HttpxTransport):
    """Sends every request of an ``httpx.Client`` to an instance of a pool, and on to another.

    ::

        pool = Pool("shop", ["http://a:8080", "http://b:8080"], attempts=3)
        client = httpx.Client(transport=HttpxPoolTransport(pool), base_url="http://shop")

    It is :class:`outlast.protect.HttpxTransport`, and the rules are the same: a request is
    repeated if it surely did nothing, if its method is idempotent, or with a key; a 502, 503, 504
    or 429 is asked for again, each time at another instance. The host of the URL is the name of
    the pool; a request for any other host goes past the pool, as it is. ``valid`` of the pool is
    given the response, its body read; what it refuses is an ``httpx.RemoteProtocolError`` if no
    other instance does better.

    An instance counts as busy until the body of a streamed response is closed. Policies with
    ``cache=`` or a part chosen by host do not fit: which instance is asked is not yet known.

    Args:
        pool: Instances whose addresses are URLs.
        transport: What sends requests; ``httpx.HTTPTransport()`` by default. Closed with this.
        settings: Those of :class:`outlast.protect.HttpxTransport`: ``retry_statuses``,
            ``may_repeat``, ``style``, ``replay_max``, ``read_max``. With ``valid=``, a longer
            response than ``read_max`` is an ``httpx.DecodingError``: it cannot be judged.

    Raises:
        ConfigError: Definite. A setting is wrong, or httpx is not installed.
    """

    def __init__(
        self, pool: Pool, transport: httpx.BaseTransport | None = None, **settings: Any
    ) -> None:
        policy = self._begin(pool).policy()
        HttpxTransport.__init__(self, policy, transport, **settings)

    def _frame(self, attempt: Callable[..., Any], drop: Any, *, can_wait: bool) -> Any:
        self.policy = self._pool_guard.policy()
        return super()._frame(attempt, drop, can_wait=can_wait)

    def _prepare(self, asked: Asked) -> httpx.Request:
        return self._addressed(super()._prepare(asked))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the pool."""
        if not self._is_ours(request):
            return self._transport.handle_request(request)
        token = _tried.set([])
        try:
            return super().handle_request(request)
        finally:
            _tried.reset(token)

    def _attempt(self, request: httpx.Request) -> httpx.Response:
        endpoint = self.pool.take(_tried_now())
        token = _endpoint.set(endpoint)
        try:
            response = super()._attempt(request)
            read: bytes | None = None
            if isinstance(response.stream, httpx.ByteStream):
                read = b"".join(response.stream)
            elif self.pool.valid is not None:
                read = self._read_all(endpoint, response)
            return self._answer(endpoint, request, response, read)
        except BaseException as error:
            self.pool.end(endpoint, error)
            raise
        finally:
            _endpoint.reset(token)

    def _read_all(self, endpoint: Endpoint, response: httpx.Response) -> bytes:
        stream: Any = response.stream
        parts: list[bytes] = []
        try:
            for chunk in stream:
                parts.append(chunk)
                if sum(map(len, parts)) > self._read_max:
                    raise self._too_long(endpoint, self._read_max)
        finally:
            response.close()
        return b"".join(parts)


class AsyncHttpxPoolTransport(_Pooled, AsyncHttpxTransport):
    """Sends every request of an ``httpx.AsyncClient`` to an instance of a pool.

    As :class:`HttpxPoolTransport`, argument by argument.

    Args:
        pool: Instances whose addresses are URLs.
        transport: What sends requests; ``httpx.AsyncHTTPTransport()`` by default.
        settings: Those of :class:`outlast.protect.AsyncHttpxTransport`.

    Raises:
        ConfigError: Definite. A setting is wrong, or httpx is not installed.
    """

    def __init__(
        self, pool: Pool, transport: httpx.AsyncBaseTransport | None = None, **settings: Any
    ) -> None:
        policy = self._begin(pool).policy()
        AsyncHttpxTransport.__init__(self, policy, transport, **settings)

    def _frame(self, attempt: Callable[..., Any], drop: Any, *, can_wait: bool) -> Any:
        self.policy = self._pool_guard.policy()
        return super()._frame(attempt, drop, can_wait=can_wait)

    def _prepare(self, asked: Asked) -> httpx.Request:
        return self._addressed(super()._prepare(asked))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the pool."""
        if not self._is_ours(request):
            return await self._transport.handle_async_request(request)
        token = _tried.set([])
        try:
            return await super().handle_async_request(request)
        finally:
            _tried.reset(token)

    async def _attempt(self, request: httpx.Request) -> httpx.Response:
        endpoint = self.pool.take(_tried_now())
        token = _endpoint.set(endpoint)
        try:
            response = await super()._attempt(request)
            read: bytes | None = None
            if isinstance(response.stream, httpx.ByteStream):
                read = b"".join(response.stream)
            elif self.pool.valid is not None:
                read = await self._read_all(endpoint, response)
            return self._answer(endpoint, request, response, read)
        except BaseException as error:
            self.pool.end(endpoint, error)
            raise
        finally:
            _endpoint.reset(token)

    async def _read_all(self, endpoint: Endpoint, response: httpx.Response) -> bytes:
        stream: Any = response.stream
        parts: list[bytes] = []
        try:
            async for chunk in stream:
                parts.append(chunk)
                if sum(map(len, parts)) > self._read_max:
                    raise self._too_long(endpoint, self._read_max)
        finally:
            await response.aclose()
        return b"".join(parts)


def _tried_now() -> list[str]:
    """Return where the request under way has been: one list for all of its attempts."""
    tried = _tried.get()
    if tried is None:
        raise InvariantError("no request is under way")
    return tried


def _copy(response: httpx.Response, read: bytes) -> httpx.Response:
    """Return a response like ``response`` whose body has been read."""
    return httpx.Response(
        response.status_code, headers=response.headers, stream=httpx.ByteStream(read),
        extensions=response.extensions,
    )  # fmt: skip
