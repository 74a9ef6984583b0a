"""The whole loop on a real cluster, with a real model: `python -m examples.digits.demo`, called by `make demo`.

Trains a digits classifier, serves it, lets Retune make it smaller and faster, and shows the result. Every step can be
repeated: a second call, or one after an interruption, goes on with what is there. It must never claim a result: what it
prints comes from the cluster.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from examples.digits import live
from examples.digits.kube import (
    IMAGES,
    NAME,
    NAMESPACE,
    RELEASE,
    REPOSITORY,
    SYSTEM,
    Answer,
    DemoError,
    Json,
    Tools,
    ask,
    source_digest,
)
from examples.digits.train import SEED, Split, splits
from retune.api.status import ConditionStatus, ConditionType, Outcome
from retune.cli import reports, tables
from retune.cli.access import AccessError, Cluster, parsed
from retune.cli.follow import Exit, Until, follow
from retune.cli.main import judged
from retune.cli.output import show, terminal
from tools.kubectl import CommandError
from tools.localcluster import settings as localcluster

ROWS = 10
REPORT = Path("out/digits-report.html")
JOB = "digits-training"
FOLLOW_SECONDS = 3600.0
STEPS = 11


def main() -> int:
    """Run the demo, or remove what it created."""
    arguments = _arguments()
    try:
        tools = Tools.find(images=arguments.images)
        return clean(tools) if arguments.clean else demo(tools)
    except CommandError as error:
        print(f"\nThe demo stopped: {error}\nSee more with:  {error.hint}\nThen call it again; it goes on from here.")
    except AccessError as error:
        print(f"\nThe demo stopped: {error}\nCall it again; it goes on from here.")
    except KeyboardInterrupt:
        print("\nInterrupted. The cluster goes on by itself; call the demo again to follow it.")
    return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.digits.demo", description=main.__doc__)
    parser.add_argument("--clean", action="store_true", help=f"remove namespace {NAMESPACE} and release {RELEASE}")
    parser.add_argument(
        "--images", default=os.environ.get("RETUNE_IMAGES", IMAGES), help=f"prefix of the images (default: {IMAGES})"
    )
    return parser.parse_args()


def demo(tools: Tools) -> int:
    """Run every step; returns 0 when the run ended well, which an honest NoGain is."""
    rows = some_rows()
    step(1, "Retune: install the operator with helm", "30 s", lambda: install(tools))
    step(2, "Namespace and storage", "1 s", lambda: tools.apply("00-namespace.yaml", "10-storage.yaml"))
    step(3, "Training: a small network on scikit-learn's digits", "1 min the first time", lambda: train(tools))
    step(4, "Serving: two pods of MLServer with the model as delivered", "30 s", lambda: serve(tools))
    heading(5, f"Predictions before: {ROWS} test rows, asked of the Service and of every pod", "5 s")
    before = predictions(tools, rows)
    heading(6, "Optimization: baseline, search, judge, rollout, bake", "3 min")
    code = optimize(tools)
    heading(7, "What came of it", "10 s")
    if code != Exit.DONE:
        return code
    result(tools, rows, before)
    second_act(tools)
    live.rest(tools)
    say("the traffic has ended; windows are an hour long from now on")
    _next_steps()
    return Exit.DONE


def second_act(tools: Tools) -> None:
    """Change the data of the live model, and watch how a run corrects it."""
    began = time.monotonic()
    heading(8, "Traffic: digits as usual; every window of 30 s is judged", "2 min")
    live.begin_traffic(tools)
    live.until_calm(tools, say)
    before = live.champion(tools)
    heading(9, "Another hand writes: slanted, thicker, noisier, other digits more often", "3 min")
    live.change_hand(tools, "shifted")
    say(f"run {live.until_run(tools, say)}")
    heading(10, "Re-optimization on what was captured: gather, search, judge, rollout, bake", "4 min")
    followed(tools)
    after = live.champion(tools)
    heading(11, "Quality of the version that learned the new hand", "2 min")
    if after == before:
        say(f"version {after} goes on serving: see why with retune status {NAME} -n {NAMESPACE}")
        return
    live.until_calm(tools, say)
    say(f"version {before} -> {after} without a person, {time.monotonic() - began:.0f} s after the traffic began")


def heading(number: int, text: str, about: str) -> None:
    """Announce a step and how long it takes."""
    print(f"\n[{number}/{STEPS}] {text} (about {about})", flush=True)


def step(number: int, text: str, about: str, work: Callable[[], None]) -> None:
    """Announce a step, do its work, and say how long it took."""
    heading(number, text, about)
    began = time.monotonic()
    work()
    say(f"done in {time.monotonic() - began:.0f} s")


def say(text: str) -> None:
    """Print one indented line at once."""
    print(f"      {text}", flush=True)


def some_rows() -> Split:
    """Return ROWS rows spread over the test split, as the training script cuts it."""
    test = splits(SEED)["test"]
    return test.take(np.linspace(0, len(test.label) - 1, num=ROWS).astype(int))


def install(tools: Tools, *more: str) -> None:
    """Install or upgrade the chart; an interrupted helm operation is forgotten first.

    Args:
        tools: Where to install.
        more: Further values of the chart, as `key=value`.
    """
    _unstick(tools)
    values = {
        "image.repository": f"{tools.images}/operator",
        "image.tag": "dev",
        "optimizer.image.repository": f"{tools.images}/optimizer",
        "optimizer.image.tag": "dev",
        "monitor.image.repository": f"{tools.images}/monitor",
        "monitor.image.tag": "dev",
        r"podAnnotations.retune\.dev/sources": source_digest(REPOSITORY / "operator"),
    }
    settings = [word for key, value in values.items() for word in ("--set-string", f"{key}={value}")]
    for value in ("scrapeSeconds=1", *more):  # the search of so small a model is over in seconds
        settings += ["--set", value]
    chart = str(REPOSITORY / "charts" / "retune")
    tools.helm("upgrade", "--install", RELEASE, chart, "--create-namespace", *settings, "--wait", "--timeout", "3m")


def _unstick(tools: Tools) -> None:
    """Forget a helm operation that never ended, as helm itself advises."""
    kubectl = tools.kubectl.within(SYSTEM)
    for secret in kubectl.items("secrets", "--selector", f"owner=helm,name={RELEASE}"):
        if secret["metadata"]["labels"].get("status", "").startswith("pending"):
            kubectl("delete", "secret", secret["metadata"]["name"])
            say("a helm operation was interrupted before; it is started again")


def train(tools: Tools) -> None:
    """Run the training Job unless it has run with this very script."""
    script = Path(__file__).with_name("train.py")
    config, job = tools.kubectl.find("configmap", JOB), tools.kubectl.find("job", JOB)
    changed = config is None or config["data"].get(script.name) != script.read_text()
    if job and (changed or _condition(job, "Failed")):
        tools.kubectl("delete", "job", JOB, "--wait")
        job = None
    if changed:
        tools.apply_script(JOB, script)
    if job is None:
        tools.apply("20-training.yaml")
    _wait_for_training(tools)


def _wait_for_training(tools: Tools) -> None:
    hint = f"kubectl -n {NAMESPACE} describe pods --selector job-name={JOB}"
    deadline = time.monotonic() + 600
    shown = 0
    while time.monotonic() < deadline:
        job = tools.kubectl.find("job", JOB) or {}
        shown = _show_log(tools, shown)
        if _condition(job, "Complete"):
            return
        if _condition(job, "Failed"):
            raise DemoError("the training Job failed", hint=f"kubectl -n {NAMESPACE} logs job/{JOB}")
        time.sleep(1)
    raise DemoError("the training Job did not end within 10 min", hint=hint)


def _show_log(tools: Tools, shown: int) -> int:
    """Print the log of the training from line `shown` on; returns how many lines it has in all."""
    try:
        lines = tools.kubectl("logs", f"job/{JOB}").splitlines()
    except CommandError:  # its pod has not started yet
        return shown
    for line in lines[shown:]:
        say(line)
    return max(shown, len(lines))


def _condition(job: Json, kind: str) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)


def serve(tools: Tools) -> None:
    """Apply Deployment and Service and wait until every pod answers."""
    tools.apply("30-server.yaml")
    try:
        tools.kubectl("rollout", "status", f"deployment/{NAME}", "--timeout", "5m")
    except CommandError as error:
        raise DemoError(str(error), hint=f"kubectl -n {NAMESPACE} describe pods --selector app={NAME}") from error


def predictions(tools: Tools, rows: Split) -> list[Answer]:
    """Ask the Service and then every ready pod for the same rows; print and return the answers in this order."""
    say(f"{'labels':<30}{' '.join(map(str, rows.label))}")
    pods = tools.pods()
    if not pods:
        raise DemoError("no pod of the model server is ready", hint=f"kubectl -n {NAMESPACE} get pods")
    answers = [ask(tools, place, rows) for place in (f"service/{NAME}", *(f"pod/{pod}" for pod in pods))]
    for answer in answers:
        right = sum(int(digit == label) for digit, label in zip(answer.digits, rows.label, strict=True))
        say(f"{answer.place:<30}{' '.join(map(str, answer.digits))}   {right} right, serves {answer.version}")
    return answers


def optimize(tools: Tools) -> Exit:
    """Apply the ModelOptimization, start a run if none is under way, and follow it to its end."""
    earlier = tools.kubectl.find("modeloptimization", NAME)
    tools.apply("40-modeloptimization.yaml")
    if earlier and _settled(earlier):
        _run_again(tools, earlier)
    return followed(tools)


def followed(tools: Tools) -> Exit:
    """Follow the run under way to its end; raises DemoError where it does not come to one."""
    cluster = connect(tools)
    ended = follow(
        lambda: parsed(cluster.resource(NAME)), until=Until.FINISHED, timeout=FOLLOW_SECONDS, console=terminal()
    )
    say(ended.message)
    if ended.code is Exit.TIMEOUT:
        raise DemoError(ended.message, hint=f"retune watch {NAME} -n {NAMESPACE}")
    if ended.code is Exit.STALLED:
        raise DemoError(ended.message, hint=f"retune status {NAME} -n {NAMESPACE}")
    if ended.code is Exit.BAD_OUTCOME:
        say(f"the champion goes on serving. See why with: kubectl -n {NAMESPACE} describe modeloptimization {NAME}")
    return ended.code


def _settled(raw: Json) -> bool:
    resource = parsed(raw)
    busy = any(
        condition.type == ConditionType.RECONCILING and condition.status is ConditionStatus.TRUE
        for condition in resource.status.conditions
    )
    return resource.status.last_run is not None and not busy


def _run_again(tools: Tools, earlier: Json) -> None:
    champion = parsed(earlier).status.champion
    nonce = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    say(f"version {champion.version if champion else 1} is champion already: a manual run looks for a better one")
    patch = json.dumps({"spec": {"manualNonce": nonce}})
    tools.kubectl("patch", "modeloptimization", NAME, "--type", "merge", "--patch", patch)


def connect(tools: Tools) -> Cluster:
    """Return the cluster as the command line sees it."""
    return Cluster.connect(context=tools.context, namespace=tools.namespace)


def result(tools: Tools, rows: Split, before: list[Answer]) -> None:
    """Print the comparison, predictions after and who serves what; save the report."""
    cluster = connect(tools)
    resource = parsed(cluster.resource(NAME))
    last = resource.status.last_run
    run = judged(cluster, NAME, run=last.name if last else None)
    show(terminal(), tables.comparison(run))
    print()
    after = predictions(tools, rows)
    agreeing = sum(int(old == new) for old, new in zip(before[0].digits, after[0].digits, strict=True))
    say(f"{agreeing} of {ROWS} predictions are as before")
    if run.status.outcome is Outcome.NO_GAIN:
        say("NoGain: nothing was found that is worth replacing the champion for, so nothing changed.")
    report = reports.locate(resource, cluster.runs(NAME), run=run.metadata.name)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_bytes(reports.fetch(cluster, report, image=None))
    say(f"the report lies at {report.uri}; a copy is in {REPORT}")


def _next_steps() -> None:
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
  kubectl -n {NAMESPACE} rollout restart deployment/{NAME}     # the champion stays
  kubectl -n {NAMESPACE} edit modeloptimization {NAME}         # a changed goal starts a run
  make demo-clean                                       # removes all of it""")


def clean(tools: Tools) -> int:
    """Remove the namespace, then the release: the operator has to be there while its resources go."""
    print(f"Removing namespace {NAMESPACE} (about 30 s) ...", flush=True)
    tools.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout", "3m")
    print(f"Removing helm release {RELEASE} (about 10 s) ...", flush=True)
    tools.helm("uninstall", RELEASE, "--ignore-not-found", "--wait")
    print("Gone. The CustomResourceDefinitions stay, as after every uninstall of the chart.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
