"""What people see of the two kinds with kubectl: the reference, the table, the short names."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests import samples
from tests.cluster.crds import path_of
from tools.kubectl import Kubectl
from tools.localcluster.api import Api, ApiError
from tools.localcluster.controlplane import ControlPlane

Json = dict[str, Any]
_PATIENCE_SECONDS = 60.0
STATUS: Json = {
    "stage": "Optimizing",
    "message": "12 of 24 trials",
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "ChampionServing",
            "message": "version 3 serves",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ],
    "champion": {"version": 3, "uri": "pvc://a/bundles/3", "digest": samples.DIGEST},
    "run": {
        "name": "table-r4",
        "number": 4,
        "trigger": "Manual",
        "specHash": "abc",
        "startTime": "2026-01-01T00:00:00Z",
        "trials": {"total": 24, "done": 12, "failed": 0},
    },
    "lastRun": {
        "name": "table-r3",
        "outcome": "Promoted",
        "reason": "Smaller",
        "message": "4 times smaller",
        "specHash": "abc",
        "completionTime": "2026-01-01T00:00:00Z",
    },
}


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """The administrator's kubectl, with a discovery cache of its own."""
    options = (f"--kubeconfig={plane.kubeconfig}", f"--cache-dir={tmp_path_factory.mktemp('kubectl')}")
    return Kubectl(program=str(plane.kubectl_path), options=options)


def published(api: Api) -> Json:
    """The OpenAPI document of our group; the server builds it a moment after the CRD."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return api.get("/openapi/v3/apis/retune.dev/v1alpha1")
        except ApiError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@pytest.fixture
def stored(api: Api) -> Iterator[Json]:
    """A ModelOptimization with a status."""
    path = path_of("retune.dev", "modeloptimizations")
    document = samples.manifest() | {"metadata": {"name": "table"}}
    made = api.request("POST", path, document)
    body = json.loads(json.dumps({"status": STATUS}))
    yield api.request("PATCH", f"{path}/table/status", body, kind="application/merge-patch+json")
    api.request("DELETE", f"{path}/{made['metadata']['name']}")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("mo", "A served model that Retune keeps at its best."),
        ("mo.spec.rollout.bakeTime", "How long the new version is watched before it counts as champion."),
        ("mo.spec.objectives.goal.type", "Threshold is absolute"),
        ("mo.status.champion.digest", "Digest of the bundle."),
        ("orun.spec.snapshot.search.sampler", "Sampler of the study."),
    ],
)
def test_explain_is_the_reference(api: Api, kubectl: Kubectl, field: str, words: str) -> None:
    """`kubectl explain` knows every level, by the short name."""
    published(api)
    assert words in " ".join(kubectl("explain", field).split())


def test_the_table_tells_how_it_stands(kubectl: Kubectl, stored: Json) -> None:
    """One line a resource: where it is, whether it is well, what serves, what runs, how the last run ended."""
    head, row = kubectl("get", "mo", stored["metadata"]["name"]).splitlines()
    columns = "NAME STAGE READY CHAMPION CANDIDATE RUN TRIALS LAST DRIFT QUALITY AGE"
    assert head.split() == columns.split()
    assert row.split()[:-1] == ["table", "Optimizing", "True", "3", "table-r4", "12", "Promoted"]


def test_a_version_that_waits_for_a_person_is_in_the_table(api: Api, kubectl: Kubectl, stored: Json) -> None:
    """Stage and number say that somebody is asked; with `-o wide` the message has digest and command."""
    path = f"{path_of('retune.dev', 'modeloptimizations')}/{stored['metadata']['name']}"
    waiting = {"version": 4, "uri": "pvc://store/4", "digest": samples.DIGEST}
    said = f"version 4 waits for approval: approve {samples.DIGEST}"
    body = {"status": STATUS | {"stage": "AwaitingApproval", "candidate": waiting, "message": said}}
    api.request("PATCH", f"{path}/status", body, kind="application/merge-patch+json")
    head, row = kubectl("get", "mo", stored["metadata"]["name"], "-o", "wide").splitlines()
    assert row.split()[1] == "AwaitingApproval"
    assert row[head.index("CANDIDATE") :].split()[0] == "4"
    assert row.endswith(said)


def test_the_wide_table_adds_target_and_message(kubectl: Kubectl, stored: Json) -> None:
    """With `-o wide` comes what is long."""
    head, row = kubectl("get", "mo", stored["metadata"]["name"], "-o", "wide").splitlines()
    assert head.split()[-2:] == ["TARGET", "MESSAGE"]
    assert "digits-server" in row
    assert row.endswith("12 of 24 trials")


@pytest.mark.parametrize(
    "name", ["mo", "modeloptimization", "modeloptimizations", "modeloptimizations.retune.dev", "ml"]
)
def test_every_name_finds_it(kubectl: Kubectl, stored: Json, name: str) -> None:
    """Short name, singular, plural, full name, and the category of machine learning kinds."""
    assert stored["metadata"]["name"] in kubectl("get", name, "-o", "name")


def test_it_is_not_in_the_category_all(kubectl: Kubectl, stored: Json) -> None:
    """`kubectl delete all` must not take policies with it."""
    assert stored["metadata"]["name"] not in kubectl("get", "all", "-o", "name")
