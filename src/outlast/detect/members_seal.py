"""Who may speak in a group: packets and stream frames are sealed with a shared key.

Every message starts with a header: the version, its mode and purpose, and with a key the key's
id and a nonce. What follows is bound to that header, so that no message can be passed off as
one of another version, mode or purpose, and an answer also to the question that it answers.

With ``encrypt`` (the default) the body is encrypted by AES-256-GCM-SIV (RFC 8452) with 96 random
bits as nonce. With plain AES-GCM a nonce that is drawn twice gives the key away, and chance draws
one twice within some 2**32 messages, which a group of a thousand nodes sends in days; here it
shows no more than whether two messages are the same. Nothing is counted or kept, so a fork or a
restart is no danger. Without ``encrypt`` messages can be read by anybody, and carry an HMAC-SHA256
of 128 bits.

**A message that is recorded and sent again** opens: nothing is remembered of those that were
seen. It is harmless, because what a message says is ordered by incarnations, which only the
member that it speaks of raises: old news loses against what is known, an old question is
answered to whom it came from, and an old answer fits no question that is still open.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final, Protocol

from outlast.host.secret import secret_bytes
from outlast.kernel import ConfigError, ProtocolError

KEY_BYTES: Final = 32
KEYS_MAX: Final = 8
OVERHEAD_MAX: Final = 34
"""Bytes that the strongest mode adds to a message."""

_VERSION: Final = 0xB1
_PLAIN, _SIGNED, _SEALED = 0, 1, 2
_ID: Final = 4
_SALT: Final = 8
_NONCE: Final = 12
_TAG: Final = 16


class Purpose(IntEnum):
    """What a message is for; one for another purpose does not open."""

    PACKET = 1
    EXCHANGE = 2
    EXCHANGE_ANSWER = 3
    QUESTION = 4
    QUESTION_ANSWER = 5


def purpose_of(message: bytes) -> Purpose:
    """Return what ``message`` says that it is for, which is proven only once it is opened.

    Raises:
        ProtocolError: It says nothing that is known here.
    """
    try:
        return Purpose(message[1] & 0x0F)
    except (IndexError, ValueError):
        raise ProtocolError("purpose") from None


class Seal(Protocol):
    """Closes and opens messages of one group."""

    overhead: int

    def close(self, purpose: Purpose, body: bytes, *, bound: bytes = b"") -> bytes:
        """Return the message that carries ``body``."""
        ...

    def open(self, purpose: Purpose, message: bytes, *, bound: bytes = b"") -> bytes:
        """Return the body of ``message``.

        Raises:
            ProtocolError: It is none of this group's: the text is one of a few words, such as
                ``version``, ``mode``, ``purpose``, ``short``, ``unknown key`` or ``forged``.
        """
        ...


def make_key() -> bytes:
    """Return a new key of 32 bytes."""
    return secret_bytes(KEY_BYTES)


def key_text(key: bytes) -> str:
    """Return ``key`` as it is written in a key file: URL-safe base64 on one line."""
    return urlsafe_b64encode(key).decode("ascii")


def read_keys(text: str, *, where: str = "key") -> list[bytes]:
    """Read keys, one on each line; empty lines and ``#`` comments are skipped.

    Raises:
        ConfigError: Definite. A line is no key, or there is none. No message holds a key.
    """
    keys: list[bytes] = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        try:
            key = urlsafe_b64decode(word.encode("ascii"))
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES or key_text(key) != word:  # the decoder skips what it dislikes
            message = (
                f"{where}:{number}: not a key of {KEY_BYTES} bytes in URL-safe base64;"
                " `outlast members keygen` makes one"
            )
            raise ConfigError(message)
        keys.append(key)
    if not keys:
        raise ConfigError(f"{where}: no key in it; `outlast members keygen` makes one")
    return keys


def check_keys(key: bytes | Sequence[bytes] | None) -> tuple[bytes, ...]:
    """Return the keys of a ring, the one that seals first.

    Raises:
        ConfigError: Definite. One has another length, comes twice, or there are too many.
    """
    if key is None:
        return ()
    given: tuple[object, ...] = (key,) if isinstance(key, bytes) else tuple(key)
    if not 1 <= len(given) <= KEYS_MAX:
        raise ConfigError(f"Members: key has {len(given)} keys; give 1 to {KEYS_MAX}, or None")
    ring = tuple(one for one in given if isinstance(one, bytes) and len(one) == KEY_BYTES)
    if ring != given:
        wrong = next(one for one in given if one not in ring)
        what = f"{len(wrong)} bytes" if isinstance(wrong, bytes) else f"a {type(wrong).__name__}"
        message = f"Members: a key is {what}; it must be {KEY_BYTES} bytes: Members.make_key()"
        raise ConfigError(message)
    if len(set(ring)) != len(ring):
        raise ConfigError("Members: a key is in the ring twice")
    return ring


def make_seal(keys: Sequence[bytes], *, encrypt: bool = True) -> Seal:
    """Return what closes and opens the messages of a group.

    Args:
        keys: The first closes, all open; none for messages that anybody may write.
        encrypt: Whether bodies are encrypted, or only authenticated.

    Raises:
        ConfigError: Definite. Encryption needs ``cryptography``, which is missing.
    """
    if not keys:
        return _Plain()
    return _Ring(keys, _Sealed if encrypt else _Signed)


def _head(mode: int, purpose: Purpose) -> bytes:
    return bytes((_VERSION, mode << 4 | purpose))


def _check_head(mode: int, purpose: Purpose, message: bytes, size: int) -> None:
    if len(message) < 2 or message[0] != _VERSION:
        raise ProtocolError("version")
    if message[1] >> 4 != mode:
        raise ProtocolError("no key" if message[1] >> 4 == _PLAIN else "mode")
    if message[1] & 0x0F != purpose:
        raise ProtocolError("purpose")
    if len(message) < size:
        raise ProtocolError("short")


class _Plain:
    """No key: the header alone."""

    __slots__ = ()
    overhead = 2

    def close(self, purpose: Purpose, body: bytes, *, bound: bytes = b"") -> bytes:
        return _head(_PLAIN, purpose) + body

    def open(self, purpose: Purpose, message: bytes, *, bound: bytes = b"") -> bytes:
        _check_head(_PLAIN, purpose, message, 2)
        return message[2:]


class _One(Protocol):
    """One key in one mode."""

    mode: int
    fresh: int
    id: bytes

    def close(self, head: bytes, body: bytes, bound: bytes) -> bytes: ...

    def open(self, head: bytes, rest: bytes, bound: bytes) -> bytes: ...


class _Ring:
    """The first key closes, the one that a message names opens it."""

    __slots__ = ("_first", "_keys", "_mode", "overhead")

    def __init__(self, keys: Sequence[bytes], kind: Callable[[bytes], _One]) -> None:
        made = [kind(key) for key in keys]
        self._first = made[0]
        self._keys = {one.id: one for one in made}
        self._mode = self._first.mode
        self.overhead = 2 + _ID + self._first.fresh + _TAG

    def close(self, purpose: Purpose, body: bytes, *, bound: bytes = b"") -> bytes:
        one = self._first
        head = _head(self._mode, purpose) + one.id + secret_bytes(one.fresh)
        return head + one.close(head, body, bound)

    def open(self, purpose: Purpose, message: bytes, *, bound: bytes = b"") -> bytes:
        _check_head(self._mode, purpose, message, self.overhead)
        one = self._keys.get(message[2 : 2 + _ID])
        if one is None:
            raise ProtocolError("unknown key")
        size = 2 + _ID + one.fresh
        return one.open(message[:size], message[size:], bound)


def _derive(key: bytes, use: bytes) -> bytes:
    """Return a key for one use (NIST SP 800-108 with one block of HMAC-SHA256)."""
    return hmac.digest(key, b"outlast members 1 " + use, hashlib.sha256)


class _Signed:
    """Readable by anybody, and closed by HMAC-SHA256, cut to 128 bits."""

    __slots__ = ("_key", "id")
    mode = _SIGNED
    fresh = _SALT

    def __init__(self, key: bytes) -> None:
        self.id = _derive(key, b"id of signing")[:_ID]
        self._key = _derive(key, b"signing")

    def close(self, head: bytes, body: bytes, bound: bytes) -> bytes:
        return body + self._tag(head, body, bound)

    def open(self, head: bytes, rest: bytes, bound: bytes) -> bytes:
        body, tag = rest[:-_TAG], rest[-_TAG:]
        if not hmac.compare_digest(tag, self._tag(head, body, bound)):
            raise ProtocolError("forged")
        return body

    def _tag(self, head: bytes, body: bytes, bound: bytes) -> bytes:
        # One length is enough: the header's is known by its mode, and the body is the rest.
        parts = b"".join((len(bound).to_bytes(2, "big"), bound, head, body))
        return hmac.digest(self._key, parts, hashlib.sha256)[:_TAG]


class _Sealed:
    """AES-256-GCM-SIV."""

    __slots__ = ("_cipher", "_invalid", "id")
    mode = _SEALED
    fresh = _NONCE

    def __init__(self, key: bytes) -> None:
        try:
            from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
            from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
        except ModuleNotFoundError:
            message = 'Members: a key needs cryptography: pip install "outlast[members]"'
            raise ConfigError(message) from None
        self.id = _derive(key, b"id of sealing")[:_ID]
        self._invalid = InvalidTag
        try:
            self._cipher = AESGCMSIV(_derive(key, b"sealing"))
        except UnsupportedAlgorithm as error:
            message = f"Members: cryptography has no AES-GCM-SIV here ({error}); encrypt=False"
            raise ConfigError(message) from None

    def close(self, head: bytes, body: bytes, bound: bytes) -> bytes:
        return self._cipher.encrypt(head[-_NONCE:], body, head[: 2 + _ID] + bound)

    def open(self, head: bytes, rest: bytes, bound: bytes) -> bytes:
        try:
            return self._cipher.decrypt(head[-_NONCE:], rest, head[: 2 + _ID] + bound)
        except self._invalid:
            raise ProtocolError("forged") from None
