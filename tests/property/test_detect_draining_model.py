"""The drain against what it promises, whatever the order of work, signals and time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.detect.core.draining import DrainDecider, DrainSettings

NS = 1_000_000_000
ORDER = ("serving", "leaving", "refusing", "ended")
STEPS = st.lists(
    st.one_of(st.sampled_from(["enter", "leave", "begin", "hurry"]), st.integers(0, 4)),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(delay=st.integers(0, 6), more=st.integers(0, 6), steps=STEPS)
def test_a_drain_goes_forward_in_time_and_loses_no_work(
    delay: int, more: int, steps: list[str | int]
) -> None:
    within = max(delay + more, 1)
    one = DrainDecider(DrainSettings.of(delay, within))
    now, began, entered, phases, hurried = 0, -1, 0, ["serving"], False
    for step in steps:
        if isinstance(step, int):
            now += step
        elif step == "enter":
            took = one.enter()
            assert took == (one.phase in {"serving", "leaving"})
            entered += took
        elif step == "leave" and entered:
            entered -= 1
            may_end = one.leave()
            assert may_end == (entered == 0 and one.phase == "refusing")
        elif step == "begin":
            assert one.begin(now * NS) == (began < 0)
            began = now if began < 0 else began
        elif step == "hurry":
            one.hurry()
            hurried = hurried or began >= 0
        due = one.advance(now * NS)
        phases.append(one.phase)
        assert one.in_flight == entered
        assert (due is None) == (one.phase in {"serving", "ended"})
        assert due is None or due > now * NS
    ranks = [ORDER.index(phase) for phase in phases]
    assert ranks == sorted(ranks)
    if began < 0:
        assert one.phase == "serving"
    elif hurried or now >= began + within:
        assert one.phase == "ended"
    elif now < began + delay:
        assert one.phase == "leaving"
    elif one.phase == "refusing":
        assert entered
