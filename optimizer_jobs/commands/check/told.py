"""What a window's page says above Evidently's report: each signal's verdict, and the window that it is of. Pure.

Labels come late, so what they tell is often of an earlier window than the one whose rows the page shows.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from optimizer_jobs.commands.check.drift import Findings
from optimizer_jobs.commands.check.drift_verdict import column_words
from optimizer_jobs.commands.check.segment_verdict import Segmented, lines
from retune.contract.results import SignalVerdict

_LISTED = 20
"""Most drifted columns that are listed."""
_SEGMENT_HEADS = (
    "segment",
    "verdict{}",
    "quality{}",
    "on the reference",
    "labelled rows{}",
    "rows",
    "answers moved by",
)
"""Heads of the table; where labels are of another window, some say of which."""
_FONT = "font: 16px sans-serif; margin: 16px"


@dataclass(frozen=True)
class Told:
    """What is said of a window, which stands above its page."""

    drift: SignalVerdict
    quality: SignalVerdict | None = None
    """Measured on the labelled window, or estimated for the one that is checked; None where none is judged."""
    headroom: SignalVerdict | None = None
    segmented: Segmented | None = None
    """What is found of its segments, if anything is."""
    window: int = 0
    """Number of the window that is checked."""
    labelled: int | None = None
    """Number of the newest window whose labels are due, if there is one."""

    @property
    def earlier(self) -> int | None:
        """Number of the window that labels are of; None where it is the one that is checked, or there is none."""
        return self.labelled if self.labelled != self.window else None

    @property
    def of_labels(self) -> str:
        """Which window labels are of, such as ` of window 498770, 1 earlier`; empty where it is the page's own."""
        return "" if self.earlier is None else f" of window {self.earlier}, {self.window - self.earlier} earlier"


def above(told: Told, findings: Findings, *, shown: int) -> str:
    """Return markup that says all that was found of a window.

    Args:
        told: What is said of the window.
        findings: The comparison of the columns.
        shown: How many of the compared columns, components counted singly, Evidently's report shows.
    """
    words = _said("Drift", told.drift) + _moved(findings) + _left_out(findings, shown)
    if told.quality is not None:
        name = "Estimated quality" if told.quality.estimated else f"Quality{told.of_labels}"
        words += _said(name, told.quality)
    if told.headroom is not None:
        words += _said(f"Headroom{told.of_labels}", told.headroom)
    return words + ("" if told.segmented is None else _segments(told, told.segmented))


def _said(name: str, judged: SignalVerdict) -> str:
    return _paragraph(f"{name}: {judged.verdict}: {judged.message}")


def _paragraph(words: str) -> str:
    return f'<p style="{_FONT}">{html.escape(words)}</p>'


def _moved(findings: Findings) -> str:
    """Return a list of the drifted columns with their numbers; nothing where none has drifted."""
    moved = [column_words(column) for column in findings.compared if column.drifted]
    if len(moved) > _LISTED:
        moved = [*moved[:_LISTED], f"and {len(moved) - _LISTED} more"]
    rows = "".join(f"<li>{html.escape(line)}</li>" for line in moved)
    return f'<ul style="{_FONT}">{rows}</ul>' if rows else ""


def _left_out(findings: Findings, shown: int) -> str:
    every = sum(len(column.parts or (column.name,)) for column in findings.compared)
    return _paragraph(f"Of {every} compared columns, {shown} are shown.") if shown < every else ""


def _segments(told: Told, segmented: Segmented) -> str:
    """Return the verdict on segments and a table of them, the worst first; nothing where neither is there."""
    if segmented.verdict is not None:
        words = _said(f"Segments{told.of_labels}", segmented.verdict)
    else:
        words = _paragraph("Segments: no window with labels is due.") if segmented.segments else ""
    if not segmented.segments:
        return words
    window = "" if told.earlier is None else f" in window {told.earlier}"
    heads = [head.format(window) for head in _SEGMENT_HEADS]
    rows = [_row("th", heads), *(_row("td", cells) for cells in lines(segmented))]
    return f'{words}<table style="{_FONT}">{"".join(rows)}</table>'


def _row(tag: str, cells: Sequence[str]) -> str:
    style = ' style="text-align: left; padding-right: 16px"'
    return f"<tr>{''.join(f'<{tag}{style}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
