"""The whole check Job on real rows: what a window says, and that bad data is a result and never a failure."""

import html
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit

from optimizer_jobs.commands.check.command import run
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError
from optimizer_jobs.run import execute
from retune.api.monitoring import Drift, Quality
from retune.api.watched import Verdict
from retune.contract.requests import Followed
from retune.contract.results import CheckResult, encode_result, parse_result
from tests.monitor.shop import FIRST, STORE, Array, Shop


def moved(inputs: Array) -> Array:
    """Eight of thirty columns by one standard deviation."""
    changed = inputs.copy()
    changed[:, :8] += inputs[:, :8].std(axis=0)
    return changed


def test_a_window_like_the_reference_is_clear_and_has_no_page(shop: Shop) -> None:
    """Without a change both verdicts are Clear, with their numbers, and nothing is written to the store."""
    shop.serve(FIRST)
    result = run(shop.request())
    assert result.drift is not None
    assert result.quality is not None
    assert (result.drift.verdict, result.drift.value) == (Verdict.CLEAR, "0"), result.drift.message
    assert result.quality.verdict is Verdict.CLEAR, result.quality.message
    assert not result.quality.estimated
    assert float(result.quality.value or 0) > 0.9
    assert (result.samples, result.set_aside, result.violations, result.report) == (600, 0, (), None)
    assert not resolve(f"{STORE}/monitoring").local.exists()


def test_a_shift_of_a_quarter_of_the_columns_is_a_breach_with_a_page(shop: Shop) -> None:
    """The page loads nothing from elsewhere, older ones make room for it, and the result fits a termination message."""
    shop.serve(FIRST, change=moved)
    folder = resolve(f"{STORE}/monitoring").local
    for name in (f"w{FIRST - 3}", f"w{FIRST - 2}", f"w{FIRST - 1}", "of somebody else"):
        (folder / name).mkdir(parents=True)
        (folder / name / "report.html").write_text("an earlier page")
    result = run(shop.request(reports=2))
    assert result.drift is not None
    assert result.drift.verdict is Verdict.BREACH
    assert {each.name for each in result.columns if each.drifted} >= {f"x[{index}]" for index in range(8)}
    assert result.report is not None
    page = resolve(result.report).local.read_text()
    assert all(f"x[{index}]" in page for index in range(8))
    assert "default-src 'none'" in page
    assert _loaded(page) == []
    assert {path.name for path in folder.iterdir()} == {f"w{FIRST - 1}", f"w{FIRST}", "of somebody else"}
    assert parse_result(encode_result(result)) == result


HEADLINE = re.compile(r"Dataset Drift is (NOT )?detected")


def only(count: int) -> Callable[[Array], Array]:
    """Move so many of the columns."""

    def change(inputs: Array) -> Array:
        changed = inputs.copy()
        changed[:, :count] += inputs[:, :count].std(axis=0)
        return changed

    return change


@pytest.mark.parametrize(
    ("count", "share"), [(1, "0.02"), (1, "0.5"), (3, "0.1"), (3, "0.11"), (8, "0.25"), (30, "1")], ids=str
)
def test_the_page_s_headline_is_the_verdict(shop: Shop, count: int, share: str) -> None:
    """Evidently counts the columns that it shows, and the verdict inputs: a reader of either learns the same."""
    shop.serve(FIRST, change=only(count))
    result = run(shop.request(drift=Drift(share=share, clear_share="0.01")))
    assert result.drift is not None
    if result.report is None:
        assert result.drift.verdict is Verdict.CLEAR
        return
    page = resolve(result.report).local.read_text()
    decided = {Verdict.BREACH: {True}, Verdict.CLEAR: {False}}
    assert {not without for without in HEADLINE.findall(page)} == decided.get(result.drift.verdict, set())
    assert html.escape(f"{result.drift.verdict}: {result.drift.message}") in page


def _loaded(page: str) -> list[str]:
    """Return what the page's markup and styles load from elsewhere."""
    found: list[str] = []

    class Markup(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value for name, value in attrs if name in {"src", "href"} and value and "//" in value)

    Markup().feed(page)
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    assert styles
    return found + re.findall(r"@import|url\((?!data:)[^)]*", styles)


