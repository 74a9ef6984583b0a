"""Why a search has given the judge no candidate, in the words of its verdict."""

from collections.abc import Sequence
from dataclasses import replace

import optuna

from optimizer_jobs.commands.judge.served import Out
from optimizer_jobs.commands.judge.verdict import Decision
from optimizer_jobs.seal import study_seal
from optimizer_jobs.study.trials import ENDED, candidates, failures, foreign_trials, open_study, was_rejected
from retune.contract.requests import JudgeRequest
from retune.contract.results import Verdict


def explained(decision: Decision, request: JudgeRequest) -> Decision:
    """Return a decision without finalists that says what the search has found instead, and what ended it."""
    study = open_study(request.store, request.run)
    ended = study.user_attrs.get(ENDED)
    is_known = was_rejected(study) or bool(candidates(study, [request.champion.digest], seal=study_seal()))
    message = decision.message
    if ended:
        message = _cut_short(ended, is_known=is_known)
    elif is_known:
        message = "Whatever the search found that differs from the champion was rolled back before; the champion stays."
        decision = replace(decision, reason="RejectedBefore")
    sentences = (message, _not_believed(study), failures(study))
    return replace(decision, message=" ".join(sentence for sentence in sentences if sentence))


def refused_by_server(decision: Decision, out: Sequence[Out]) -> Decision:
    """Return a decision without finalists that says why the server serves none of those that there were."""
    message = " ".join([*(one.sentence for one in out), "The champion stays."])
    return replace(decision, verdict=Verdict.GATE_FAILED, reason=out[0].reason, message=message)


def _cut_short(ended: str, *, is_known: bool) -> str:
    new = "differs from the champion" + (" and was not rolled back before" if is_known else "")
    return f"{ended[:1].upper()}{ended[1:]}, before one gave a candidate that {new}; the champion stays."


def _not_believed(study: optuna.Study) -> str | None:
    foreign = foreign_trials(study, study_seal())
    if not foreign:
        return None
    return f"{foreign} trials of the study were not sealed by this run's search and are not believed."
