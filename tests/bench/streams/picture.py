"""What each way to retrain has gained over the frozen model up to each week, as a plain SVG. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 910, 400, 70, 180, 50, 50
_COLORS = ("#888888", "#1f77b4", "#ff7f0e", "#9467bd", "#2ca02c", "#d62728")


@dataclass(frozen=True)
class Line:
    """One way to retrain."""

    gained: Floats
    """(W,): log-loss saved up to the end of each week, summed over rows, in units of 1,000."""
    promoted: tuple[int, ...]
    """Weeks in which a new model began to serve."""
    harmful: tuple[int, ...]
    """Those of them whose new model was worse on the month that followed."""


def drawn(lines: Mapping[str, Line], *, title: str, months: Sequence[tuple[float, str]]) -> str:
    """Return the picture: weeks to the right, gain upwards; `months` are the weeks that begin one, with their names."""
    values = np.concatenate([[0.0], *(line.gained for line in lines.values())])
    weeks = max(len(line.gained) for line in lines.values())
    frame = _Frame(weeks, float(values.min()), float(values.max()))
    parts = [frame.axes(title, months)]
    for row, ((name, line), color) in enumerate(zip(lines.items(), _COLORS, strict=False)):
        parts.append(frame.line(line, color))
        parts.append(_text(_WIDTH - _RIGHT + 18, _TOP + 16 * row + 8, name, color))
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    font = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>{"".join(parts)}</svg>\n'


@dataclass(frozen=True)
class _Frame:
    """Where a week and a gain lie in the picture."""

    weeks: int
    low: float
    high: float

    def line(self, line: Line, color: str) -> str:
        """Return a line with a dot for every promotion, crossed out where it harmed."""
        path = " ".join(f"{self._x(week):.1f},{self._y(gain):.1f}" for week, gain in enumerate(line.gained))
        dots = [self._dot(line, week, color) for week in line.promoted]
        return f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{path}"/>{"".join(dots)}'

    def _dot(self, line: Line, week: int, color: str) -> str:
        x, y = self._x(week), self._y(float(line.gained[min(week, len(line.gained) - 1)]))
        if week in line.harmful:
            cross = f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"
            return f'<path d="{cross}" stroke="{color}" stroke-width="2"><title>harmed</title></path>'
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}"><title>promoted</title></circle>'

    def axes(self, title: str, months: Sequence[tuple[float, str]]) -> str:
        """Return axes, title and the names of months."""
        zero, bottom, right = self._y(0.0), _HEIGHT - _BOTTOM, _WIDTH - _RIGHT + 10
        path = f'<path d="M{_LEFT} {_TOP}V{bottom}M{_LEFT} {zero:.1f}H{right}" fill="none" stroke="#444"/>'
        names = [_text(self._x(week), bottom + 18, name) for week, name in months]
        ends = [_text(_LEFT - 60, self._y(value) + 4, f"{value:.2f}") for value in {self.low, 0.0, self.high}]
        said = "log-loss saved beside the frozen model, thousands; dots: promoted, crosses: promoted and harmed"
        return path + "".join([*names, *ends]) + _text(_LEFT, _TOP - 30, title) + _text(_LEFT, _TOP - 14, said)

    def _x(self, week: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * week / max(1, self.weeks - 1)

    def _y(self, gain: float) -> float:
        span = max(self.high - self.low, 1e-9)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (self.high - gain) / span


def _text(x: float, y: float, words: str, color: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}">{escape(words)}</text>'
