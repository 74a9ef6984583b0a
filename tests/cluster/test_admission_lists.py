"""Lists of images and claims in the chart's policy, on a real API server: what a spec may name, wherever it does."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from retune.api.crd import modeloptimization_crd
from tests import samples
from tests.cluster.api_cases import changed
from tests.cluster.chart import CHART, helm
from tests.cluster.governance import Place, enforced, governed, opened, policies_of, refusal
from tests.cluster.harness import MERGE
from tools.localcluster.controlplane import ControlPlane

Json = dict[str, Any]
CLAIMS = ("models", "data", "artifacts")
IMAGES = ("registry.example/ml/", "registry.example/train")
URIS = (
    "model.uri",
    "data.training.uri",
    "data.validation.uri",
    "data.test.uri",
    "data.calibration.uri",
    "monitoring.production.uri",
    "monitoring.production.labels.uri",
    "execution.artifactStore",
)


def given(value: str, path: str) -> Json:
    """The sample with a URI at this path; where it needs neighbours, they are on an allowed claim."""
    around = {"spec.monitoring.production": {"uri": "pvc://data/p"}} if path.startswith("monitoring") else {}
    return changed(around | {f"spec.{path}": value})


def training(image: str) -> list[Json]:
    """Techniques with a training container."""
    return [{"name": "own", "type": "CustomTraining", "container": {"image": image, "command": ["train"]}}]


@pytest.fixture(scope="module")
def listed(plane: ControlPlane) -> Iterator[Place]:
    """A namespace in which only some claims and images may be named."""
    claims, images = (f"{{{','.join(allowed)}}}" for allowed in (CLAIMS, IMAGES))
    lists = (f"admissionPolicy.allowedClaims={claims}", f"admissionPolicy.allowedImages={images}")
    with governed(opened(plane), *lists) as found:
        yield found


def says(place: Place, document: Json) -> str:
    """What the server says to the administrator, who lacks no right."""
    document["metadata"]["namespace"] = place.namespace
    return place.refusal(place.admin, document)


def fields(node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every field of a schema, with its dotted path."""
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from fields(inner, f"{path}.{name}".lstrip("."))
    if "items" in node:
        yield from fields(node["items"], path)


def test_no_uri_and_no_image_of_a_spec_is_forgotten() -> None:
    """The paths that are tried here are all that the schema has, so a new field cannot slip past the lists."""
    schema = modeloptimization_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    every = dict(fields(schema))
    uris = {path for path, node in every.items() if "pvc://" in str(node.get("x-kubernetes-validations"))}
    assert uris == set(URIS)
    assert {path for path in every if path.rpartition(".")[2] == "image"} == {
        "execution.image",
        "model.customMetric.container.image",
        "serving.image",
        "techniques.container.image",
    }
    secrets = {path for path in every if "secret" in path.lower()}
    assert secrets == {"execution.credentials.secretName", "registry.credentials.secretName"}


@pytest.mark.parametrize("path", URIS)
def test_only_listed_claims_may_be_named(listed: Place, path: str) -> None:
    """Wherever a spec names a claim; servers are no claims and stay free."""
    answer = says(listed, given("pvc://private/x.npz", path))
    assert "claim private is not among those that the administrator of Retune allows" in answer
    assert says(listed, given("pvc://data/other.npz", path)) == ""
    if path != "execution.artifactStore":
        assert says(listed, given("s3://private/x.npz", path)) == ""


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("registry.example/ml/optimizer:1", True),
        ("registry.example/train", True),
        ("registry.example/train:2", True),
        ("registry.example/train@sha256:" + "0" * 64, True),
        ("registry.example/trainer:2", False),
        ("registry.example/ml-evil/optimizer", False),
        ("registry.example/train:1/evil", False),
        ("evil/registry.example/ml/optimizer", False),
        ("optimizer", False),
    ],
)
def test_only_listed_images_may_be_named(listed: Place, image: str, *, allowed: bool) -> None:
    """A repository with any tag or digest, or all below a path; for Jobs and for containers of the owner's alike."""
    metric = {"spec.model.customMetric": {"container": {"image": image, "command": ["iou"]}}}
    named = (
        samples.manifest(execution={"image": image}),
        samples.manifest(techniques=training(image)),
        samples.manifest(serving={"runtime": "Triton", "image": image}),
        changed(metric),
    )
    for document in named:
        answer = says(listed, document)
        assert (answer == "") is allowed, answer
        assert allowed or f"image {image} is not among those that the administrator of Retune allows" in answer


def test_a_list_that_came_later_holds_up_no_metadata(plane: ControlPlane) -> None:
    """What was stored before the list stays as it is and can be labelled, suspended and deleted."""
    place = opened(plane)
    admin = place.admin
    admin.request("POST", place.path(), place.document("old", execution={"image": "old:1"}))
    with governed(place, "admissionPolicy.allowedImages={new}"):
        label = {"metadata": {"labels": {"team": "a"}}}
        assert refusal(admin, "PATCH", place.path("old"), label, kind=MERGE) == ""
        assert place.changes(admin, "old", suspend=True) == ""
        assert "image old:1 is not among those" in place.changes(admin, "old", mode="ObserveOnly")
        assert refusal(admin, "DELETE", place.path("old"), {}) == ""


HOSTILE = ("""x') || true || ('""", '''x"] || true || ["''', "a\\", "line\nbreak", "{{ .Release }}", "\u2028'<>&")
_HOSTILE = json.dumps(HOSTILE)


def test_values_never_leave_their_strings(plane: ControlPlane) -> None:
    """Even where the schema is passed over, an entry is a string in the rule: it lets in itself and nothing else."""
    place = opened(plane)
    flags = (
        "--set",
        f"watchNamespaces={{{place.namespace}}}",
        "--set-json",
        f"admissionPolicy.allowedImages={_HOSTILE}",
    )
    assert helm("template", "hostile", str(CHART), *flags).returncode != 0
    done = helm("template", "hostile", str(CHART), *flags, "--skip-schema-validation")
    assert done.returncode == 0, done.stderr
    with enforced(place, policies_of([each for each in yaml.safe_load_all(done.stdout) if each])):
        assert "image evil:1 is not among those" in says(place, samples.manifest(execution={"image": "evil:1"}))
        for entry in HOSTILE:
            assert says(place, samples.manifest(execution={"image": entry})) == ""
