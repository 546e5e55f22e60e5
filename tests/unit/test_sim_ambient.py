"""Unmodified programs read time and randomness from the simulation, however they imported them."""

import asyncio
import contextlib
import dataclasses
import datetime
import functools
import importlib
import os
import pickle
import random
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import types
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast.kernel.errors import ConfigError, EscapeError
from outlast.kernel.prng import Prng
from outlast.sim.ambient import ambient, find_clock_readers, installed, real_monotonic_ns
from outlast.sim.fakes import FAKES, ORIGINALS

_NS = 1_000_000_000
_WALL_NS = 1_000_000_000 * _NS + 123_456_789  # 2001-09-09 01:46:40.123456789 UTC
_MONOTONIC_NS = 5 * _NS
_MONOTONIC = ("monotonic", "perf_counter", "process_time", "thread_time")


class FakeSource:
    """A machine whose clock stands still, except for those who sleep."""

    def __init__(self, seed: int = 7) -> None:
        self.slept = 0.0
        self._seed = seed
        self._prng = Prng(seed)

    def monotonic_ns(self) -> int:
        return _MONOTONIC_NS + int(self.slept * _NS)

    def wall_ns(self) -> int:
        return _WALL_NS + int(self.slept * _NS)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def random_bytes(self, count: int) -> bytes:
        return self._prng.bytes(count)

    def seed(self) -> int:
        return self._seed


class HostSource(FakeSource):
    """A source that also has what only some offer."""

    def __init__(self) -> None:
        super().__init__()
        self.registry: dict[int, Any] = {}

    def signals(self) -> dict[int, Any]:
        return self.registry

    def pid(self) -> int:
        return 12

    def hostname(self) -> str:
        return "api"


_PROGRAM = """
import dataclasses, datetime, functools, os, random, time, uuid
from datetime import date, datetime as Stamp
from os import urandom as dice
from time import monotonic, monotonic as mono, time as now
from uuid import uuid4 as fresh

stamp_now = Stamp.now
rng = random.Random(1)
partial = functools.partial(time.monotonic)
table = {"clock": time.monotonic}
factory = staticmethod(time.monotonic)

class Watch:
    clock = time.monotonic
    still = staticmethod(time.monotonic)
    class Inner:
        tick = time.monotonic

class Meta(type):
    def __setattr__(cls, name, value):
        raise TypeError("sealed")

class Sealed(metaclass=Meta):
    clock = time.monotonic

@dataclasses.dataclass
class Order:
    at: float = dataclasses.field(default_factory=time.monotonic)
    made: object = dataclasses.field(default_factory=Stamp.now)

class Limiter:
    def __init__(self, clock=time.monotonic):
        self.clock = clock

class Slotted:
    __slots__ = ("clock",)
    def __init__(self):
        self.clock = time.monotonic

limiter = Limiter()
slotted = Slotted()

def by_default(clock=time.monotonic):
    return clock()

def by_keyword(*, clock=time.monotonic):
    return clock()

def closed_over(clock):
    def read():
        return clock()
    return read

by_closure = closed_over(time.monotonic)
"""

_READERS = {
    "module attribute": lambda p: p.time.monotonic(),
    "from-import": lambda p: p.monotonic(),
    "from-import under another name": lambda p: p.mono(),
    "class body": lambda p: p.Watch.clock(),
    "instance of a class body": lambda p: p.Watch().clock(),
    "static method taken by a module": lambda p: p.factory(),
    "static method": lambda p: p.Watch().still(),
    "nested class": lambda p: p.Watch.Inner().tick(),
    "class with a metaclass of its own": lambda p: p.Sealed().clock(),
    "default argument": lambda p: p.by_default(),
    "keyword-only default argument": lambda p: p.by_keyword(),
    "closure": lambda p: p.by_closure(),
    "default factory of a dataclass": lambda p: p.Order().at,
    "attribute of an object": lambda p: p.limiter.clock(),
    "slot of an object": lambda p: p.slotted.clock(),
    "default argument of a method": lambda p: p.Limiter().clock(),
}


@contextlib.contextmanager
def program(tmp_path: Path, text: str = _PROGRAM) -> Iterator[types.ModuleType]:
    """Write and import a program under a name of its own."""
    name = f"ambient_program_{Prng(len(str(tmp_path)) + time.time_ns()).bits64():x}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    sys.path.insert(0, str(tmp_path))
    try:
        importlib.invalidate_caches()
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop(name, None)


