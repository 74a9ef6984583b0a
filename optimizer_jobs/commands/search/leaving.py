"""Which techniques leave a search because they break, so that they cost a few trials and never the search.

A technique is asked for everything that a study asks first before the first trial. Later it leaves when trials of it
alone broke again and again, and none succeeded.
"""

from collections import defaultdict

import optuna
from optuna.trial import FixedTrial, TrialState

from optimizer_jobs.study.trials import counted, read_result
from optimizer_jobs.technique import Subject
from optimizer_jobs.techniques.containment import BrokenTechniqueError, contained
from optimizer_jobs.techniques.registry import TECHNIQUES
from retune.api.techniques import Technique

MOST_BREAKS = 2
"""Trials that a technique may break before it leaves, where none of it succeeded."""


def unusable(spec: Technique, subject: Subject) -> str | None:
    """Return what a technique raises when it is asked for what a study asks first, in words, or None."""
    technique = TECHNIQUES[spec.type]
    try:
        with contained(spec.name):
            for variant in (technique.off(spec, subject), *technique.defaults(spec, subject)):
                params = technique.suggest(FixedTrial(variant), spec, subject)
                if params is not None:
                    technique.describe(params)
    except BrokenTechniqueError as broken:
        return str(broken)
    return None


def breaking(study: optuna.Study) -> dict[str, str]:
    """Return the techniques that leave because they broke in trials, with what the last of these trials said."""
    breaks: dict[str, list[str]] = defaultdict(list)
    succeeded: set[str] = set()
    for trial in counted(study):
        result = read_result(trial)
        if trial.state is TrialState.COMPLETE:
            succeeded |= set(result.steps)
        elif len(result.broke) == 1:
            breaks[result.broke[0]].append(str(result.reason))
    return {
        name: f"it broke in {len(reasons)} trials, the last time with {reasons[-1]}"
        for name, reasons in breaks.items()
        if len(reasons) >= MOST_BREAKS and name not in succeeded
    }
