"""Retune's defaults on a stream: the resource that a user would write, and what came of it."""

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from optimizer_jobs.data.volumes import CLAIM_ROOT_VARIABLE
from retune.api.spec import ModelOptimizationSpec
from retune.api.triggers import TriggerReason, Triggers
from tests.bench.streams.live import CAPTURED, LABELS, Live, Server
from tests.bench.streams.loop import Story, played
from tests.bench.streams.models import MODEL
from tests.bench.streams.policies import promotion
from tests.bench.streams.scores import Played
from tests.bench.streams.sources import Stream
from tests.unit.plan.server import spec

TRIALS = 2
"""Trials of a search: the control, and training anew as delivered, which is what the other ways do."""
_PORT_VARIABLE, _ANY_PORT = "RETUNE_METRICS_PORT", "0"
_STORE, _CLAIM = "retune-artifacts", "models"

QUALITY = (
    {
        "metric": "accuracy",
        "goal": {"type": "MaxDegradation", "value": "0.01"},
        "tolerance": "0.01",
        "minGain": "0.01",
    },
    {
        "metric": "d2_brier_score",
        "goal": {"type": "PercentMaxDegradation", "value": "5"},
        "tolerance": "0.05",
        "minGain": "0.05",
    },
)
"""What the default objectives become in a run on fresh data, but for latency and size: they say nothing here, and would
make the outcome depend on the machine."""

MONTHLY = "0 6 1 * *"
"""When a schedule starts runs, as `triggers.schedule`: on the first of each month."""


def resource(stream: Stream, *, schedule: str | None = None) -> ModelOptimizationSpec:
    """Return what a user writes: everything that is not said here has its default; `schedule` starts runs besides."""
    usual = Triggers()
    triggers = {"schedule": schedule, "signals": (*usual.signals, "Schedule")} if schedule else {}
    monitoring: dict[str, Any] = {
        "window": stream.window,
        "production": {
            "uri": f"pvc://{_CLAIM}/{CAPTURED}",
            "labels": {"uri": f"pvc://{_CLAIM}/{LABELS}"},
        },
    }
    return spec(
        model={"uri": f"pvc://{_CLAIM}/{MODEL}", "format": "Skops"},
        data={name: {"uri": f"pvc://{_CLAIM}/{name}.parquet"} for name in ("training", "validation", "test")},
        objectives=QUALITY,
        techniques=[{"name": "tuning", "type": "HyperparameterTuning"}],
        search={"maxTrials": TRIALS},
        monitoring=monitoring,
        triggers=triggers,
    )


def watched(
    stream: Stream, folder: Path, *, heard: Callable[[str], None], schedule: str | None = None
) -> tuple[Played, Story]:
    """Let Retune watch over a stream whose model was delivered into the claim below `folder`.

    Args:
        stream: The stream.
        folder: Folder of the claims.
        heard: Takes a line for everything that the operator tells people.
        schedule: When runs start besides those for signals, as a cron expression; None: never.
    """
    (folder / _STORE).mkdir(parents=True, exist_ok=True)
    os.environ |= {CLAIM_ROOT_VARIABLE: str(folder), _PORT_VARIABLE: _ANY_PORT}
    live = Live(stream, folder / _CLAIM)
    story = played(resource(stream, schedule=schedule), live, log=folder / "jobs.log", heard=heard)
    name = "Retune, every month" if schedule else "Retune's defaults"
    result = Played(name, live.answers, cpu_seconds=story.check_seconds + story.run_seconds)
    result.runs = [run.since for run in story.runs.values() if run.trigger != TriggerReason.INITIAL]
    for before, after in pairwise(story.served):
        models = (Server.of(before.uri).probabilities, Server.of(after.uri).probabilities)
        result.promotions.append(promotion(stream, after.since, *models))
    return result, story
