"""The side that hands out seeds: to processes, or to this one."""

import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

from outlast.kernel import ConfigError, InvariantError
from outlast.sim.running import many_runs
from outlast.testing.campaign.explain import explain
from outlast.testing.campaign.loading import Origin
from outlast.testing.campaign.model import Explanation, Runnable, SeedResult
from outlast.testing.campaign.single import HANG_SECONDS, run_seed, seconds

_POLL_SECONDS = 0.1
_CHUNK_SECONDS = 0.5
_CHUNK_MAX = 200
_END_SECONDS = 2.0
_SAID_LINES = 40

Tick = Callable[[str], None]
"""Called now and then while something goes on, with what it is."""


class Seeds(Protocol):
    """What still has to be run: asked for the next seeds until there are none."""

    def take(self, count: int) -> Sequence[int]:
        """Return up to ``count`` more seeds; none when it is over."""
        ...

    def twice(self, seed: int) -> bool:
        """Whether a seed is to be run twice for its digest."""
        ...


class WorkerDiedError(Exception):
    """A worker has ended in the middle of a job.

    Attributes:
        seed: Which it was running, ``None`` if it had not begun.
        said: The last lines of its errors.
        why: How it ended.
        hung: Whether its watchdog ended it.
    """

    def __init__(self, seed: int | None, why: str, said: list[str]) -> None:
        super().__init__(f"the process that ran seed {seed} {why}")
        self.seed = seed
        self.said = said
        self.why = why
        self.hung = any(line.startswith("Timeout (") for line in said)


class WorkerProcess:
    """One process that runs jobs, and the pipe to it.

    Args:
        origin: Where it finds what it runs.
        name: Of the runnable.
        hang_seconds: Real seconds that one run may take.
        environment: More environment, such as ``PYTHONHASHSEED``.

    Attributes:
        seed: Which it runs now.
        jobs: Seeds it was given and whose result has not come.
        idle: Whether it waits for seeds. It does not yet when the last result has come, but
            when it was then asked for more and there were none.
    """

    def __init__(
        self,
        origin: Origin,
        name: str,
        *,
        hang_seconds: float = HANG_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._said = tempfile.TemporaryFile("w+", errors="replace", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "outlast.testing.campaign.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                **(environment or {}),
            },
            start_new_session=True,
        )
        self.seed: int | None = None
        self.jobs: list[int] = []
        self.idle = True
        self._rest = b""
        self._send(
            factory=origin.factory,
            options=dict(origin.options),
            name=name,
            hang=hang_seconds,
            path=sys.path,
            parent=os.getpid(),
        )

    def fileno(self) -> int:
        """Return the descriptor on which its messages come."""
        stdout = self._process.stdout
        return -1 if stdout is None else stdout.fileno()

    def _send(self, **message: Any) -> None:
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(BrokenPipeError):  # its end is told when it is read from
                stdin.write(json.dumps(message).encode() + b"\n")
                stdin.flush()

    def start(self, do: str, **job: Any) -> None:
        """Give it a job."""
        self._send(do=do, **job)

    def messages(self) -> list[dict[str, Any]]:
        """Return what has come; blocks until something has.

        Raises:
            WorkerDiedError: It has ended.
            ConfigError: Definite. It cannot run what it was given.
            InvariantError: The campaign or the simulator is broken in it.
        """
        data = os.read(self.fileno(), 1 << 16)
        if not data:
            raise WorkerDiedError(self.seed, self._ending(), self.said())
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = []
        for line in lines:
            message = json.loads(line)
            if "refused" in message:
                raise ConfigError(message["refused"])
            if "broken" in message:
                text = f"a worker broke at seed {self.seed}: {message['broken']}"
                raise InvariantError(text)
            if "begin" in message:
                self.seed = message["begin"]
            elif "result" in message:
                self.seed = None
            found.append(message)
        return found

    def _ending(self) -> str:
        code = self._process.wait()
        if code < 0:
            import signal

            with suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
            return f"was ended by signal {-code}"
        return f"exited with {code}"

    def said(self) -> list[str]:
        """Return the last lines of its errors."""
        self._said.seek(0)
        return [line.rstrip() for line in self._said.readlines()[-_SAID_LINES:]]

    def call(self, do: str, tick: Tick = lambda what: None, **job: Any) -> dict[str, Any]:
        """Give it a job and wait until it is done.

        Returns:
            All fields of its messages.

        Raises:
            WorkerDiedError: It has ended before.
        """
        self.start(do, **job)
        answer: dict[str, Any] = {}
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            while "done" not in answer:
                if not selector.select(_POLL_SECONDS):
                    tick(do)
                    continue
                for message in self.messages():
                    answer.update(message)
                    if "shrinking" in message:
                        runs, left = message["shrinking"]
                        tick(f"shortening: {runs} runs, {left} fault steps left")
        return answer

    def kill(self) -> None:
        """Let it end at once, whatever it does; :meth:`end` waits for that."""
        with suppress(ProcessLookupError):
            self._process.kill()

    def end(self) -> None:
        """End it at once."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what it has not read by now, it never will
                    pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._said.close()


def died(error: WorkerDiedError, wall_seconds: float = 0.0) -> SeedResult:
    """Return what a seed came to whose process has ended."""
    seed = -1 if error.seed is None else error.seed
    if error.hung:
        where = next((line for line in error.said if re.search(r"File .*line \d+", line)), "")
        text = f"hung outside of Python code, and its process was ended: {where.strip()}"
    else:
        text = f"its process {error.why}"
    return SeedResult(
        seed,
        error=text,
        kind="lost",
        stack=error.said,
        lost=True,
        wall_seconds=wall_seconds,
    )


class Here:
    """Runs seeds in this process."""

    def __init__(
        self,
        runnable: Runnable,
        *,
        only: frozenset[int] | None = None,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self._runnable = runnable
        self._only = only
        self._hang = hang_seconds

    def __enter__(self) -> Self:
        """Nothing has to be started."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing has to be ended."""

    def run(self, seeds: Seeds, tick: Tick) -> Iterator[SeedResult]:
        """Yield the result of each seed."""
        with many_runs():
            while taken := seeds.take(1):
                for seed in taken:
                    yield run_seed(
                        self._runnable,
                        seed,
                        only=self._only,
                        twice=seeds.twice(seed),
                        hang_seconds=self._hang,
                    )

    def explain(self, seed: int, tick: Tick) -> Explanation:
        """Tell the failure of ``seed`` in full."""

        def progress(runs: int, left: int) -> None:
            tick(f"shortening: {runs} runs, {left} fault steps left")

        with many_runs():
            return explain(
                self._runnable, seed, only=self._only, hang_seconds=self._hang, progress=progress
            )


