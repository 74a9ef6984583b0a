"""The chart's policy about authors, on a real API server with real users.

Whoever writes a ModelOptimization must be allowed to do himself what the operator then does for him. Nothing else of
an object's life is held up.
"""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from retune.api.crd import modeloptimization_crd
from retune.api.spec import TargetRef
from tests import samples
from tests.cluster.accounts import grant, operator_account, person
from tests.cluster.api_cases import changed
from tests.cluster.chart import CHART, helm, rendered
from tests.cluster.harness import MERGE, RESOURCES
from tests.cluster.test_api_cases import run_document
from tools.localcluster.api import Api, ApiError
from tools.localcluster.controlplane import ControlPlane

Json = dict[str, Any]
_FOLDER = "/apis/admissionregistration.k8s.io/v1"
_PATHS = {
    "ValidatingAdmissionPolicy": f"{_FOLDER}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{_FOLDER}/validatingadmissionpolicybindings",
}
_PATIENCE_SECONDS = 60.0


def rule(group: str, resource: str, verbs: str, *names: str) -> Json:
    """One RBAC rule."""
    named = {"resourceNames": list(names)} if names else {}
    return {"apiGroups": [group], "resources": [resource], "verbs": verbs.split()} | named


WRITE = rule("retune.dev", "modeloptimizations", "create get update patch delete")
PATCH = rule("apps", "deployments", "patch", "digits-server")
PODS = rule("", "pods", "create")
SECRET = rule("", "secrets", "get", "bucket")
WITH_SECRET = {"execution": {"credentials": {"secretName": "bucket"}}}


@dataclass(frozen=True)
class Place:
    """A namespace in which a policy counts."""

    plane: ControlPlane
    namespace: str

    @property
    def admin(self) -> Api:
        """The cluster's administrator."""
        return Api(self.plane.kubeconfig)

    def person(self, name: str, *rules: Json) -> Api:
        """A user who may write ModelOptimizations, and what these rules add."""
        return person(self.plane, name, namespace=self.namespace, rules=[WRITE, *rules])

    def path(self, name: str = "", query: str = "") -> str:
        """URL path of the ModelOptimizations, or of one of them."""
        return f"{RESOURCES}/namespaces/{self.namespace}/modeloptimizations" + (f"/{name}" if name else "") + query

    def document(self, name: str, **spec: Any) -> Json:
        """A ModelOptimization of this namespace."""
        return samples.manifest(**spec) | {"metadata": {"name": name, "namespace": self.namespace}}

    def refusal(self, user: Api, document: Json) -> str:
        """What the server says to a user who creates this in a dry run; empty where it accepts."""
        return refusal(user, "POST", self.path(query="?dryRun=All"), document)

    def changes(self, user: Api, name: str, **spec: Any) -> str:
        """What it says to a user who changes these fields of a spec in a dry run."""
        return refusal(user, "PATCH", self.path(name, "?dryRun=All"), {"spec": spec}, kind=MERGE)


def refusal(user: Api, method: str, path: str, body: Json, *, kind: str = "application/json") -> str:
    """The words of a refusal; empty where the request is accepted."""
    try:
        user.request(method, path, body, kind=kind)
    except ApiError as error:
        return str(error)
    return ""


def opened(plane: ControlPlane) -> Place:
    """A new namespace."""
    place = Place(plane, f"authors-{uuid.uuid4().hex[:8]}")
    place.admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": place.namespace}})
    return place


@contextmanager
def governed(place: Place, *settings: str) -> Iterator[Place]:
    """The place, once a release's policy counts in it: when somebody without any right is refused."""
    with enforced(
        place, policies_of(rendered(f"watchNamespaces={{{place.namespace}}}", *settings, release=place.namespace))
    ):
        yield place


@contextmanager
def enforced(place: Place, policies: Sequence[Json]) -> Iterator[None]:
    """The same with objects that are rendered already."""
    for each in policies:
        place.admin.request("POST", _PATHS[each["kind"]], each)
    stranger = place.person(f"stranger-{place.namespace}")
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while "may not patch" not in place.refusal(stranger, place.document("probe")):
        assert time.monotonic() < deadline, "the policy has not become effective"
        time.sleep(0.05)
    try:
        yield
    finally:
        for each in policies:
            place.admin.request("DELETE", f"{_PATHS[each['kind']]}/{each['metadata']['name']}")


def policies_of(documents: Sequence[Json]) -> list[Json]:
    """The policy and its binding."""
    return [each for each in documents if each["kind"] in _PATHS]


@pytest.fixture(scope="module")
def place(plane: ControlPlane) -> Iterator[Place]:
    """A namespace under the policy as it is by default."""
    with governed(opened(plane)) as found:
        yield found


@pytest.fixture(scope="module")
def author(place: Place) -> Api:
    """A user with every right that the operator uses for him."""
    return place.person("author", PATCH, PODS, SECRET)


