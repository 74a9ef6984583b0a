"""The search Job as the operator runs it: real models, real data, real processes."""

import json
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from optimizer_jobs.commands.search.command import run
from optimizer_jobs.commands.search.progress import Gauges, trial_line
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Lineage, make_bundle, open_bundle, publish
from optimizer_jobs.models.golden import record
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import EngineOptions, open_model, unavailable
from optimizer_jobs.study.finalists import finalists
from optimizer_jobs.study.trials import TrialResult, counted, number_of, open_study, trials_table
from optimizer_jobs.technique import Applied, Context, Params, Skipped
from optimizer_jobs.techniques.registry import asked_for, recipe
from retune.api.metrics import Metric
from retune.api.model import Data, Task
from retune.api.objectives import Objective, Selection, default_objectives
from retune.api.search import Batch, Search, Serving
from retune.api.servers import EngineName
from retune.api.techniques import Quantization, QuantizationScheme, Technique, TechniqueType
from retune.contract.paths import METRIC_BEST, METRIC_TRIALS_DONE, METRIC_TRIALS_TOTAL, bundles
from retune.contract.requests import BundleRef, SearchRequest
from retune.contract.results import Reason, SearchResult, parse_result
from tests.jobs.workers import job, until
from tests.unit.jobs.conftest import Claims
from tests.unit.jobs.outliers import save_outliers
from tests.unit.jobs.technique_conformance import subject_of

OBJECTIVES = tuple(goal for goal in default_objectives(Task.CLASSIFICATION) if goal.metric is not Metric.D2_BRIER)

Ask = Callable[..., SearchRequest]
SIX_TRIALS = Search(max_trials=6)


def publish_model(path: Path, store: str, rows: Rows, workdir: Path) -> BundleRef:
    """Publish a model as version 1."""
    engine = EngineOptions(threads=2)
    bundle = make_bundle(
        workdir / "bundle",
        model=path,
        engine=engine,
        signature=check_onnx(path),
        techniques=(),
        lineage=Lineage(resource="default/digits", original_model=file_digest(path)),
        golden=record(open_model(path, engine), rows),
    )
    return publish(bundle, uri=bundles(store))


