"""The steps that every example takes in a cluster: install, train, serve, optimize, clean up.

Each can be repeated: a second call, or one after an interruption, goes on with what is there. Nothing here claims a
result: what is printed comes from the cluster.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from examples.bucket import within_reach
from examples.kube import IMAGES, RELEASE, REPOSITORY, STORES, SYSTEM, DemoError, Example, Json, Tools, source_digest
from retune.api.objects import OptimizationRun
from retune.api.status import ConditionStatus, ConditionType
from retune.cli import reports, tables
from retune.cli.access import AccessError, Cluster, parsed
from retune.cli.follow import Exit, Until, follow
from retune.cli.main import judged
from retune.cli.output import show, terminal
from tools.kubectl import CommandError

_IN_A_BUCKET = {"artifactStoreCredentials": "object-store", "optimizer.privateAddresses": "Allow"}
"""Values of the chart for a store in a bucket on a server in the cluster."""
FOLLOW_SECONDS = 3600.0
TRAINING_SECONDS = 600.0
SERVICE_LABEL = "kubernetes.io/service-name"


def run_example(example: Example, demo: Callable[[Tools], int], *, module: str, about: str) -> int:
    """Run an example by its command line, or remove what it created; returns the exit code.

    Args:
        example: The example.
        demo: Takes its steps.
        module: Name of the module that is called.
        about: What the command does.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument(
        "--clean", action="store_true", help=f"remove namespace {example.namespace} and release {RELEASE}"
    )
    parser.add_argument(
        "--images", default=os.environ.get("RETUNE_IMAGES", IMAGES), help=f"prefix of the images (default: {IMAGES})"
    )
    arguments = parser.parse_args()
    try:
        tools = Tools.find(example, images=arguments.images)
        return clean(tools) if arguments.clean else demo(tools)
    except CommandError as error:
        print(f"\nThe demo stopped: {error}\nSee more with:  {error.hint}\nThen call it again; it goes on from here.")
    except AccessError as error:
        print(f"\nThe demo stopped: {error}\nCall it again; it goes on from here.")
    except KeyboardInterrupt:
        print("\nInterrupted. The cluster goes on by itself; call the demo again to follow it.")
    return 1


class Course:
    """The steps of a demo, which are announced with their number and how long they take."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def heading(self, number: int, text: str, about: str) -> None:
        """Announce a step and how long it takes."""
        print(f"\n[{number}/{self._steps}] {text} (about {about})", flush=True)

    def step(self, number: int, text: str, about: str, work: Callable[[], None]) -> None:
        """Announce a step, do its work, and say how long it took."""
        self.heading(number, text, about)
        began = time.monotonic()
        work()
        say(f"done in {time.monotonic() - began:.0f} s")


def say(text: str) -> None:
    """Print one indented line at once."""
    print(f"      {text}", flush=True)


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
        "artifactStore": STORES[tools.store],
    } | (_IN_A_BUCKET if tools.store == "s3" else {})
    settings = [word for key, value in values.items() for word in ("--set-string", f"{key}={value}")]
    for value in ("scrapeSeconds=1", *more):  # the search of so small a model is over in seconds
        settings += ["--set", value]
    chart = str(REPOSITORY / "charts" / "retune")
    tools.helm("upgrade", "--install", RELEASE, chart, "--create-namespace", *settings, "--wait", "--timeout", "3m")


def closed_in(tools: Tools) -> tuple[str, ...]:
    """Return values of the chart that close in the operator, and the Jobs of the example's namespace, which exists."""
    return (
        "networkPolicy.enabled=true",
        f"networkPolicy.apiServerPorts={{{','.join(map(str, _api_server_ports(tools)))}}}",
        f"networkPolicy.jobs.namespaces={{{tools.namespace}}}",
        "networkPolicy.jobs.ports=" + ("{7070}" if tools.store == "s3" else "null"),  # nothing else is asked of others
    )


def _api_server_ports(tools: Tools) -> list[int]:
    """Return the port of the API server's Service and those behind it: a network plugin looks at one or the other."""
    endpoints = tools.kubectl.within("default").items("endpointslices", "--selector", f"{SERVICE_LABEL}=kubernetes")
    return sorted({443, *(port["port"] for slice_ in endpoints for port in slice_["ports"])})


def _unstick(tools: Tools) -> None:
    """Forget a helm operation that never ended, as helm itself advises."""
    kubectl = tools.kubectl.within(SYSTEM)
    for secret in kubectl.items("secrets", "--selector", f"owner=helm,name={RELEASE}"):
        if secret["metadata"]["labels"].get("status", "").startswith("pending"):
            kubectl("delete", "secret", secret["metadata"]["name"])
            say("a helm operation was interrupted before; it is started again")


