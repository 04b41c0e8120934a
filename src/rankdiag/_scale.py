"""Axes of a plot: ranges, positions and ticks, on linear and logarithmic scales.

Nothing here knows how a plot is drawn. Every finite float can be placed, from the smallest to the largest.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Axis", "Tick", "fit"]

_LOG2 = math.log10(2)
_FLAT = 1e-9  # a range smaller than this part of its values counts as one value
_SQUASH = 4.0  # a reference line may stretch the range of the data by this factor
_NICE = ((1, 2**0.5), (2, 10**0.5), (5, 50**0.5))  # a step, and the largest size that it is nearest to
_STRIDES = (1, 2, 5, 10, 20, 50, 100, 200)
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick: where it lies along the axis, from 0 to 1, and its label; minor ticks have none."""

    at: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values and how it is laid out.

    Attributes
    ----------
    log : bool
        Whether the scale is logarithmic.
    low, high : float
        Ends of the range; their base-10 logarithms on a logarithmic scale.
    whole : bool
        Whether only whole numbers have a meaning, as for layers or ranks.
    """

    log: bool
    low: float
    high: float
    whole: bool = False

    def at(self, value: float) -> float:
        """Return where a value lies: 0 is the low end, 1 the high end, NaN what cannot be drawn."""
        place = _place(value, self.log)
        largest = max(abs(self.low), abs(self.high))  # dividing first keeps the differences finite
        return (place / largest - self.low / largest) / (self.high / largest - self.low / largest)

    def ticks(self, wanted: int) -> list[Tick]:
        """Return ticks on 1-2-5 steps or powers of ten, about `wanted` of them with a label."""
        if not self.log:
            return [Tick(self.at(value), label) for value, label in _linear(self.low, self.high, wanted, self.whole)]
        return self._log_ticks(wanted)

    def _log_ticks(self, wanted: int) -> list[Tick]:
        decades = range(math.ceil(self.low - _FLAT), math.floor(self.high + _FLAT) + 1)
        plain = math.floor(self.low) >= -3 and self.high <= 5
        if len(decades) >= 3:
            stride = next(n for n in _STRIDES if len(decades) <= 1.3 * n * max(wanted, 2) or n == _STRIDES[-1])
            labelled = [(float(k), _power(1, k, plain)) for k in decades if k % stride == 0]
            steps = range(2, 10) if len(decades) <= 6 else ()
            minor = [k + math.log10(m) for k in range(decades[0] - 1, decades[-1] + 1) for m in steps]
            minor += [float(k) for k in decades if k % stride and stride <= 5]
            return self._placed(labelled, minor)
        digits = [(k + math.log10(m), m, k) for k in range(decades.start - 2, decades.stop + 1) for m in range(1, 10)]
        inside = [entry for entry in digits if self.low <= entry[0] <= self.high]
        labelled = [(place, _power(m, k, plain)) for place, m, k in inside if m in {1, 2, 5}]
        if len(labelled) >= 3:
            return self._placed(labelled, [place for place, m, _ in inside if m not in {1, 2, 5}])
        base = math.floor(self.high)  # a part of a decade: linear steps of the mantissa
        mantissas = _linear(10 ** (self.low - base), 10 ** (self.high - base), wanted, False)
        return self._placed([(base + math.log10(m), _mantissa(label, base, plain)) for m, label in mantissas], [])

    def _placed(self, labelled: Iterable[tuple[float, str]], minor: Iterable[float]) -> list[Tick]:
        span = self.high - self.low
        ticks = [Tick((place - self.low) / span, label) for place, label in labelled]
        ticks += [Tick((place - self.low) / span) for place in minor]
        return sorted((tick for tick in ticks if -_FLAT <= tick.at <= 1 + _FLAT), key=lambda tick: tick.at)


def fit(
    values: Iterable[float],
    marks: Sequence[float] = (),
    *,
    log: bool = False,
    zero: Literal["always", "near", "never"] = "near",
    margin: float = 0.0,
) -> tuple[Axis, list[bool]]:
    """Choose the range of an axis.

    Parameters
    ----------
    values : iterable of float
        What is drawn; entries that are not finite, or not positive on a log scale, are passed over.
    marks : sequence of float
        Reference lines; one that would squash the data stays outside.
    log : bool
        Whether the scale is logarithmic.
    zero : {"always", "near", "never"}
        Whether a linear range includes zero: bars stand on it; "near" does if the smallest value is below half
        of the largest.
    margin : float
        Free room at either end, in units of the axis (decades on a log scale).

    Returns
    -------
    axis : Axis
        The axis.
    inside : list of bool
        Which of the marks lie within it.
    """
    drawn = [float(value) for value in values]
    places = [place for place in (_place(value, log) for value in drawn) if math.isfinite(place)]
    lines = [_place(mark, log) for mark in marks]
    usable = places or [line for line in lines if math.isfinite(line)] or [0.0, 1.0]
    low, high = least, most = min(usable), max(usable)
    for line in sorted((line for line in lines if math.isfinite(line)), key=lambda line: abs(line / 2 - low / 2)):
        if _flat(least, most):
            low, high = least, most = min(least, line), max(most, line)
        elif max(most, line) / 2 - min(least, line) / 2 <= _SQUASH * (most / 2 - least / 2):
            low, high = min(low, line), max(high, line)
    whole = not log and all(value == math.floor(value) for value in drawn if math.isfinite(value)) and bool(places)
    if not log and (zero == "always" or (zero == "near" and 0 < low < 0.5 * high)):
        low, high = min(low, 0.0), max(high, 0.0)
    limit = sys.float_info.max
    low, high = _widen(low, high, log, margin)
    axis = Axis(log, max(low, -limit), min(high, limit), whole)
    return axis, [math.isfinite(line) and axis.low <= line <= axis.high for line in lines]


def _widen(low: float, high: float, log: bool, margin: float) -> tuple[float, float]:
    if _flat(low, high):
        room = 0.3 if log else (abs(low) * 0.05 or 1.0)
        return low - max(room, margin), high + max(room, margin)
    room = margin or (high / 2 - low / 2) * 0.08
    keep_low, keep_high = (not log and low == 0), (not log and high == 0)
    return (low if keep_low and not margin else low - room), (high if keep_high and not margin else high + room)


def _flat(low: float, high: float) -> bool:
    return high / 2 - low / 2 <= _FLAT * max(abs(low), abs(high)) / 2


def _place(value: float, log: bool) -> float:
    if not math.isfinite(value) or (log and value <= 0):
        return math.nan
    return math.log10(value) if log else value


# --- ticks -------------------------------------------------------------------------------------------------


def _linear(low: float, high: float, wanted: int, whole: bool) -> list[tuple[float, str]]:
    span = math.log10(high - low) if math.isfinite(high - low) else math.log10(high / 2 - low / 2) + _LOG2
    size = span - math.log10(max(wanted, 1))
    power = math.floor(size)
    nice = next((nice for nice, bound in _NICE if 10 ** (size - power) <= bound), 10)
    if whole and power < 0:
        nice, power = 1, 0
    step = float(f"{nice}e{power}")
    if step == 0 or not math.isfinite(step):  # beyond what a float can step over
        return [(low, f"{low:.3g}"), (high, f"{high:.3g}")]
    counts = range(math.ceil(low / step - _FLAT), math.floor(high / step + _FLAT) + 1)
    multiples = [(count * nice, float(f"{count * nice}e{power}")) for count in counts]
    largest = max((abs(value) for _, value in multiples), default=0.0)
    if largest and not 1e-3 <= largest < 1e6:
        top = math.floor(math.log10(largest))
        texts = [_scientific(f"{count / 10 ** (top - power):.{top - power}f}", top) for count, _ in multiples]
    else:
        texts = [f"{value:.{max(0, -power)}f}" for _, value in multiples]
    return [
        (value, "0" if value == 0 else text.replace("-", "\N{MINUS SIGN}"))
        for (_, value), text in zip(multiples, texts, strict=True)
    ]


def _power(mantissa: int, power: int, plain: bool) -> str:
    if plain:
        return f"{mantissa * 10.0**power:.{max(0, -power)}f}"
    return f"10{str(power).translate(_SUPERSCRIPT)}" if mantissa == 1 else _scientific(str(mantissa), power)


def _mantissa(label: str, power: int, plain: bool) -> str:
    if not plain:
        return _scientific(label, power)
    decimals = max(0, len(label.partition(".")[2]) - power)
    return f"{float(label) * 10.0**power:.{decimals}f}"


def _scientific(mantissa: str, power: int) -> str:
    return f"{mantissa}\N{MULTIPLICATION SIGN}10{str(power).translate(_SUPERSCRIPT)}"
