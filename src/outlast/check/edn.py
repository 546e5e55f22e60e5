"""EDN, the notation of Clojure in which Jepsen and Knossos store histories, as plain values.

The text is first cut into forms, one per event, by a scanner of our own that bounds their depth
and size and knows their lines; the library ``edn_format`` then reads the forms in batches. Tags of
records, such as ``#jepsen.history.Op``, are left out: what they mark is a map.
"""

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from typing import Any, NamedTuple

from outlast.kernel import ConfigError

DEPTH_MAX = 64
"""Nesting beyond this is refused."""

FORM_CHARS_MAX = 1 << 20
"""Characters of one event, at most."""

_BATCH = 4_000
_INT_BITS_MAX = 4_096
_EXPONENT_MAX = 400

_TOKEN = re.compile(
    r"""
    (?P<skip>[\s,]++|;[^\n]*+)
    |(?P<string>"(?:[^"\\]++|\\.)*+")
    |(?P<char>\\(?:newline|return|space|tab|formfeed|backspace|u[0-9A-Fa-f]{4}|.))
    |(?P<prefix>\#_|\^|\#:?[A-Za-z][^\s,"(){}\[\];\\]*+)
    |(?P<open>\#\{|[\[({])
    |(?P<close>[\])}])
    |(?P<atom>[^\s,"()\[\]{};\\]++)
    """,
    re.VERBOSE | re.DOTALL,
)
_LOOKS = re.compile(r"(?:[\s,]++|;[^\n]*+\n)*+[\[(]?[\s,]*+(?:#[a-z][\w.\-/]*+\s*+)?\{[\s,]*+:")
_PAIR = "outlast/pair"


class Pair(NamedTuple):
    """A key and a value that the history marks as belonging together."""

    key: Any
    value: Any


class Form(NamedTuple):
    """One form: the line where it begins, counted from 1, and its text."""

    line: int
    text: str


def looks_like_edn(head: str) -> bool:
    """Return whether a text that begins so is EDN and not JSON: a map with a keyword first."""
    return _LOOKS.match(head) is not None


def read_edn(text: str, name: str = "history") -> Iterator[tuple[int, Any]]:
    """Yield the forms of a history with their lines, as the library gives them: see `plain`.

    Args:
        text: Maps one after the other, or one vector or list of maps.
        name: What errors call the text.

    Raises:
        ConfigError: Not EDN, or deeper, longer or larger than the bounds: name and line are in
            the message. Or the extra ``edn`` is not installed.
    """
    try:
        import edn_format
    except ModuleNotFoundError as error:
        message = f'{name}: reading EDN needs {error.name}: pip install "outlast[edn]"'
        raise ConfigError(message) from error
    edn_format.add_tag(_PAIR, _pair)
    batch: list[Form] = []
    for form in forms(text, name):
        batch.append(form)
        if len(batch) == _BATCH:
            yield from _read(edn_format, batch, name)
            batch = []
    if batch:
        yield from _read(edn_format, batch, name)


# --- cutting -----------------------------------------------------------------------------------


def forms(text: str, name: str) -> Iterator[Form]:
    """Yield the forms of a text; those of its one vector or list, if it is one."""
    depth = base = 0
    line, counted = 1, 0  # the line of position `counted`
    parts: list[str] = []
    size = begun = 0

    def wrong(what: str, at: int) -> ConfigError:
        return ConfigError(f"{name}:{line + text.count(chr(10), counted, at)}: {what}")

    for kind, piece, at in _tokens(text):
        written = _untagged(piece) if kind == "prefix" else piece
        if kind == "skip" or not written:
            if parts:
                parts.append(" ")
            continue
        if kind == "bad":
            raise wrong(f"not EDN: {piece[:20]!r} begins nothing that ends", at)
        if base and depth < base:
            raise wrong("something follows the history's one vector; expected its end", at)
        if kind == "open" and not depth and not begun and piece in "[(":
            base = depth = 1
            parts, begun = [], 1
            continue
        if kind == "close":
            depth -= 1
            if depth < 0:
                raise wrong(f"not EDN: {piece!r} closes nothing", at)
            if depth < base:
                if parts:
                    raise wrong("not EDN: a prefix without a form", at)
                continue
        if not parts:
            line += text.count("\n", counted, at)
            counted, size, begun = at, 0, 1
        depth += kind == "open"
        size += len(piece)
        if depth > DEPTH_MAX or size > FORM_CHARS_MAX:
            limit = f"{DEPTH_MAX} levels" if depth > DEPTH_MAX else f"{FORM_CHARS_MAX} characters"
            raise wrong(f"an event of more than {limit}; that is not a history", at)
        parts.append(written)
        if depth == base and kind != "prefix":
            yield Form(line, "".join(parts))
            parts = []
    if depth:
        raise wrong("not EDN: the text ends inside a form", len(text))


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield kind, text and place of each token; the last is ``bad`` if the text is broken."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            yield "bad", text[at : at + 40], at
            return
        yield str(match.lastgroup), match.group(), at
        at = match.end()


