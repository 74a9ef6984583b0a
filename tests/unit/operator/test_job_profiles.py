"""Nodes and devices that the administrator offers: a resource names a profile, and gets no more than that."""

import json
from dataclasses import replace
from typing import Any

import pytest

from retune.api.status import ConditionType
from retune.contract.requests import JobRequest, SearchRequest
from retune.plan import plan
from retune.plan.actions import CreateJob
from retune.plan.draft import condition_of
from retune.plan.observed import Defaults, Target
from retune.settings import Settings, SettingsError
from retune.workloads import job_manifest
from tests import samples
from tests.unit.plan.world import World, spec

Json = dict[str, Any]
GPU = {
    "devices": {"nvidia.com/gpu": 1},
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "runtimeClassName": "nvidia",
}
TRAINED = {"name": "ours", "type": "CustomTraining", "container": {"image": "ours:1", "command": ["train"]}}
SERVING = Target(
    name="digits-server",
    uid="u",
    containers=(),
    settled=True,
    available=1,
    wanted=1,
    progress="",
    node_selector={"pool": "serving"},
)
REQUESTS: dict[str, JobRequest] = {
    "baseline": samples.baseline_request(),
    "search": samples.search_request(),
    "judge": samples.judge_request(),
    "verify": samples.verify_request(),
}


def job(command: str, *, profile: Json = GPU, execution: Json | None = None, **request: Any) -> Json:
    """Return the pod of a Job whose resource names profile `gpu`."""
    asked = REQUESTS[command]
    if request:
        asked = SearchRequest.model_validate(asked.model_dump() | request)
    settings = Settings(job_profiles=json.dumps({"gpu": profile}))
    resource = samples.resource(execution={"profile": "gpu"} | (execution or {}))
    action = CreateJob(f"digits-{command}", asked, cpu_limit=2.0)
    manifest = job_manifest(action, resource=resource, target=SERVING, settings=settings)
    pod: Json = manifest["spec"]["template"]["spec"]
    return pod


def devices_of(pod: Json) -> dict[str, Json]:
    """Return the devices that each container of a pod gets."""
    containers = [*pod["containers"], *pod.get("initContainers", ())]
    limits = {each["name"]: each["resources"]["limits"] for each in containers}
    return {name: {key: amount for key, amount in each.items() if "/" in key} for name, each in limits.items()}


def test_a_search_runs_where_its_profile_says_and_gets_its_devices() -> None:
    """On the profile's nodes and not the target's; CPU and memory are the resource's own as ever."""
    pod = job("search")
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["runtimeClassName"] == "nvidia"
    assert devices_of(pod)["optimizer"] == {"nvidia.com/gpu": "1"}
    assert {"cpu", "memory"} <= pod["containers"][0]["resources"]["limits"].keys()


@pytest.mark.parametrize("command", ["baseline", "judge", "verify"])
def test_what_measures_stays_where_the_model_serves(command: str) -> None:
    """Unless the administrator says that such Jobs belong on these nodes too."""
    pod = job(command)
    assert pod["nodeSelector"] == {"pool": "serving"}
    assert not any(devices_of(pod).values())
    assert "runtimeClassName" not in pod
    if command != "verify":
        assert job(command, profile=GPU | {"commands": [command]})["nodeSelector"] == {"pool": "gpu"}


def test_the_container_that_trains_gets_the_device() -> None:
    """There is one, and it is not left idle beside it."""
    found = devices_of(job("search", techniques=[TRAINED]))
    assert found["training"] == {"nvidia.com/gpu": "1"}
    assert found["optimizer"] == {}


def test_what_a_resource_says_of_nodes_is_kept_and_the_profile_wins() -> None:
    """Its zone counts; a label of the profile's cannot be turned into another."""
    own = {"nodeSelector": {"zone": "a", "pool": "mine"}, "tolerations": [{"key": "spot", "operator": "Exists"}]}
    pod = job("search", execution=own)
    assert pod["nodeSelector"] == {"zone": "a", "pool": "gpu"}
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["spot", "nvidia.com/gpu"]


def test_a_profile_that_is_not_offered_begins_nothing_and_says_which_there_are() -> None:
    """What serves goes on serving; the sentence names the field, the profiles and the chart's value."""
    world = World(spec=spec(execution={"profile": "tpu"}))
    decision = plan(replaced(world, ("gpu", "large")), world.now)
    ready = condition_of(decision.status, ConditionType.READY)
    assert ready is not None
    assert ready.reason == "ProfileUnknown"
    assert "names tpu" in ready.message
    assert "it offers gpu, large" in ready.message
    assert not any(isinstance(action, CreateJob) for action in decision.actions)
    known = plan(replaced(world, ("tpu",)), world.now)
    assert any(isinstance(action, CreateJob) for action in known.actions)


def replaced(world: World, profiles: tuple[str, ...]) -> Any:
    """Return what a pass sees whose operator offers these profiles."""
    return replace(world.observe(), defaults=Defaults(profiles=profiles), lease_held=True)


@pytest.mark.parametrize(
    "document,says",
    [
        ("{", "it is no JSON document"),
        ({"GPU": {}}, "'GPU' is no name of a profile"),
        ({"gpu": {"devices": {"cpu": 1}}}, "gpu: devices: cpu is no device of a plugin"),
        ({"gpu": {"devices": {"kubernetes.io/batch-cpu": 1}}}, "is no device of a plugin"),
        ({"gpu": {"devices": {"nvidia.com/gpu": 0}}}, "nvidia.com/gpu is 0: give 1 or more"),
        ({"gpu": {"devices": {"nvidia.com/gpu": "some"}}}, "gpu: devices.nvidia.com/gpu"),
        ({"gpu": {"commands": ["verify"]}}, "gpu: commands.0"),
        ({"gpu": {"hostNetwork": True}}, "gpu: hostNetwork: there is no such field"),
        ({"gpu": {"nodeSelector": {"a b": "c"}}}, "is no key of a label"),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_start_in_words(document: Any, says: str) -> None:
    """The sentence names the variable, the chart's value, the profile and the field."""
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(SettingsError) as error:
        Settings.from_environment({"RETUNE_JOB_PROFILES": text})
    assert says in str(error.value)
    assert "RETUNE_JOB_PROFILES (the chart's jobs.profiles)" in str(error.value)
