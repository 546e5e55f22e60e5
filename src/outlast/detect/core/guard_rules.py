"""What an outside guard says of the stamps that a process leaves in shared memory.

The guard runs in a small process of its own, so this file imports nothing but ``struct`` and is
loaded there by path. Each *slot* of the page has a stamp and a limit. A stamp that is too old is
*bad*; its kind is told by what else is known:

* ``stopped``: the system says that the process was stopped (SIGSTOP, a debugger);
* ``frozen``: the slot of the watcher's thread is old, too: no Python runs (C code keeps the
  interpreter lock, or the machine gives the process no turn);
* ``stalled``: only this slot is old.

While the process is stopped or frozen one slot is told and not each of them. A guard that was late
itself accuses nobody of what happened meanwhile: ages count from when it came back.
"""

import struct

MAGIC = 0x6F75746C61737431
SLOTS_MAX = 63
SLOT_WORDS = 8
PAGE_BYTES = (SLOTS_MAX + 1) * SLOT_WORDS * 8
NAME_BYTES = 32
STAMP, LIMIT, ACTIVE, REST = 0, 1, 2, 3
LATE_NS = 250_000_000
AGAIN_NS = 250_000_000
LOOK_MAX_NS = 1_000_000_000

_NAME = struct.Struct(f"{NAME_BYTES}s")


def write_slot(
    page: memoryview, number: int, name: str, limit_ns: int, now_ns: int, *, rest_ns: int = 0
) -> None:
    """Put a slot on the page (a writable buffer); it is active from the next look on.

    Args:
        page: The shared memory, ``PAGE_BYTES`` long.
        number: Which slot, 1 to ``SLOTS_MAX``.
        name: What it is called, cut to 32 bytes.
        limit_ns: Age from which a stamp is bad.
        now_ns: Its first stamp.
        rest_ns: Only for the watcher's own slot: how old its stamp usually gets.
    """
    words = page.cast("q")
    first = number * SLOT_WORDS
    words[first + ACTIVE] = 0
    raw = name.encode("utf-8", "replace")[:NAME_BYTES]
    _NAME.pack_into(page, (first + 4) * 8, raw)
    words[first + STAMP], words[first + LIMIT] = now_ns, limit_ns
    words[first + REST] = rest_ns
    words[first + ACTIVE] = 1
    words.release()


class Slot:
    """What the guard reads of one slot."""

    __slots__ = ("limit_ns", "name", "rest_ns", "stamp_ns")

    def __init__(self, name: str, stamp_ns: int, limit_ns: int, rest_ns: int = 0) -> None:
        self.name = name
        self.stamp_ns = stamp_ns
        self.limit_ns = limit_ns
        self.rest_ns = rest_ns


def read_slots(page: memoryview) -> dict[int, Slot]:
    """Return the active slots of the page, by number."""
    words = page.cast("q")
    found: dict[int, Slot] = {}
    for number in range(1, SLOTS_MAX + 1):
        first = number * SLOT_WORDS
        if words[first + ACTIVE] != 1 or words[first + LIMIT] <= 0:
            continue
        raw = bytes(page[(first + 4) * 8 : (first + 4) * 8 + NAME_BYTES]).rstrip(b"\0")
        found[number] = Slot(
            raw.decode("utf-8", "replace"), words[first + STAMP], words[first + LIMIT],
            words[first + REST],
        )  # fmt: skip
    words.release()
    return found


class Order:
    """Something to do about a slot: ``action`` is an action of the ladder, or ``recovered``."""

    __slots__ = ("action", "kind", "name", "seconds")

    def __init__(self, action: str, kind: str, name: str, seconds: float) -> None:
        self.action = action
        self.kind = kind
        self.name = name
        self.seconds = seconds

    def __repr__(self) -> str:
        return f"<Order {self.action} {self.kind} {self.name} {self.seconds:.2f}>"


class _Entry:
    """A slot that is bad: since when, and how many actions were done."""

    __slots__ = ("done", "from_ns", "kind", "stamp_ns")

    def __init__(self, kind: str, from_ns: int, stamp_ns: int) -> None:
        self.kind = kind
        self.from_ns = from_ns
        self.stamp_ns = stamp_ns
        self.done = 0


class GuardJudge:
    """Decides what a guard does. Not thread-safe.

    Args:
        ladder: Pairs of nanoseconds beyond the limit and an action, not falling.
    """

    __slots__ = ("_bad", "_forgiven_ns", "_ladder", "_planned_ns")

    def __init__(self, ladder: list[tuple[int, str]]) -> None:
        self._ladder = tuple((int(after_ns), str(action)) for after_ns, action in ladder)
        self._bad: dict[int, _Entry] = {}
        self._planned_ns: int | None = None
        self._forgiven_ns = 0

    def look(self, now_ns: int, slots: dict[int, Slot], stopped: bool) -> tuple[list[Order], int]:
        """Judge the slots; return the orders, and when to look again.

        Args:
            now_ns: Monotonic time, of the clock that the stamps are of.
            slots: What :func:`read_slots` gave.
            stopped: Whether the system says that the process is stopped.
        """
        if self._planned_ns is not None and now_ns - self._planned_ns > LATE_NS:
            self._forgiven_ns = now_ns
        frozen = self._frozen(now_ns, slots)
        orders: list[Order] = []
        next_ns = now_ns + LOOK_MAX_NS
        for number, slot in slots.items():
            since_ns = max(min(slot.stamp_ns, now_ns), self._forgiven_ns)
            bad_ns = since_ns + slot.limit_ns
            if now_ns >= bad_ns:
                kind = "stopped" if stopped else "frozen" if frozen else "stalled"
                self._on_bad(orders, number, slot, kind, now_ns)
                bad_ns = now_ns + AGAIN_NS
            elif number in self._bad:
                self._on_good(orders, number, slot)
            next_ns = min(next_ns, bad_ns)
        for number in [one for one in self._bad if one not in slots]:
            del self._bad[number]
        next_ns = min(next_ns, self._next_rung_ns(next_ns))
        self._planned_ns = max(next_ns, now_ns + 1)
        return orders, self._planned_ns

    def _frozen(self, now_ns: int, slots: dict[int, Slot]) -> bool:
        """Whether the watcher's slot says that no Python runs."""
        return any(
            slot.rest_ns and now_ns - max(slot.stamp_ns, self._forgiven_ns) > slot.rest_ns
            for slot in slots.values()
        )

    def _on_bad(
        self, orders: list[Order], number: int, slot: Slot, kind: str, now_ns: int
    ) -> None:
        entry = self._bad.get(number)
        if entry is None:
            whole = kind != "stalled"
            if whole and any(other.kind != "stalled" for other in self._bad.values()):
                return
            entry = _Entry(kind, now_ns, slot.stamp_ns)
            self._bad[number] = entry
        seconds = (now_ns - entry.stamp_ns) / 1e9
        while entry.done < len(self._ladder):
            after_ns, action = self._ladder[entry.done]
            if now_ns - entry.from_ns < after_ns:
                break
            entry.done += 1
            orders.append(Order(action, kind, slot.name, seconds))

    def _on_good(self, orders: list[Order], number: int, slot: Slot) -> None:
        entry = self._bad.pop(number)
        seconds = max(slot.stamp_ns - entry.stamp_ns, 0) / 1e9
        orders.append(Order("recovered", entry.kind, slot.name, seconds))

    def _next_rung_ns(self, next_ns: int) -> int:
        rungs = [
            entry.from_ns + self._ladder[entry.done][0]
            for entry in self._bad.values()
            if entry.done < len(self._ladder)
        ]
        return min([next_ns, *rungs])
