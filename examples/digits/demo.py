"""The whole loop on a real cluster, with a real model: `python -m examples.digits.demo`, called by `make demo`.

Trains a digits classifier, serves it, lets Retune make it smaller and faster, and shows the result. Then another hand
writes, which is learned, and a slow and a careless model are delivered, which are caught. Every step can be repeated: a
second call, or one after an interruption, goes on with what is there. It must never claim a result: what it prints
comes from the cluster.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from examples.digits import live
from examples.digits.kube import DIGITS, NAME, NAMESPACE, Answer, ask
from examples.digits.train import CARELESS, SEED, SLOW, Split, splits
from examples.kube import DemoError, Tools
from examples.steps import Course, closed_in, compare, followed, install, optimize, run_example, say, serve, train
from retune.api.status import Outcome
from retune.cli.follow import Exit
from tools.localcluster import settings as localcluster

ROWS = 10
REPORT = Path("out/digits-report.html")
STEPS = 13
COURSE = Course(STEPS)


def main() -> int:
    """Run the demo, or remove what it created."""
    return run_example(DIGITS, demo, module="examples.digits.demo", about=str(main.__doc__))


def demo(tools: Tools) -> int:
    """Run every step; returns 0 when the run ended well, which an honest NoGain is."""
    rows = some_rows()
    COURSE.step(1, "Namespace: limits, network policies and storage", "2 s", lambda: prepare(tools))
    COURSE.step(2, "Retune: install the operator with helm", "30 s", lambda: install_closed_in(tools))
    COURSE.step(3, "Training: a small network on scikit-learn's digits", "1 min the first time", lambda: trained(tools))
    COURSE.step(4, "Serving: two pods of MLServer with the model as delivered", "30 s", lambda: serve(tools))
    COURSE.heading(5, f"Predictions before: {ROWS} test rows, asked of the Service and of every pod", "5 s")
    before = predictions(tools, rows)
    COURSE.heading(6, "Optimization: baseline, search, judge, rollout, bake", "3 min")
    code = optimize(tools)
    COURSE.heading(7, "What came of it", "10 s")
    if code != Exit.DONE:
        return code
    result(tools, rows, before)
    learned = second_act(tools)
    if tools.target == "kserve":
        COURSE.heading(13, "Bad models are caught by a canary, which a Deployment can have: left out", "0 s")
    else:
        third_act(tools)
    if learned:
        live.until_calm(tools, say)
    live.rest(tools)
    say("the traffic has ended; windows are an hour long from now on")
    _next_steps(tools)
    return Exit.DONE


def prepare(tools: Tools) -> None:
    """Create the namespace with all that its platform team demands, and the claim."""
    tools.apply("00-namespace.yaml", "05-limits.yaml", "07-network.yaml")
    counted = "--for=jsonpath={.status.hard}"  # before that, the quota lets in nothing at all
    tools.kubectl("wait", "resourcequota/limits", counted, "--timeout=1m")
    tools.apply("10-storage.yaml")
    if tools.store == "s3":
        tools.kubectl("rollout", "status", "deployment/object-store", "--timeout", "2m")


def install_closed_in(tools: Tools) -> None:
    """Install the chart with network policies, and with the rights that a canary or another kind of target needs."""
    kinds = "targets.kinds={InferenceService}" if tools.target == "kserve" else "canary.enabled=true"
    install(tools, kinds, *closed_in(tools))


def trained(tools: Tools) -> None:
    """Train, and bring model and data to where the demo keeps everything."""
    train(tools, *(("train.py", "upload.py") if tools.store == "s3" else ()))


def second_act(tools: Tools) -> bool:
    """Change the data of the live model, and watch how a run corrects it; returns whether another version serves."""
    began = time.monotonic()
    COURSE.heading(8, "Traffic: digits as usual; every window of 30 s is judged", "2 min")
    live.begin_traffic(tools)
    live.until_calm(tools, say)
    before = live.champion(tools)
    COURSE.heading(9, "Another hand writes: slanted, thicker, noisier, other digits more often", "3 min")
    live.change_hand(tools, "shifted")
    say(f"run {live.until_run(tools, say)}")
    COURSE.heading(10, "Re-optimization on what was captured: gather, search, judge, rollout, bake", "4 min")
    followed(tools)
    after = live.champion(tools)
    if after == before:
        say(f"version {after} goes on serving: see why with retune status {NAME} -n {NAMESPACE}")
        return False
    say(f"version {before} -> {after} without a person, {time.monotonic() - began:.0f} s after the traffic began")
    return True


def third_act(tools: Tools) -> None:
    """Deliver models that pass every test and are bad at some of what users send, and watch how canaries are caught."""
    before = live.champion(tools)
    COURSE.heading(11, "A slow model is delivered: no test row shows it, one live request in ten does", "3 min")
    since = live.deliver(tools, SLOW, fault="LiveLatency", slow_margin="0.02")
    followed(tools)
    COURSE.heading(12, "A careless model is delivered: no test row shows it, one live request in ten fails", "3 min")
    live.deliver(tools, CARELESS, fault="LiveErrors")
    followed(tools)
    COURSE.heading(13, "What users noticed, and the quality of what served them", "10 s")
    seen = live.users(tools, since=since)
    say(f"{seen.digits} digits were answered meanwhile, and {seen.failed} requests failed")
    after = live.champion(tools)
    say(f"version {after} serves" + (", as before" if after == before else ""))


def some_rows() -> Split:
    """Return ROWS rows spread over the test split, as the training script cuts it."""
    test = splits(SEED)["test"]
    return test.take(np.linspace(0, len(test.label) - 1, num=ROWS).astype(int))


def predictions(tools: Tools, rows: Split) -> list[Answer]:
    """Ask the Service and then every ready pod for the same rows; print and return the answers in this order."""
    say(f"{'labels':<36}{' '.join(map(str, rows.label))}")
    pods = tools.pods()
    if not pods:
        raise DemoError("no pod of the model server is ready", hint=f"kubectl -n {NAMESPACE} get pods")
    answers = [ask(tools, place, rows) for place in (f"service/{NAME}", *(f"pod/{pod}" for pod in pods))]
    for answer in answers:
        right = sum(int(digit == label) for digit, label in zip(answer.digits, rows.label, strict=True))
        say(f"{answer.place:<36}{' '.join(map(str, answer.digits))}   {right} right, serves {answer.version}")
    return answers


def result(tools: Tools, rows: Split, before: list[Answer]) -> None:
    """Print the comparison, predictions after and who serves what; save the report."""
    run = compare(tools, report=REPORT)
    print()
    after = predictions(tools, rows)
    agreeing = sum(int(old == new) for old, new in zip(before[0].digits, after[0].digits, strict=True))
    say(f"{agreeing} of {ROWS} predictions are as before")
    if run.status.outcome is Outcome.NO_GAIN:
        say("NoGain: nothing was found that is worth replacing the champion for, so nothing changed.")


def _next_steps(tools: Tools) -> None:
    local = os.environ.get("KUBECONFIG") == str(localcluster.load().kubeconfig)
    env = (
        '  eval "$(.venv/bin/python -m tools.localcluster env)"    # this shell talks to the local cluster\n'
        if local
        else ""
    )
    print(f"""
Try next:
{env}  .venv/bin/retune status {NAME} -n {NAMESPACE}
  kubectl -n {NAMESPACE} get modeloptimizations,optimizationruns
  kubectl -n {NAMESPACE} rollout restart deployment/{tools.deployment}     # the champion stays
  kubectl -n {NAMESPACE} edit modeloptimization {NAME}         # a changed goal starts a run
  make demo-clean                                       # removes all of it""")


if __name__ == "__main__":
    sys.exit(main())