def test_wrong_labels_are_a_proven_loss(shop: Shop) -> None:
    """Labels that disagree in a fifth of the rows prove a loss of quality, while the inputs are clear."""
    shop.serve(FIRST, labels=lambda truth: np.where(np.arange(len(truth)) % 5 == 0, 1 - truth, truth))
    result = run(shop.request())
    assert result.quality is not None
    assert result.drift is not None
    assert (result.quality.verdict, result.quality.reason) == (Verdict.BREACH, "LossProven"), result.quality.message
    assert (result.labelled_window, result.labelled_rows) == (FIRST, 600)
    assert result.drift.verdict is Verdict.CLEAR


def test_rows_with_a_label_are_counted_whether_they_decide_or_not(shop: Shop) -> None:
    """Neither a sample of the window nor rows that depend on each other make them fewer."""
    shop.serve(FIRST, labels=None)
    truth = np.zeros(300, dtype=np.int64)
    truth[100:200] = 1
    shop.label([f"{FIRST}-{place}" for place in range(300)], truth, "half")
    result = run(shop.request(max_samples=200))
    assert result.labelled_rows is not None
    assert result.labelled_rows == pytest.approx(300, abs=75)
    assert result.quality is not None
    assert result.quality.samples < result.labelled_rows


def test_without_labels_quality_is_estimated_and_says_so(shop: Shop) -> None:
    """Rows of kinds that the model is unsure of are estimated as worse; of rows like no others, nothing is said."""
    sure = shop.run(shop.inputs)["scores"].max(axis=1)
    shop.serve(FIRST, labels=None)
    shop.serve(FIRST + 1, labels=None, among=np.argsort(sure)[: len(sure) // 3])
    shop.serve(FIRST + 2, labels=None, change=lambda inputs: inputs + 4 * inputs.std(axis=0))
    windows = (FIRST, FIRST + 1, FIRST + 2)
    clear, unsure, far = (run(shop.request(window, labelled=None, drift=None)).quality for window in windows)
    assert clear is not None
    assert unsure is not None
    assert far is not None
    assert (clear.verdict, clear.estimated) == (Verdict.CLEAR, True), clear.message
    assert float(clear.low or 1) <= float(clear.value or 0) <= float(clear.high or 0)
    assert (unsure.verdict, unsure.estimated) == (Verdict.BETWEEN, True), unsure.message
    assert float(unsure.value or 1) < float(clear.value or 0) - 0.02
    assert (far.verdict, far.reason, far.estimated) == (Verdict.UNTRUSTED, "OutsideReference", True), far.message
    never = run(shop.request(labelled=None, quality=Quality(estimate="Never"))).quality
    assert never is not None
    assert (never.verdict, never.reason) == (Verdict.UNKNOWN, "NoLabels")


def test_labels_that_come_selectively_are_weighted_or_speak_for_nobody(shop: Shop) -> None:
    """Labels of rows that are high in a column: the sentence says so; of the highest alone, nothing is judged."""
    told = []
    for window, steepness, middle in ((FIRST, 1.0, 0.0), (FIRST + 1, 100.0, 1.0)):
        shop.serve(window, labels=None, rows=1500)
        chosen = np.random.default_rng(window).integers(0, len(shop.inputs), 1500)
        first = shop.inputs[chosen, 0]
        height = (first - first.mean()) / first.std()
        chances = expit(steepness * (height - middle))
        labelled = np.flatnonzero(np.random.default_rng(0).random(1500) < chances)
        shop.label([f"{window}-{place}" for place in labelled], shop.truth[chosen][labelled], f"w{window}")
        told.append(run(shop.request(window, drift=None)).quality)
    weighted, wild = told
    assert weighted is not None
    assert wild is not None
    assert weighted.verdict is not Verdict.UNTRUSTED, weighted.message
    assert "Labelled rows are unlike the others" in weighted.message
    assert (wild.verdict, wild.reason, wild.estimated) == (Verdict.UNTRUSTED, "LabelsNotRepresentative", False)
    assert wild.value is None


def test_contradicting_labels_are_counted_and_prove_nothing(shop: Shop) -> None:
    """Each row labelled both ways has no label."""
    shop.serve(FIRST, labels=None)
    names = [f"{FIRST}-{place}" for place in range(600)]
    shop.label(names * 2, np.repeat([0, 1], 600), "both")
    quality = run(shop.request(quality=Quality(estimate="Never"))).quality
    assert quality is not None
    assert (quality.verdict, quality.reason) == (Verdict.UNKNOWN, "TooFewLabels")
    assert "600 labels that contradict each other" in quality.message


Break = Callable[[Shop], None]


def _column(name: str, kind: pa.DataType) -> Break:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        return table.set_column(place, name, pa.array(["a"] * len(table), kind))

    return lambda shop: shop.rewrite(change)


def _remove(_shop: Shop) -> None:
    for path in resolve(f"{STORE}/references").local.iterdir():
        path.unlink()


def _garble(shop: Shop) -> None:
    for path in (shop.root / "captured").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:100])


