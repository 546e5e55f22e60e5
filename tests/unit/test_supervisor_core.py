"""The restart decider: how often, how long to wait, and when to stop trying."""

import pytest

from outlast.detect import InCrashLoop, RestartAfter, RestartDecider, RestartPolicy, StayDown
from outlast.detect.core.supervisor import exit_reason
from outlast.kernel import ConfigError, Prng

NS = 1_000_000_000


def test_intensity_restarts_are_allowed_and_one_more_is_a_crash_loop() -> None:
    decider = RestartDecider(RestartPolicy(intensity=3, period=10.0))
    made = [decider.on_exit(1, n * NS, Prng(1)) for n in range(4)]
    assert [type(d) for d in made] == [RestartAfter] * 3 + [InCrashLoop]
    assert [d.count for d in made if not isinstance(d, StayDown)] == [1, 2, 3, 4]


def test_restarts_outside_the_period_do_not_count() -> None:
    decider = RestartDecider(RestartPolicy(intensity=1, period=10.0))
    for n in range(50):
        decision = decider.on_exit(1, n * 10 * NS, Prng(1))
        assert isinstance(decision, RestartAfter)
        assert decision.count == 1
    assert isinstance(decider.on_exit(1, 490 * NS + 10 * NS - 1, Prng(1)), InCrashLoop)


def test_waits_double_up_to_the_cap_and_are_drawn_evenly() -> None:
    policy = RestartPolicy(intensity=8, period=1000.0, base=0.1, cap=2.0)
    most = [0] * 8
    for seed in range(300):
        decider = RestartDecider(policy)
        for n in range(8):
            decision = decider.on_exit(1, n, Prng(seed * 8 + n))
            assert isinstance(decision, RestartAfter)
            most[n] = max(most[n], decision.delay_ns)
    for n, ceiling in enumerate([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]):
        assert 0.95 * ceiling * NS < most[n] <= ceiling * NS


def test_a_slow_policy_goes_on_at_the_cap() -> None:
    decider = RestartDecider(RestartPolicy(intensity=0, period=5.0, cap=3.0, slow=True))
    assert decider.on_exit(1, 0, Prng(1)) == InCrashLoop(1, 3 * NS)
    down = RestartDecider(RestartPolicy(intensity=0, period=5.0))
    assert down.on_exit(1, 0, Prng(1)) == InCrashLoop(1, None)


@pytest.mark.parametrize(
    ("restart", "code", "again"),
    [
        ("permanent", 0, True),
        ("permanent", -9, True),
        ("transient", 0, False),
        ("transient", 1, True),
        ("transient", -15, True),
        ("temporary", 1, False),
    ],
)
def test_which_exits_are_followed_by_a_start(restart: str, code: int, again: bool) -> None:
    decider = RestartDecider(RestartPolicy(restart=restart))  # type: ignore[arg-type]
    assert isinstance(decider.on_exit(code, 0, Prng(1)), RestartAfter if again else StayDown)


def test_forgetting_starts_the_count_afresh() -> None:
    decider = RestartDecider(RestartPolicy(intensity=1))
    decider.on_exit(1, 0, Prng(1))
    assert isinstance(decider.on_exit(1, 1, Prng(1)), InCrashLoop)
    decider.forget()
    assert isinstance(decider.on_exit(1, 2, Prng(1)), RestartAfter)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"restart": "always"}, "restart is 'always'"),
        ({"intensity": -1}, "intensity is -1"),
        ({"period": 0}, "period"),
        ({"base": 0}, "base"),
        ({"base": 2, "cap": 1}, "cap"),
    ],
)
def test_policies_are_checked(given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RestartPolicy(**given)  # type: ignore[arg-type]


def test_exit_codes_have_words() -> None:
    assert exit_reason(3, {}) == "exited with 3"
    assert exit_reason(-99, {}) == "killed by signal 99"
