"""The command `judge`: measure champion and finalists, give the verdict, publish the winner, write the report.

A verdict is given only once. A judge that is started again returns the recorded verdict, because the test split must
not be used twice and the candidates may be gone. Candidates are removed only after the verdict is on disk. A verdict
that this judge has not sealed is not believed: then it judges again.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from optimizer_jobs.commands.judge.delivered import held
from optimizer_jobs.commands.judge.evidence import Contender
from optimizer_jobs.commands.judge.gate import Refusal
from optimizer_jobs.commands.judge.lost import Lost, lost_to_server
from optimizer_jobs.commands.judge.measuring import THOROUGH, Measured, fitting, measure
from optimizer_jobs.commands.judge.nothing_found import explained, refused_by_server
from optimizer_jobs.commands.judge.report.build import build
from optimizer_jobs.commands.judge.report.render import render
from optimizer_jobs.commands.judge.report.steps import Searched
from optimizer_jobs.commands.judge.rules import Entrant, Rules
from optimizer_jobs.commands.judge.served import through
from optimizer_jobs.commands.judge.told import comparisons
from optimizer_jobs.commands.judge.verdict import Decision, decide
from optimizer_jobs.commands.judge.worth import Appraisal, appraise
from optimizer_jobs.data.datasets import Rows, joined, read_dataset
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.measure.confinement import confined, confinement
from optimizer_jobs.measure.fingerprint import Fingerprint, fingerprint
from optimizer_jobs.measure.latency import Effort
from optimizer_jobs.measure.mix import usual_size
from optimizer_jobs.measure.yardstick import Yardstick
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.runtime import open_session
from optimizer_jobs.production.stored import store_reference
from optimizer_jobs.progress import say, step
from optimizer_jobs.seal import own_seal, study_seal
from optimizer_jobs.serving.limits import Limits, as_served, limits_of
from optimizer_jobs.stores.base import AbsentError
from optimizer_jobs.stores.opening import open_store
from optimizer_jobs.stores.published import open_bundle, publish, remove_bundles
from optimizer_jobs.stores.records import read_record, run_key
from optimizer_jobs.study.comparable import require_comparable
from optimizer_jobs.study.finalists import finalists
from optimizer_jobs.study.prospects import Hurdle
from optimizer_jobs.study.protection import fitted
from optimizer_jobs.study.trials import LEFT_OUT, Candidate, open_study, trials_table
from optimizer_jobs.techniques.adversarial_training import attack_of
from retune.api.model import Dataset
from retune.contract.paths import RESULT_LIMIT, bundles, run_folder
from retune.contract.requests import JudgeRequest
from retune.contract.results import CandidateSummary, JudgeResult, Reason, Verdict

PAGE = "report.html"
DOCUMENT = "report.json"
RECORD = "verdict.json"
CANDIDATES = "candidates"
_STEPS = 5
_MESSAGE_LIMIT = 1000


def run(request: JudgeRequest, *, effort: Effort = THOROUGH) -> JudgeResult:
    """Return the verdict of the run; if it was given before, the recorded one.

    Raises:
        JobError: Data, bundles or store cannot be used. The champion stays.
    """
    result = recorded(request)
    if result is None:
        with tempfile.TemporaryDirectory(prefix="judge-") as scratch:
            result = judge(fitted(request), scratch=Path(scratch), effort=effort)
    else:
        say(f"This run has its verdict already: {result.verdict}.")
    _remove_candidates(request, result)
    return result


def recorded(request: JudgeRequest) -> JudgeResult | None:
    """Return the verdict that an earlier start of this judge recorded in the store, or None."""
    try:
        record = read_record(open_store(request.store), run_key(request.run, RECORD), own_seal())
        result = JudgeResult.model_validate(record)
    except AbsentError:
        return None
    except ValidationError:
        uri = f"{_folder(request)}/{RECORD}"
        say(f"{uri} was not sealed by this judge: it is not believed, and the finalists are judged again.")
        return None
    expected = (request.run, request.spec_hash, request.champion.digest)
    return result if (result.run, result.spec_hash, result.champion_digest) == expected else None


def judge(request: JudgeRequest, *, scratch: Path, effort: Effort) -> JudgeResult:
    """Measure, decide, publish the winner, write the report, and return the verdict.

    Args:
        request: The request.
        scratch: Folder for private copies.
        effort: How long to measure latency when an objective depends on it.
    """
    step(1, _STEPS, text="opening the champion and reading the test split", about="5 s")
    champion, original = _champion(request, scratch), _original(request, scratch)
    require_comparable(champion.bundle.manifest, original.bundle.manifest, original.ref)
    request = held(request, original.bundle.manifest)
    rows = _test_rows(request, champion, scratch)
    say(f"  {len(rows)} rows{_weights_in_words(rows)}")
    step(2, _STEPS, text="opening finalists", about="5 s")
    entrants = (original,) if request.delivered else _finalists(request, scratch, rows=rows.effective)
    effort = fitting(effort, request.objectives, compared=bool(entrants))
    step(3, _STEPS, text=f"measuring {1 + len(entrants)} models side by side", about=f"{effort.max_seconds:.0f} s")
    machine = confinement(request.serving, threads=request.threads)
    loaded = {entrant.bundle.manifest.engine.engine for entrant in (champion, *entrants)}
    with confined(machine.cores, engines=loaded) as cpus:
        hardware = fingerprint(profile=machine.profile)
        rules = _rules(request, cpus=min(cpus, hardware.cpu_limit or cpus))
        with through(champion, entrants, rows, rules=rules) as served:
            entrants = served.left(entrants) if served else entrants
            measured = measure(champion, entrants, rows, original=original, rules=rules, effort=effort, served=served)
    delivered = bool(request.delivered)
    decision = decide(measured.evidence, objectives=rules.objectives, min_gain=rules.min_gain, delivered=delivered)
    if not entrants:
        out = served.out if served else ()
        decision = refused_by_server(decision, out) if out else explained(decision, request)
    with confined(machine.cores):
        lost = lost_to_server(decision, entrants, rows, champion=champion, rules=rules, effort=effort, served=served)
    decision = lost.told_by(decision) if lost else decision
    step(4, _STEPS, text=f"{decision.verdict}: storing the outcome", about="2 s")
    timings, engines = measured.timings, measured.engines
    appraisal = appraise(decision, measured.evidence, timings=timings, engines=engines, rules=rules)
    result = _result(request, measured, decision, hardware, _summary(request, decision, entrants))
    result = _short_enough(appraisal.added_to(result) if appraisal else result)
    step(5, _STEPS, text="writing the report", about="5 s")
    _write_report(request, measured, decision, result, hardware, rules, appraisal, lost)
    say(decision.message)
    return result


def _weights_in_words(rows: Rows) -> str:
    return "" if rows.weights is None else f", by their weights as much evidence as {rows.effective} equal ones"


def _rules(request: JudgeRequest, *, cpus: float) -> Rules:
    return Rules(
        objectives=request.objectives,
        confidence=float(request.selection.confidence),
        min_gain=float(request.selection.min_gain),
        threads=request.threads,
        container_cpus=request.cpu_limit,
        judge_cpus=cpus,
        serving=request.serving,
        attack=attack_of(request.techniques),
        seed=request.search.seed,
        yardstick=Yardstick.of(request),
    )


def _folder(request: JudgeRequest) -> str:
    return run_folder(request.store, request.run)


def _champion(request: JudgeRequest, scratch: Path) -> Entrant:
    """Return a private, verified copy of the champion."""
    bundle = open_bundle(request.champion.uri, digest=request.champion.digest, into=_bundles(scratch))
    return Entrant(bundle=as_served(bundle, limits_of(request.serving)), ref=request.champion, plan="the champion")


def _finalists(request: JudgeRequest, scratch: Path, *, rows: int) -> tuple[Entrant, ...]:
    """Return private, verified copies of the study's finalists; `rows` is the number of test rows."""
    count = request.search.finalists
    hurdle = Hurdle(rows=rows, confidence=1 - (1 - float(request.selection.confidence)) / count)
    chosen = finalists(
        open_study(request.store, request.run),
        request.objectives,
        count=count,
        exclude_digests=(*request.rejected, request.champion.digest),
        chance=hurdle.chance,
        seal=study_seal(),
    )
    entrants = [_entrant(candidate, scratch) for candidate in chosen]
    return tuple(entrant for entrant in entrants if _is_servable(entrant, limits_of(request.serving)))


