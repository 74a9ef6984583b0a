"""A search worker as Optuna's documentation has it: `study.optimize` on its storage in a database, with heartbeats.

It needs Optuna and a driver, and nothing of this repository. What it does not promise: exactly the budget (each worker
ends the trial that it runs when the budget is reached), one trial for each combination, and a decision that no other
worker comes between. A trial whose worker died is put back by a callback, which is Optuna's own.
"""

import argparse
import json
import random
import sys
import time
import warnings

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import MaxTrialsCallback

HEARTBEAT_SECONDS, GRACE_SECONDS = 15, 60
PARAMETERS, RESULT_BYTES = 6, 400


def main() -> None:
    """Work on a study until the budget is reached; says `ready`, begins at a line on stdin, and ends with JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("study")
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--trial-seconds", type=float, required=True)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of heartbeats
    study, slept, pace = _open(options), [], random.Random(options.index)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        values = [trial.suggest_float(f"x{number}", 0.0, 1.0) for number in range(PARAMETERS)]
        slept.append(options.trial_seconds * pace.uniform(0.5, 1.5))
        time.sleep(slept[-1])
        trial.set_user_attr("result", "x" * RESULT_BYTES)
        return sum(values), -sum(values)

    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    study.optimize(objective, callbacks=[MaxTrialsCallback(options.budget)])
    overhead = time.monotonic() - began - sum(slept)
    print(json.dumps({"trials": len(slept), "overhead": overhead, "slept": sum(slept)}), flush=True)


def _open(options: argparse.Namespace) -> optuna.Study:
    storage = RDBStorage(
        options.url,
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=GRACE_SECONDS,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )
    sampler = optuna.samplers.RandomSampler(seed=options.index)
    return optuna.create_study(
        study_name=options.study,
        storage=storage,
        sampler=sampler,
        directions=["minimize", "minimize"],
        load_if_exists=True,
    )


if __name__ == "__main__":
    main()
