"""The page of a window: Evidently's own report, for windows in which there is something to look at.

A page takes seconds and megabytes (7 MB for 50 columns), so a clear window has none, and only the newest are kept. The
page marks the same columns as drifted as the verdict does, and its headline says what the verdict says, which counts
inputs, by what they carry, where Evidently counts the columns that it shows. What is told of the window stands above.
"""

import math
import re
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from optimizer_jobs.commands.check.column_statistics import CONTINGENCY, Kind, p_value, register
from optimizer_jobs.commands.check.columns import Pair, pairs
from optimizer_jobs.commands.check.drift import Compared, Findings
from optimizer_jobs.commands.check.evidently_tests import load_whole
from optimizer_jobs.commands.check.told import Told, above
from optimizer_jobs.progress import say
from optimizer_jobs.stores.base import Store, StoreError
from optimizer_jobs.stores.opening import open_store
from retune.api.monitoring import DriftMethod
from retune.api.watched import Verdict

FOLDER = "monitoring"
PAGE = "report.html"
_COLUMNS = 60
"""Most columns on a page, the most drifted first."""
_ROWS = 5000
"""Most values of a column that are drawn, from all of the window evenly."""
_ALWAYS, _NEVER = 2.0, -1.0
"""Thresholds of a p-value below which any, and no column is marked as drifted."""
_HEADLINE = re.compile(r"Dataset Drift is (?:NOT )?detected\. Dataset drift detection threshold is [-+.\de]+")
_HEADLINES = {
    Verdict.BREACH: "Dataset Drift is detected",
    Verdict.CLEAR: "Dataset Drift is NOT detected",
    Verdict.BETWEEN: "Dataset Drift is neither proven nor ruled out",
    Verdict.UNKNOWN: "Dataset Drift is not judged",
    Verdict.UNTRUSTED: "Dataset Drift is not judged",
}
_WINDOW = re.compile(FOLDER + r"/w(\d{1,12})/.*")
_HEAD, _BODY = "<head>", re.compile(r"<body\b[^>]*>")
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline' "
    "'unsafe-eval'; style-src 'unsafe-inline'; font-src data:; img-src data: blob:\">"
)
"""Policy of the page: it contains everything that it needs, and nothing in the data can make it load anything."""


@dataclass(frozen=True)
class _Drawn:
    """What Evidently draws."""

    before: pd.DataFrame
    now: pd.DataFrame
    categories: tuple[str, ...]

    @property
    def numbers(self) -> list[str]:
        """Columns of numbers."""
        return [str(name) for name in self.before if name not in self.categories]

    @property
    def columns(self) -> list[str]:
        """All columns, numbers first."""
        return [*self.numbers, *self.categories]

    def p_value(self, name: str) -> float:
        """Return the p-value of a column, which Evidently's report shows."""
        kind = Kind.CATEGORICAL if name in self.categories else Kind.NUMERIC
        return p_value(self.before[name].dropna(), self.now[name].dropna(), kind, DriftMethod.KS)


def monitoring(store: str) -> str:
    """Return the URI of the folder with the pages of all windows."""
    return f"{store.rstrip('/')}/{FOLDER}"


def write(
    store: str,
    index: int,
    findings: Findings,
    told: Told,
    *,
    rows: tuple[pd.DataFrame, pd.DataFrame],
    keep: int,
) -> str | None:
    """Write the page of a window and remove old pages.

    Args:
        store: URI of the store.
        index: Index of the window.
        findings: The comparison of the columns.
        told: What is said of the window.
        rows: Rows of the reference, and of the window.
        keep: Number of pages to keep, the newest ones.

    Returns:
        The page's URI, or None when there are no columns to show.

    Raises:
        JobError: The store cannot be written.
    """
    shown = [name for column in findings.compared for name in column.parts or (column.name,)][:_COLUMNS]
    drawn = _drawn(*rows, shown)
    if drawn is None:
        return None
    with tempfile.TemporaryDirectory(prefix="page-") as scratch:
        page = Path(scratch) / PAGE
        _draw(page, drawn, _marked(findings, drawn))
        words = above(told, findings, shown=len(drawn.columns))
        page.write_text(_completed(page.read_text("utf-8"), told.drift.verdict, words), "utf-8")
        return keep_page(store, index, page, keep=keep)