def _is_servable(entrant: Entrant, limits: Limits) -> bool:
    """Return whether the server of the spec can run a finalist as it is; say why not."""
    refusal = limits.refusal(entrant.bundle)
    if refusal is not None:
        say(f"  {entrant.plan} is no finalist: {refusal}")
    return refusal is None


def _entrant(candidate: Candidate, scratch: Path) -> Entrant:
    ref = candidate.bundle
    bundle = open_bundle(ref.uri, digest=ref.digest, into=_bundles(scratch))
    return Entrant(bundle=bundle, ref=ref, plan=candidate.result.plan, trial=candidate.trial)


def _bundles(scratch: Path) -> Path:
    folder = scratch / "bundles"
    folder.mkdir(exist_ok=True)
    return folder


def _original(request: JudgeRequest, scratch: Path) -> Entrant:
    """Return the model as delivered: embeddings are compared with it, and it may be what is judged."""
    folder = scratch / "original"
    bundle = open_bundle(request.original.uri, digest=request.original.digest, into=folder)
    return Entrant(bundle=as_served(bundle, limits_of(request.serving)), ref=request.original, plan="as delivered")


def _test_rows(request: JudgeRequest, champion: Entrant, scratch: Path) -> Rows:
    if request.data.test is None:
        raise JobError(
            Reason.REQUEST_INVALID, request.resource, "there is no test split to judge by.", "Set spec.data.test."
        )
    return _read(request.data.test, champion.bundle, into=scratch / "test")


