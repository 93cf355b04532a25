"""Charts as data: axes with ticks, and series of points. Templates draw them as SVG."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """The range of a chart's axis.

    ticks: (value, label) of each tick
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    is_log: bool = False

    def position(self, value: float) -> float:
        """The position of a value on the axis: 0 at the low end, 1 at the high end."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low)


def linear_axis(values: Iterable[float], num: int = 5) -> Axis:
    """A linear axis that encloses all values.

    It has about `num` ticks, at multiples of 1, 2 or 5 times a power of ten.
    """
    values = list(values)
    low, high = min(values), max(values)
    step = round_step((high - low or abs(high) or 1.0) / num)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [round(k * step, 12) for k in range(first, last + 1)]
    return Axis(ticks[0], ticks[-1], tuple((tick, f"{tick:g}") for tick in ticks))


def log_axis(values: Iterable[float]) -> Axis:
    """A logarithmic axis that encloses values above 0 with a margin.

    It has at most five ticks, at 1, 2 and 5 times a power of ten or fewer.
    """
    values = list(values)
    low, high = min(values) / 1.3, max(values) * 1.3
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leads in ((1, 2, 5), (1, 3), (1,)):
        ticks = [lead * 10.0**power for power in decades for lead in leads if low <= lead * 10.0**power <= high]
        if len(ticks) <= 5:
            break
    ticks = ticks or [float(f"{math.sqrt(low * high):.2g}")]
    return Axis(low, high, tuple((tick, f"{tick:g}") for tick in ticks), is_log=True)


def round_step(minimum: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least `minimum`."""
    power = 10.0 ** math.floor(math.log10(minimum))
    return next(lead * power for lead in (1, 2, 5, 10) if lead * power >= minimum * (1 - 1e-9))


@dataclass(frozen=True)
class Point:
    """A point of a series.

    title: its tooltip
    kind:  how it is drawn: `dot`, `best`, `start`, or `faint` for a result of less weight
    """

    x: float
    y: float
    title: str
    kind: str = "dot"


@dataclass(frozen=True)
class Series:
    """A named series of points.

    segments:     points by segment; a line connects the points of one segment
    is_connected: False for a scatter plot, which has no lines
    """

    name: str
    segments: tuple[tuple[Point, ...], ...]
    is_connected: bool = True


@dataclass(frozen=True)
class Chart:
    """Series of points on two axes.

    divider:  the x value of a vertical line between two sections
    sections: (x, label) of each section; the label is drawn above the chart
    """

    title: str
    x: Axis
    y: Axis
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    divider: float | None = None
    sections: tuple[tuple[float, str], ...] = ()
