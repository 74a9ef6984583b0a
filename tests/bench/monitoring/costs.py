"""Time and memory of one check beside a bare Evidently report on the same rows, each in a process of its own."""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tests.bench.monitoring.worlds import world

SIZES = ((10_000, 50), (100_000, 50), (1_000_000, 20))
MAX_SAMPLES = 20_000
REFERENCE_ROWS = 10_000
TIME_LIMIT = 1200


@dataclass(frozen=True)
class Cost:
    """Of one run, without the import of libraries."""

    seconds: float
    megabytes: float
    """Most memory of the process, libraries included."""


def rows(count: int, columns: int, *, seed: int) -> pd.DataFrame:
    """Return real rows: those of breast_cancer, drawn again and again; its columns twice where more are wanted."""
    real = world("breast_cancer").rows
    generator = np.random.default_rng(seed)
    parts = [real.iloc[generator.integers(0, len(real), count)].to_numpy() for _ in range(-(-columns // real.shape[1]))]
    return pd.DataFrame(np.concatenate(parts, axis=1)[:, :columns], columns=[f"x[{place}]" for place in range(columns)])


def ours(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """Judge a window as the check does: of many rows a sample."""
    from optimizer_jobs.commands.check.drift import compare
    from optimizer_jobs.commands.check.drift_verdict import judge
    from optimizer_jobs.commands.check.violations import violations
    from retune.api.monitoring import Drift

    if len(current) > MAX_SAMPLES:
        chosen = np.sort(np.random.default_rng(0).choice(len(current), MAX_SAMPLES, replace=False))
        current = current.iloc[chosen].reset_index(drop=True)
    judge(compare(reference, current, Drift(), names=list(map(str, reference))), Drift(), samples=len(current))
    violations(reference, current)


def page(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """Judge a window and write its page."""
    from optimizer_jobs.commands.check import page as pages
    from optimizer_jobs.commands.check.drift import compare
    from optimizer_jobs.commands.check.drift_verdict import judge
    from optimizer_jobs.commands.check.told import Told
    from retune.api.monitoring import Drift

    current = current.head(MAX_SAMPLES)
    findings = compare(reference, current, Drift(), names=list(map(str, reference)))
    judged = judge(findings, Drift(), samples=len(current))
    with tempfile.TemporaryDirectory() as folder:
        pages.write(f"file://{folder}", 1, findings, Told(judged), rows=(reference, current), keep=1)


def bare(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """Run Evidently's preset as its documentation does, and save its page."""
    from evidently import Dataset, Report
    from evidently.presets import DataDriftPreset

    report = Report([DataDriftPreset()]).run(Dataset.from_pandas(current), Dataset.from_pandas(reference))
    with tempfile.TemporaryDirectory() as folder:
        report.save_html(str(Path(folder) / "report.html"))


RUNS: Mapping[str, Callable[[pd.DataFrame, pd.DataFrame], None]] = {
    "check": ours,
    "check with page": page,
    "bare Evidently": bare,
}


def measure(name: str, count: int, columns: int) -> Cost | None:
    """Return the cost of one run in a fresh process; None where it does not end within the limit, or breaks."""
    command = [sys.executable, "-W", "ignore", "-m", __name__, name, str(count), str(columns)]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=TIME_LIMIT, text=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Run one and print its cost as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("rows", type=int)
    parser.add_argument("columns", type=int)
    options = parser.parse_args()
    from optimizer_jobs.commands.check.column_statistics import load

    load()
    reference, current = rows(REFERENCE_ROWS, options.columns, seed=0), rows(options.rows, options.columns, seed=1)
    begun = time.process_time()
    RUNS[options.name](reference, current)
    cost = {"seconds": time.process_time() - begun}
    print(json.dumps(cost | {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