def train(tools: Tools, *scripts: str, seconds: float = TRAINING_SECONDS) -> None:
    """Run the training Job unless it has run with these very scripts of the example's folder.

    Args:
        tools: Where to run it.
        scripts: Names of files; `train.py` alone if none is named.
        seconds: Longest that it may take.
    """
    name, paths = tools.example.training, [tools.example.folder / script for script in scripts or ("train.py",)]
    config, job = tools.kubectl.find("configmap", name), tools.kubectl.find("job", name)
    changed = config is None or config["data"] != {path.name: path.read_text() for path in paths}
    if job and (changed or _condition(job, "Failed")):
        tools.kubectl("delete", "job", name, "--wait")
        job = None
    if changed:
        tools.apply_script(name, *paths)
    if job is None:
        tools.apply("20-training.yaml")
    _wait_for_training(tools, seconds)


def _wait_for_training(tools: Tools, seconds: float) -> None:
    name = tools.example.training
    hint = f"kubectl -n {tools.namespace} describe pods --selector job-name={name}"
    deadline = time.monotonic() + seconds
    shown = 0
    while time.monotonic() < deadline:
        job = tools.kubectl.find("job", name) or {}
        shown = _show_log(tools, shown)
        if _condition(job, "Complete"):
            return
        if _condition(job, "Failed"):
            raise DemoError("the training Job failed", hint=f"kubectl -n {tools.namespace} logs job/{name}")
        time.sleep(1)
    raise DemoError(f"the training Job did not end within {seconds / 60:g} min", hint=hint)


def _show_log(tools: Tools, shown: int) -> int:
    """Print the log of the training from line `shown` on; returns how many lines it has in all."""
    try:
        lines = tools.kubectl("logs", f"job/{tools.example.training}").splitlines()
    except CommandError:  # its pod has not started yet
        return shown
    for line in lines[shown:]:
        say(line)
    return max(shown, len(lines))


def _condition(job: Json, kind: str) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)


def serve(tools: Tools) -> None:
    """Apply the model server and its Service and wait until every pod answers."""
    tools.apply("30-server.yaml")
    try:
        tools.kubectl("wait", "--for=create", f"deployment/{tools.deployment}", "--timeout", "1m")
        tools.kubectl("rollout", "status", f"deployment/{tools.deployment}", "--timeout", "5m")
    except CommandError as error:
        raise DemoError(
            str(error), hint=f"kubectl -n {tools.namespace} describe pods --selector {tools.selector}"
        ) from error


def optimize(tools: Tools) -> Exit:
    """Apply the ModelOptimization, start a run if none is under way, and follow it to its end."""
    earlier = tools.kubectl.find("modeloptimization", tools.example.name)
    tools.apply("40-modeloptimization.yaml")
    if earlier and _settled(earlier):
        _run_again(tools, earlier)
    return followed(tools)


def followed(tools: Tools) -> Exit:
    """Follow the run under way to its end; raises DemoError where it does not come to one."""
    cluster, name = connect(tools), tools.example.name
    ended = follow(
        lambda: parsed(cluster.resource(name)), until=Until.FINISHED, timeout=FOLLOW_SECONDS, console=terminal()
    )
    say(ended.message)
    if ended.code is Exit.TIMEOUT:
        raise DemoError(ended.message, hint=f"retune watch {name} -n {tools.namespace}")
    if ended.code is Exit.STALLED:
        raise DemoError(ended.message, hint=f"retune status {name} -n {tools.namespace}")
    if ended.code is Exit.BAD_OUTCOME:
        say(f"the champion goes on serving. See why with: retune status {name} -n {tools.namespace}")
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
    tools.kubectl("patch", "modeloptimization", tools.example.name, "--type", "merge", "--patch", patch)


def connect(tools: Tools) -> Cluster:
    """Return the cluster as the command line sees it."""
    return Cluster.connect(context=tools.context, namespace=tools.namespace)


def compare(tools: Tools, *, report: Path) -> OptimizationRun:
    """Print the comparison of the last run, and save its report; returns the run."""
    cluster, name = connect(tools), tools.example.name
    resource = parsed(cluster.resource(name))
    last = resource.status.last_run
    run = judged(cluster, name, run=last.name if last else None)
    show(terminal(), tables.comparison(run))
    located = reports.locate(resource, cluster.runs(name), run=run.metadata.name)
    report.parent.mkdir(parents=True, exist_ok=True)
    with within_reach(tools):
        report.write_bytes(reports.fetch(cluster, located, image=None))
    say(f"the report lies at {located.uri}; a copy is in {report}")
    return run


def clean(tools: Tools) -> int:
    """Remove the namespace, then the release: the operator has to be there while its resources go."""
    print(f"Removing namespace {tools.namespace} (about 30 s) ...", flush=True)
    tools.kubectl("delete", "namespace", tools.namespace, "--ignore-not-found", "--wait", "--timeout", "3m")
    print(f"Removing helm release {RELEASE} (about 10 s) ...", flush=True)
    tools.helm("uninstall", RELEASE, "--ignore-not-found", "--wait")
    print("Gone. The CustomResourceDefinitions stay, as after every uninstall of the chart.")
    return 0