def _untagged(prefix: str) -> str:
    """Return a prefix, or nothing for what names a record; a tuple of Jepsen's stays marked."""
    if prefix in {"#_", "^", "#inst", "#uuid"} or prefix.startswith("#:"):
        return prefix
    return f"#{_PAIR} " if re.search(r"[./](?:Tuple|MapEntry)$", prefix) else ""


# --- reading -----------------------------------------------------------------------------------


def _read(edn: Any, batch: Sequence[Form], name: str) -> Iterator[tuple[int, Any]]:
    """Read a batch at once; one that cannot be read is halved until the culprit is alone."""
    why = ""
    try:
        found = edn.loads_all("\n".join(form.text for form in batch), write_ply_tables=False)
    except Exception as error:  # the library raises whatever the value's type raised
        found, why = None, _reason(error)
    if found is not None and len(found) == len(batch):
        for form, value in zip(batch, found, strict=True):
            yield form.line, value
    elif len(batch) > 1:
        middle = len(batch) // 2
        yield from _read(edn, batch[:middle], name)
        yield from _read(edn, batch[middle:], name)
    elif found != []:  # a form that is discarded gives nothing
        raise ConfigError(f"{name}:{batch[0].line}: not EDN: {why or 'several forms in one'}")


def _reason(error: Exception) -> str:
    """Return in words what the library said; it may hand over a token instead."""
    what = error.args[0] if error.args else ""
    token = getattr(what, "value", None)
    if token is not None:
        return f"{str(token)[:40]!r} is not expected there"
    return " ".join(str(what).split())[:120] or type(error).__name__


def _pair(value: Any) -> Pair:
    if isinstance(value, Mapping):
        value = [value.get(name) for name in value]
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError("a tuple has a key and a value")
    return Pair(value[0], value[1])


def plain(value: Any) -> Any:
    """Return what the library read as a value that JSON could hold; pairs stay pairs.

    Keywords, symbols and characters become strings (without the colon), vectors and lists become
    lists, sets become sorted lists, ratios and decimals become numbers, instants become text.

    Raises:
        ValueError: A number that is no number, or too large to judge.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal | Fraction):
        return _plain_number(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Pair):
        return Pair(plain(value.key), plain(value.value))
    if isinstance(value, Mapping):
        return {plain_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=lambda v: (type(v).__name__, repr(v)))
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if isinstance(value, datetime.date):
        return value.isoformat()
    named = getattr(value, "name", None)
    return named if isinstance(named, str) else str(value)  # a keyword or symbol; a UUID


def _plain_number(value: int | float | Decimal | Fraction) -> int | float:
    if isinstance(value, Decimal) and abs(value.adjusted()) > _EXPONENT_MAX:
        raise ValueError("a number too large to judge; at most 10 to the 400th")
    if isinstance(value, Decimal | Fraction):
        value = int(value) if value == int(value) else float(value)
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"{value} is not a number that can be compared")
    if isinstance(value, int) and value.bit_length() > _INT_BITS_MAX:
        raise ValueError(f"a number too large to judge; at most {_INT_BITS_MAX} bits")
    return value


def plain_key(key: Any) -> Any:
    """Return a key of a map: itself if it is a scalar, else its text."""
    found = plain(key)
    return found if isinstance(found, str | int | float | None) else repr(found)
