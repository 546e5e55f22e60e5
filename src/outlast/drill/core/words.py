"""Numbers as a person reads them: counts, times, shares."""

import math

_SECONDS_ONLY = 120.0


def count(value: float | None) -> str:
    """Return a whole number with commas.

    >>> count(30214)
    '30,214'
    """
    return "–" if value is None or not math.isfinite(value) else f"{value:,.0f}"


def millis(value: float | None) -> str:
    """Return milliseconds, or seconds from 1,000 ms on, with three digits that matter.

    >>> [millis(v) for v in (0.4821, 7.26, 318.4, 2140.0, 61_000.0, None)]
    ['0.48 ms', '7.3 ms', '318 ms', '2.14 s', '61.0 s', '–']
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value < 1:
        return f"{value:.2f} ms"
    if value < 9.95:
        return f"{value:.1f} ms"
    if value < 999.5:
        return f"{value:.0f} ms"
    return f"{value / 1000:.2f} s" if value < 9_995 else f"{value / 1000:.1f} s"


def seconds(value: float) -> str:
    """Return seconds with one digit after the point.

    >>> seconds(22.94)
    '22.9 s'
    """
    return f"{value:.1f} s" if math.isfinite(value) else "–"


def clock(value: float, end: float) -> str:
    """Return an instant of a run of ``end`` seconds: minutes too if it is longer than two.

    >>> clock(2.5, 60.0), clock(30.0, 600.0)
    ('2.5', '0:30')
    """
    if end > _SECONDS_ONLY:
        return f"{int(value // 60)}:{int(value % 60):02d}"
    return f"{value:g}"


def clock_unit(end: float) -> str:
    """Return the unit of :func:`clock`; minutes and seconds explain themselves."""
    return "" if end > _SECONDS_ONLY else " s"


def share(value: float) -> str:
    """Return a share in per cent, rounded towards 0 so that only a whole one reads as 100 %.

    >>> share(0.9999), share(1.0)
    ('99.9 %', '100 %')
    """
    if not math.isfinite(value):
        return "–"
    per_cent = math.floor(value * 1000 + 1e-9) / 10
    return f"{per_cent:g} %"


def plural(number: int, one: str, more: str = "") -> str:
    """Return a number with its noun.

    >>> plural(1, "fault"), plural(9, "fault")
    ('1 fault', '9 faults')
    """
    return f"{count(number)} {one if number == 1 else more or one + 's'}"