@pytest.fixture(scope="module")
def editor(place: Place) -> Api:
    """A user who may write ModelOptimizations and nothing else."""
    return place.person("editor", rule("retune.dev", "modeloptimizations/status", "patch"))


@pytest.fixture
def stored(place: Place, author: Api) -> Iterator[str]:
    """Name of a ModelOptimization that the author has made."""
    name = f"mo-{uuid.uuid4().hex[:8]}"
    author.request("POST", place.path(), place.document(name, **WITH_SECRET))
    yield name
    refusal(place.admin, "DELETE", place.path(name), {})


def test_an_author_with_the_rights_creates_and_changes(place: Place, author: Api, stored: str) -> None:
    """Whoever may do himself what is asked for is not in the way of the policy, whatever he changes."""
    assert place.changes(author, stored, mode="RecommendOnly", manualNonce="1") == ""


def test_a_generated_name_is_no_way_around(place: Place, author: Api, editor: Api) -> None:
    """An object that gets its name from the server is judged like any other."""
    document = place.document("")
    document["metadata"] = {"generateName": "digits-", "namespace": place.namespace}
    assert place.refusal(author, document) == ""
    assert "editor may not patch Deployment digits-server" in place.refusal(editor, document)


@pytest.mark.parametrize(
    ("name", "rules", "words"),
    [
        ("without-target", (PODS, SECRET), "may not patch Deployment digits-server in namespace {}, which spec.target"),
        ("without-pods", (PATCH, SECRET), "may not create pods in namespace {}"),
        (
            "without-secret",
            (PATCH, PODS),
            "may not get Secret bucket in namespace {}, which spec.execution.credentials",
        ),
    ],
)
def test_who_lacks_a_right_is_told_which(
    place: Place, stored: str, name: str, rules: Sequence[Json], words: str
) -> None:
    """The refusal names user, verb, object and what to do, and it is the same for creating and for changing."""
    user = place.person(name, *rules)
    for answer in (
        place.refusal(user, place.document("digits", **WITH_SECRET)),
        place.changes(user, stored, mode="RecommendOnly"),
    ):
        assert answer.startswith("403")
        assert f"{name} {words.format(place.namespace)}" in answer
        assert "ask for a role with verb" in answer


def test_rights_elsewhere_do_not_count(place: Place) -> None:
    """The right to patch another workload, or to get another Secret, is no right to these."""
    other = place.person("neighbour", rule("apps", "deployments", "patch", "other"), PODS, SECRET)
    assert "may not patch Deployment digits-server" in place.refusal(other, place.document("digits"))
    assert place.refusal(other, place.document("digits", target={"ref": {"name": "other"}})) == ""


def test_nobody_points_a_resource_at_what_he_may_not_use(place: Place, author: Api, stored: str) -> None:
    """An author with rights to the old Secret has none to a new one; a target never changes at all."""
    other = {"credentials": {"secretName": "other"}}
    assert "author may not get Secret other" in place.changes(author, stored, execution=other)
    assert "target.ref is immutable" in place.changes(author, stored, target={"ref": {"name": "other"}})


@pytest.mark.parametrize(
    "spec",
    [{"mode": "ObserveOnly"}, {"manualNonce": "again"}, {"execution": None}],
    ids=["changed", "added", "removed"],
)
def test_a_spec_is_changed_by_entitled_people_only(place: Place, editor: Api, stored: str, spec: Json) -> None:
    """It does not matter whether a field is changed, added or taken away."""
    assert "editor may not patch" in place.changes(editor, stored, **spec)


def test_what_asks_for_nothing_new_is_free(place: Place, editor: Api, stored: str) -> None:
    """Labels, annotations, suspending and how much history is kept need no further right."""
    meta = {"labels": {"team": "a"}, "annotations": {"note": "b"}}
    assert refusal(editor, "PATCH", place.path(stored), {"metadata": meta}, kind=MERGE) == ""
    assert place.changes(editor, stored, suspend=True, history={"failedRuns": 9}) == ""


def test_a_deletion_is_never_held_up(place: Place, editor: Api, stored: str) -> None:
    """Neither the deletion nor the removal of a finalizer from what is being deleted, by whoever may do that."""
    held = {"metadata": {"finalizers": ["example.com/hold"]}}
    editor.request("PATCH", place.path(stored), held, kind=MERGE)
    assert editor.request("DELETE", place.path(stored))["metadata"]["deletionTimestamp"]
    editor.request("PATCH", place.path(stored), {"metadata": {"finalizers": None}}, kind=MERGE)
    with pytest.raises(ApiError, match="404"):
        editor.get(place.path(stored))


