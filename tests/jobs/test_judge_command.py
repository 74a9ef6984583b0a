"""The judge as a command, on a real study of real candidates: verdict, published winner, report, and starting again."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import create_trial

from optimizer_jobs.commands import baseline
from optimizer_jobs.commands.judge import command
from optimizer_jobs.commands.judge.report.document import Report
from optimizer_jobs.commands.search import command as search
from optimizer_jobs.commands.search.leftovers import remove_leftovers
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError
from optimizer_jobs.measure.latency import Effort
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.production.reference import of_bundle, read_reference
from optimizer_jobs.run import execute
from optimizer_jobs.seal import Seal, own_seal, study_seal
from optimizer_jobs.study.finalists import finalists
from optimizer_jobs.study.trials import ENDED, open_study
from retune.contract.paths import leftover_run
from retune.contract.requests import BaselineRequest, JudgeRequest, SearchRequest
from retune.contract.results import JudgeResult, Reason, Verdict, encode_result
from tests.unit.jobs.models_for_tests import digits

SHORT = Effort(min_rounds=4, max_rounds=8, max_seconds=30, calls_per_block=10)
STORE, RUN = "pvc://retune-artifacts/digits", "digits-1"
MARGIN = {"metric": "accuracy", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": "0.05"}}
SMALLER = {"metric": "size_bytes", "tolerance": "0.05"}


@dataclass(frozen=True)
class Searched:
    """Claims after a search, and the request that the judge gets."""

    root: Path
    fields: dict[str, Any] = field(hash=False)

    def path(self, name: str) -> Path:
        """Return a path inside the run's folder."""
        return self.root / "retune-artifacts/digits/runs" / RUN / name

    def request(self, **changes: Any) -> JudgeRequest:
        """Return the judge's request with some fields changed."""
        return JudgeRequest.model_validate({**self.fields, "trigger": "Initial", **changes})


