"""What is to be changed in Git, in each form, and applied by the tools that people apply it with."""

import json
from typing import Any

import pytest
import yaml

from retune.cli.follow import Exit
from tests.unit.cli.test_steering import Server, call, server
from tests.unit.operator.target_samples import workload

__all__ = ["server"]
CANDIDATE = {
    "version": 3,
    "uri": "pvc://retune-artifacts/digits/bundles/3c",
    "digest": "sha256:" + "3c" * 32,
    "runName": "digits-r3",
    "injectedValue": "pvc://retune-artifacts/digits/bundles/3c",
}
PROPOSED = {"reason": "Proposed", "status": "Unknown", "message": "version 3 is proposed: 4x smaller."}
REVERT = {
    "reason": "RevertProposed",
    "status": "Unknown",
    "message": "version 3 is on the target and failed: wrong answers.",
}


def proposes(server: Server, shown: dict[str, str] = PROPOSED) -> None:
    """Let a version be proposed, or asked back."""
    server.raw["spec"]["mode"] = "Propose"
    server.raw["spec"]["target"]["container"] = "server"
    status = server.raw["status"]
    status["candidate"] = CANDIDATE
    kept = [condition for condition in status["conditions"] if condition["type"] != "RolledOut"]
    told = {"type": "RolledOut", "lastTransitionTime": "2026-11-25T04:00:00Z", "observedGeneration": 1} | shown
    status["conditions"] = [*kept, told]