def test_subresources_are_no_way_around(place: Place, editor: Api, stored: str) -> None:
    """A spec that is sent to the status subresource is dropped, and there is no scale subresource."""
    status = {"spec": {"execution": {"image": "evil:1"}}, "status": {"stage": "Monitoring"}}
    answer = editor.request("PATCH", place.path(f"{stored}/status"), status, kind=MERGE)
    assert answer["status"]["stage"] == "Monitoring"
    assert "image" not in place.admin.get(place.path(stored))["spec"]["execution"]
    scale = {"spec": {"replicas": 2}}
    assert refusal(place.admin, "PATCH", place.path(f"{stored}/scale"), scale, kind=MERGE).startswith("404")


def test_the_operator_writes_what_it_writes(place: Place, stored: str, tmp_path: Path) -> None:
    """Status, finalizers and runs pass with the rights of its own account, which may not create pods."""
    home = place.namespace
    own = operator_account(place.admin, place.plane.kubeconfig, tmp_path, release=home, home=home, watched=home)
    with own as kubeconfig:
        operator = Api(kubeconfig)
        status = {"status": {"stage": "Baselining"}}
        operator.request("PATCH", place.path(f"{stored}/status"), status, kind=MERGE)
        for finalizers in (["retune.dev/undo"], None):
            operator.request("PATCH", place.path(stored), {"metadata": {"finalizers": finalizers}}, kind=MERGE)
        run = run_document()
        run["metadata"]["namespace"] = place.namespace
        operator.request("POST", f"{RESOURCES}/namespaces/{place.namespace}/optimizationruns?dryRun=All", run)


def test_a_gitops_controller_is_judged_by_its_own_account(place: Place) -> None:
    """Its apply passes with the rights of an author, and is refused without them by the account's full name."""
    place.admin.request("POST", f"/api/v1/namespaces/{place.namespace}/serviceaccounts", {"metadata": {"name": "flux"}})
    account = {"kind": "ServiceAccount", "name": "flux", "namespace": place.namespace}
    controller = Api(place.plane.service_account_kubeconfig(place.namespace, "flux"))
    full = f"system:serviceaccount:{place.namespace}:flux may not patch Deployment digits-server"
    apply = (
        "PATCH",
        place.path("digits", "?dryRun=All&fieldManager=flux&force=true"),
        place.document("digits", **WITH_SECRET),
    )

    grant(place.admin, "flux", namespace=place.namespace, rules=[WRITE], subject=account)
    assert full in eventually(controller, *apply, unlike="cannot")
    grant(place.admin, "flux", namespace=place.namespace, rules=[WRITE, PATCH, PODS, SECRET], subject=account)
    assert eventually(controller, *apply, unlike="may not") == ""


def eventually(user: Api, method: str, path: str, document: Json, *, unlike: str) -> str:
    """What the server says to an apply once these words, of rights that have not arrived yet, are gone from it."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while unlike in (answer := refusal(user, method, path, document, kind="application/apply-patch+yaml")):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


# --- allow lists -----------------------------------------------------------------------------------------------------

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
        "techniques.container.image",
    }
    assert {path for path in every if "secret" in path.lower()} == {"execution.credentials.secretName"}


def test_every_kind_of_target_is_known_to_the_policy() -> None:
    """A kind that the spec can name has the resource whose patch is asked for."""
    (policy, _) = policies_of(rendered())
    (known,) = [each["expression"] for each in policy["spec"]["variables"] if each["name"] == "workloads"]
    kinds = TargetRef.model_json_schema()["properties"]["kind"]
    assert set(kinds.get("enum", [kinds.get("const")])) == set(yaml.safe_load(known))


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
    """A repository with any tag or digest, or all below a path; for Jobs and for training containers alike."""
    for spec in ({"execution": {"image": image}}, {"techniques": training(image)}):
        answer = says(listed, samples.manifest(**spec))
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


# --- the switch ------------------------------------------------------------------------------------------------------


def test_the_policy_can_be_switched_off_and_softened() -> None:
    """Off means that nothing of it is installed; Warn and Audit let everything pass."""
    assert policies_of(rendered("admissionPolicy.enabled=false")) == []
    (_, binding) = policies_of(rendered("admissionPolicy.validationActions={Warn,Audit}"))
    assert binding["spec"]["validationActions"] == ["Warn", "Audit"]
    assert "matchResources" not in binding["spec"]


@pytest.mark.parametrize(
    ("versions", "made"),
    [
        ((), True),
        (("v1/Pod",), False),
        (("v1/Pod", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"), True),
    ],
    ids=["nobody was asked", "not served", "served"],
)
def test_it_is_made_where_the_server_serves_it(versions: Sequence[str], *, made: bool) -> None:
    """A cluster without the kind takes the rest of the chart; a plain `helm template` never leaves the policy out."""
    flags = [flag for version in versions for flag in ("--api-versions", version)]
    done = helm("template", "retune", str(CHART), *flags)
    assert bool(policies_of([each for each in yaml.safe_load_all(done.stdout) if each])) is made
