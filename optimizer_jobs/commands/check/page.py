"""The page of a window: Evidently's own report, kept for the windows that someone will want to look at.

It takes seconds and megabytes (7 MB for 50 columns), so a clear window has none, and of the others the newest few are
kept. Each column's threshold in it is where our verdict drew the line, so that page and verdict say the same.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from optimizer_jobs.commands.check.columns import Pair, pairs
from optimizer_jobs.commands.check.drift import Findings
from optimizer_jobs.commands.check.statistics import CONTINGENCY, Kind, register
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import store_access

PAGE = "report.html"
_COLUMNS = 60
"""Columns on a page, the most drifted first."""
_ROWS = 5000
_BESIDE = ".writing-"
_FOLDER = re.compile(r"w(\d{1,12})")
_HEAD = "<head>"
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline' "
    "'unsafe-eval'; style-src 'unsafe-inline'; font-src data:; img-src data: blob:\">"
)
"""Everything that the page needs is in it, and nothing that data may have brought in loads anything."""


def monitoring(store: str) -> str:
    """Return the folder of window pages."""
    return f"{store.rstrip('/')}/monitoring"


def write(
    store: str,
    index: int,
    findings: Findings,
    *,
    share: float,
    reference: pd.DataFrame,
    current: pd.DataFrame,
    keep: int,
) -> str | None:
    """Write the page of window `index`, remove all but the newest `keep`, and return its URI; None without columns.

    `share` of drifted columns is where the page's headline draws the line.

    Raises:
        JobError: The store cannot be written.
    """
    shown = [name for each in findings.compared for name in each.parts or (each.name,)][:_COLUMNS]
    frames = _frames(reference, current, shown)
    if frames is None:
        return None
    uri = f"{monitoring(store)}/w{index}/{PAGE}"
    folder = resolve(monitoring(store)).local
    with store_access(uri):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder, keep=max(0, keep - 1), but=index)
        with tempfile.TemporaryDirectory(prefix=_BESIDE, dir=folder) as beside:
            page = Path(beside) / PAGE
            _save(page, findings, share, *frames)
            page.chmod(0o644)
            target = folder / f"w{index}"
            target.mkdir(exist_ok=True)
            page.replace(target / PAGE)
    return uri


def _frames(
    reference: pd.DataFrame, current: pd.DataFrame, shown: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]] | None:
    """Return both samples with the columns that can be shown, and which of them are categories."""
    sound = [each for each in pairs(reference, current, shown) if isinstance(each, Pair)]
    if not sound:
        return None
    before = pd.DataFrame({each.name: each.reference for each in sound}).head(_ROWS)
    now = pd.DataFrame({each.name: each.current for each in sound}).head(_ROWS)
    whole = [each.name for each in sound if before[each.name].notna().any() and now[each.name].notna().any()]
    categories = [each.name for each in sound if each.kind is Kind.CATEGORICAL and each.name in whole]
    for frame in (before, now):
        frame[categories] = frame[categories].astype("object")
    return (before[whole], now[whole], categories) if whole else None


def _save(
    page: Path, findings: Findings, share: float, before: pd.DataFrame, now: pd.DataFrame, categories: Sequence[str]
) -> None:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    register()
    numbers = [str(name) for name in before.columns if name not in categories]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=list(categories))
    methods = dict.fromkeys(numbers, "ks") | dict.fromkeys(categories, CONTINGENCY)
    preset = DataDriftPreset(
        columns=[*numbers, *categories],
        drift_share=share,
        per_column_method=methods,
        per_column_threshold=_thresholds(findings),
    )
    both = [Dataset.from_pandas(frame.reset_index(drop=True), data_definition=definition) for frame in (now, before)]
    Report([preset]).run(*both).save_html(str(page))
    written = page.read_text("utf-8")
    if _HEAD not in written:
        raise ValueError("Evidently's page has no head")
    page.write_text(written.replace(_HEAD, f"{_HEAD}{_POLICY}", 1), "utf-8")


def _thresholds(findings: Findings) -> dict[str, float]:
    """Return for each column the p-value below which it counts as drifted: where it was found to, else none."""
    lines = {each.name: max(2 * each.p, 1e-300) if each.drifted else -1.0 for each in findings.compared}
    return lines | {name: lines[each.name] / len(each.parts) for each in findings.compared for name in each.parts}


def _sweep(folder: Path, *, keep: int, but: int) -> None:
    """Remove pages of the oldest windows, and what a page that was interrupted left behind."""
    known = sorted(_windows(folder), reverse=True)
    for index in [each for each in known if each != but][keep:]:
        shutil.rmtree(folder / f"w{index}", ignore_errors=True)
    for path in folder.glob(f"{_BESIDE}*"):
        shutil.rmtree(path, ignore_errors=True)


def _windows(folder: Path) -> Iterator[int]:
    with os.scandir(folder) as entries:
        for entry in entries:
            named = _FOLDER.fullmatch(entry.name)
            if named and entry.is_dir(follow_symlinks=False):
                yield int(named[1])
