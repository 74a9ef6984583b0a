"""A run that drift has started: from captured rows over search to verdict, on a classifier whose classes have moved."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from optimizer_jobs.commands import baseline
from optimizer_jobs.commands.gather import command as gather
from optimizer_jobs.commands.judge import command as judge
from optimizer_jobs.commands.judge.report.document import Report
from optimizer_jobs.commands.search import command as search
from optimizer_jobs.measure.latency import Effort
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.models.runtime import open_session
from optimizer_jobs.production.writer import CaptureWriter
from optimizer_jobs.study.trials import open_study, trials_table
from retune.api.model import Data, Task
from retune.api.objectives import Objective
from retune.api.production import Labels, Production
from retune.api.watched import StoredData
from retune.contract.requests import BaselineRequest, BundleRef, GatherRequest, JudgeRequest, SearchRequest
from retune.contract.results import JudgeResult, Verdict
from retune.plan.run.restoring import restoring
from tests.unit.jobs.captured_for_tests import HOUR, NOW
from tests.unit.jobs.shifted_for_tests import converted, data

pytestmark = pytest.mark.timeout(300)

STORE, RUN = "pvc://retune-artifacts/models", "m-2"
SHORT = Effort(min_rounds=4, max_rounds=8, max_seconds=30, calls_per_block=10)
ASKED = (
    Objective.model_validate(
        {"metric": "log_loss", "role": "Constrain", "goal": {"type": "PercentMaxDegradation", "value": "2"}}
    ),
    Objective.model_validate({"metric": "size_bytes", "tolerance": "0.05"}),
)
"""What the owner wants of the model on the data that it was made for."""
ROWS = 10
"""Rows of a captured request."""


class Life:
    """A classifier that is delivered, serves, and meets rows in which one class has become rare."""

    def __init__(self, root: Path) -> None:
        self.root, folder = root, root / "data"
        folder.mkdir(parents=True)
        (root / "retune-artifacts").mkdir()
        fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(*data("training"))
        converted(fitted, folder / "model.onnx")
        for split in ("training", "validation", "test"):
            X, y = data(split, shifted=False)
            np.savez(folder / f"{split}.npz", X=X, label=y)
        splits = {name: {"uri": f"pvc://data/{name}.npz"} for name in ("training", "validation", "test")}
        self.shared: dict[str, Any] = {"resource": "demo/m", "spec_hash": "hash", "store": STORE}
        self.splits = Data.model_validate(splits)

    def delivered(self) -> BundleRef:
        """Run the baseline Job; return version 1."""
        model = {"uri": "pvc://data/model.onnx", "task": Task.CLASSIFICATION}
        asked = {**self.shared, "model": model, "data": self.splits, "threads": 1}
        return baseline.run(BaselineRequest.model_validate(asked)).bundle

    def serves(self, bundle: BundleRef) -> None:
        """Capture requests of the last three hours, and write what turned out to be true."""
        session = open_session(open_bundle(bundle.uri, digest=bundle.digest))
        parts = [data(split) for split in ("validation", "test")]
        X, y = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        writer, count = CaptureWriter(self.root / "shop/captured", session.signature), len(X) // ROWS
        for number in range(count):
            inputs = {"X": X[number * ROWS : (number + 1) * ROWS]}
            time = NOW - 3 * HOUR + number * 3 * HOUR / count
            assert writer.offer(f"r{number}", bundle.digest, inputs, session.run(inputs), time)
        writer.close()
        table = {
            "request_id": [f"r{number}" for number in range(count) for _ in range(ROWS)],
            "row": pa.array(list(range(ROWS)) * count, pa.int32()),
            "label": y[: count * ROWS],
        }
        (self.root / "shop/labels").mkdir(parents=True)
        parquet.write_table(pa.table(table), self.root / "shop/labels/a.parquet")

    def fresh(self, champion: BundleRef) -> Data:
        """Run the gather Job; return the data of the run."""
        production = Production(uri="pvc://shop/captured", labels=Labels(uri="pvc://shop/labels"))
        asked = {
            **self.shared,
            "run": RUN,
            "data": self.splits,
            "production": production,
            "refresh": {"span": "3h"},
            "until": NOW,
            "changed": NOW - 3 * HOUR,
            "champion": champion,
        }
        fresh = gather.run(GatherRequest.model_validate(asked)).fresh
        assert fresh is not None
        stored: dict[str, StoredData] = {name: getattr(fresh, name) for name in ("training", "validation", "test")}
        return Data.model_validate({name: {"uri": one.uri, "digest": one.digest} for name, one in stored.items()})

    def judged(self, champion: BundleRef, fresh: Data, **changes: Any) -> JudgeResult:
        """Run search and judge, asked as the operator asks them in a run on fresh data."""
        asked = {
            **self.shared,
            "run": RUN,
            "data": fresh,
            "objectives": restoring(ASKED, Task.CLASSIFICATION),
            "selection": {},
            "search": {"max_trials": 4, "finalists": 2},
            "champion": champion,
            "original": champion,
            "threads": 1,
            **changes,
        }
        search.run(SearchRequest.model_validate(asked))
        return judge.run(JudgeRequest.model_validate({**asked, "trigger": "Drift"}), effort=SHORT)

    @property
    def report(self) -> Report:
        """The report of the run."""
        path = self.root / "retune-artifacts/models/runs" / RUN / "report.json"
        return Report.model_validate_json(path.read_text())


def test_a_run_that_drift_started_is_cured_by_recalibration_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is tried first, and proven on rows that it never saw: the loss falls by an interval without zero."""
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path / "claims"))
    monkeypatch.setenv("RETUNE_METRICS_PORT", "0")
    life = Life(tmp_path / "claims")
    champion = life.delivered()
    life.serves(champion)
    fresh = life.fresh(champion)
    result = life.judged(champion, fresh)

    first = trials_table(open_study(STORE, RUN))[:2]
    assert [row.result.steps for row in first] == [(), ("recalibrate",)]
    assert "recalibrate (Recalibration)" in capsys.readouterr().out
    assert result.verdict is Verdict.PROMOTE, result.message
    subject = life.report.subject
    assert subject is not None
    assert subject.plan.startswith(("temperature", "shares of classes", "probabilities corrected")), subject.plan
    (judged,) = [each for each in result.comparisons if each.name == "log_loss"]
    assert judged.change is not None
    assert judged.change.high is not None
    assert float(judged.change.high) < 0, judged.change

    assert result.candidate is not None
    session = open_session(open_bundle(result.candidate.bundle.uri, digest=result.candidate.bundle.digest))
    assert fresh.test is not None
    with np.load(tmp_path / "claims" / fresh.test.uri.removeprefix("pvc://")) as rows:
        served = session.run({"X": rows["X"]})
        loss = log_loss(rows["label"], served["probabilities"])
    assert loss == pytest.approx(float(judged.candidate.value), rel=1e-3)
    np.testing.assert_array_equal(served["label"], served["probabilities"].argmax(axis=1))


def test_where_classes_have_not_moved_nothing_is_tried_but_the_model_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corrections without effect come out as the delivered file: they say so, are not measured and do not count."""
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path / "claims"))
    monkeypatch.setenv("RETUNE_METRICS_PORT", "0")
    life = Life(tmp_path / "claims")
    champion = life.delivered()
    folder = tmp_path / "claims/data"
    session = open_session(open_bundle(champion.uri, digest=champion.digest))
    for split in ("validation", "test"):
        X, _ = data(split, shifted=False)
        said = session.run({"X": X})["probabilities"][:, 1]
        happened = (np.random.default_rng(len(split)).random(len(X)) < said).astype(np.int64)
        np.savez(folder / f"{split}.npz", X=X, label=happened)
    techniques = [{"name": "recalibrate", "type": "Recalibration"}]
    result = life.judged(champion, life.splits, techniques=techniques, search={"max_trials": 3})

    assert result.verdict is not Verdict.PROMOTE
    study = open_study(STORE, RUN)
    unchanged = [
        trial for trial in study.get_trials(deepcopy=False) if "it runs the same as trial 1" in str(trial.user_attrs)
    ]
    assert len(unchanged) >= 2
    assert [row.result.steps for row in trials_table(study) if row.result.values] == [()]