def keep_page(store: str, index: int, page: Path, *, keep: int) -> str:
    """Store the page of a window, remove the oldest beyond `keep`, and return its URI; raises JobError."""
    place = open_store(store)
    _sweep(place, keep=max(0, keep - 1), but=index)
    place.replace(f"{FOLDER}/w{index}/{PAGE}", page)
    return f"{monitoring(store)}/w{index}/{PAGE}"


def _drawn(reference: pd.DataFrame, current: pd.DataFrame, shown: Sequence[str]) -> _Drawn | None:
    """Return both samples with the columns that can be shown; None where there are none."""
    comparable = [pair for pair in pairs(reference, current, shown) if isinstance(pair, Pair)]
    if not comparable:
        return None
    categories = [pair.name for pair in comparable if pair.kind is Kind.CATEGORICAL]
    before = pd.DataFrame({pair.name: _evenly(pair.reference) for pair in comparable})
    now = pd.DataFrame({pair.name: _evenly(pair.current) for pair in comparable})
    for frame in (before, now):
        frame[categories] = frame[categories].astype("object")
    return _Drawn(before, now, tuple(categories))


def _evenly(values: pd.Series) -> pd.Series:
    """Return values from all of a column, _ROWS at most, in their order."""
    return values.iloc[:: math.ceil(len(values) / _ROWS) or 1].reset_index(drop=True)


def _draw(page: Path, drawn: _Drawn, marked: Collection[str]) -> None:
    load_whole()
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    class Drawing(DataDriftPreset):  # type: ignore[misc] # the library has no types
        """Evidently's page without the metrics beside it, which draw each column once more and show it nowhere."""

        def generate_metrics(self, _context: object) -> list[object]:
            return []

    register()
    definition = DataDefinition(numerical_columns=drawn.numbers, categorical_columns=list(drawn.categories))
    preset = Drawing(
        columns=drawn.columns,
        per_column_method=dict.fromkeys(drawn.numbers, "ks") | dict.fromkeys(drawn.categories, CONTINGENCY),
        per_column_threshold={name: _ALWAYS if name in marked else _NEVER for name in drawn.columns},
    )
    both = [Dataset.from_pandas(frame, data_definition=definition) for frame in (drawn.now, drawn.before)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for example, of the shares of a column that has one value alone
        Report([preset]).run(*both).save_html(str(page))


def _marked(findings: Findings, drawn: _Drawn) -> set[str]:
    """Return which of the columns that are drawn have drifted."""
    drifted = [column for column in findings.compared if column.drifted]
    return {name for column in drifted for name in _showing(column, drawn)}


def _showing(column: Compared, drawn: _Drawn) -> Sequence[str]:
    """Return the columns that show the drift of one: itself, or the components of a wide input by which it is seen."""
    if not column.parts:
        return (column.name,)
    p = {part: drawn.p_value(part) for part in column.parts if part in drawn.columns}
    limit = max(min(p.values(), default=0.0), 2 * column.p_value / len(column.parts))
    return [part for part in p if p[part] <= limit]


def _completed(page: str, verdict: Verdict, words: str) -> str:
    """Return Evidently's page with its policy, a headline that says what the verdict on drift does, and words above.

    Raises:
        ValueError: It is no page of Evidently's as far as is known, so nobody knows what its headline would say.
    """
    page, headlines = _HEADLINE.subn(_HEADLINES[verdict], page)
    body = _BODY.search(page)
    if _HEAD not in page or body is None or not headlines:
        raise ValueError("Evidently's page has no head, no body or no headline")
    page = f"{page[: body.end()]}{words}{page[body.end() :]}"
    return page.replace(_HEAD, f"{_HEAD}{_POLICY}", 1)


def _sweep(store: Store, *, keep: int, but: int) -> None:
    """Remove the pages of the oldest windows; where they may not be removed they stay, which costs no window."""
    pages: dict[int, list[str]] = defaultdict(list)
    for stat in store.stats(f"{FOLDER}/"):
        match = _WINDOW.fullmatch(stat.key)
        if match and int(match[1]) != but:
            pages[int(match[1])].append(stat.key)
    try:
        for index in sorted(pages, reverse=True)[keep:]:
            store.delete(pages[index])
    except StoreError as error:
        say(f"  old pages stay: {error.message}")
