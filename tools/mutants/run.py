"""Runs campaigns against copies, each in a process of its own, and says what caught a mutant."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from tools.mutants.copy import ROOT, make_copy
from tools.mutants.suite import Status, run_suite
from tools.mutants.table import TESTED, Level, Mutant


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Which seeds of what, and for how long.

    Args:
        level: Which simulation; or ``protect`` or ``detect``, where all checks are tests, and
            black box, which ``detect`` does not have, is a simulation.
        seeds: How many at most; the first that fails ends it.
        first: The first of them.
        black_box: Judge by outcomes alone: history, acknowledged writes, digests, progress.
        seconds_max: Real seconds for all seeds; past it a mutant is unjudged.
        seed_seconds_max: Real seconds for one seed; past it the seed counts as one that hangs.
        tests: What is run in place of seeds.
    """

    level: Level
    seeds: int = 500
    first: int = 0
    black_box: bool = False
    seconds_max: float = 900.0
    seed_seconds_max: float = 60.0
    tests: tuple[str, ...] = ()

    @property
    def seeded(self) -> bool:
        """Whether it runs seeds, and not tests."""
        return self.level not in TESTED or self.black_box


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a campaign found. ``seeds`` counts those that were run, the failing one included."""

    status: Status
    seeds: int
    seconds: float
    seed: int | None = None
    by: str = ""
    refused: int = 0

    def as_facts(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def judge(mutant: Mutant | None, campaign: Campaign, root: Path = ROOT) -> Verdict:
    """Run ``campaign`` against a copy of ``root`` with ``mutant``; with none, as it is.

    Raises:
        StaleMutantError: The mutant does not fit the source any more.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = make_copy(Path(folder).resolve(), mutant, root)
        if mutant is not None and not campaign.seeded:
            campaign = replace(campaign, tests=mutant.tests)
        return run_child(copy, campaign)


def run_child(copy: Path, campaign: Campaign) -> Verdict:
    """Run ``campaign`` on the code in ``copy``."""
    if not campaign.seeded:
        status, ran, by, seconds = run_suite(copy, campaign.tests, campaign.seconds_max)
        return Verdict(status=status, seeds=ran, seconds=seconds, by=shortened(by))
    command = [
        sys.executable, "-m", "tools.mutants.child", campaign.level, str(campaign.first),
        str(campaign.seeds), str(int(campaign.black_box)), str(copy),
    ]  # fmt: skip
    environment = {
        **{k: v for k, v in os.environ.items() if k not in {"PYTHONHOME", "PYTHONSTARTUP"}},
        "PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy}",
        "PYTHONHASHSEED": "0",
    }
    if campaign.black_box:
        environment["OUTLAST_SPINE"] = "black-box"
    begun = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=errors,
            start_new_session=True,
        )  # fmt: skip
        try:
            verdict = _listen(child, campaign, begun)
        finally:
            _end(child)
        if verdict is None:  # it ended without a word: it does not even start, or crashed
            errors.seek(0)
            text = errors.read().decode(errors="replace").strip()
            last = text.splitlines()[-1] if text else f"exit code {child.returncode}"
            return _verdict("unjudged", campaign, begun, 0, by=f"the campaign ended: {last}")
    return verdict


def _listen(child: "subprocess.Popen[bytes]", campaign: Campaign, begun: float) -> Verdict | None:
    lines: queue.Queue[bytes] = queue.Queue()
    if child.stdout is None:
        return None
    threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
    done = refused = 0
    while done < campaign.seeds:
        left = campaign.seconds_max - (time.monotonic() - begun)
        try:
            line = lines.get(timeout=max(0.0, min(left, campaign.seed_seconds_max)))
        except queue.Empty:
            if left <= campaign.seed_seconds_max:
                return _verdict("unjudged", campaign, begun, done, by="no time left")
            return _caught(campaign, begun, done, campaign.first + done, "a seed does not end")
        if not line:
            return None
        told = json.loads(line)
        if "failed" in told:
            by = (
                f"{told['error']}"
                if told["kind"] == "BrokenError"
                else (f"{told['kind']}: {told['error']}")
            )
            return _caught(campaign, begun, done, told["failed"], by)
        done += 1
        refused += "refused" in told
    by = f"the product stopped by itself in {refused} seeds" if refused else ""
    return _verdict("survived", campaign, begun, done, by=by, refused=refused)


def _caught(campaign: Campaign, begun: float, done: int, seed: int, by: str) -> Verdict:
    return _verdict("caught", campaign, begun, done + 1, seed=seed, by=by)


def _verdict(
    status: Status, campaign: Campaign, begun: float, seeds: int, *, seed: int | None = None,
    by: str = "", refused: int = 0,
) -> Verdict:  # fmt: skip
    seconds = round(time.monotonic() - begun, 1)
    return Verdict(
        status=status, seeds=seeds, seconds=seconds, seed=seed, by=shortened(by), refused=refused
    )


def shortened(text: str, most: int = 110) -> str:
    """Return the first line of ``text``, cut to ``most`` characters."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _read(stream: IO[bytes], lines: "queue.Queue[bytes]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(b"")


def _end(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def judge_all(
    mutants: Iterable[Mutant], campaign: Campaign, *, workers: int, root: Path = ROOT,
    told: Callable[[Mutant, Verdict], None] = lambda _, __: None,
) -> list[tuple[Mutant, Verdict]]:  # fmt: skip
    """Judge ``mutants``, ``workers`` at a time; ``told`` hears each verdict as it comes."""

    def one(mutant: Mutant) -> tuple[Mutant, Verdict]:
        verdict = judge(mutant, campaign, root)
        told(mutant, verdict)
        return mutant, verdict

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, mutants))


def judge_product(campaign: Campaign, *, workers: int, root: Path = ROOT) -> list[Verdict]:
    """Run ``campaign`` on the product as it is, its seeds split among ``workers``.

    What fails without a mutant proves nothing with one.
    """
    if not campaign.seeded:
        with tempfile.TemporaryDirectory(prefix="mutant-none-") as folder:
            return [run_child(make_copy(Path(folder).resolve(), root=root), campaign)]
    shares = [
        range(campaign.first, campaign.first + campaign.seeds)[at::workers]
        for at in range(workers)
    ]
    parts = []
    first = campaign.first
    for share in shares:
        if len(share):
            parts.append(
                Campaign(
                    level=campaign.level, seeds=len(share), first=first,
                    black_box=campaign.black_box, seconds_max=3600.0,
                    seed_seconds_max=campaign.seed_seconds_max,
                )
            )  # fmt: skip
            first += len(share)
    with tempfile.TemporaryDirectory(prefix="mutant-none-") as folder:
        copy = make_copy(Path(folder).resolve(), root=root)
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(lambda part: run_child(copy, part), parts))