@pytest.fixture(scope="module")
def once(delivered: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A real baseline and a real search of five trials, made once."""
    root = tmp_path_factory.mktemp("claims")
    shutil.copytree(delivered, root / "digits")
    (root / "retune-artifacts").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETUNE_CLAIM_ROOT", str(root))
        patch.setenv("RETUNE_METRICS_PORT", "0")
        data = {split: {"uri": f"pvc://digits/{split}.npz"} for split in ("training", "validation", "test")}
        shared = {"resource": "demo/digits", "spec_hash": "hash", "data": data, "store": STORE, "threads": 1}
        model = {"uri": "pvc://digits/mlp.onnx"}
        champion = baseline.run(BaselineRequest.model_validate({**shared, "model": model})).bundle.model_dump()
        asked = {
            **shared,
            "run": RUN,
            "objectives": [MARGIN, SMALLER],
            "selection": {},
            "techniques": None,
            "search": {"max_trials": 5, "finalists": 2},
            "champion": champion,
            "original": champion,
        }
        search.run(SearchRequest.model_validate(asked))
    return Searched(root, asked)


@pytest.fixture
def searched(once: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searched:
    """A copy of the searched claims for one test."""
    root = tmp_path / "claims"
    shutil.copytree(once.root, root)
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(root))
    return Searched(root, once.fields)


def judged(request: JudgeRequest) -> JudgeResult:
    """Run the command with a short measurement."""
    return command.run(request, effort=SHORT)


def test_quantized_network_is_promoted_and_published(searched: Searched) -> None:
    """The winner is a third of the size, lies among the published bundles with its reference, and opens verified."""
    result = judged(searched.request())

    assert (result.verdict, result.reason) == (Verdict.PROMOTE, "SmallerAtEqualQuality")
    assert result.candidate is not None
    assert result.candidate.bundle.uri.startswith(f"{STORE}/bundles/")
    bundle = open_bundle(result.candidate.bundle.uri, digest=result.candidate.bundle.digest)
    champion = open_bundle(result_champion(searched), digest=result.champion_digest)
    assert bundle.manifest.size_bytes < champion.manifest.size_bytes / 2
    assert bundle.manifest.size_bytes == result.candidate.size_bytes
    reference = read_reference(of_bundle(STORE, bundle.digest), bundle.manifest.signature, into=searched.root / "copy")
    assert result.candidate.reference == file_digest(resolve(of_bundle(STORE, bundle.digest)).local)
    assert reference.labels.tolist() == [*digits("validation")[1].tolist(), *digits("test")[1].tolist()]


def test_a_run_that_was_judged_can_be_removed_whole(searched: Searched) -> None:
    """Search and judge leave nothing in its folder that is taken for the work of others."""
    judged(searched.request())
    request = SearchRequest.model_validate({**searched.fields, "leftovers": (leftover_run(RUN),)})
    assert remove_leftovers(request) == leftover_run(RUN)
    assert not searched.path("").exists()


def result_champion(searched: Searched) -> str:
    """Return the champion's URI."""
    return str(searched.fields["champion"]["uri"])


def test_result_belongs_to_its_run_and_fits_a_termination_message(searched: Searched) -> None:
    """Run, hash and champion are the request's; every comparison has both numbers; 4096 bytes are enough."""
    result = judged(searched.request())

    assert (result.run, result.spec_hash) == (RUN, "hash")
    assert result.champion_digest == searched.fields["champion"]["digest"]
    assert [each.name for each in result.comparisons] == ["accuracy", "latency_p50_ms", "latency_p95_ms", "size_bytes"]
    assert all(float(each.champion.value) > 0 and float(each.candidate.value) > 0 for each in result.comparisons)
    assert json.loads(encode_result(result))["message"] == result.message


def test_report_is_one_page_that_loads_and_runs_nothing(searched: Searched) -> None:
    """The page has no script and no address to fetch from, is smaller than 1 MB, and says what the result says."""
    result = judged(searched.request())
    page = searched.path("report.html").read_text()
    report = Report.model_validate_json(searched.path("report.json").read_text())

    assert len(page) < 1_000_000
    assert "<script" not in page
    assert not any(f'{attribute}="http' in page for attribute in ("src", "href"))
    assert page.count("<svg") == 3
    assert report.result == result
    assert result.reason in page
    assert report.test_rows == 497
    assert sum(each.rows for each in report.classes) == 497
    assert len(report.trials) == 5
    assert result.report == f"{STORE}/runs/{RUN}/report.html"


def test_report_says_what_each_step_bought(searched: Searched) -> None:
    """The last step is the quantization, measured by the judge, and it made the model three times smaller or more."""
    judged(searched.request())
    steps = Report.model_validate_json(searched.path("report.json").read_text()).steps

    assert steps[0].step == "engine options only"
    assert steps[-1].judged
    assert steps[-1].size_ratio is not None
    assert steps[-1].size_ratio < 1 / 3
    assert "x smaller" in steps[-1].bought


def test_judge_started_again_repeats_its_verdict(searched: Searched) -> None:
    """The candidates are gone after the verdict, and the second start still gives the very same result."""
    first = judged(searched.request())
    assert not searched.path("candidates").exists()

    assert judged(searched.request()) == first


def test_judge_killed_before_its_record_starts_over(searched: Searched) -> None:
    """A page without a document is no verdict: candidates are still there, and the judge measures again."""
    searched.path("report.html").write_text("half")

    assert judged(searched.request()).verdict is Verdict.PROMOTE


@pytest.mark.parametrize("change", [{"spec_hash": "other"}, {"champion": None}])
def test_record_of_another_question_is_not_repeated(change: dict[str, Any], searched: Searched) -> None:
    """Another spec or champion is another question, even under the same run name."""
    request = searched.request()
    judged(request)
    other = request.champion.model_copy(update={"digest": "sha256:" + "0" * 64})
    changed = {name: value or other for name, value in change.items()}

    assert command.recorded(request) is not None
    assert command.recorded(request.model_copy(update=changed)) is None


NO_RECORDS = ("", "[]", '{"record": {}}', '{"record": {"verdict": "Promote"}, "seal": 1}', "\xff", "[" * 100_000)


@pytest.mark.parametrize("content", NO_RECORDS)
def test_damaged_record_is_measured_again_not_believed(content: str, searched: Searched) -> None:
    """A record that cannot be read is none."""
    searched.path("verdict.json").write_text(content, encoding="latin-1")

    assert command.recorded(searched.request()) is None


def forged(request: JudgeRequest) -> dict[str, Any]:
    """Return a verdict that fits the request in everything, on a bundle that nobody has judged."""
    digest = "sha256:" + "0" * 64
    bundle = {"uri": f"{STORE}/bundles/{'0' * 64}", "digest": digest}
    return {
        "kind": "Judge",
        "specHash": request.spec_hash,
        "run": request.run,
        "championDigest": request.champion.digest,
        "verdict": "Promote",
        "reason": "SmallerAtEqualQuality",
        "message": "trust me",
        "candidate": {"bundle": bundle, "sizeBytes": 1, "techniques": []},
        "report": "x",
        "fingerprint": "f",
    }


@pytest.mark.parametrize("key", ["another resource's", "the search's"])
def test_a_forged_verdict_is_not_believed(
    key: str, searched: Searched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever can write to the folder but has another Job's key gets no verdict repeated: the finalists are judged."""
    record = forged(searched.request())
    searched.path("report.json").write_text(json.dumps({"result": record}))
    searched.path("verdict.json").write_bytes(Seal(key).sealed(record))
    monkeypatch.setenv("RETUNE_SEAL", "the judge's")
    result = judged(searched.request())

    assert result.message != "trust me"
    assert result.candidate is not None
    assert open_bundle(result.candidate.bundle.uri).digest == result.candidate.bundle.digest
    assert "verdict.json was not sealed by this judge" in capsys.readouterr().out


def test_a_verdict_of_an_earlier_run_is_no_record_of_this_one(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sealed verdict that is put back, or copied from another run, was sealed by another key."""
    monkeypatch.setenv("RETUNE_SEAL", "of run 1")
    result = judged(searched.request())
    assert command.recorded(searched.request()) == result
    monkeypatch.setenv("RETUNE_SEAL", "of run 2")
    assert command.recorded(searched.request()) is None


def test_trials_that_the_search_has_not_sealed_are_no_finalists(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study that others wrote brings no candidate before the judge; the message says what was not believed."""
    monkeypatch.setenv("RETUNE_STUDY_SEAL", "of this search")
    published = sorted(path.name for path in (searched.root / "retune-artifacts/digits/bundles").iterdir())
    result = judged(searched.request())

    assert (result.verdict, result.candidate) == (Verdict.NO_GAIN, None)
    assert "were not sealed by this run's search" in result.message
    assert sorted(path.name for path in (searched.root / "retune-artifacts/digits/bundles").iterdir()) == published


def test_one_forged_trial_costs_the_others_nothing(searched: Searched) -> None:
    """A trial whose record was changed, or added by others, is left out; those of the search are judged."""
    study = open_study(STORE, RUN)
    best = finalists(study, searched.request().objectives, count=1, seal=study_seal())[0]
    copied = next(trial for trial in study.trials if trial.user_attrs.get("number") == best.trial)
    changed = {**copied.user_attrs["found"], "digest": "sha256:" + "0" * 64, "costs": [0.0] * len(copied.values)}
    attributes = {**copied.user_attrs, "found": changed, "number": 99}
    study.add_trial(create_trial(values=[0.0] * len(copied.values), user_attrs=attributes))

    assert finalists(study, searched.request().objectives, count=1)[0].trial == 99
    assert finalists(study, searched.request().objectives, count=1, seal=study_seal()) == (best,)
    assert judged(searched.request()).verdict is Verdict.PROMOTE


def test_verdict_of_another_version_is_repeated(searched: Searched) -> None:
    """An image that was updated between two starts reads the verdict, though it knows other fields of the report."""
    first = judged(searched.request())
    path = searched.path("verdict.json")
    known = json.loads(path.read_bytes())["record"]
    path.write_bytes(own_seal().sealed(known | {"novelty": {}}))

    assert judged(searched.request()) == first


def test_limit_nobody_keeps_fails_the_gate_and_publishes_nothing(searched: Searched) -> None:
    """A size of one byte is out of reach: the champion stays, and the report says why."""
    tiny = {"metric": "size_bytes", "goal": {"type": "Threshold", "value": "1"}}
    published = sorted(path.name for path in (searched.root / "retune-artifacts/digits/bundles").iterdir())
    result = judged(searched.request(objectives=[MARGIN, tiny]))

    assert (result.verdict, result.reason) == (Verdict.GATE_FAILED, "SizeAboveLimit")
    assert "above the limit of 1 B" in result.message
    assert sorted(path.name for path in (searched.root / "retune-artifacts/digits/bundles").iterdir()) == published


def test_costs_refuse_what_accuracy_would_promote(searched: Searched) -> None:
    """The same finalists, and a mistake costs 500: what accuracy lets pass is not proven to cost as little."""
    labels = [str(digit) for digit in range(10)]
    costs = [{"actual": one, "predicted": other, "cost": "500"} for one in labels for other in labels if one != other]
    limit = {"metric": "expected_cost", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": "1"}}
    by_cost = judged(searched.request(costs=costs, objectives=[limit, SMALLER]))
    told = {each.name: each for each in by_cost.comparisons}
    report = Report.model_validate_json(searched.path("report.json").read_text())

    assert by_cost.verdict is Verdict.GATE_FAILED
    assert "expected cost" in by_cost.message
    assert told["expected_cost"].change is not None
    assert float(told["expected_cost"].change.high or 0) > 1
    assert "expected_cost" in report.champion.metrics
    assert "Expected cost" in searched.path("report.html").read_text()


def test_a_candidate_that_only_lacks_test_rows_is_kept_for_a_person(searched: Searched) -> None:
    """It is the only one left, it is where the result says, and it opens."""
    margin = MARGIN | {"goal": {"type": "MaxDegradation", "value": "0.002"}}
    result = judged(searched.request(objectives=[margin, SMALLER]))

    assert (result.verdict, result.reason) == (Verdict.GATE_FAILED, "TooFewTestRows")
    assert result.candidate is not None
    kept = open_bundle(result.candidate.bundle.uri, digest=result.candidate.bundle.digest)
    assert list(searched.path("candidates").iterdir()) == [kept.folder]
    assert judged(searched.request(objectives=[margin, SMALLER])) == result
    assert kept.folder.exists()


def test_gain_that_is_not_worth_it_keeps_the_champion(searched: Searched) -> None:
    """A third of the size is no gain of 90 %."""
    result = judged(searched.request(selection={"min_gain": "0.9"}))

    assert (result.verdict, result.reason) == (Verdict.NO_GAIN, "NoRelevantGain")
    assert "No finalist gains the 90 % asked for" in result.message


def test_rejected_bundles_are_not_judged_again(searched: Searched) -> None:
    """With every candidate rejected there is no finalist, and that is a verdict with a report that says so."""
    request = searched.request()
    every = finalists(open_study(STORE, RUN), request.objectives, count=100)
    result = judged(searched.request(rejected=[each.bundle.digest for each in every]))

    assert (result.verdict, result.reason, result.candidate) == (Verdict.NO_GAIN, "RejectedBefore", None)
    assert "was rolled back before" in result.message
    assert "no candidate to judge" in searched.path("report.html").read_text()


def test_a_budget_that_ended_the_search_is_told_where_nothing_is_left_to_judge(searched: Searched) -> None:
    """Nobody reads that no candidate differs where the time was over before there was one."""
    request = searched.request()
    study = open_study(STORE, RUN)
    study.set_user_attr(ENDED, "the budget of 4 min (search.maxDuration) ended after 3 of 12 trials")
    every = finalists(study, request.objectives, count=100)
    result = judged(searched.request(rejected=[candidate.bundle.digest for candidate in every]))

    assert (result.verdict, result.reason) == (Verdict.NO_GAIN, "NoFinalist")
    assert result.message == (
        "The budget of 4 min (search.maxDuration) ended after 3 of 12 trials, before one gave a candidate that differs "
        "from the champion and was not rolled back before; the champion stays."
    )


def test_damaged_finalist_stops_the_judge_with_its_name(searched: Searched) -> None:
    """A candidate whose model was changed after the search is BundleCorrupt, and nothing is removed or published."""
    for model in searched.path("candidates").glob("*/model.onnx"):
        model.write_bytes(model.read_bytes() + b"x")

    with pytest.raises(JobError) as caught:
        judged(searched.request())
    assert caught.value.reason is Reason.BUNDLE_CORRUPT
    assert "model.onnx" in str(caught.value)
    assert searched.path("candidates").exists()


def test_request_without_a_test_split_is_refused(searched: Searched) -> None:
    """Nothing may be promoted on data that the search has seen."""
    data = {name: split for name, split in searched.fields["data"].items() if name != "test"}

    with pytest.raises(JobError, match=r"Set spec\.data\.test"):
        judged(searched.request(data=data))


def test_whole_command_runs_from_a_request_file(searched: Searched, tmp_path: Path) -> None:
    """`python -m optimizer_jobs --request FILE` gives the recorded verdict and exit code 0."""
    judged(searched.request())
    path = tmp_path / "request.json"
    path.write_text(searched.request().model_dump_json(by_alias=True))

    result, code = execute(path)

    assert code == 0
    assert isinstance(result, JudgeResult)