class Pool:
    """Runs seeds in processes.

    Args:
        origin: Where they find what they run.
        name: Of the runnable.
        workers: How many.
        only: Fault steps to inject; all by default.
        hang_seconds: Real seconds that one run may take.
    """

    def __init__(
        self,
        origin: Origin,
        name: str,
        *,
        workers: int,
        only: frozenset[int] | None = None,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self._origin = origin
        self._name = name
        self._count = workers
        self._only = None if only is None else sorted(only)
        self._hang = hang_seconds
        self._workers: dict[WorkerProcess, None] = {}
        self._chunk = 1
        self._again: deque[int] = deque()

    def __enter__(self) -> Self:
        """Start the processes."""
        try:
            for _ in range(self._count):
                self._start()
        except BaseException:  # Ctrl-C, or no more processes: nobody else ends those there are
            self._end_all()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them at once, whatever they do."""
        self._end_all()

    def _end_all(self) -> None:
        for worker in self._workers:
            worker.kill()  # all of them before the first is waited for
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess(self._origin, self._name, hang_seconds=self._hang)
        self._workers[worker] = None
        return worker

    def run(self, seeds: Seeds, tick: Tick) -> Iterator[SeedResult]:
        """Yield the results as they come, until no seeds are left and none is under way."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker, selectors.EVENT_READ)
                self._give(worker, seeds)
            while not all(worker.idle for worker in self._workers):
                ready = selector.select(_POLL_SECONDS)
                if not ready:
                    tick("running")
                for key, _ in ready:
                    worker = key.fileobj  # type: ignore[assignment]  # only workers are registered
                    fit = True
                    for result in self._read(worker, seeds):
                        fit = fit and not result.lost
                        yield result
                    if not fit:
                        selector.unregister(worker)
                        new = self._replace(worker)
                        selector.register(new, selectors.EVENT_READ)
                        self._give(new, seeds)

    def _give(self, worker: WorkerProcess, seeds: Seeds) -> None:
        """Give an idle worker more seeds: those first that a dead one has left."""
        chosen: list[int] = []
        while self._again and len(chosen) < self._chunk:
            chosen.append(self._again.popleft())
        chosen += seeds.take(self._chunk - len(chosen))
        worker.jobs = list(chosen)
        worker.idle = not chosen
        if chosen:
            twice = [seed for seed in chosen if seeds.twice(seed)]
            worker.start("seeds", seeds=chosen, twice=twice, only=self._only)

    def _read(self, worker: WorkerProcess, seeds: Seeds) -> Iterator[SeedResult]:
        """Yield what a worker has found, up to a run that did not end."""
        try:
            messages = worker.messages()
        except WorkerDiedError as error:
            if error.seed is None:
                said = error.said[-1] if error.said else "it said nothing"
                text = f"a process for {self._name} {error.why}: {said}"
                raise ConfigError(text) from error
            worker.jobs.remove(error.seed)
            yield died(error)
            return
        for message in messages:
            if "result" in message:
                result = SeedResult(**message["result"])
                worker.jobs.remove(result.seed)
                self._adapt(result.wall_seconds)
                yield result
                if result.lost:
                    return
            elif "done" in message:
                self._give(worker, seeds)

    def _adapt(self, wall_seconds: float) -> None:
        """Let a chunk take about half a second: rarely asked for, and soon over."""
        fitting = _CHUNK_SECONDS / max(wall_seconds, 1e-4)
        self._chunk = max(1, min(_CHUNK_MAX, round(0.7 * self._chunk + 0.3 * fitting)))

    def _replace(self, worker: WorkerProcess) -> WorkerProcess:
        """End a worker that has died, or was torn out of a run; keep the seeds it still had."""
        del self._workers[worker]
        worker.end()
        self._again.extend(worker.jobs)
        return self._start()

    def explain(self, seed: int, tick: Tick) -> Explanation:
        """Tell the failure of ``seed`` in full, found out in a process of its own."""
        worker = self._start()
        begun = seconds()
        try:
            answer = worker.call("explain", tick, seed=seed, only=self._only)
            return Explanation.from_json(answer["explained"])
        except WorkerDiedError as error:
            result = died(error, seconds() - begun)
            return Explanation(seed, result.error, lines=result.stack, came_back=False)
        finally:
            del self._workers[worker]
            worker.end()