BAD: dict[str, tuple[int, Break, str]] = {
    "an empty window": (0, lambda shop: None, "NoProductionData"),
    "one row": (1, lambda shop: None, "TooFewSamples"),
    "a column gone": (600, lambda shop: shop.rewrite(lambda table: table.drop_columns(["input.x"])), "SchemaMismatch"),
    "a column retyped": (600, _column("input.x", pa.string()), "SchemaMismatch"),
    "no reference": (600, _remove, "ReferenceMissing"),
    "broken files": (600, _garble, "NoProductionData"),
}


@pytest.mark.parametrize("rows, damage, reason", BAD.values(), ids=BAD.keys())
def test_bad_data_is_unknown_with_its_reason(shop: Shop, rows: int, damage: Break, reason: str) -> None:
    """Never drift, never a failure: the verdict says what is wrong."""
    if rows:
        shop.serve(FIRST, rows=rows)
    damage(shop)
    drift = run(shop.request()).drift
    assert drift is not None
    assert (drift.verdict, drift.reason) == (Verdict.UNKNOWN, reason), drift.message
    assert drift.message


def test_a_column_without_values_or_with_infinities_is_a_violation_and_not_drift(shop: Shop) -> None:
    """One column all NaN, one with a tenth infinite, one constant: two violations, and the rest is compared."""

    def damage(inputs: Array) -> Array:
        changed = inputs.copy()
        changed[:, 0] = np.nan
        changed[::10, 1] = np.inf
        return changed

    shop.serve(FIRST, change=damage)
    result = run(shop.request())
    assert result.drift is not None
    assert result.drift.verdict is Verdict.CLEAR, result.drift.message
    assert "x[0]: it has no finite value" in result.drift.message
    assert any(each.startswith("x[0] has no value") for each in result.violations), result.violations
    assert any(each.startswith("x[1] is infinite in 10.0%") for each in result.violations), result.violations


def test_a_delivered_file_is_looked_at_and_its_absence_says_nothing(shop: Shop) -> None:
    """The digest of the file as it is now; None where it cannot be read."""
    file = shop.root / "model.onnx"
    file.write_bytes(b"new")
    there = run(shop.request(production=None, followed=Followed(uri="pvc://shop/model.onnx", digest="sha256:old")))
    gone = run(shop.request(production=None, followed=Followed(uri="pvc://shop/gone.onnx", digest="sha256:old")))
    assert there.artifact_digest == "sha256:11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437"
    assert gone.artifact_digest is None


def test_a_store_that_lost_the_champion_is_a_failure(shop: Shop) -> None:
    """A person must mend it: nothing that production does brings the bundle back."""
    (resolve(shop.bundle.uri).local / "model.onnx").write_bytes(b"other")
    with pytest.raises(JobError, match=r"model\.onnx has digest"):
        run(shop.request())


def test_the_job_answers_with_exit_code_0_whatever_the_data(shop: Shop, tmp_path: Path) -> None:
    """As the operator runs it: a request file in, a result document out."""
    request = tmp_path / "request.json"
    request.write_text(shop.request().model_dump_json(by_alias=True, exclude_none=True))
    result, code = execute(request)
    assert isinstance(result, CheckResult)
    assert (code, result.drift and result.drift.reason) == (0, "NoProductionData")
    assert result.champion_digest == shop.bundle.digest


def test_columns_that_are_named_alone_count(shop: Shop) -> None:
    """A shift elsewhere is no drift."""
    shop.serve(FIRST, change=moved)
    drift = run(shop.request(drift=Drift(columns=("x[20]", "x[21]", "x[22]")), quality=None)).drift
    assert drift is not None
    assert drift.verdict is Verdict.CLEAR, drift.message
