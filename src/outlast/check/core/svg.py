"""Small helpers to draw SVG as a tree of elements: shapes, text, scales, ticks.

A picture is an ``xml.etree`` tree, so a hostile label is text and never markup. Lengths are user
units, which are CSS pixels at the picture's own size. Colours come from a style sheet, by class:
helpers take ``cls`` and no colour, so that one sheet decides for light, dark and print.
"""

import math
import re
from collections.abc import Callable
from xml.etree.ElementTree import Element, SubElement, tostring

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, whichever way it is escaped."""


def clean(text: object) -> str:
    """Return ``str(text)`` with what no XML document can hold replaced by U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", str(text))


def shorten(text: str, most: int) -> str:
    """Return ``text`` cut to ``most`` characters, the last of which then is an ellipsis.

    >>> shorten("write 123456", 8)
    'write 1…'
    """
    return text if len(text) <= most else text[: max(0, most - 1)] + "…"


def number(value: float) -> str:
    """Return a coordinate with at most two decimals and none that say nothing.

    >>> number(12.50), number(3.0), number(-0.001)
    ('12.5', '3', '0')
    """
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def picture(width: float, height: float, *, label: str, cls: str = "") -> Element:
    """Return an empty ``<svg>`` that a screen reader announces as one image.

    Args:
        width: In pixels; the picture keeps this size, so that its text stays readable.
        height: In pixels.
        label: What the picture shows, in one sentence.
        cls: Class of the root; the style sheet hangs from it.
    """
    root = Element("svg")
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("viewBox", f"0 0 {number(width)} {number(height)}")
    root.set("width", number(width))
    root.set("height", number(height))
    root.set("role", "img")
    root.set("aria-label", clean(label))
    if cls:
        root.set("class", cls)
    return root


def style(parent: Element, sheet: str) -> None:
    """Put a style sheet of our own making into a picture."""
    SubElement(parent, "style").text = sheet


def element(parent: Element, tag: str, cls: str = "", **attributes: object) -> Element:
    """Add an element. Floats become coordinates; ``stroke_width`` becomes ``stroke-width``."""
    made = SubElement(parent, tag)
    if cls:
        made.set("class", cls)
    for name, value in attributes.items():
        text = number(value) if isinstance(value, float | int) else clean(value)
        made.set(name.rstrip("_").replace("_", "-"), text)
    return made


def group(parent: Element, cls: str = "", title: str = "", **attributes: object) -> Element:
    """Add a group; ``title`` is shown when the pointer rests on any part of it."""
    made = element(parent, "g", cls, **attributes)
    if title:
        SubElement(made, "title").text = clean(title)
    return made


def rect(
    parent: Element, box: tuple[float, float, float, float], cls: str = "", *, rx: float = 0
) -> Element:
    """Add a rectangle; ``box`` is left, top, width and height, ``rx`` rounds its corners."""
    x, y, width, height = box
    made = element(parent, "rect", cls, x=x, y=y, width=max(0.0, width), height=max(0.0, height))
    if rx:
        made.set("rx", number(rx))
    return made


def line(
    parent: Element, start: tuple[float, float], end: tuple[float, float], cls: str = ""
) -> Element:
    """Add a straight line from one point to another."""
    return element(parent, "line", cls, x1=start[0], y1=start[1], x2=end[0], y2=end[1])


def circle(parent: Element, x: float, y: float, radius: float, cls: str = "") -> Element:
    """Add a circle around a point."""
    return element(parent, "circle", cls, cx=x, cy=y, r=radius)


def path(parent: Element, points: list[tuple[float, float]], cls: str = "") -> Element:
    """Add a line through points; with no points, an empty path."""
    steps = (f"{'L' if n else 'M'}{number(x)} {number(y)}" for n, (x, y) in enumerate(points))
    return element(parent, "path", cls, d="".join(steps))


def text(parent: Element, x: float, y: float, words: object, cls: str = "") -> Element:
    """Add text whose base line begins at a point; anchor and font come from the class."""
    made = element(parent, "text", cls, x=x, y=y)
    made.text = clean(words)
    return made


def markup(root: Element) -> str:
    """Return a picture as text: a file of its own, and as good inside an HTML page."""
    return tostring(root, encoding="unicode", short_empty_elements=True)


# --- scales ------------------------------------------------------------------------------------


def linear(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return what takes ``low`` to ``start`` and ``high`` to ``end``, evenly in between.

    An empty domain (``low == high``) lands on ``start``.

    >>> linear(0, 10, 100, 200)(2.5)
    125.0
    """
    slope = (end - start) / (high - low) if high != low else 0.0
    return lambda value: start + (value - low) * slope


def logarithmic(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return a scale on which equal ratios have equal lengths; below ``low`` counts as ``low``.

    >>> round(logarithmic(1, 1000, 0, 300)(10))
    100
    """
    inner = linear(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(max(value, low)))


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most ``most + 1`` round values from ``low`` to ``high``: steps of 1, 2 or 5.

    >>> ticks(0, 60)
    [0.0, 20.0, 40.0, 60.0]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low or most < 1:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]
