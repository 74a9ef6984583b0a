"""Delay against false alarms, as a plain SVG: one line for each way to raise an alarm, defaults marked."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from tests.bench.monitoring.alarms import DELAY_LIMIT
from tests.bench.monitoring.tradeoff import Point

_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 380, 60, 40
_COLORS = ("#1f77b4", "#2ca02c", "#d62728")
_MARKS = (0, 1, 10, 100, 1000)


def curve(lines: Mapping[str, Sequence[Point]], *, title: str) -> str:
    """Return the picture: false alarms in 1000 windows to the right, windows until a change is seen upwards."""
    parts = [_axes(title)]
    for row, ((name, line), color) in enumerate(zip(lines.items(), _COLORS, strict=True)):
        places = [(_x(each.alarms), _y(each.delay)) for each in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{path}"/>')
        parts += [_dot(*place, each, color) for place, each in zip(places, line, strict=True)]
        parts.append(_text(_WIDTH - 190, _TOP + 18 * row, name, color))
    parts.append(_text(_WIDTH - 190, _TOP + 18 * len(lines), "large: the defaults"))
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    font = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>{"".join(parts)}</svg>\n'


def _dot(x: float, y: float, each: Point, color: str) -> str:
    words = escape(f"{each.setting}: {each.alarms:.1f} false alarms in 1000 windows, {each.delay:.1f} windows")
    radius = 7 if each.default else 3
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}"><title>{words}</title></circle>'


def _axes(title: str) -> str:
    bottom, right = _y(0), _x(_MARKS[-1])
    marks = [_text(_x(mark) - 8, bottom + 18, str(mark)) for mark in _MARKS]
    marks += [_text(_LEFT - 28, _y(mark) + 4, str(mark)) for mark in range(0, DELAY_LIMIT + 1, 2)]
    path = f'<path d="M{_LEFT} {_TOP}V{bottom}H{right:.1f}" fill="none" stroke="#444"/>'
    never = f"mean windows until the change is seen ({DELAY_LIMIT + 1}: never)"
    below = _text(_LEFT + 120, bottom + 38, "false alarms in 1000 windows (logarithm of 1 + alarms)")
    return path + "".join(marks) + below + _text(_LEFT, _TOP - 24, title) + _text(_LEFT, _TOP - 8, never)


def _x(alarms: float) -> float:
    return _LEFT + 10 + (_WIDTH - _LEFT - 40) * math.log1p(alarms) / math.log1p(_MARKS[-1])


def _y(delay: float) -> float:
    return _TOP + (_HEIGHT - _TOP - 60) * (1 - delay / (DELAY_LIMIT + 1))


def _text(x: float, y: float, words: str, color: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}">{escape(words)}</text>'