def entry_in(patch: Any) -> Any:
    """The one entry of the environment that a patch changes."""
    (container,) = patch["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "server"
    (entry,) = container["env"]
    return entry


def test_a_patch_changes_one_variable(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason as a comment, so that the commit can say it."""
    proposes(server)
    assert call("proposal", "digits") == Exit.DONE
    text = capsys.readouterr().out
    assert text.startswith("# version 3 is proposed: 4x smaller.\n")
    patch = yaml.safe_load(text)
    assert (patch["kind"], patch["metadata"]) == ("Deployment", {"name": "digits", "namespace": "digits"})
    assert entry_in(patch) == {"name": "MODEL_URI", "value": CANDIDATE["injectedValue"]}
    assert not server.patches


def test_kustomize_gets_the_same_patch(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """As an entry of `patches`, with its target."""
    proposes(server)
    call("proposal", "digits", "-o", "kustomize")
    (entry,) = yaml.safe_load(capsys.readouterr().out)["patches"]
    assert entry["target"] == {"group": "apps", "version": "v1", "kind": "Deployment", "name": "digits"}
    assert entry_in(yaml.safe_load(entry["patch"]))["value"] == CANDIDATE["injectedValue"]


def test_helm_gets_values(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Every chart has a key of its own for them, which is said."""
    proposes(server)
    call("proposal", "digits", "-o", "helm")
    text = capsys.readouterr().out
    assert "environment of container server" in text
    assert yaml.safe_load(text) == {"env": [{"name": "MODEL_URI", "value": CANDIDATE["injectedValue"]}]}


def test_programs_get_the_parts(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """A bot that opens a pull request needs no parsing of text."""
    proposes(server)
    call("proposal", "digits", "-o", "json")
    document = json.loads(capsys.readouterr().out)
    assert (document["version"], document["variable"]) == (3, "MODEL_URI")
    assert document["target"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"}
    assert entry_in(document["patch"])["value"] == CANDIDATE["injectedValue"]


def test_the_way_back_is_shown_where_a_merged_version_failed(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names what served before; where nothing was set before, the patch takes the variable out."""
    proposes(server, REVERT)
    server.raw["status"]["rollout"] = {"version": 3, "startTime": "2026-11-25T04:00:00Z", "injected": True}
    call("proposal", "digits")
    text = capsys.readouterr().out
    champion = server.raw["status"]["champion"]
    assert "failed: wrong answers" in text
    assert entry_in(yaml.safe_load(text))["value"] == champion["injectedValue"]
    del champion["injectedValue"]
    call("proposal", "digits")
    assert entry_in(yaml.safe_load(capsys.readouterr().out)) == {"name": "MODEL_URI", "$patch": "delete"}


def of_kind(server: Server, api_version: str, kind: str) -> None:
    """Let the target be of another kind, and its container the only one that it has."""
    proposes(server)
    server.raw["spec"]["target"] = {"ref": {"apiVersion": api_version, "kind": kind, "name": "digits"}}
    target = workload(api_version, kind, spec={}, status={})
    target["spec"]["template"]["spec"]["containers"].pop()
    server.targets[f"/apis/{api_version}/namespaces/digits/{kind.lower()}s/digits"] = target


def test_a_stateful_set_is_patched_as_what_it_is(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Its one container is read from it, and every form names its kind."""
    of_kind(server, "apps/v1", "StatefulSet")
    assert call("proposal", "digits") == Exit.DONE
    patch = yaml.safe_load(capsys.readouterr().out)
    assert (patch["apiVersion"], patch["kind"]) == ("apps/v1", "StatefulSet")
    assert entry_in(patch)["value"] == CANDIDATE["injectedValue"]
    call("proposal", "digits", "-o", "kustomize")
    (entry,) = yaml.safe_load(capsys.readouterr().out)["patches"]
    assert entry["target"]["kind"] == "StatefulSet"


def test_a_container_that_runs_before_the_others_is_patched_where_it_is(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the list of init containers, which the target is asked about."""
    proposes(server)
    server.raw["spec"]["target"]["container"] = "model"
    target = workload("apps/v1", "Deployment", spec={}, status={})
    target["spec"]["template"]["spec"]["initContainers"] = [{"name": "model", "image": "retune:1"}]
    server.targets["/apis/apps/v1/namespaces/digits/deployments/digits"] = target
    assert call("proposal", "digits") == Exit.DONE
    pod = yaml.safe_load(capsys.readouterr().out)["spec"]["template"]["spec"]
    assert pod == {"initContainers": [{"name": "model", "env": [entry_of(CANDIDATE["injectedValue"])]}]}


def entry_of(value: Any) -> dict[str, Any]:
    """The variable as a patch sets it."""
    return {"name": "MODEL_URI", "value": value}


def test_a_rollout_gets_no_patch_that_would_replace_its_containers(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing merges lists of a kind that a CustomResourceDefinition brings: words say what to set."""
    of_kind(server, "argoproj.io/v1alpha1", "Rollout")
    assert call("proposal", "digits") == Exit.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        f"set MODEL_URI of container server to {CANDIDATE['injectedValue']} in the manifest of Rollout digits"
        in said.err
    )
    call("proposal", "digits", "-o", "json")
    assert "patch" not in json.loads(capsys.readouterr().out)


def test_the_kustomization_of_a_rollout_says_what_it_needs(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the schema it would take the image out; of kinds that Kubernetes knows nothing is said."""
    of_kind(server, "argoproj.io/v1alpha1", "Rollout")
    call("proposal", "digits", "-o", "kustomize")
    text = capsys.readouterr().out
    (entry,) = yaml.safe_load(text)["patches"]
    assert "needs the schema of Rollouts" in text
    assert entry["target"] == {"group": "argoproj.io", "version": "v1alpha1", "kind": "Rollout", "name": "digits"}
    of_kind(server, "apps/v1", "StatefulSet")
    call("proposal", "digits", "-o", "kustomize")
    assert "schema" not in capsys.readouterr().out


@pytest.mark.parametrize("form", ["patch", "kustomize", "helm", "json"])
def test_an_inference_service_has_one_field_and_no_container(
    form: str, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """KServe's own field names the model; no list is replaced, so every form can be used as it is."""
    proposes(server)
    target = server.raw["spec"]["target"]
    del target["container"]
    target["ref"] = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": "digits"}
    target["injection"] = {"type": "StorageUri"}
    assert call("proposal", "digits", "-o", form) == Exit.DONE
    text = capsys.readouterr().out
    shown = json.loads(text) if form == "json" else yaml.safe_load(text)
    patch = yaml.safe_load(shown["patches"][0]["patch"]) if form == "kustomize" else shown.get("patch", shown)
    value = CANDIDATE["injectedValue"]
    assert patch.get("spec", {"predictor": {"model": patch}}) == {"predictor": {"model": {"storageUri": value}}}
    assert "replace" not in text


@pytest.mark.parametrize("form", ["patch", "kustomize", "helm", "json"])
def test_a_key_of_a_config_map_is_changed_there(form: str, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The patch is one of the ConfigMap, and the workload is not looked at."""
    proposes(server)
    key = {"name": "wanted", "key": "uri"}
    server.raw["spec"]["target"]["injection"] = {"type": "ConfigMap", "configMap": key, "takeover": "Force"}
    server.targets.clear()
    assert call("proposal", "digits", "-o", form) == Exit.DONE
    text = capsys.readouterr().out
    shown = json.loads(text) if form == "json" else yaml.safe_load(text)
    value, named = CANDIDATE["injectedValue"], {"version": "v1", "kind": "ConfigMap", "name": "wanted"}
    if form == "kustomize":
        (entry,) = shown["patches"]
        assert entry["target"] == named
        shown = yaml.safe_load(entry["patch"])
    if form == "json":
        assert shown["target"] == {"apiVersion": "v1", "kind": "ConfigMap", "name": "wanted"}
        assert (shown["container"], shown["variable"]) == (None, "key uri of ConfigMap wanted")
    patch = shown.get("patch", shown)
    assert patch.get("data", patch) == {"uri": value}
    assert form == "helm" or patch["kind"] == "ConfigMap"


@pytest.mark.parametrize(
    ("kind", "containers", "words"),
    [
        ("StatefulSet", 2, "StatefulSet digits has containers server, sidecar: name one in spec.target.container"),
        ("Rollout", 0, "Rollout digits has containers of another object"),
        ("Rollout", None, "there is no Rollout digits in namespace digits"),
    ],
)
def test_which_container_it_is_must_be_known(
    server: Server, capsys: pytest.CaptureFixture[str], kind: str, containers: int | None, words: str
) -> None:
    """A Rollout may have no template of its own, and a target may be gone."""
    api_version = {"StatefulSet": "apps/v1", "Rollout": "argoproj.io/v1alpha1"}[kind]
    of_kind(server, api_version, kind)
    ((path, target),) = server.targets.items()
    if containers is None:
        server.targets.clear()
    elif containers == 0:
        del target["spec"]["template"]
    else:
        server.targets[path] = workload(api_version, kind, spec={}, status={})
    assert call("proposal", "digits", "-o", "kustomize") == Exit.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.usefixtures("server")
def test_where_nothing_is_proposed_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """With the stage, on standard error, so that nothing empty is committed."""
    assert call("proposal", "digits") == Exit.BAD_OUTCOME
    said = capsys.readouterr()
    assert said.out == ""
    assert "nothing is proposed for digits/digits" in said.err