# --- clocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", sorted(_READERS))
def test_a_clock_is_simulated_however_the_program_came_by_it(tmp_path, way):
    read = _READERS[way]
    with program(tmp_path) as loaded:
        with ambient(FakeSource()):
            assert read(loaded) == 5.0
        assert abs(read(loaded) - time.monotonic()) < 60
        with ambient(FakeSource()):  # from the places that are remembered
            assert read(loaded) == 5.0


def test_every_clock_of_the_time_module_is_simulated():
    with ambient(FakeSource()):
        assert time.time() == _WALL_NS / _NS
        assert time.time_ns() == _WALL_NS
        for name in _MONOTONIC:
            assert getattr(time, name)() == 5.0, name
            assert getattr(time, f"{name}_ns")() == _MONOTONIC_NS, name
        assert time.clock_gettime(time.CLOCK_REALTIME) == _WALL_NS / _NS
        assert time.clock_gettime_ns(time.CLOCK_MONOTONIC) == _MONOTONIC_NS


def test_formatted_times_are_those_of_the_simulation_unless_one_is_given():
    with ambient(FakeSource()):
        assert time.gmtime()[:6] == (2001, 9, 9, 1, 46, 40)
        assert time.gmtime(0)[:3] == (1970, 1, 1)
        assert time.localtime() == time.localtime(_WALL_NS // _NS)
        assert time.ctime() == time.ctime(_WALL_NS // _NS) == time.asctime()
        assert time.asctime(time.gmtime(0)) == "Thu Jan  1 00:00:00 1970"
        assert time.strftime("%Y") == "2001"
        assert time.strftime("%Y", time.gmtime(0)) == "1970"


def test_sleep_spends_virtual_time_and_refuses_what_the_real_one_refuses():
    source = FakeSource()
    with ambient(source):
        before = real_monotonic_ns()
        time.sleep(3600)
        assert real_monotonic_ns() - before < 60 * _NS
        assert time.monotonic() == 3605.0
        time.sleep(0)
        with pytest.raises(ValueError, match="non-negative"):
            time.sleep(-1)
        with pytest.raises(TypeError):
            time.sleep("1")
    assert source.slept == 3600


def test_datetime_is_simulated_and_stays_the_same_class(tmp_path):
    utc = datetime.UTC
    classes = datetime.datetime, datetime.date
    with program(tmp_path) as loaded, ambient(FakeSource()):
        assert (datetime.datetime, datetime.date) == classes
        assert loaded.Stamp is datetime.datetime
        now = loaded.Stamp.now(utc)
        assert now == datetime.datetime(2001, 9, 9, 1, 46, 40, 123456, tzinfo=utc)
        assert now == datetime.datetime.now(tz=utc)
        assert loaded.Stamp.utcnow() == now.replace(tzinfo=None)
        local = datetime.datetime.fromtimestamp(_WALL_NS // _NS)  # noqa: DTZ006  (local on purpose)
        assert loaded.Stamp.now() == local.replace(microsecond=123456)
        assert loaded.Stamp.today() == loaded.Stamp.now() == loaded.stamp_now()
        assert loaded.Order().made == loaded.Stamp.now()
        assert loaded.date.today() == local.date()
        assert type(loaded.date.today()) is datetime.date
        assert type(now) is datetime.datetime
        assert pickle.loads(pickle.dumps(now)) == now


@pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")
def test_what_the_interpreter_remembers_of_datetime_is_forgotten_at_both_ends():
    class Stamp(datetime.datetime):
        pass

    def years() -> set[int]:
        found = set()
        for _ in range(50):  # until the lookups are specialised
            found.add(datetime.datetime.now(datetime.UTC).year)
            found.add(Stamp.now(datetime.UTC).year)
            found |= {datetime.datetime.utcnow().year, Stamp.utcnow().year}  # noqa: DTZ003
            found |= {datetime.datetime.today().year, Stamp.today().year}  # noqa: DTZ002
            found.add(datetime.date.today().year)  # noqa: DTZ011
        return found

    for _ in range(3):
        assert 2001 not in years()
        with ambient(FakeSource()):
            assert years() == {2001}


def test_subclasses_of_datetime_are_simulated_too():
    class Stamp(datetime.datetime):
        pass

    class Day(datetime.date):
        pass

    with ambient(FakeSource()):
        for made in (Stamp.now(), Stamp.now(datetime.UTC), Stamp.utcnow(), Stamp.today()):
            assert type(made) is Stamp
            assert made.year == 2001
        assert type(Day.today()) is Day
        assert Day.today().year == 2001
    assert Stamp.now().year > 2001
    assert Day.today().year > 2001


# --- randomness --------------------------------------------------------------------------------


def draws(loaded: types.ModuleType) -> list[Any]:
    """Draw from everything that draws."""
    return [
        random.random(),
        random.Random().random(),
        random.SystemRandom().random(),
        random.SystemRandom().getrandbits(70),
        os.urandom(8),
        os.getrandom(8),
        ssl.RAND_bytes(8),
        secrets.token_bytes(8),
        secrets.token_hex(),
        secrets.randbelow(1000),
        secrets.choice(range(1000)),
        loaded.dice(8),
        loaded.rng.random(),
        str(uuid.uuid4()),
        str(loaded.fresh()),
        str(uuid.uuid1()),
        str(uuid.uuid1()),
        [str(getattr(uuid, name)()) for name in ("uuid6", "uuid7") if hasattr(uuid, name)],
        uuid.getnode(),
    ]


def test_everything_random_repeats_with_the_seed_and_differs_with_another(tmp_path):
    streams = []
    with program(tmp_path) as loaded:
        for seed in (7, 7, 8):
            loaded.rng.random()  # what was drawn before must not matter
            random.seed()
            with ambient(FakeSource(seed)):
                streams.append(draws(loaded))
    assert streams[0] == streams[1]
    equal = [a for a, b in zip(streams[0], streams[2], strict=True) if a == b != []]
    assert equal == []


def test_uuid1_is_valid_and_grows_within_a_simulation():
    with ambient(FakeSource()):
        first, second = uuid.uuid1(), uuid.uuid1()
    assert (first.version, second.time - first.time) == (1, 1)
    assert first.node == second.node


def test_a_seed_without_argument_is_drawn_from_the_source():
    def seeded() -> list[float]:
        with ambient(FakeSource()):
            random.seed()
            own = random.Random(3)
            own.seed()
            again = random.Random(3)
            again.seed(4)
            return [random.random(), own.random(), again.random()]

    assert seeded() == seeded()
    assert seeded()[2] == random.Random(4).random()


def test_generators_get_exactly_their_state_back(tmp_path):
    with program(tmp_path) as loaded:
        loaded.rng.gauss(0, 1)  # leaves a second number behind for the next call
        random.gauss(0, 1)
        before = random.getstate(), loaded.rng.getstate()
        with ambient(FakeSource()):
            assert loaded.rng.getstate() != before[1]
            random.random()
            loaded.rng.random()
        assert (random.getstate(), loaded.rng.getstate()) == before


def test_a_generator_made_in_one_simulation_begins_anew_in_the_next():
    made: list[random.Random] = []
    streams = []
    for _ in range(3):
        with ambient(FakeSource()):
            if not made:
                made.append(random.Random(5))
            streams.append([made[0].random(), made[0].random()])
    assert streams[1] == streams[2]


def test_names_of_temporary_files_repeat():
    def names() -> list[str]:
        with ambient(FakeSource()):
            return [next(tempfile._get_candidate_names()) for _ in range(3)]

    assert names() == names()


_STREAM = """
import random, sys, uuid
sys.path.insert(0, {root!r})
from tests.unit.test_sim_ambient import FakeSource
from outlast.sim.ambient import ambient
rngs = [random.Random() for _ in range(3)]
with ambient(FakeSource()):
    print([r.random() for r in rngs], random.random(), uuid.uuid4(), random.sample(range(99), 5))
"""


@pytest.mark.process
@pytest.mark.timeout(240)
def test_random_streams_do_not_depend_on_the_hash_seed():
    root = str(Path(__file__).parents[2])
    printed = [
        subprocess.run(
            [sys.executable, "-c", _STREAM.format(root=root)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert printed[0]
    assert printed[0] == printed[1]


# --- putting back ------------------------------------------------------------------------------


def snapshot() -> list[Any]:
    """Return everything that a simulation replaces."""
    found: list[Any] = [
        vars(sys.modules[original.name.rpartition(".")[0]])[original.name.rpartition(".")[2]]
        for original in ORIGINALS.values()
    ]
    found += [datetime.datetime.__dict__[name] for name in ("now", "utcnow")]
    found += [datetime.date.__dict__["today"], random.Random.seed]
    found += [vars(uuid).get(name) for name in sorted(vars(uuid)) if name.startswith("_last")]
    found += [vars(uuid).get("_generate_time_safe"), vars(uuid).get("_UuidCreate")]
    return found


def identical(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


_AT_FIRST = snapshot()


def test_everything_is_put_back_also_after_an_error(tmp_path, monkeypatch):
    assert identical(snapshot(), _AT_FIRST)
    monkeypatch.setattr(uuid, "_last_timestamp", 12345678901234567890)
    with program(tmp_path) as loaded:
        own = dict(vars(loaded)), dict(vars(loaded.Watch)), loaded.by_default.__defaults__
        before, state = snapshot(), random.getstate()
        for error in (RuntimeError, KeyboardInterrupt, SystemExit):
            with pytest.raises(error), ambient(FakeSource()):  # noqa: PT012
                assert time.time is not before[0]
                assert installed()
                raise error
            assert identical(snapshot(), before)
            assert random.getstate() == state
            assert not installed()
        assert identical(list(vars(loaded).values()), list(own[0].values()))
        assert identical(list(vars(loaded.Watch).values()), list(own[1].values()))
        assert loaded.by_default.__defaults__ is own[2]
        assert loaded.limiter.clock is loaded.slotted.clock is time.monotonic


def test_a_module_imported_inside_is_left_with_the_real_functions(tmp_path):
    with contextlib.ExitStack() as stack:
        with ambient(FakeSource()):
            loaded = stack.enter_context(program(tmp_path))
            assert loaded.monotonic() == 5.0
            assert loaded.Watch().clock() == 5.0
            assert loaded.by_default() == 5.0
        assert loaded.monotonic is time.monotonic
        assert loaded.Watch.clock is loaded.Watch().still is time.monotonic
        assert loaded.time.monotonic() - loaded.by_default() < 60  # a stand-in that steps aside
        with ambient(FakeSource()):
            assert loaded.monotonic() == loaded.by_default() == loaded.by_closure() == 5.0


def test_what_somebody_else_replaced_is_left_alone(monkeypatch):
    def mine() -> float:
        return 1.5

    monkeypatch.setattr(time, "time", mine)
    with ambient(FakeSource()):
        assert time.time is mine
    assert time.time is mine


def test_other_threads_keep_the_real_machine():
    seen: list[Any] = []
    clocks = [("time", _WALL_NS / _NS), ("time_ns", _WALL_NS)]
    clocks += [(name, 5.0) for name in _MONOTONIC]
    clocks += [(f"{name}_ns", _MONOTONIC_NS) for name in _MONOTONIC]
    inside, done = threading.Event(), threading.Event()

    def outsider() -> None:
        inside.wait(10)
        year = datetime.datetime.now(datetime.UTC).year
        seen.extend([time.time(), year, os.urandom(4), os.getpid()])
        seen.append([getattr(time, name)() != simulated for name, simulated in clocks])
        threading.Thread(target=lambda: None).start()
        done.set()

    thread = threading.Thread(target=outsider)
    thread.start()
    real = time.time()
    with ambient(HostSource()):
        inside.set()
        done.wait(10)
        assert time.time() == _WALL_NS / _NS
    thread.join(10)
    assert abs(seen[0] - real) < 60
    assert seen[1] > 2001
    assert seen[3] == os.getpid()
    assert all(seen[4])
    assert done.is_set()


def test_a_second_simulation_in_the_process_is_refused_from_any_thread():
    errors: list[Exception] = []

    def enter() -> None:
        try:
            with ambient(FakeSource()):
                pass
        except ConfigError as error:
            errors.append(error)

    with ambient(FakeSource()):
        enter()
        thread = threading.Thread(target=enter)
        with pytest.raises(EscapeError):
            thread.start()
        assert installed()
        assert time.monotonic() == 5.0
    assert [str(error) for error in errors] == [
        "ambient: a simulation runs in this process already; they do not nest"
    ]


def test_stand_ins_survive_pickle_and_do_not_bind_to_a_class():
    with ambient(FakeSource()):

        class Late:
            clock = time.monotonic

        assert Late().clock() == 5.0
        assert pickle.loads(pickle.dumps(time.monotonic)) == time.monotonic
        assert pickle.loads(pickle.dumps(FAKES)) is FAKES
    assert Late().clock() > 0


# --- what stays real is told -------------------------------------------------------------------


def test_what_cannot_be_replaced_is_told_with_its_name(tmp_path):
    with program(tmp_path) as loaded:
        name = loaded.__name__
        told: list[str] = []
        with ambient(FakeSource(), lambda escape: told.append(f"{escape.where}: {escape.what}")):
            assert loaded.partial() != 5.0
            assert loaded.table["clock"]() != 5.0
        mine = sorted(line for line in told if name in line)
        assert mine == [
            f"{name}:partial keeps time.monotonic in a functools.partial: reads the real clock",
            f"{name}:table keeps time.monotonic in a dict: reads the real clock",
        ]
        listed = [escape for escape in find_clock_readers() if name in escape.where]
        assert len(listed) == 2
        assert "time.monotonic()" in listed[0].advice


def test_a_program_that_can_be_replaced_entirely_is_not_accused(tmp_path):
    text = _PROGRAM.replace("partial = ", "# ").replace("table = ", "# ")
    with program(tmp_path, text) as loaded:
        found = [escape for escape in find_clock_readers() if loaded.__name__ in escape.where]
    assert found == []


def test_reader_in_a_list_inside_an_object_is_named_by_its_class(tmp_path):
    text = """
    import time
    class Wheel:
        def __init__(self):
            self.clocks = [time.monotonic]
    wheel = Wheel()
    """
    with program(tmp_path, text) as loaded:
        (found,) = [e for e in find_clock_readers() if loaded.__name__ in e.where]
    assert found.where == f"{loaded.__name__}:Wheel keeps time.monotonic in a list"


# --- signals and the process -------------------------------------------------------------------


def test_signal_handlers_belong_to_the_host():
    real = signal.getsignal(signal.SIGTERM)
    source, calls = HostSource(), []
    with ambient(source):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
        assert before is signal.SIG_DFL
        assert source.registry[signal.SIGTERM] is signal.getsignal(signal.SIGTERM)
        signal.siginterrupt(signal.SIGTERM, False)
        assert signal.set_wakeup_fd(-1) == -1
        signal.raise_signal(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert calls == [signal.SIGTERM, signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is real


def test_signal_refuses_what_the_real_one_refuses():
    with ambient(FakeSource()):
        with pytest.raises(ValueError, match="out of range"):
            signal.signal(1000, signal.SIG_IGN)
        with pytest.raises(TypeError, match="handler"):
            signal.signal(signal.SIGTERM, "no")
        with pytest.raises(OSError, match="Invalid"):
            signal.signal(signal.SIGKILL, signal.SIG_IGN)


def test_handlers_of_a_source_without_a_registry_end_with_the_simulation():
    with ambient(FakeSource()):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with ambient(FakeSource()):
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_name_and_pid_are_those_of_the_host_where_the_source_has_them():
    import socket

    real = os.getpid(), socket.gethostname()
    with ambient(FakeSource()):
        assert (os.getpid(), socket.gethostname()) == real
    with ambient(HostSource()):
        assert (os.getpid(), socket.gethostname(), socket.getfqdn()) == (12, "api", "api")
        assert socket.getfqdn("db") == "db"


# --- asyncio -----------------------------------------------------------------------------------


def test_asyncio_runs_inside_and_takes_its_time_from_the_simulation():
    async def main() -> float:
        await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    with ambient(FakeSource()):
        assert asyncio.run(main()) == 5.0


def test_objects_with_odd_classes_do_not_disturb_the_search(tmp_path):
    text = """
    import time
    class Proxy:
        @property
        def __class__(self):
            raise RuntimeError("not bound")
        def __getattr__(self, name):
            raise RuntimeError("not bound")
        def __eq__(self, other):
            raise RuntimeError("not comparable")
        __hash__ = None
    proxy = Proxy()
    holder = [proxy, time.monotonic]
    """
    with program(tmp_path, text) as loaded, ambient(FakeSource()):
        assert loaded.time.monotonic() == 5.0


def test_dataclass_fields_and_partials_are_usable_afterwards(tmp_path):
    with program(tmp_path) as loaded:
        with ambient(FakeSource()):
            loaded.Order()
        order = loaded.Order()
        assert abs(order.at - time.monotonic()) < 60
        assert isinstance(loaded.partial, functools.partial)
        assert [field.name for field in dataclasses.fields(order)] == ["at", "made"]
