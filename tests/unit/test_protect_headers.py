"""Time left, attempt and key in headers, and what strangers may put there."""

import asyncio
import threading

import pytest

import outlast.host  # noqa: F401 - threads here find the real world
from outlast import sim
from outlast.kernel import (
    ConfigError,
    DeadlineError,
    TooLateError,
    current_deadline,
    current_world,
    idempotency_key,
)
from outlast.protect import deadline
from outlast.protect.call import CallInfo, current_attempt, current_call, current_call_var
from outlast.protect.headers import (
    Incoming,
    Style,
    current_incoming,
    encode_grpc,
    extract,
    incoming,
    inject,
)
from outlast.protect.sender import Idempotency, mint_key
from outlast.testing import virtual_time

NS = 1_000_000_000


@pytest.mark.parametrize(
    ("style", "name", "value"),
    [
        ("outlast", "Outlast-Timeout-Ms", "1995"),
        ("ms", "x-request-timeout-ms", "1995"),
        ("envoy", "x-envoy-expected-rq-timeout-ms", "1995"),
        ("grpc", "grpc-timeout", "1995000u"),
    ],
)
def test_the_time_left_less_the_reserve_goes_out_in_each_style(
    style: Style, name: str, value: str
) -> None:
    headers: dict[str, str] = {}
    with virtual_time(), deadline(2.0):
        inject(headers, style=style)
        assert headers == {name: value}
        assert extract(headers).timeout == 1.995


def test_without_deadline_attempt_or_key_nothing_is_written() -> None:
    headers: dict[str, str] = {"A": "b"}
    with virtual_time():
        inject(headers)
        with deadline(float("inf")):
            inject(headers)
    assert headers == {"A": "b"}


def test_a_request_that_could_not_be_answered_in_time_is_not_sent() -> None:
    with virtual_time(), deadline(0.005), pytest.raises(TooLateError) as caught:
        inject({})
    assert caught.value.happened == "no"


def test_less_than_a_millisecond_is_never_written_as_zero() -> None:
    headers: dict[str, str] = {}
    with virtual_time(), deadline(0.0005):
        inject(headers, reserve=0.0)
    assert headers == {"Outlast-Timeout-Ms": "1"}


def test_attempt_and_key_of_the_call_replace_older_ones_in_any_spelling() -> None:
    token = current_call_var.set(CallInfo("k-1", 3))
    headers = {"idempotency-key": "old", "OUTLAST-ATTEMPT": "2"}
    try:
        inject(headers)
        assert headers == {"Outlast-Attempt": "3", "Idempotency-Key": "k-1"}
        grpc: dict[str, str] = {}
        inject(grpc, style="grpc")
        assert grpc == {
            "outlast-attempt": "3",
            "grpc-previous-rpc-attempts": "2",
            "idempotency-key": "k-1",
        }
        envoy: dict[str, str] = {}
        inject(envoy, style="envoy")
        assert envoy["x-envoy-attempt-count"] == "3"
        assert [extract(each).attempt for each in (headers, grpc, envoy)] == [3, 3, 3]
    finally:
        current_call_var.reset(token)


def test_an_unknown_style_and_a_wrong_cap_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="style"):
        inject({}, style="smoke")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cap"):
        extract({}, cap=0)


@pytest.mark.parametrize(
    ("left_ns", "text"),
    [
        (0, "0n"), (7, "7n"), (99_999_999, "99999999n"), (100_000_000, "100000u"),
        (100 * NS, "100000m"), (100_000 * NS, "100000S"), (10**8 * NS, "1666666M"),
        (60 * 10**8 * NS, "1666666H"), (10**30, "99999999H"),
    ],
)  # fmt: skip
def test_grpc_timeouts_have_eight_digits_and_never_grow(left_ns: int, text: str) -> None:
    assert encode_grpc(left_ns) == text


@pytest.mark.parametrize(
    ("headers", "timeout"),
    [
        ({"outlast-timeout-ms": "1500"}, 1.5),
        ({"OUTLAST-TIMEOUT-MS": " 1500\t"}, 1.5),
        ({"grpc-timeout": "5S"}, 5.0),
        ({"grpc-timeout": "1H"}, 30.0),
        ({"grpc-timeout": "0n"}, 0.0),
        ({"x-request-timeout-ms": "999999999999"}, 30.0),
        ({"x-request-timeout-ms": "900", "x-envoy-expected-rq-timeout-ms": "800"}, 0.8),
        ({"x-request-timeout-ms": "nonsense", "grpc-timeout": "1S"}, 1.0),
    ],
)
def test_the_shortest_time_told_counts_up_to_the_cap(
    headers: dict[str, str], timeout: float
) -> None:
    assert extract(headers).timeout == timeout


@pytest.mark.parametrize(
    "value",
    ["", "-1", "+1", "1.5", "1e3", "1_000", "٣", "9" * 13, "0x10", "nan", "inf", "1 2", "1\x00"],
)
def test_nonsense_is_as_if_it_were_not_there(value: str) -> None:
    names = ("outlast-timeout-ms", "x-request-timeout-ms", "outlast-attempt", "grpc-timeout",
             "grpc-previous-rpc-attempts", "x-envoy-attempt-count")  # fmt: skip
    assert extract({name: value for name in names}) == Incoming()


@pytest.mark.parametrize("value", ["S", "1X", "1s", "123456789S", "-1S", "1 S", "1SS"])
def test_grpc_nonsense_is_as_if_it_were_not_there(value: str) -> None:
    assert extract({"grpc-timeout": value}).timeout is None


