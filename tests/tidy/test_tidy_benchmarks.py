"""The figures of benchmarks are computed as their names say."""

import os
import time

import pytest

from benchmarks import common
from benchmarks.peers import etcd_load

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(
    share: float, expected: float
) -> None:
    assert common.percentile([float(n) for n in range(1, 101)], share) == expected


def test_percentile_of_nothing_is_zero() -> None:
    assert common.percentile([], 0.5) == 0.0


def test_longest_gap_does_not_depend_on_the_order_of_callers() -> None:
    assert common.longest_gap([5.0, 1.0, 4.5, 1.5]) == 3.0
    assert common.longest_gap([1.0]) == 0.0


def test_a_stop_that_lasts_to_the_end_is_a_gap() -> None:
    load = common.Load(begin=10.0, end=20.0)
    load.record(9.5, 9.9)  # in the warm-up
    load.record(10.0, 10.5)
    load.record(10.5, 12.0)
    load.record(12.0, 20.5)  # too late
    result = load.result("x", "y", 1)
    assert result.operations == 2
    assert result.rate == 0.2
    assert result.gap == 8.0
    assert common.Result.from_json(result.to_json()) == result


def test_cpu_time_of_a_process_grows_and_a_missing_one_counts_nothing() -> None:
    before = common.cpu_seconds([os.getpid()])
    spin = time.process_time() + 0.05
    while time.process_time() < spin:
        pass
    assert common.cpu_seconds([os.getpid()]) - before >= 0.03
    assert common.cpu_seconds([2**22 + 1]) == 0.0


def test_free_ports_differ() -> None:
    assert len(set(common.free_ports(6))) == 6


def test_a_load_generator_that_fails_names_its_reason() -> None:
    process = common.start_load("benchmarks.peers.etcd_load", "nowhere", "--seconds", "0")
    with pytest.raises(RuntimeError, match="ValueError"):
        common.finish_load(process, 120)


def test_put_request_is_two_length_delimited_fields() -> None:
    assert etcd_load.put_request(b"key", b"v") == b"\x0a\x03key\x12\x01v"


@pytest.mark.anyio
async def test_closed_loop_counts_errors_apart_and_goes_on() -> None:
    calls = 0

    async def operation() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionResetError

    load = await common.closed_loop([operation], 0.5, warm_up=0.0)
    assert load.errors == 1
    assert len(load.latencies) >= 1
