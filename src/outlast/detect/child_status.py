"""What can be seen of supervised children: their state, and the tree as text."""

from typing import Any, Literal

from outlast.detect.core.supervision import Slot

ChildState = Literal[
    "new", "starting", "running", "waiting", "stopping", "stuck", "done", "crash-loop", "stopped"
]


class ChildStatus:
    """What is known of one supervised child. Only to be read.

    Attributes:
        spec: What was asked for: a :class:`Child` or a :class:`Supervisor`.
        name: Its name.
        pid: Process id while a process runs, else ``None``.
        last_exit: How it last ended, such as ``killed by SIGKILL``; empty before.
    """

    __slots__ = ("_slot", "_starts", "last_exit", "name", "pid", "spec")

    def __init__(self, spec: Any, slot: Slot) -> None:
        self.spec = spec
        self.name: str = spec.name
        self.pid: int | None = None
        self.last_exit = ""
        self._slot = slot
        self._starts = 0

    def __repr__(self) -> str:
        """Return name and live state."""
        return f"<Child {self.name} {self.state} pid={self.pid} restarts={self.restarts}>"

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(self._starts - 1, 0)

    @property
    def kind(self) -> str:
        """``command``, ``process``, ``thread``, ``task`` or ``supervisor``."""
        return getattr(self.spec, "kind", "supervisor")

    @property
    def looping(self) -> bool:
        """Whether it is in a crash loop: also while it runs, until it has been up long enough."""
        return self._slot.looping or self._slot.over == "crash-loop"

    @property
    def state(self) -> ChildState:
        """What it does right now."""
        slot = self._slot
        if slot.phase == "up":
            return "running"
        if slot.phase != "down":
            return slot.phase
        if slot.over:
            return slot.over
        if slot.wanted and self._starts:
            return "crash-loop" if slot.looping else "waiting"
        return "stopped" if self._starts else "new"

    @property
    def children(self) -> "tuple[ChildStatus, ...]":
        """The children, if it is a supervisor."""
        found: tuple[ChildStatus, ...] = getattr(self.spec, "children", ())
        return found

    def note_start(self, pid: int) -> int:
        """It was started; returns how often it was started again."""
        self._starts += 1
        self.pid = pid or None
        return self.restarts

    def snapshot(self) -> dict[str, Any]:
        """Return the live state, as values that JSON knows."""
        found: dict[str, Any] = {
            "name": self.name, "kind": self.kind, "state": self.state, "pid": self.pid,
            "restarts": self.restarts, "last_exit": self.last_exit, "looping": self.looping,
        }  # fmt: skip
        if self.children:
            found["children"] = [child.snapshot() for child in self.children]
        return found


def draw(children: tuple[ChildStatus, ...], indent: str = "") -> list[str]:
    """Return the lines of a tree."""
    lines = []
    for number, child in enumerate(children, start=1):
        last = number == len(children)
        words = [child.name, child.kind, child.state]
        if child.pid is not None:
            words.append(f"pid {child.pid}")
        if child.restarts:
            words.append(f"{child.restarts} restarts")
        if child.last_exit:
            words.append(f"({child.last_exit})")
        lines.append(f"{indent}{'└─' if last else '├─'} {' '.join(words)}")
        lines += draw(child.children, indent + ("   " if last else "│  "))
    return lines


def trouble(children: tuple[ChildStatus, ...], path: str = "") -> list[str]:
    """Return what is wrong with a tree, a line for each child that is in trouble."""
    found = []
    for child in children:
        where = f"{path}{child.name}"
        if child.looping:
            found.append(f"{where} is in a crash loop ({child.last_exit or 'no exit yet'})")
        elif child.state == "stuck":
            found.append(f"{where} does not stop")
        found += trouble(child.children, f"{where}/")
    return found