def test_the_highest_attempt_counts_and_absurd_ones_do_not() -> None:
    assert extract({"outlast-attempt": "2", "grpc-previous-rpc-attempts": "3"}).attempt == 4
    assert extract({"outlast-attempt": "0"}).attempt == 1
    assert extract({"outlast-attempt": "1001", "x-envoy-attempt-count": "2"}).attempt == 2


def test_pairs_of_bytes_are_read_and_a_quoted_key_equals_a_bare_one() -> None:
    quoted = extract([(b"Idempotency-Key", b'"order-17"'), (b"x", b"\xff")])
    assert quoted.key == extract({"idempotency-key": "order-17"}).key == "order-17"
    assert not quoted.key_refused


@pytest.mark.parametrize("key", ["", '""', "a b", "a\nb", "ü", "x" * 256, '"'])
def test_a_key_that_cannot_be_used_is_refused_and_not_shortened(key: str) -> None:
    found = extract({"Idempotency-Key": key})
    if key == '"':
        assert found.key == '"'
    else:
        assert (found.key, found.key_refused) == (None, True)


def test_two_keys_that_differ_are_no_key() -> None:
    pairs = [("Idempotency-Key", "a"), ("idempotency-key", "b")]
    assert extract(pairs).key_refused
    assert extract([pairs[0], pairs[0]]).key == "a"


def test_a_flood_of_headers_is_read_only_so_far() -> None:
    pairs = [("x", "y")] * 512 + [("outlast-timeout-ms", "5")]
    assert extract(pairs).timeout is None


def test_serving_a_request_sets_deadline_attempt_and_key_and_takes_them_back() -> None:
    headers = {"Outlast-Timeout-Ms": "1500", "Outlast-Attempt": "2", "Idempotency-Key": "k"}
    with virtual_time() as clock:
        with incoming(headers) as info:
            assert info == Incoming(1.5, 2, "k")
            limit = current_deadline.get()
            assert limit is not None
            assert limit.left(current_world().clock.monotonic_ns()) == 1.5
            call = current_call()
            assert call is not None
            assert (call.key, current_attempt(), current_incoming()) == ("k", 2, info)
            clock.advance(1.5)
        assert current_deadline.get() is None
        assert (current_call(), current_incoming()) == (None, None)


def test_a_block_is_entered_once() -> None:
    block = incoming({})
    with block:
        pass
    with pytest.raises(RuntimeError, match="entered before"), block:
        pass


def test_what_came_in_only_shortens_the_deadline() -> None:
    with virtual_time(), deadline(1.0), incoming({"Outlast-Timeout-Ms": "20000"}):
        limit = current_deadline.get()
        assert limit is not None
        assert limit.left(current_world().clock.monotonic_ns()) == 1.0


def test_a_key_that_came_in_is_not_handed_on_but_the_attempt_is() -> None:
    headers: dict[str, str] = {}
    with incoming({"Outlast-Attempt": "2", "Idempotency-Key": "k"}):
        inject(headers)
        assert headers == {"Outlast-Attempt": "2"}
        token = current_call_var.set(CallInfo("k:charge", 1))
        inject(headers)
        current_call_var.reset(token)
    assert headers["Idempotency-Key"] == "k:charge"


def test_a_coroutine_is_cancelled_when_the_time_of_its_caller_is_up() -> None:
    async def main() -> None:
        block = incoming({"Outlast-Timeout-Ms": "1500"})

        async def serve() -> None:
            async with block:
                assert not block.passed()
                await asyncio.sleep(10)

        with pytest.raises(DeadlineError):
            await serve()
        assert block.expired
        assert block.passed()

    sim.run(main)


# --- the sending half -----------------------------------------------------------------------


def test_each_call_gets_a_key_of_its_own_and_the_seed_repeats_them() -> None:
    def draw() -> list[str]:
        with virtual_time(seed=7):
            return [Idempotency().key_for((), {}) for _ in range(100)]

    first = draw()
    assert len(set(first)) == 100
    assert draw() == first
    assert all(len(key) == 36 and key.count("-") == 4 for key in first)


def test_threads_that_mint_at_once_get_different_keys() -> None:
    keys: list[str] = []

    def mint() -> None:
        keys.extend([mint_key() for _ in range(500)])

    threads = [threading.Thread(target=mint) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 2000


def test_a_function_of_the_arguments_comes_before_the_context_and_that_before_a_new_key() -> None:
    made = Idempotency(key=lambda order, *, part: f"{order}-{part}")
    with idempotency_key("ambient"):
        assert made.key_for((17,), {"part": 2}) == "17-2"
        assert Idempotency().key_for((17,), {}) == "ambient"


@pytest.mark.parametrize("key", ["", "a b", "ü", None, 7])
def test_a_key_that_cannot_go_into_a_header_is_refused_before_the_call(key: object) -> None:
    with pytest.raises(ConfigError, match="visible ASCII"):
        Idempotency(key=lambda: key).key_for((), {})  # type: ignore[arg-type,return-value]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="header"):
        Idempotency("a b")
    with pytest.raises(ConfigError, match="key is 'x'"):
        Idempotency(key="x")  # type: ignore[arg-type]
    assert Idempotency(require=True).describe() == {
        "header": "Idempotency-Key",
        "key": None,
        "require": True,
    }


def test_a_required_key_is_not_minted() -> None:
    required = Idempotency(require=True)
    with pytest.raises(ConfigError, match="none was given"):
        required.key_for((), {})
    with idempotency_key("order-17"):
        assert required.key_for((), {}) == "order-17"
