"""The page of a window: Evidently's own report, for windows in which there is something to look at.

A page takes seconds and megabytes (7 MB for 50 columns), so a clear window has none, and only the newest are kept. The
thresholds of the columns are set so that the page marks the same columns as drifted as the verdict does. Its headline
says what the verdict says, too, which counts inputs where Evidently counts the columns that it shows; the verdict's own
sentence stands above it.
"""

import html
import math
import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from optimizer_jobs.commands.check.column_statistics import CONTINGENCY, Kind, register
from optimizer_jobs.commands.check.columns import Pair, pairs
from optimizer_jobs.commands.check.drift import Findings
from optimizer_jobs.progress import say
from optimizer_jobs.stores.base import Store, StoreError
from optimizer_jobs.stores.opening import open_store
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict

FOLDER = "monitoring"
PAGE = "report.html"
_COLUMNS = 60
"""Most columns on a page, the most drifted first."""
_ROWS = 5000
_WINDOW = re.compile(FOLDER + r"/w(\d{1,12})/.*")
_HEAD, _BODY = "<head>", re.compile(r"<body\b[^>]*>")
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline' "
    "'unsafe-eval'; style-src 'unsafe-inline'; font-src data:; img-src data: blob:\">"
)
"""Policy of the page: it contains everything that it needs, and nothing in the data can make it load anything."""


def monitoring(store: str) -> str:
    """Return the URI of the folder with the pages of all windows."""
    return f"{store.rstrip('/')}/{FOLDER}"


def write(
    store: str,
    index: int,
    findings: Findings,
    judged: SignalVerdict,
    *,
    share: float,
    reference: pd.DataFrame,
    current: pd.DataFrame,
    keep: int,
) -> str | None:
    """Write the page of a window and remove old pages.

    Args:
        store: URI of the store.
        index: Index of the window.
        findings: The comparison of the columns.
        judged: The verdict on the window's drift.
        share: Share (0..1) of drifted inputs from which a window is a breach.
        reference: Rows of the reference.
        current: Rows of the window.
        keep: Number of pages to keep, the newest ones.

    Returns:
        The page's URI, or None when there are no columns to show.

    Raises:
        JobError: The store cannot be written.
    """
    shown = [name for column in findings.compared for name in column.parts or (column.name,)][:_COLUMNS]
    frames = _frames(reference, current, shown)
    if frames is None:
        return None
    with tempfile.TemporaryDirectory(prefix="page-") as scratch:
        page = Path(scratch) / PAGE
        _save(page, findings, judged, share, *frames)
        return keep_page(store, index, page, keep=keep)


def keep_page(store: str, index: int, page: Path, *, keep: int) -> str:
    """Store the page of a window, remove the oldest beyond `keep`, and return its URI; raises JobError."""
    place = open_store(store)
    _sweep(place, keep=max(0, keep - 1), but=index)
    place.replace(f"{FOLDER}/w{index}/{PAGE}", page)
    return f"{monitoring(store)}/w{index}/{PAGE}"


def _frames(
    reference: pd.DataFrame, current: pd.DataFrame, shown: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]] | None:
    """Return both samples with the columns that can be shown, and which of them are categories."""
    comparable = [pair for pair in pairs(reference, current, shown) if isinstance(pair, Pair)]
    if not comparable:
        return None
    before = pd.DataFrame({pair.name: pair.reference for pair in comparable}).head(_ROWS)
    now = pd.DataFrame({pair.name: pair.current for pair in comparable}).head(_ROWS)
    filled = [pair for pair in comparable if before[pair.name].notna().any() and now[pair.name].notna().any()]
    names = [pair.name for pair in filled]
    categories = [pair.name for pair in filled if pair.kind is Kind.CATEGORICAL]
    for frame in (before, now):
        frame[categories] = frame[categories].astype("object")
    return (before[names], now[names], categories) if names else None


def _save(
    page: Path,
    findings: Findings,
    judged: SignalVerdict,
    share: float,
    before: pd.DataFrame,
    now: pd.DataFrame,
    categories: Sequence[str],
) -> None:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    register()
    numbers = [str(name) for name in before.columns if name not in categories]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=list(categories))
    methods = dict.fromkeys(numbers, "ks") | dict.fromkeys(categories, CONTINGENCY)
    thresholds, columns = _thresholds(findings), [*numbers, *categories]
    marked = sum(thresholds[name] > 0 for name in columns) / len(columns)
    preset = DataDriftPreset(
        columns=columns,
        drift_share=_headline(marked, share, drifted=judged.verdict is Verdict.BREACH),
        per_column_method=methods,
        per_column_threshold=thresholds,
    )
    both = [Dataset.from_pandas(frame.reset_index(drop=True), data_definition=definition) for frame in (now, before)]
    Report([preset]).run(*both).save_html(str(page))
    page.write_text(_completed(page.read_text("utf-8"), judged), "utf-8")


def _headline(marked: float, share: float, *, drifted: bool) -> float:
    """Return the share of columns from which the headline reports drift, such that it does where the verdict does.

    Args:
        marked: Share (0..1) of the columns shown that are marked as drifted.
        share: Share of drifted inputs from which a window is a breach.
        drifted: Whether the window is one.
    """
    if drifted:
        return min(share, math.floor(100 * marked) / 100)
    return max(share, (math.floor(100 * marked) + 2) / 100)


def _completed(page: str, judged: SignalVerdict) -> str:
    """Return Evidently's page with its policy, and with the verdict's sentence above it."""
    body = _BODY.search(page)
    if _HEAD not in page or body is None:
        raise ValueError("Evidently's page has no head or no body")
    words = html.escape(f"{judged.verdict}: {judged.message}")
    told = f'<p style="font: 16px sans-serif; margin: 16px">{words}</p>'
    page = f"{page[: body.end()]}{told}{page[body.end() :]}"
    return page.replace(_HEAD, f"{_HEAD}{_POLICY}", 1)


def _thresholds(findings: Findings) -> dict[str, float]:
    """Return the p-value by column below which the page marks it as drifted, so that it agrees with the findings."""
    thresholds = {}
    for column in findings.compared:
        threshold = max(2 * column.p_value, 1e-300) if column.drifted else -1.0
        thresholds[column.name] = threshold
        thresholds |= {name: threshold / len(column.parts) for name in column.parts}
    return thresholds


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
