"""Exits after which another start would end the same."""

from outlast.detect.core.supervisor import RestartAfter, RestartDecider, RestartPolicy, StayDown
from outlast.kernel import Prng


def test_a_final_exit_code_is_not_followed_by_a_restart() -> None:
    decider = RestartDecider(RestartPolicy(final=(2,), slow=True))
    assert isinstance(decider.on_exit(1, 0, Prng(1)), RestartAfter)
    assert decider.on_exit(2, 1, Prng(1)) == StayDown(
        "it exited with 2: another start would end the same"
    )
    assert isinstance(decider.on_exit(-9, 2, Prng(1)), RestartAfter)
