"""When the callee wants to be called again, as errors and responses of many libraries say it."""

from collections.abc import Callable
from typing import Any, Final

_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_DAY_S: Final = 86_400
_NS: Final = 1_000_000_000
_DIGITS_MAX: Final = 20


def retry_after(outcome: object, wall_ns: int) -> float | None:
    """Return after how many seconds the callee wants to be called again, if it said so.

    It may have said so by ``retry_after`` of our errors (and of others that have it in seconds),
    the ``Retry-After`` header of an HTTP response (RFC 9110, 10.2.3: seconds or a date; also
    ``Retry-After-Ms``), or ``grpc-retry-pushback-ms`` of gRPC. What makes no sense is as if not
    said. It may be any length: cap it.

    Args:
        outcome: An error, or a response.
        wall_ns: Wall time, to which a date is compared.

    >>> from outlast.kernel import RateLimitedError
    >>> retry_after(RateLimitedError(retry_after=1.5), wall_ns=0)
    1.5
    """
    try:
        return _said(outcome, wall_ns)
    except Exception:  # a foreign object may do anything when it is looked at
        return None


def _said(outcome: object, wall_ns: int) -> float | None:
    said = _seconds(peek(outcome, "retry_after"))
    if said is not None:
        return said
    headers = headers_of(outcome)
    if headers is not None:
        milliseconds = _seconds(_text(headers, "Retry-After-Ms"))
        if milliseconds is not None:
            return milliseconds / 1000
        text = _text(headers, "Retry-After")
        if text is not None:
            seconds = _seconds(text)
            return _until(text, wall_ns) if seconds is None else seconds
    if isinstance(outcome, BaseException) and grpc_code(outcome) is not None:
        pushback = pushback_ms(outcome)
        if pushback is not None and pushback >= 0:
            return pushback / 1000
    return None


def headers_of(outcome: object) -> Any:
    """Return what headers an error or a response has: anything with ``get``; ``None`` if none."""
    response = peek(outcome, "response")
    if isinstance(response, dict):
        metadata = response.get("ResponseMetadata")
        response = metadata if isinstance(metadata, dict) else {}
        return response.get("HTTPHeaders")
    for holder in (response, outcome):
        headers = peek(holder, "headers")
        if callable(peek(headers, "get")):
            return headers
    return None


def peek(thing: object, name: str) -> Any:
    """Return an attribute of a foreign object; ``None`` if it has none or fails to tell."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def grpc_code(error: BaseException) -> str | None:
    """Return the name of the status code of an error of gRPC, else ``None``."""
    if not any(cls.__module__.partition(".")[0] == "grpc" for cls in type(error).__mro__):
        return None
    code = called(error, "code")
    name = getattr(code, "name", None)
    return name if isinstance(name, str) else None


def _text(headers: Any, name: str) -> str | None:
    for spelled in (name, name.lower()):
        value = headers.get(spelled)
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if isinstance(value, str):
            return value.strip()
    return None


def _seconds(value: Any) -> float | None:
    """Return a number of seconds, 0 or more and finite, from a number or its text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        digits = value.replace(".", "", 1)
        if not (digits.isascii() and digits.isdigit() and len(value) <= _DIGITS_MAX):
            return None
    seconds = float(value)
    return seconds if 0 <= seconds < float("inf") else None


def pushback_ms(error: BaseException) -> int | None:
    """Return the pushback of a gRPC server in ms, below 0 for never; ``None`` if there is none."""
    pairs = called(error, "trailing_metadata")
    try:
        for key, value, *_ in pairs or ():
            if key == "grpc-retry-pushback-ms":
                text = str(value)
                return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
    except Exception:
        return None
    return None


def called(error: BaseException, name: str) -> Any:
    """Return what a method without arguments of a foreign object gives; ``None`` if it fails."""
    method: Callable[[], Any] | None = peek(error, name)
    if not callable(method):
        return None
    try:
        return method()
    except Exception:
        return None


def _until(text: str, wall_ns: int) -> float | None:
    """Return the seconds until a date in any of the three forms of RFC 9110, 5.6.7."""
    words = text.replace(",", " ").replace("-", " ").split()
    try:
        if len(words) == 6 and words[5] == "GMT":  # Sun, 06 Nov 1994 08:49:37 GMT, and RFC 850
            _, day, month, year, clock, _ = words
        elif len(words) == 5:  # Sun Nov  6 08:49:37 1994
            _, month, day, clock, year = words
        else:
            return None
        hour, minute, second = (int(part) for part in clock.split(":"))
        if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second <= 60):
            return None
        date = _days(int(year), _MONTHS.index(month) + 1, int(day), wall_ns, len(year) == 2)
    except ValueError:
        return None
    at_s = date * _DAY_S + hour * 3600 + minute * 60 + second
    return max(0, at_s * _NS - wall_ns) / _NS


def _days(year: int, month: int, day: int, wall_ns: int, short: bool) -> int:
    """Return the days from 1970-01-01 to a date of the Gregorian calendar."""
    if not 1 <= day <= 31 or not 0 <= year <= 9999:
        raise ValueError(day)
    if short:
        # More than 50 years ahead means the century before (RFC 9110, 5.6.7).
        now = 1970 + wall_ns // (_DAY_S * _NS * 36525 // 100)
        year += now // 100 * 100
        if year > now + 50:
            year -= 100
    # Years begin in March here, so that the day that comes every fourth year is the last.
    if month <= 2:
        year, month = year - 1, month + 12
    leap_days = year // 4 - year // 100 + year // 400
    return 365 * year + leap_days + (153 * month - 457) // 5 + day - 719_469
