"""How fast histories are judged: ``python -m benchmarks.check [--quick]``.

Histories of a simulated object that is correct, and the same with one answer made wrong, of
1,000 to 100,000 operations and 5 to 30 clients, for each model. Each is judged in a process of
its own, so that its memory is its own; the time includes reading the file. The peer is the same
search without memoisation and without partition by key, at sizes that it can finish: the ratio
says what the two are worth. ``--model``, ``--operations`` and ``--clients`` choose.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from outlast.check import MODELS, check, line_of, read_history
from outlast.testing.histories import header_of, plant, simulate

SECONDS = 120.0
INFO_SHARE = 0.002
KEYS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One history to judge."""

    model: str
    operations: int
    clients: int
    planted: bool
    info_share: float = INFO_SHARE
    seed: int = 1


def rows(models: Sequence[str], sizes: Sequence[int], clients: Sequence[int]) -> Iterator[Row]:
    """Yield what is measured, small histories first."""
    for size in sizes:
        for model in models:
            for count in clients:
                for planted in (False, True):
                    yield Row(model, size, count, planted)


def write(row: Row, path: Path) -> None:
    """Write the history of ``row`` as a file."""
    events = simulate(
        row.model,
        row.operations,
        clients=row.clients,
        keys=KEYS,
        seed=row.seed,
        info_share=row.info_share,
    )
    if row.planted:
        events = plant(events, row.seed)
    header = header_of(row.model)
    lines = ([json.dumps(header)] if header else []) + [line_of(event) for event in events]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def judge_apart(path: Path, model: str, seconds: float) -> dict[str, object]:
    """Judge a file in a process of its own; return verdict, times and memory."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.check", "--judge", str(path), model, str(seconds)],
        capture_output=True, text=True, check=True, timeout=seconds + 120,
    )  # fmt: skip
    found: dict[str, object] = json.loads(done.stdout)
    return found


def judge_here(path: Path, model: str, seconds: float) -> dict[str, object]:
    """Judge a file in this process."""
    began = time.perf_counter()
    history = read_history(path)
    read = time.perf_counter() - began
    result = check(history, model, seconds=seconds)
    return {
        "verdict": result.verdict,
        "read": read,
        "judge": time.perf_counter() - began - read,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "why": result.why,
    }


def measure(chosen: Sequence[Row], seconds: float) -> list[str]:
    """Judge every row, print a line for each, and return what was not as expected."""
    surprises = []
    print(f"{'model':9} {'ops':>7} {'clients':>7} {'history':>8} {'verdict':>8}"
          f" {'read s':>7} {'judge s':>8} {'ops/s':>9} {'MiB':>6}")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="outlast-bench-") as folder:
        for row in chosen:
            path = Path(folder) / "history.jsonl"
            write(row, path)
            found = judge_apart(path, row.model, seconds)
            read, judged = float(str(found["read"])), float(str(found["judge"]))
            kind = "planted" if row.planted else "valid"
            print(
                f"{row.model:9} {row.operations:>7,} {row.clients:>7} {kind:>8}"
                f" {found['verdict']:>8} {read:>7.2f} {judged:>8.2f}"
                f" {row.operations / (read + judged):>9,.0f} {float(str(found['mib'])):>6.0f}",
                flush=True,
            )
            if found["verdict"] != ("invalid" if row.planted else "valid"):
                surprises.append(f"{row}: {found['verdict']}: {found['why']}")
    return surprises


# --- the peer: the same definition, without memoisation and partition ----------------------------


def naive(operations: int, clients: int, seconds: float) -> tuple[float, float, bool]:
    """Judge one register history by ours and by plain backtracking over all keys at once.

    Returns:
        Seconds of ours, seconds of the peer, and whether the peer finished in time.
    """
    events = simulate("register", operations, clients=clients, keys=3, seed=7)
    began = time.perf_counter()
    assert check(events, "register").verdict == "valid"
    ours = time.perf_counter() - began
    spans: list[Span] = []
    opened: dict[int, tuple[int, object, object]] = {}
    for at, event in enumerate(events):
        process = int(event.process)
        if event.type == "invoke":
            opened[process] = (at, event.value, event.key)
            continue
        start, value, key = opened.pop(process)
        if event.type == "ok":
            swapped = event.result is not False
            spans.append((start, at, event.f, key, value, event.value, swapped))
    began = time.perf_counter()
    finished = backtrack(spans, time.perf_counter() + seconds)
    return ours, time.perf_counter() - began, finished


Span = tuple[int, int, str, object, object, object, bool]
"""Invocation, completion, name, key, argument, output, and whether a comparison held."""


def backtrack(spans: list[Span], until: float) -> bool:
    """Find an order by plain backtracking; ``False`` when the time is over first."""
    spans = sorted(spans, key=lambda span: span[:2])
    state: dict[object, object] = {}
    left = list(range(len(spans)))
    stack: list[tuple[int, int, object, object]] = []  # place in left, op, key, value before
    place = 0
    while left:
        if time.perf_counter() > until:
            return False
        bound = min(spans[op][1] for op in left[:64])
        moved = False
        while place < len(left) and spans[left[place]][0] < bound:
            op = left[place]
            _, _, f, key, argument, output, swapped = spans[op]
            now = state.get(key)
            pair = argument if isinstance(argument, list) else [None, None]
            allowed = {"read": now == output, "cas": (now == pair[0]) is swapped}.get(f, True)
            if allowed:
                stack.append((place, op, key, now))
                after = {"read": now, "cas": pair[1] if swapped else now}.get(f, argument)
                state[key] = after
                left.pop(place)
                place, moved = 0, True
                break
            place += 1
        if moved:
            continue
        if not stack:
            return False
        place, op, key, before = stack.pop()
        left.insert(place, op)
        state[key] = before
        place += 1
    return True


def main() -> int:
    """Run as asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 and 10,000 operations only")
    parser.add_argument("--model", nargs="*", default=sorted(MODELS))
    parser.add_argument("--operations", nargs="*", type=int)
    parser.add_argument("--clients", nargs="*", type=int)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of each judgement")
    parser.add_argument("--judge", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.judge:
        path, model, seconds = given.judge
        print(json.dumps(judge_here(Path(path), model, float(seconds))))
        return 0
    sizes = given.operations or ([1_000, 10_000] if given.quick else [1_000, 10_000, 100_000])
    clients = given.clients or ([10] if given.quick else [5, 30])
    surprises = measure(list(rows(given.model, sizes, clients)), given.seconds)
    print(
        "\nplain backtracking over all keys at once (limit 10 s) against ours, register, 5 clients"
    )
    for operations in (50, 100, 200, 1_000):
        ours, peer, finished = naive(operations, 5, 10.0)
        said = f"{peer / ours:,.0f} ×" if finished else f"more than {peer / ours:,.0f} ×, given up"
        print(f"{operations:>6,} operations: ours {ours * 1e3:,.1f} ms, peer {said}")
    for surprise in surprises:
        print(f"not as expected: {surprise}")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