@pytest.fixture
def ask(
    claims: Claims, store: str, data: Data, splits: dict[str, Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Ask:
    """Return a function that makes a request for a search over mlp.onnx, or another model file."""
    monkeypatch.setenv("RETUNE_METRICS_PORT", "0")

    def make(*, model: str = "mlp.onnx", search: Search = SIX_TRIALS, **fields: object) -> SearchRequest:
        ref = publish_model(claims.path(f"pvc://digits/{model}"), store, splits["validation"], tmp_path)
        request = SearchRequest(
            resource="default/digits",
            run="digits-1",
            spec_hash="abc",
            data=data,
            objectives=OBJECTIVES,
            selection=Selection(),
            techniques=None,
            search=search,
            champion=ref,
            original=ref,
            store=store,
            threads=2,
        )
        return request.model_copy(update=fields)

    return make


def test_search_finds_a_smaller_candidate_and_says_so(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """Six trials end with a stored, verified bundle a third of the champion's size, and a line a person can read."""
    request = ask()
    result = run(request)
    assert (result.trials, result.failed) == (6, 0)
    study = open_study(request.store, request.run)
    best = finalists(study, request.objectives, count=3)
    assert min(one.result.costs[1] for one in best) < 0.4
    for one in best:
        assert open_bundle(one.bundle.uri, digest=one.bundle.digest).manifest.lineage.trial == one.trial
    assert result.best == best[0].words
    output = capsys.readouterr().out
    assert "technique graph is left out: the graph of 4 nodes has nothing to fold or drop" in output
    assert "trial 2/6  quantize_dynamic as one line, all graph, 2 threads  accuracy 0.9" in output
    assert "trial 4/6  int8 static minmax, all graph, 2 threads  accuracy 0.9" in output
    assert len([line for line in output.splitlines() if line.startswith("trial ")]) == 6


def test_a_search_started_again_keeps_what_was_found(ask: Ask) -> None:
    """The same run with a spent budget runs no trial and answers the same."""
    request = ask(search=Search(max_trials=2))
    first = run(request)
    before = [trial.datetime_complete for trial in open_study(request.store, request.run).get_trials()]
    assert run(request) == first
    assert [trial.datetime_complete for trial in open_study(request.store, request.run).get_trials()] == before


def test_a_broken_candidate_is_discarded_before_it_is_measured(ask: Ask, claims: Claims) -> None:
    """Plain int8 breaks this network; the proxy sees that, no bundle is stored, and the trial counts."""
    save_outliers(claims.path("pvc://digits/outliers.onnx"))
    plain = Quantization(schemes=(QuantizationScheme.STATIC,), fallback="None")
    technique = Technique(name="int8", type=TechniqueType.QUANTIZATION, quantization=plain)
    request = ask(model="outliers.onnx", search=Search(max_trials=3), techniques=(technique,))
    assert run(request).trials == 3
    row = trials_table(open_study(request.store, request.run))[2]
    assert row.outcome == "discarded"
    assert "agrees with the champion on" in (row.result.reason or "")
    assert (row.result.digest, row.result.values) == (None, {})


def test_the_fallback_saves_a_candidate_in_the_search(ask: Ask, claims: Claims) -> None:
    """The same network with the fallback gives a feasible candidate that says which share was reverted."""
    save_outliers(claims.path("pvc://digits/outliers.onnx"))
    static = Quantization(schemes=(QuantizationScheme.STATIC,))
    technique = Technique(name="int8", type=TechniqueType.QUANTIZATION, quantization=static)
    request = ask(model="outliers.onnx", search=Search(max_trials=3), techniques=(technique,))
    run(request)
    row = trials_table(open_study(request.store, request.run))[2]
    assert row.outcome == "feasible"
    assert row.result.techniques == ("int8 static minmax: 2 of 5 layers reverted to float",)


def test_a_rejected_bundle_is_not_proposed_again(ask: Ask) -> None:
    """A later run over the same inputs recognizes the bundle by its digest."""
    request = ask(search=Search(max_trials=3))
    run(request)
    digest = trials_table(open_study(request.store, request.run))[2].result.digest
    assert digest is not None
    later = request.model_copy(update={"run": "digits-2", "rejected": (digest,)})
    run(later)
    row = trials_table(open_study(later.store, later.run))[2]
    assert (row.outcome, row.result.reason) == ("discarded", "this bundle was rolled back before")


def test_steps_are_shared_while_a_run_lasts_and_gone_after(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantizing the same model the same way is done once, however often it is tried; scratch does not stay."""
    from optimizer_jobs.techniques import quantization

    made: list[Params] = []
    original = quantization.apply

    def counted_apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
        made.append(params)
        return original(model, params, context)

    monkeypatch.setattr(quantization, "apply", counted_apply)
    dynamic = Technique(
        name="int8", type=TechniqueType.QUANTIZATION, quantization=Quantization(schemes=(QuantizationScheme.DYNAMIC,))
    )
    request = ask(search=Search(max_trials=14), techniques=(dynamic,))
    run(request)
    rows = trials_table(open_study(request.store, request.run))
    assert sum(bool(row.result.techniques) for row in rows) > len(made)
    assert len(made) == len({json.dumps(params) for params in made})
    assert not resolve(f"{request.store}/runs/{request.run}/steps").local.exists()


def check_exact(request: SearchRequest) -> None:
    """All trials of the budget are there, each once."""
    trials = counted(open_study(request.store, request.run))
    assert all(trial.state is TrialState.COMPLETE for trial in trials)
    assert sorted(number_of(trial) for trial in trials) == list(range(1, request.search.max_trials + 1))


def test_killing_a_worker_loses_and_doubles_no_trial(ask: Ask, tmp_path: Path) -> None:
    """With one of two workers killed by -9 amid its work and restarted, the run has exactly its budget of trials."""
    request = ask(search=Search(max_trials=10, parallelism=2))
    with job(request, tmp_path / "0", index=0) as victim:
        until(victim, "trial ")
        victim.kill()
        victim.wait()
    with job(request, tmp_path / "0", index=0) as restarted, job(request, tmp_path / "1", index=1) as other:
        outputs = [process.communicate(timeout=100)[0] for process in (restarted, other)]
        assert [restarted.returncode, other.returncode] == [0, 0]
    check_exact(request)
    results = [parse_result(output.splitlines()[-1]) for output in outputs]
    assert all(isinstance(result, SearchResult) and result.trials == 10 for result in results)


def test_a_stopped_worker_hands_its_trial_back(ask: Ask, tmp_path: Path) -> None:
    """SIGTERM ends the worker with a code that gets it restarted, and leaves nothing running."""
    request = ask(search=Search(max_trials=40))
    with job(request, tmp_path / "0", index=0) as worker:
        until(worker, "trial ")
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=60)
        assert worker.returncode == 128 + signal.SIGTERM
    study = open_study(request.store, request.run)
    assert [trial for trial in study.get_trials() if trial.state is TrialState.RUNNING] == []
    assert len(counted(study)) == 40


def test_metrics_tell_how_far_the_search_is(ask: Ask) -> None:
    """Prometheus reads the budget, what is done, and the best ratio by metric."""
    request = ask(search=Search(max_trials=3))
    run(request)
    gauges = Gauges(open_study(request.store, request.run), request.objectives, budget=3)
    gauges.refresh()
    with gauges.served(0) as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    assert f"{METRIC_TRIALS_TOTAL} 3.0" in text
    assert f"{METRIC_TRIALS_DONE} 3.0" in text
    best = finalists(open_study(request.store, request.run), request.objectives, count=1)[0].result
    size = float(best.size_bytes or 0) / best.champion["size_bytes"]
    assert f'{METRIC_BEST}{{metric="size_bytes"}} {size}' in text


def test_a_taken_port_costs_the_metrics_only(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """The search goes on without its gauges and says so."""
    request = ask(search=Search(max_trials=1))
    run(request)
    gauges = Gauges(open_study(request.store, request.run), request.objectives, budget=1)
    with gauges.served(0) as port:
        assert port is not None
        with gauges.served(port) as second:
            assert second is None
    assert f"metrics are not served: port {port}" in capsys.readouterr().out


def test_a_technique_that_cannot_be_used_is_refused_by_name(ask: Ask, data: Data) -> None:
    """Asking for static quantization without any rows to calibrate on is an error with a next step."""
    static = Quantization(schemes=(QuantizationScheme.STATIC,))
    technique = Technique(name="int8", type=TechniqueType.QUANTIZATION, quantization=static)
    request = ask(techniques=(technique,), data=data.model_copy(update={"training": None}))
    with pytest.raises(JobError) as caught:
        run(request)
    assert caught.value.reason is Reason.TECHNIQUE_UNAVAILABLE
    assert caught.value.object == "technique int8"


def test_the_recipe_leaves_out_what_the_model_does_not_allow(delivered: Path) -> None:
    """A model without layers keeps graph optimization and says why it cannot be quantized."""
    subject = subject_of(delivered / "mlp.onnx")
    assert [spec.name for spec in recipe(subject, default_objectives(Task.CLASSIFICATION)).techniques] == [
        "graph",
        "quantize",
    ]
    del subject.graph.graph.node[:]
    chosen = recipe(subject, default_objectives(Task.CLASSIFICATION))
    assert [spec.name for spec in chosen.techniques] == ["graph"]
    assert chosen.left_out["quantize"].startswith("the model has no")


@pytest.mark.torch
def test_the_recipe_hardens_only_where_an_objective_asks_for_it(delivered: Path) -> None:
    """Hardening costs what every owner has, so that it is never the default's own idea."""
    pytest.importorskip("torch")
    subject, usual = subject_of(delivered / "mlp.onnx"), default_objectives(Task.CLASSIFICATION)
    unasked = recipe(subject, usual)
    assert "harden" not in [spec.name for spec in unasked.techniques]
    assert unasked.left_out["harden"] == "it costs accuracy for robust_accuracy, which no objective asks for"
    asked = recipe(subject, (*usual, Objective(metric=Metric.ROBUST_ACCURACY)))
    assert "harden" in [spec.name for spec in asked.techniques]


def test_listed_techniques_are_applied_in_their_own_order(delivered: Path) -> None:
    """Quantization works on a cleaned graph, whatever the order in the spec."""
    specs = (
        Technique(name="int8", type=TechniqueType.QUANTIZATION),
        Technique(name="clean", type=TechniqueType.GRAPH_OPTIMIZATION),
    )
    chosen = asked_for(subject_of(delivered / "mlp.onnx"), specs)
    assert [spec.name for spec in chosen.techniques] == ["clean", "int8"]


def test_a_line_says_what_was_missed_or_why_a_trial_ended() -> None:
    """A person sees at a glance that a candidate is out, and why."""
    missed = TrialResult(
        plan="int8", values={"accuracy": 0.9}, champion={"accuracy": 0.95}, shortfalls={"accuracy": 0.04}
    )
    assert trial_line(2, 9, result=missed, state=TrialState.COMPLETE) == (
        "trial 2/9  int8  accuracy 0.900 (-0.050)  misses the limit on accuracy"
    )
    ended = TrialResult(plan="int8", reason="it broke")
    assert trial_line(3, 9, result=ended, state=TrialState.FAIL) == "trial 3/9  int8  failed: it broke"


def test_a_search_for_requests_of_several_sizes_measures_their_mix(ask: Ask) -> None:
    """No trial is planned for one size, every candidate has latency, and its golden requests have both sizes."""
    serving = Serving(batches=(Batch(size=1, weight="3"), Batch(size=8)))
    request = ask(search=Search(max_trials=4), serving=serving)
    assert run(request).failed == 0
    study = open_study(request.store, request.run)
    results = [row.result for row in trials_table(study)]
    assert {result.engine["rows"] for result in results} == {None}
    assert all(result.values["latency_p95_ms"] > 0 for result in results if result.uri)
    best = finalists(study, request.objectives, count=1)[0].bundle
    golden = open_bundle(best.uri, digest=best.digest).golden
    assert {golden_request.inputs[0].shape[0] for golden_request in golden.requests} == {1, 8}


@pytest.mark.torch
def test_every_engine_that_the_server_has_is_searched(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """Trials run on both engines, a bundle opens with the engine it names, and a missing engine is told with why."""
    pytest.importorskip("openvino")
    if unavailable("tensorrt") is None:
        pytest.skip("this machine has TensorRT")
    request = ask(techniques=(), search=Search(max_trials=4), serving=Serving(engines=tuple(EngineName)))
    assert run(request).failed == 0
    output = capsys.readouterr().out
    assert "engines: onnxruntime, openvino\n" in output
    assert f"engine TensorRT is left out: {unavailable('tensorrt')}" in output
    study = open_study(request.store, request.run)
    assert {row.result.engine["engine"] for row in trials_table(study)} == {"onnxruntime", "openvino"}
    best = finalists(study, request.objectives, count=4)
    manifests = [open_bundle(one.bundle.uri, digest=one.bundle.digest).manifest for one in best]
    assert "openvino" in {manifest.engine.engine for manifest in manifests}
    assert [one.result.engine for one in best] == [manifest.engine.model_dump(mode="json") for manifest in manifests]


def test_a_search_without_any_engine_says_why(ask: Ask) -> None:
    """A spec that allows only engines that are not here ends the Job with the reason of each."""
    if unavailable("tensorrt") is None:
        pytest.skip("this machine has TensorRT")
    with pytest.raises(JobError, match="no TensorRT provider") as caught:
        run(ask(serving=Serving(engines=(EngineName.TENSORRT,))))
    assert caught.value.reason is Reason.ENGINE_UNAVAILABLE


def test_a_grid_ends_when_there_is_nothing_left(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """A budget larger than the space is no failure: each combination is tried once, and the search is done."""
    technique = Technique(name="graph", type=TechniqueType.GRAPH_OPTIMIZATION)
    request = ask(search=Search(sampler="Grid", max_trials=100), techniques=(technique,), threads=1)
    result = run(request)
    assert (result.trials, result.ended) == (6, None)
    rows = trials_table(open_study(request.store, request.run))
    assert sorted(row.result.plan for row in rows) == sorted(
        f"as delivered, {level} graph, 1 thread{told}"
        for level in ("all", "extended", "basic")
        for told in ("", ", 1 rows a call")
    )
    assert "[3/3] 6 trials in all" in capsys.readouterr().out


def test_a_later_search_tries_the_best_of_the_one_before_first(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """Right after the control, and measured anew."""
    first = ask(search=Search(max_trials=8))
    run(first)
    best = finalists(open_study(first.store, first.run), first.objectives, count=1)[0]
    later = first.model_copy(update={"run": "digits-2", "warm_start": ("digits-1", "never-run")})
    run(later)
    rows = trials_table(open_study(later.store, later.run))
    assert rows[0].result.control
    assert rows[1].result.plan == best.result.plan
    assert rows[1].result.values["latency_p95_ms"] != best.result.values["latency_p95_ms"]
    assert len({row.result.plan for row in rows}) == 8
    output = capsys.readouterr().out
    assert "warm start: 2 of the best combinations of run digits-1" in output
    assert "warm start: run never-run is left out: " in output


def test_a_sampler_that_does_not_fit_is_refused_before_any_work(ask: Ask) -> None:
    """A Gaussian process and too many trials: nothing is measured, no study is made."""
    request = ask(search=Search(sampler="GP", max_trials=51))
    with pytest.raises(JobError) as caught:
        run(request)
    assert caught.value.object == "search.sampler GP"
    with pytest.raises(JobError):
        open_study(request.store, request.run)


def test_a_trial_that_was_stopped_says_only_why() -> None:
    """Early stopping is not a discarded candidate."""
    stopped = TrialResult(plan="tuned", reason="stopped early at epoch 3: behind the median of 7 trials", stopped=True)
    assert trial_line(4, 9, result=stopped, state=TrialState.PRUNED) == (
        "trial 4/9  tuned  stopped early at epoch 3: behind the median of 7 trials"
    )