def _read(spec: Dataset, bundle: Bundle, *, into: Path) -> Rows:
    manifest = bundle.manifest
    missing = bool(manifest.accepts_missing)
    return read_dataset(spec, manifest.signature, into=into, task=manifest.task, missing=missing)


def _summary(request: JudgeRequest, decision: Decision, entrants: Sequence[Entrant]) -> CandidateSummary | None:
    """Return the candidate that the verdict is about; publish the winner before its verdict is recorded."""
    if decision.subject is None:
        return None
    contender = decision.subject.contender
    ref, reference = contender.bundle, None
    if decision.verdict is Verdict.PROMOTE:
        bundle = next(entrant.bundle for entrant in entrants if entrant.bundle.digest == ref.digest)
        ref = publish(bundle, uri=bundles(request.store))
        try:
            reference = _keep_reference(request, bundle)
        except JobError as error:
            say(f"  drift cannot be compared with the validation rows: {error}")
    techniques = _techniques(contender)
    return CandidateSummary(bundle=ref, size_bytes=contender.size_bytes, techniques=techniques, reference=reference)


def _keep_reference(request: JudgeRequest, bundle: Bundle) -> str | None:
    """Store the winner's answers on the validation and test rows, which its windows are compared with; its digest."""
    splits = {"validation": request.data.validation, "test": request.data.test}
    with tempfile.TemporaryDirectory(prefix="reference-") as scratch:
        parts = [_read(spec, bundle, into=Path(scratch) / name) for name, spec in splits.items() if spec]
    session = open_session(bundle, threads_limit=request.threads)
    usual = usual_size(request.serving.mix)
    return store_reference(request.store, bundle, session, joined(parts), seed=request.search.seed, batch=usual)


def _techniques(contender: Contender) -> tuple[str, ...]:
    """Return the techniques in words, cut to the length of a status field."""
    return tuple(technique[:64] for technique in contender.techniques[:16])


def _result(
    request: JudgeRequest,
    measured: Measured,
    decision: Decision,
    machine: Fingerprint,
    summary: CandidateSummary | None,
) -> JudgeResult:
    champion = measured.evidence.champion
    subject = decision.subject
    return JudgeResult(
        spec_hash=request.spec_hash,
        run=request.run,
        champion_digest=request.champion.digest,
        verdict=decision.verdict,
        reason=decision.reason,
        message=printable(decision.message, limit=_MESSAGE_LIMIT),
        candidate=summary,
        comparisons=comparisons(champion, subject.contender) if subject else (),
        report=f"{_folder(request)}/{PAGE}",
        fingerprint=machine.short,
    )


def _short_enough(result: JudgeResult) -> JudgeResult:
    """Return the result, without its last comparisons if it is too long for a termination message."""
    while result.comparisons and len(result.model_dump_json(by_alias=True, exclude_none=True).encode()) > RESULT_LIMIT:
        result = result.model_copy(update={"comparisons": result.comparisons[:-1]})
    return result


def _write_report(
    request: JudgeRequest,
    measured: Measured,
    decision: Decision,
    result: JudgeResult,
    machine: Fingerprint,
    rules: Rules,
    appraisal: Appraisal | None,
    lost: Lost | None,
) -> None:
    """Write the pages first and the sealed verdict last, so that a stored verdict means that all is there."""
    report = build(
        request,
        measured=measured,
        decision=decision,
        result=result,
        data=_data_digests(request, measured),
        fingerprint=machine,
        rules=rules,
        searched=_searched(request),
    )
    added = {"worth": appraisal.words if appraisal else None, "lost": lost.lines if lost else ()}
    report = report.model_copy(update=added)
    document = report.model_dump_json(by_alias=True, indent=1).encode()
    store, sealed = open_store(request.store), own_seal().sealed(result.to_dict())
    for name, content in ((PAGE, render(report).encode()), (DOCUMENT, document), (RECORD, sealed)):
        store.replace(run_key(request.run, name), content)


def _searched(request: JudgeRequest) -> Searched:
    """Return what remains of the run's search, if it had one."""
    if request.delivered:
        return Searched((), {})
    study = open_study(request.store, request.run)
    return Searched(trials_table(study), study.user_attrs.get(LEFT_OUT, {}))


def _data_digests(request: JudgeRequest, measured: Measured) -> dict[str, str]:
    """Return the digest of each split by name: from the spec, but for the test split from the file that was read."""
    data = request.data
    splits = {"training": data.training, "calibration": data.calibration, "validation": data.validation}
    digests = {name: split.digest for name, split in splits.items() if split is not None and split.digest}
    return {**digests, "test": measured.rows.digest}


def _remove_candidates(request: JudgeRequest, result: JudgeResult) -> None:
    """Delete the candidates of this run; a failure is ignored, because it does not change the verdict.

    A candidate that only lacks test rows stays, so that a person may accept it.
    """
    kept = None
    if result.reason == Refusal.TOO_FEW_TEST_ROWS and result.candidate is not None:
        kept = result.candidate.bundle.digest
    remove_bundles(f"{_folder(request)}/{CANDIDATES}", but=kept)
