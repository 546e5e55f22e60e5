"""The side that hands out seeds to processes, on processes that answer by a script."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from outlast.kernel import InvariantError
from outlast.testing.campaign import Settings, run_campaign, workers
from outlast.testing.campaign.model import SeedResult
from tests.support.sim_fake import origin


class Scripted:
    """Stands for a process: its answers come on a pipe when the script says so."""

    answer: Callable[["Scripted", Sequence[int]], None]

    def __init__(self, *_: object, **__: object) -> None:
        self.seed: int | None = None
        self.jobs: list[int] = []
        self.idle = True
        self._out, self._in = os.pipe()

    def fileno(self) -> int:
        return self._out

    def start(self, do: str, *, seeds: Sequence[int], **_: object) -> None:
        assert do == "seeds"
        type(self).answer(self, seeds)

    def say(self, **message: Any) -> None:
        os.write(self._in, json.dumps(message).encode() + b"\n")

    def messages(self) -> list[dict[str, Any]]:
        """Return one, as if each came in a packet of its own."""
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self._out, 1)
        return [json.loads(line)]

    def kill(self) -> None:
        pass

    def end(self) -> None:
        os.close(self._in)
        os.close(self._out)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    class Mine(Scripted):
        """Of one test."""

    monkeypatch.setattr(workers, "WorkerProcess", Mine)
    return Mine


def run(seeds: int) -> Any:
    where = origin("fine")
    settings = Settings(seeds=seeds, repeats=False, workers=2)
    return run_campaign(where.load()[0], origin=where, settings=settings)


def result(seed: int) -> dict[str, Any]:
    return SeedResult(seed, wall_seconds=1.0).as_json()


def test_a_process_whose_last_result_has_come_is_given_more_before_the_campaign_ends(
    scripted: type[Scripted],
) -> None:
    """Both have said a result, and neither that it is done: that is not the end."""

    def answer(worker: Scripted, seeds: Sequence[int]) -> None:
        for seed in seeds:
            worker.say(result=result(seed))
        worker.say(done=True)

    scripted.answer = answer
    assert run(20).seeds == 20


def test_a_campaign_that_lost_a_seed_says_so_rather_than_that_it_passed(
    scripted: type[Scripted],
) -> None:
    def answer(worker: Scripted, seeds: Sequence[int]) -> None:
        for seed in seeds:
            if seed != 7:
                worker.say(result=result(seed))
        worker.say(done=True)

    scripted.answer = answer
    with pytest.raises(InvariantError, match="19 of 20 seeds"):
        run(20)
