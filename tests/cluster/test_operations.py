"""Changes of mind, one after another, at any moment: the end is that of a resource which never knew but the last.

The spec of a resource is changed in valid ways while a whole operator works on it, at times before the last change was
even seen. In the end its status, without times and counters, its Jobs and its target's field are those of a fresh
resource with the last spec. RETUNE_TEST_SEED repeats a failure, RETUNE_TEST_SEQUENCES says how many sequences are made.
"""

import asyncio
import os
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from retune.contract.requests import JobRequest
from retune.contract.results import JobResult, Verdict
from tests.answers import answer
from tests.cluster.harness import Bench
from tests.cluster.running import idle, running, until
from tests.dice import thrown
from tests.faults.stage import timeless
from tests.faults.stagehand import Stagehand
from tests.samples import manifest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hung_up"), pytest.mark.timeout(900)]
Json = dict[str, Any]
SEQUENCES = int(os.environ.get("RETUNE_TEST_SEQUENCES", "12"))
CHANGES = 5
CHOICES: dict[str, list[Any]] = {
    "search.maxTrials": [2, 5, 24],
    "search.seed": [1, 7],
    "search.parallelism": [1, 2],
    "model.uri": ["pvc://store/a.onnx", "pvc://store/b.onnx"],
    "data.test.uri": ["pvc://store/test-a.npz", "pvc://store/test-b.npz"],
    "serving.cores": [1, 2],
    "rollout.bakeTime": ["0s", "10m"],
    "rollout.progressDeadline": ["5m", "20m"],
    "execution.runTimeout": ["1h", "2h"],
    "execution.backoffLimit": [1, 3],
    "deletionPolicy": ["KeepChampion", "RestoreOriginal"],
    "target.injection.takeover": ["Refuse", "Force"],
    "mode": ["Automatic", "RecommendOnly", "ObserveOnly"],
    "suspend": [True, False],
    "history.failedRuns": [2, 5],
}
LAST = {"suspend": False, "mode": "Automatic"}
"""What the last spec of every sequence says: suspended or only observed, what was done before would still show."""
COUNTERS = {
    "nextRun",
    "nextVersion",
    "observedGeneration",
    "version",
    "attempt",
    "originalVersion",
    "targetUID",
    "holderUID",
    "leftovers",
    "number",
}


def reply(request: JobRequest) -> JobResult:
    """Answer as Jobs that bring no gain: what serves then does not depend on what was tried before."""
    return answer(request, verdict=Verdict.NO_GAIN)


def patch_of(changes: Json) -> Json:
    """Return the merge patch that sets fields by dotted path."""
    patch: Json = {}
    for path, value in changes.items():
        node = patch
        *parents, last = path.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return patch


def declare(bench: Bench, name: str) -> None:
    """Create a resource and the Deployment of its own."""
    bench.deploy(f"{name}-server", replicas=1)
    document = manifest(target={"ref": {"name": f"{name}-server"}, "inference": {"modelName": "digits"}})
    document["metadata"] = {"name": name, "namespace": bench.namespace}
    bench.api.request("POST", bench.path("modeloptimizations"), document)


def change(bench: Bench, name: str, changes: Json) -> None:
    """Change fields of a resource's spec."""
    bench.patch(bench.path("modeloptimizations", name), {"spec": patch_of(changes)})


async def live_through(bench: Bench, name: str, dice: random.Random) -> Json:
    """Change a resource again and again, waiting or not; returns all that was changed, as it is in the end."""
    total: Json = {}
    for _ in range(CHANGES):
        fields = dice.sample(sorted(CHOICES), dice.randint(1, 3))
        changes = {path: dice.choice(CHOICES[path]) for path in fields}
        await asyncio.to_thread(change, bench, name, changes)
        total |= changes
        await asyncio.sleep(dice.choice([0, 0.1, 0.5, 2]))
    await asyncio.to_thread(change, bench, name, LAST)
    return total | LAST


def at_rest(bench: Bench, names: list[str]) -> bool:
    """Whether all resources have done what their newest spec asks for."""
    by_name = {
        item["metadata"]["name"]: item for item in bench.items("modeloptimizations", api="/apis/retune.dev/v1alpha1")
    }
    return all(_rests(by_name[name]) for name in names)


def _rests(resource: Json) -> bool:
    status = resource.get("status", {})
    seen = status.get("observedGeneration") == resource["metadata"]["generation"]
    return seen and status.get("stage") == "Monitoring" and "run" not in status


def state(bench: Bench, name: str) -> Json:
    """Return what counts of a resource, its Jobs and its target, without times and counters."""
    resource = bench.resource(name)
    target = bench.api.get(bench.path("deployments", f"{name}-server", api="/apis/apps/v1"))
    last = resource["status"].get("lastRun", {}).get("name", "no run")
    jobs = [job for job in bench.jobs if job["metadata"]["name"].startswith((f"{last}-", f"{name}-b"))]
    conditions = {condition["type"]: condition for condition in resource["status"]["conditions"]}
    if conditions.get("Suspended", {}).get("status") == "False":  # it says no more than that there is none
        del conditions["Suspended"]
    found = {
        "status": uncounted(timeless(resource["status"] | {"conditions": conditions})),
        "finalizers": resource["metadata"].get("finalizers", []),
        "env": target["spec"]["template"]["spec"]["containers"][0].get("env", []),
        "jobs": sorted({job["metadata"]["labels"]["retune.dev/command"] for job in jobs}),
    }
    named: Json = renamed(found, name)
    return named


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield what differs between two documents, leaf by leaf."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from differences(old.get(name), new.get(name), f"{path}.{name}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{path}.{number}")
    elif old != new:
        yield f"{path}: {old} != {new}"


def uncounted(value: Any) -> Any:
    """Return a document without its counters."""
    if isinstance(value, dict):
        return {name: uncounted(inner) for name, inner in value.items() if name not in COUNTERS}
    return [uncounted(inner) for inner in value] if isinstance(value, list) else value


def renamed(value: Any, name: str) -> Any:
    """Return a document without the resource's name and the numbers of its runs and versions."""
    if isinstance(value, dict):
        return {key: renamed(inner, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [renamed(inner, name) for inner in value]
    if not isinstance(value, str):
        return value
    text = re.sub(rf"\b{name}\b", "NAME", value)
    return re.sub(r"version \d+", "version N", re.sub(r"NAME-r\d+", "NAME-rN", text))


async def test_after_any_changes_the_last_spec_alone_counts(bench: Bench) -> None:
    """Fault 21: what came before the last change leaves no trace but in history, whenever the changes came."""
    dice = thrown()
    changed = [f"changed-{number}" for number in range(SEQUENCES)]
    fresh = [f"fresh-{number}" for number in range(SEQUENCES)]
    with Stagehand(bench.api, reply=reply, namespace=bench.namespace):
        async with running(bench) as operator:
            for name in changed:
                declare(bench, name)
            seeds = [random.Random(dice.random()) for _ in changed]
            ends = await asyncio.gather(*(live_through(bench, *pair) for pair in zip(changed, seeds, strict=True)))
            for name, total in zip(fresh, ends, strict=True):
                declare(bench, name)
                change(bench, name, total)
            await until(lambda: at_rest(bench, [*changed, *fresh]), seconds=30 + 10 * SEQUENCES)
            await until(lambda: idle(operator))
            differing = {
                old: list(differences(state(bench, old), state(bench, new)))
                for old, new in zip(changed, fresh, strict=True)
            }
            assert not any(differing.values()), "\n".join(f"{old} {row}" for old in changed for row in differing[old])
