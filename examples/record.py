"""Record what clients ask and are told, then judge it: a cache that forgets to forget."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outlast.check import Result, check, read_history


class Recorder:
    """Appends one JSON line per event; give each client a process number of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("", encoding="utf-8")

    def note(self, process: int, kind: str, f: str, value: Any) -> None:
        event = {"process": process, "type": kind, "f": f, "value": value}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**event, "time": time.monotonic_ns()}) + "\n")

    def call(self, process: int, f: str, value: Any, do: Callable[[], Any]) -> Any:
        self.note(process, "invoke", f, value)
        try:
            answer = do()
        except ConnectionRefusedError:  # it surely did not happen
            self.note(process, "fail", f, value)
            raise
        except Exception:  # it may have happened: go on under another number
            self.note(process, "info", f, value)
            raise
        self.note(process, "ok", f, answer if f == "read" else value)
        return answer


class Cache:
    """Keeps what it has read, and does not hear of later writes."""

    def __init__(self, store: dict[str, int]) -> None:
        self.store, self.kept = store, dict[str, int]()

    def read(self, key: str) -> int:
        return self.kept.setdefault(key, self.store[key])


def run(path: Path) -> Result:
    """Let two clients write and read, one of them through the cache."""
    store: dict[str, int] = {}
    cache, recorder = Cache(store), Recorder(path)
    for value in (1, 2):
        recorder.call(0, "write", value, lambda value=value: store.update(x=value))
        recorder.call(0, "read", None, lambda: store["x"])
        recorder.call(1, "read", None, lambda: cache.read("x"))
    return check(read_history(path), "register")


def test_the_stale_read_is_found() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder) / "history.jsonl")
    stuck = result.counterexample and result.counterexample.stuck
    assert stuck  # noqa: S101
    assert (result.verdict, stuck.process) == ("invalid", 1)  # noqa: S101


if __name__ == "__main__":
    print(run(Path("history.jsonl")))
