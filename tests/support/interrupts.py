"""Ctrl-C at every place: blocking code, interrupted wherever the interpreter looks for signals."""

import contextvars
import opcode
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

_LOOKS: Final = frozenset(
    opcode.opmap[name]
    for name in ("RESUME", "JUMP_BACKWARD", "CALL", "CALL_FUNCTION_EX")
    if name in opcode.opmap
)
"""The interpreter looks for signals after these, the calls of C functions among them."""
_BEGUN: Final = opcode.opmap.get("RESUME", -1)
_RETURNED: Final = -1


class Interrupt:
    """Raises ``KeyboardInterrupt`` at one of the places in the code of ``outlast.protect``.

    Args:
        number: At which one; 0 is the first.

    Attributes:
        where: The place, once it was reached.
    """

    def __init__(self, number: int) -> None:
        self.where = ""
        self._left = number
        self._last: dict[FrameType, int] = {}

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Trace a call; for ``sys.settrace``."""
        caller = frame.f_back
        if caller is not None and caller in self._last:
            # No signal is looked for after a call of a Python function.
            self._last[caller] = _RETURNED
        if "/outlast/protect/" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._last[frame] = _BEGUN
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            last, self._last[frame] = self._last[frame], frame.f_code.co_code[frame.f_lasti]
            if last in _LOOKS:
                self._left -= 1
                if self._left == -1:
                    file = frame.f_code.co_filename.rpartition("/")[2]
                    place = "the beginning of " if last == _BEGUN else ""
                    self.where = f"{file}:{frame.f_lineno} {place}{frame.f_code.co_qualname}"
                    raise KeyboardInterrupt
        elif event == "return":
            self._last.pop(frame, None)
        return self._step


def interrupted(act: Callable[[], Callable[[], object]]) -> Iterator[str]:
    """Run what ``act`` returns again and again, interrupted at another place each time.

    Yields:
        Where, after each run.
    """
    number = 0
    while True:
        interrupt = Interrupt(number)
        run = act()
        contextvars.copy_context().run(_traced, interrupt, run)
        if not interrupt.where:
            return
        yield interrupt.where
        number += 1


def _traced(interrupt: Interrupt, run: Callable[[], object]) -> None:
    before = sys.gettrace()
    sys.settrace(interrupt.trace)
    try:
        run()
    except KeyboardInterrupt:
        return
    finally:
        sys.settrace(before)
