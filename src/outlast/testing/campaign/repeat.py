"""Is a run repeatable? Two runs of a seed must have the same digest, whatever the hash seed.

What differs most often: state that the program keeps in a module between two runs, iteration
over a set, ``id()`` or ``hash()`` used for order, and whatever reads the machine behind the
simulation's back.
"""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from itertools import zip_longest
from pathlib import Path

from outlast.testing.campaign.loading import Origin
from outlast.testing.campaign.model import Difference, SeedResult
from outlast.testing.campaign.single import HANG_SECONDS
from outlast.testing.campaign.workers import Tick, WorkerDiedError, WorkerProcess

HASH_SEEDS = ("1", "2")
SECOND_RUN = "a first and a second run in one process"
_NOTHING = "(nothing: the run is over)"


def compare_again(results: Mapping[int, SeedResult]) -> int | None:
    """Return the first seed whose second run in the same process had another digest."""
    for seed in sorted(results):
        result = results[seed]
        if result.again and result.again != result.digest:
            return seed
    return None


class Repeats:
    """Runs seeds again in processes of their own.

    Args:
        origin: Where they find what they run.
        name: Of the runnable.
        only: Fault steps to inject; all by default.
        hang_seconds: Real seconds that one run may take.
        tick: Called now and then.
    """

    def __init__(
        self,
        origin: Origin,
        name: str,
        *,
        only: frozenset[int] | None = None,
        hang_seconds: float = HANG_SECONDS,
        tick: Tick = lambda what: None,
    ) -> None:
        self._origin = origin
        self._name = name
        self._only = None if only is None else sorted(only)
        self._hang = hang_seconds
        self._tick = tick

    def _worker(self, hash_seed: str) -> WorkerProcess:
        return WorkerProcess(
            self._origin,
            self._name,
            hang_seconds=self._hang,
            environment={"PYTHONHASHSEED": hash_seed},
        )

    def check(self, digests: Mapping[int, str]) -> Difference | None:
        """Run each seed once under each hash seed, and compare its digest with the one known.

        Returns:
            The difference of the first seed that has one, with the trace line where it begins.
        """
        with ExitStack() as stack:
            workers = []
            for hash_seed in HASH_SEEDS:
                worker = self._worker(hash_seed)
                stack.callback(worker.end)
                worker.start("seeds", seeds=sorted(digests), twice=[], only=self._only, once=True)
                workers.append((hash_seed, worker))
            for hash_seed, worker in workers:
                for seed, digest in self._digests(worker).items():
                    if digest != digests[seed]:
                        return self._between(seed, digest, digests[seed], hash_seed)
        return None

    def _digests(self, worker: WorkerProcess) -> dict[int, str]:
        """Collect what a worker finds; one that dies has found what it had found until then."""
        found: dict[int, str] = {}
        with suppress(WorkerDiedError):
            while True:
                for message in worker.messages():
                    if "result" in message and not message["result"]["lost"]:
                        found[message["result"]["seed"]] = message["result"]["digest"]
                    elif "done" in message:
                        return found
                self._tick("checking that runs repeat")
        return found

    def second_run(self, seed: int) -> Difference:
        """Find the first trace line in which two runs of ``seed`` in one process differ."""
        difference = Difference(seed, SECOND_RUN)
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            worker = self._worker("0")
            stack.callback(worker.end)
            paths = [Path(folder, name) for name in ("first", "second")]
            with suppress(WorkerDiedError):
                for path in paths:
                    worker.call("trace", self._tick, seed=seed, path=str(path), only=self._only)
                find_line(difference, *paths)
            with suppress(WorkerDiedError):
                difference.readers = worker.call("readers", self._tick)["readers"]
        return difference

    def _between(self, seed: int, digest: str, known: str, hash_seed: str) -> Difference:
        """Find the first trace line in which ``seed`` differs between processes.

        Two under the same hash seed tell whether that is what makes the difference.
        """
        how = f"two processes, one with PYTHONHASHSEED={hash_seed}"
        difference = Difference(seed, how)
        order = ("1", "2", "1")
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            paths: dict[str, Path] = {}
            digests: dict[str, str] = {}
            with suppress(WorkerDiedError):
                for number, each in enumerate(order):
                    worker = self._worker(each)
                    stack.callback(worker.end)
                    name = f"{number}"
                    paths[name] = Path(folder, name)
                    answer = worker.call(
                        "trace", self._tick, seed=seed, path=str(paths[name]), only=self._only
                    )
                    digests[name] = answer["traced"]
                    if len(digests) == len(order):
                        difference.readers = worker.call("readers", self._tick)["readers"]
            if len(digests) == len(order):
                same_seed = digests["0"] == digests["2"]
                if same_seed and digests["0"] != digests["1"]:
                    difference.how = "PYTHONHASHSEED=1 and 2: something follows the hash of text"
                    find_line(difference, paths["0"], paths["1"])
                elif not same_seed:
                    difference.how = "two processes with the same PYTHONHASHSEED"
                    find_line(difference, paths["0"], paths["2"])
                else:
                    difference.how = (
                        "a run in a fresh process and one after other seeds in the same process"
                    )
        return difference


def find_line(difference: Difference, first: Path, second: Path) -> None:
    """Set the first line in which two traces differ."""
    with first.open(encoding="utf-8") as one, second.open(encoding="utf-8") as other:
        for number, (left, right) in enumerate(zip_longest(one, other), 1):
            if left != right:
                difference.line = number
                difference.first = _NOTHING if left is None else left.rstrip("\n")
                difference.second = _NOTHING if right is None else right.rstrip("\n")
                return
