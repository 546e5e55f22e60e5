"""Heal: end what drills that died have left behind, and touch nothing that is alive or not ours.

Every step can be repeated from any half-way state, and is noted in the journal once it is done:
heal itself may be killed and run again. Two heals do not meet, as each locks the journal.
"""

import fcntl
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from outlast.inject.core.undo import Continue, JournalText, Undo, done_line, read_journal
from outlast.inject.identity import is_alive, require_linux
from outlast.inject.journal import NEW_SUFFIX, SUFFIX, fsync_directory
from outlast.inject.place import boot_word, refusal, searched
from outlast.inject.undoing import HealStep, carry_out, in_order
from outlast.kernel import ConfigError, World

_JOURNAL_BYTES_MAX: Final = 16 << 20
_STALE_NS: Final = 60_000_000_000


@dataclass(frozen=True, slots=True)
class LivingDrill:
    """A journal that was left alone.

    Args:
        drill: Its id.
        pid: The process that owns it.
        why: Why it was left alone.
        open: What it will undo itself.
    """

    drill: str
    pid: int
    why: str
    open: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HealReport:
    """What heal found and did.

    Args:
        steps: What it did or could not do, in order.
        alive: Journals that it left alone.
    """

    steps: tuple[HealStep, ...]
    alive: tuple[LivingDrill, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is left of drills that died."""
        return all(step.over for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """Return it in plain types."""
        return {
            "clean": self.clean,
            "steps": [
                {"drill": s.drill, "what": s.what, "outcome": s.outcome, "detail": s.detail}
                for s in self.steps
            ],
            "alive": [
                {"drill": a.drill, "pid": a.pid, "why": a.why, "open": list(a.open)}
                for a in self.alive
            ],
        }


def heal(world: World, *, directories: Sequence[str] | None = None) -> HealReport:
    """Undo what drills that are not alive any more have left; blocking.

    Args:
        world: For the time and for fault points.
        directories: Where journals lie; by default where ``$OUTLAST_STATE`` says, else all
            well-known places. One that is missing is passed over.

    Raises:
        ConfigError: This is not Linux.
    """
    require_linux("heal")
    steps: list[HealStep] = []
    alive: list[LivingDrill] = []
    for place in searched() if directories is None else directories:
        if not os.path.lexists(place):
            continue
        reason = refusal(place)
        if reason:
            steps.append(HealStep("", f"look into {place}", "refused", reason))
            continue
        for name in sorted(os.listdir(place)):
            path = os.path.join(place, name)
            if name.endswith(SUFFIX):
                _heal_one(world, path, steps, alive)
            elif name.endswith(SUFFIX + NEW_SUFFIX):
                _drop_unborn(world, path)
    return HealReport(tuple(steps), tuple(alive))


def _drop_unborn(world: World, path: str) -> None:
    """Remove a journal that was never finished being made: its drill had not begun."""
    try:
        if world.clock.wall_ns() - os.lstat(path).st_mtime_ns > _STALE_NS:
            os.unlink(path)
    except FileNotFoundError:
        return


def _heal_one(world: World, path: str, steps: list[HealStep], alive: list[LivingDrill]) -> None:
    name = os.path.basename(path)
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return  # its owner closed it just now
    except (OSError, ConfigError) as error:
        steps.append(HealStep(name, f"read {path}", "refused", str(error)))
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        text = read_journal(_content(descriptor), path)
        if text is None:
            raise ConfigError(f"{path}: empty; remove it by hand")
        if name != text.header.drill + SUFFIX:
            raise ConfigError(f"{path} is the journal of {text.header.drill}; remove it by hand")
        why = _why_alive(text)
        if why:
            words = tuple(str(undo) for _, undo in text.open)
            alive.append(LivingDrill(text.header.drill, text.header.owner.pid, why, words))
            return
        _undo_all(world, path, descriptor, text, steps)
    except BlockingIOError:
        alive.append(LivingDrill(name.removesuffix(SUFFIX), 0, "another heal works on it", ()))
    except ConfigError as error:
        steps.append(HealStep(name, f"read {path}", "refused", str(error)))
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    """Open a journal that is a file of ours and of nobody else."""
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise ConfigError(f"{path} is not a plain file; remove it by hand")
    descriptor = os.open(path, flags)
    facts = os.fstat(descriptor)
    problem = ""
    if not stat.S_ISREG(facts.st_mode):
        problem = "is not a plain file"
    elif facts.st_uid != os.geteuid():
        problem = f"belongs to uid {facts.st_uid}, not to us"
    elif stat.S_IMODE(facts.st_mode) & 0o022:
        problem = "can be written by others"
    elif facts.st_size > _JOURNAL_BYTES_MAX:
        problem = f"has {facts.st_size} bytes; a journal has at most {_JOURNAL_BYTES_MAX}"
    if problem:
        os.close(descriptor)
        raise ConfigError(f"{path} {problem}; remove it by hand")
    return descriptor


def _content(descriptor: int) -> bytes:
    parts = []
    offset = 0
    while part := os.pread(descriptor, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def _why_alive(text: JournalText) -> str:
    """Say why the journal's drill counts as alive; empty: it is dead."""
    boot, _, space = text.header.boot.partition("/")
    our_boot, _, our_space = boot_word().partition("/")
    if boot != our_boot:
        return ""
    if space != our_space:
        return "it may run in another pid namespace; heal there"
    return "its drill is running" if is_alive(text.header.owner) else ""


def _undo_all(
    world: World, path: str, descriptor: int, text: JournalText, steps: list[HealStep]
) -> None:
    drill = text.header.drill
    if text.torn:
        _mend(descriptor)
    finished = True
    for number, undo in in_order(text.open):
        step = _void_after_boot(text, undo) or carry_out(world, drill, undo)
        steps.append(step)
        if step.over:
            world.fault_point("inject.heal.done")
            os.write(descriptor, done_line(number))
            os.fsync(descriptor)
        else:
            finished = False
    for message in text.damage:
        steps.append(HealStep(drill, f"read {path}", "refused", f"{message}; then remove it"))
        finished = False
    if finished:
        world.fault_point("inject.heal.unlink")
        os.unlink(path)
        fsync_directory(os.path.dirname(path))


def _mend(descriptor: int) -> None:
    """Cut off a last line that was not written in full."""
    sound = _content(descriptor).rfind(b"\n") + 1
    os.ftruncate(descriptor, sound)
    os.fsync(descriptor)


def _void_after_boot(text: JournalText, undo: Undo) -> HealStep | None:
    """Pids of before the system was started again mean other processes now."""
    if isinstance(undo, Continue) and text.header.boot != boot_word():
        detail = "the system was started again since"
        return HealStep(text.header.drill, str(undo), "nothing", detail)
    return None
