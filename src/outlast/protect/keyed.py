"""``Keyed``: one part for each key, such as a breaker for each host, in bounded memory."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from outlast.kernel import ConfigError
from outlast.protect.forked import tell_of_forks
from outlast.protect.kinds import kind_of
from outlast.protect.part import Part

if TYPE_CHECKING:
    from outlast.protect.policy import Policy

PartT = TypeVar("PartT", bound=Part)


class Keyed(Part, Generic[PartT]):
    """Stands in a policy for one part, and holds as many as there are keys.

    The least recently used key is forgotten, with its state, when there are more than
    ``max_keys``. Parts with ``store=`` are shared by processes key by key; then a key is text,
    bytes, a whole number, ``None``, or a tuple of these.

    Args:
        make: Returns a new part; called once for each key.
        by: Returns the key; called with the arguments of the call.
        max_keys: How many keys are kept.
        name: In events and metrics; keys are not shown there, since their number has no bound.

    Raises:
        ConfigError: ``make`` returns no part, or ``max_keys`` is not 1 or more; in a call, a key
            on which processes that share the parts cannot agree.

    >>> from outlast.protect import CircuitBreaker
    >>> hosts = Keyed(lambda: CircuitBreaker(5, 30), by=lambda url: url.split("/")[2])
    >>> hosts.part("a") is hosts.part("a"), hosts.part("a") is hosts.part("b")
    (True, False)
    """

    keyed = True
    settings = ("max_keys",)

    __slots__ = ("_lock", "_make", "_parts", "by", "max_keys", "position", "store")

    def __init__(
        self,
        make: Callable[[], PartT],
        *,
        by: Callable[..., Hashable],
        max_keys: int = 1000,
        name: str = "",
    ) -> None:
        super().__init__(name)
        given: Any = make
        # A part is callable, too: it is a decorator.
        sample = given() if callable(given) and not isinstance(given, Part) else None
        if not isinstance(sample, Part) or not sample.position:
            raise ConfigError(
                f"Keyed: make returned {sample!r}; give a function that makes a part, such as "
                "lambda: CircuitBreaker(5, 30)"
            )
        self.check(max_keys=max_keys)
        self.position = sample.position  # type: ignore[misc]
        self.store = getattr(sample, "store", None)
        self._make = make
        self.by = by
        self.max_keys = max_keys
        self._lock = threading.Lock()
        self._parts: OrderedDict[Hashable, PartT] = OrderedDict()
        tell_of_forks(self)

    def part(self, key: Hashable) -> PartT:
        """Return the part of ``key``, made now if there is none yet.

        Raises:
            ConfigError: Definite. Processes share the parts, and cannot agree on such a key.
        """
        with self._lock:
            part = self._parts.get(key)
            if part is not None:
                self._parts.move_to_end(key)
                return part
        made = self._make()  # outside of the lock: it is the user's
        if self.store is not None:
            from outlast.protect.shared_key import share_under

            share_under(made, key)  # before it has its name, under which it is shared
        made.name = made.name or self.name
        with self._lock:
            part = self._parts.setdefault(key, made)
            self._parts.move_to_end(key)
            while len(self._parts) > self.max_keys:
                self._parts.popitem(last=False)
        return part

    def forget(self, key: Hashable) -> None:
        """Forget a key and the state of its part."""
        with self._lock:
            self._parts.pop(key, None)

    def __len__(self) -> int:
        return len(self._parts)

    def forked(self) -> None:
        """This is the child of a fork: the keys are kept, the lock is nobody's."""
        self._lock = threading.Lock()

    def begin_anew(self) -> None:
        """This is another world: keys are forgotten, unless their breaker has a mode by hand."""
        with self._lock:
            for key, part in tuple(self._parts.items()):
                if getattr(part, "mode", "normal") == "normal":
                    del self._parts[key]

    def check(self, **changes: Any) -> dict[str, Any]:
        """Return ``changes`` of ``max_keys`` if they can be made."""
        for name, value in changes.items():
            if name != "max_keys":
                raise ConfigError(f"Keyed: no setting {name!r} to change; it has max_keys")
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"Keyed: max_keys is {value!r}; 1 or more")
        return changes

    def describe(self) -> dict[str, Any]:
        """Return the settings, those of the parts included."""
        return {"keyed": type(self._make()).__name__, **self._make().describe(),
                "max_keys": self.max_keys}  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        """Return how many keys there are, with breakers by state, or permits held in all."""
        with self._lock:
            parts: list[Any] = list(self._parts.values())
        live: dict[str, Any] = {"keys": len(parts)}
        if self.position == "breaker":
            live["states"] = dict(sorted(Counter(part.state for part in parts).items()))
        elif self.position == "limit":
            live["in_flight"] = sum(part.in_flight for part in parts)
        return live


class _Frames:
    """One function, protected by one policy with the parts of each call's key.

    At most as many frames are kept as the largest part keeps keys.
    """

    __slots__ = ("__weakref__", "_frames", "_function", "_keyed", "_lock", "_policy")

    def __init__(self, policy: "Policy", function: Callable[..., Any]) -> None:
        parts = policy.parts
        self._policy = policy
        self._function = function
        self._keyed = {name: part for name, part in parts.items() if isinstance(part, Keyed)}
        self._frames: OrderedDict[tuple[int, ...], tuple[Any, tuple[Part, ...]]] = OrderedDict()
        self._lock = threading.Lock()
        tell_of_forks(self)

    def forked(self) -> None:
        """This is the child of a fork: the lock is nobody's."""
        self._lock = threading.Lock()

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the frame for a call with these arguments."""
        keyed, frames = self._keyed, self._frames
        parts = tuple(part.part(part.by(*args, **kwargs)) for part in keyed.values())
        key = (self._policy.version, *(id(part) for part in parts))
        with self._lock:
            found = frames.get(key)
            if found is not None:
                frames.move_to_end(key)
                return found[0]
        chosen = dict(zip(keyed, parts, strict=True))
        frame = self._policy.variant(chosen)(self._function)
        with self._lock:
            # The parts are kept with it: while it is here, their ids are nobody else's.
            frames[key] = (frame, parts)
            while len(frames) > max(part.max_keys for part in keyed.values()):
                frames.popitem(last=False)
        return frame


def guard_keyed(policy: "Policy", function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` protected by ``policy`` with the parts of each call's key."""
    frame_for, kind = _Frames(policy, function).of, kind_of(function)
    if kind == "async":

        @wraps(function)
        async def protected_async(*args: Any, **kwargs: Any) -> Any:
            return await frame_for(args, kwargs)(*args, **kwargs)

        return protected_async

    @wraps(function)
    def protected(*args: Any, **kwargs: Any) -> Any:
        return frame_for(args, kwargs)(*args, **kwargs)

    return protected
