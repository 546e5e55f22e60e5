"""What all parts of a policy have in common."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from outlast.kernel import ConfigError

if TYPE_CHECKING:
    from types import TracebackType

    from outlast.protect.policy import Policy

P = ParamSpec("P")
R = TypeVar("R")


class Part:
    """One part of a policy; alone it is a decorator, too.

    A part holds its state: one object in two policies is shared by them, as a semaphore would be.
    Parts are safe to share between threads and event loops.

    Attributes:
        position: The keyword of :class:`~outlast.protect.Policy` that takes it.
        name: Its name in events and metrics; that of the first policy that holds it, if none was
            given.
    """

    position: ClassVar[str] = ""
    settings: ClassVar[tuple[str, ...]] = ()
    """Names of the settings that :meth:`configure` changes."""

    sees_arguments: bool = False
    """Whether the part is given the arguments of each call."""

    __slots__ = ("__weakref__", "_alone", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._alone: Policy | None = None

    def alone(self) -> "Policy":
        """Return the policy that has this part and no other."""
        if self._alone is None:
            from outlast.protect.policy import Policy

            placed: dict[str, Any] = {self.position: self}
            self._alone = Policy(self.name, **placed)
        return self._alone

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return ``function`` protected by this part alone; see ``Policy.__call__``."""
        return self.alone()(function)

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``function`` protected by this part alone; see ``Policy.call``."""
        return self.alone().call(function, *args, **kwargs)

    def __enter__(self) -> None:
        """Begin a protected block; see ``Policy.__enter__``."""
        self.alone().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        """End the block."""
        self.alone().__exit__(kind, error, trace)

    async def __aenter__(self) -> None:
        """Begin a protected block of a coroutine; see ``Policy.__aenter__``."""
        await self.alone().__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        """End the block."""
        await self.alone().__aexit__(kind, error, trace)

    def describe(self) -> dict[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {name: plain(getattr(self, name)) for name in self.settings}

    def snapshot(self) -> dict[str, Any]:
        """Return the live state, as values that JSON knows."""
        return {}

    def configure(self, **changes: Any) -> None:
        """Change settings and keep the state: all of them, or none if one is wrong.

        Raises:
            ConfigError: Definite. There is no such setting, or its value is wrong.
        """
        checked = self.check(**changes)
        self.apply(checked)

    def check(self, **changes: Any) -> dict[str, Any]:
        """Return ``changes``, checked together with the settings that stay.

        Raises:
            ConfigError: Definite. There is no such setting, or its value is wrong.
        """
        for name in changes:
            if name not in self.settings:
                known = ", ".join(self.settings) or "nothing"
                message = f"{type(self).__name__}: no setting {name!r} to change; it has {known}"
                raise ConfigError(message)
        # A part made anew with all of them finds what is wrong, as it does at the first time.
        type(self)(**{**{name: getattr(self, name) for name in self.settings}, **changes})
        return changes

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned."""
        for name, value in changes.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        shown = {**self.describe(), **self.snapshot()}
        inside = ", ".join(f"{key}={value!r}" for key, value in shown.items())
        return f"{type(self).__name__}({inside})"


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: classes by name, other objects by their ``repr``."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type):
        home = "" if value.__module__ == "builtins" else f"{value.__module__}."
        return f"{home}{value.__qualname__}"
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    name = getattr(value, "__qualname__", None)
    return name if isinstance(name, str) else repr(value)
