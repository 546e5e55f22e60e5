"""Whether an example passes does not depend on how busy the machine is."""

from hypothesis import HealthCheck, settings


def test_an_example_may_take_as_long_as_it_takes() -> None:
    assert settings().deadline is None


def test_drawing_examples_may_take_as_long_as_it_takes() -> None:
    assert HealthCheck.too_slow in settings().suppress_health_check
