"""The program of the outside guard: ``python -I -S guard_main.py SETTINGS``.

It imports no package, ours included: what is broken may be there. It ends when the guarded has
ended (a process descriptor says so at once) or has closed the pipe. No signal of a terminal ends
it, and nothing but the guarded's end does: a death signal of the kernel would be bound to the
thread that started it, and not to the process.

Descriptors: 0 closes when it shall go; 1 takes one JSON line for each order, and what is not read
there is dropped; those of the page and of the memory for stacks are in the settings.
"""

import json
import mmap
import os
import select
import signal
import sys
import time  # noqa: TID251 - a process of its own, without a World
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from outlast.detect.core import guard_rules as rules
else:
    from importlib.util import module_from_spec, spec_from_file_location

    _PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "core", "guard_rules.py")
    _SPEC = spec_from_file_location("guard_rules", _PATH)
    rules = module_from_spec(_SPEC)
    _SPEC.loader.exec_module(rules)

_STACK_SECONDS = 0.5
_ABORT_SECONDS = 2.0
_STACK_BYTES_MAX = 32_000


class Guarded:
    """The process that is guarded; the descriptor names it even if its number is used again."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self.descriptor = os.pidfd_open(pid)
        except OSError:
            self.descriptor = -1

    def send(self, number: int) -> None:
        """Send a signal, unless it is gone."""
        with suppress(OSError):
            if self.descriptor >= 0:
                signal.pidfd_send_signal(self.descriptor, number)
            elif os.getppid() == self.pid:
                os.kill(self.pid, number)

    def stopped(self) -> bool:
        """Whether the system says that it is stopped or traced to a halt."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb", buffering=0) as file:
                text = file.read(1024)
            return text[text.rindex(b")") + 2 :].split()[0] in {b"T", b"t"}
        except (OSError, ValueError, IndexError):
            return False


class Teller:
    """Writes lines for people to the log, and lines for the guarded to the pipe."""

    def __init__(self, settings: "dict[str, Any]") -> None:
        self.pid = settings["pid"]
        self.name = settings["name"]
        self.log = 2
        if settings["log"]:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self.log = os.open(settings["log"], flags, 0o600)
        os.set_blocking(1, False)

    def say(self, words: str, stack: str = "") -> None:
        """Write to the log."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        text = f"{stamp}Z outlast guard of {self.name} ({self.pid}): {words}"
        write(self.log, (text + stack.rstrip() + "\n").encode("utf-8", "replace"))

    def tell(self, **fields: "Any") -> None:
        """Write to the guarded, if it reads."""
        write(1, json.dumps(fields).encode() + b"\n")


def write(descriptor: int, data: bytes) -> None:
    """Write what can be written at once; a full or broken pipe loses it."""
    with suppress(OSError):
        os.write(descriptor, data)


def stacks(guarded: Guarded, settings: "dict[str, Any]") -> str:
    """Ask the guarded for its stacks by a signal, and wait a moment for them."""
    descriptor = settings["stacks"]
    if descriptor < 0 or not settings["signal"]:
        return ""
    os.ftruncate(descriptor, 0)
    guarded.send(settings["signal"])
    until, size = time.monotonic() + _STACK_SECONDS, 0
    while time.monotonic() < until:
        time.sleep(0.02)
        now = os.fstat(descriptor).st_size
        if now and now == size:
            break
        size = now
    text = os.pread(descriptor, _STACK_BYTES_MAX, 0)
    os.ftruncate(descriptor, 0)
    return text.decode("utf-8", "replace")


def obey(
    order: "rules.Order", guarded: Guarded, teller: Teller, settings: "dict[str, Any]", alone: bool
) -> None:
    """Do what was decided; ``alone`` says that no order for stacks comes right behind it."""
    seconds = round(order.seconds, 3)
    if order.action == "recovered":
        teller.say(f"{order.name} runs again after {seconds} s ({order.kind})")
        return
    if order.action == "restart":
        teller.say(f"{order.name} has been {order.kind} for {seconds} s; ending the process")
        guarded.send(signal.SIGABRT)
        if not ended(guarded, _ABORT_SECONDS):
            guarded.send(signal.SIGKILL)
        return
    text = ""
    if order.action == "event":
        teller.say(f"{order.name} is {order.kind}, for {seconds} s by now")
    elif order.kind != "stopped":
        text = stacks(guarded, settings)
        teller.say(f"stacks while {order.name} is {order.kind}", "\n" + text)
    if alone:
        teller.tell(kind=order.kind, slot=order.name, seconds=seconds, stack=text)


def ended(guarded: Guarded, seconds: float) -> bool:
    """Wait for the end of the guarded, at most so long."""
    poll = select.poll()
    if guarded.descriptor >= 0:
        poll.register(guarded.descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    time.sleep(seconds)
    return False


def main() -> None:
    """Watch until the guarded has ended."""
    settings = json.loads(sys.argv[1])
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    guarded, teller = Guarded(settings["pid"]), Teller(settings)
    page = memoryview(mmap.mmap(settings["page"], rules.PAGE_BYTES, prot=mmap.PROT_READ))
    judge = rules.GuardJudge([(after, action) for after, action in settings["ladder"]])
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    if guarded.descriptor >= 0:
        poll.register(guarded.descriptor, select.POLLIN)
    teller.tell(kind="ready", slot="", seconds=0.0, stack="")
    while os.getppid() == settings["pid"]:
        now_ns = time.monotonic_ns()
        slots = rules.read_slots(page)
        late = any(now_ns - slot.stamp_ns >= slot.limit_ns for slot in slots.values())
        orders, next_ns = judge.look(now_ns, slots, late and guarded.stopped())
        for place, order in enumerate(orders, start=1):
            alone = place == len(orders) or orders[place].action != "stacks"
            obey(order, guarded, teller, settings, alone)
        left_ns = max(next_ns - time.monotonic_ns(), 0)
        ready = dict(poll.poll(left_ns / 1e6 + 1))
        if guarded.descriptor in ready:
            break
        if 0 in ready:
            if not os.read(0, 1) and not ended(guarded, 0.2):
                return  # told to go; or the pipe's owner has become another program
            break
    teller.say("has ended")


if __name__ == "__main__":
    main()
