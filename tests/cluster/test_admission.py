"""The chart's policy about authors, on a real API server with real users.

Whoever writes a ModelOptimization must be allowed to do himself what the operator then does for him. Nothing else of
an object's life is held up.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from retune.api.target import TargetRef
from tests.cluster.accounts import grant, operator_account
from tests.cluster.chart import CHART, helm, rendered
from tests.cluster.governance import WRITE, Place, governed, opened, policies_of, refusal, rule
from tests.cluster.harness import MERGE, RESOURCES
from tests.cluster.test_api_cases import run_document
from tools.localcluster.api import Api, ApiError
from tools.localcluster.controlplane import ControlPlane

Json = dict[str, Any]
_PATIENCE_SECONDS = 60.0
PATCH = rule("apps", "deployments", "patch", "digits-server")
PODS = rule("", "pods", "create")
SECRET = rule("", "secrets", "get", "bucket")
WITH_SECRET = {"execution": {"credentials": {"secretName": "bucket"}}}


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


@pytest.mark.parametrize("execution", [{}, {"artifactStore": "s3://artifacts/retune"}])
def test_of_the_administrators_own_secret_nothing_is_asked(plane: ControlPlane, execution: Json) -> None:
    """No author names it, so none has to be allowed to read it; one that he names is asked about as ever."""
    settings = ("artifactStore=s3://artifacts/retune", "artifactStoreCredentials=retune-store")
    with governed(opened(plane), *settings) as place:
        user = place.person("without-secret", PATCH, PODS)
        assert place.refusal(user, place.document("digits", execution=execution)) == ""
        named = execution | {"credentials": {"secretName": "retune-store"}}
        assert "may not get Secret retune-store" in place.refusal(user, place.document("digits", execution=named))


def test_the_secret_of_a_registry_is_asked_about_too(place: Place) -> None:
    """Whichever of both an author may not read is named."""
    registry = {"uri": "oci://registry.example/ml/digits", "credentials": {"secretName": "push"}}
    asked = WITH_SECRET | {"registry": registry}
    for number, (rules, words) in enumerate(
        [
            ((SECRET,), "may not get Secret push in namespace {}, which spec.registry.credentials.secretName names"),
            ((rule("", "secrets", "get", "push"),), "may not get Secret bucket in namespace {}, which spec.execution"),
        ]
    ):
        user = place.person(f"pusher-{number}", PATCH, PODS, *rules)
        assert words.format(place.namespace) in place.refusal(user, place.document("digits", **asked))
    both = place.person("pusher", PATCH, PODS, SECRET, rule("", "secrets", "get", "push"))
    assert place.refusal(both, place.document("digits", **asked)) == ""


def test_a_key_takes_the_right_to_change_its_config_map(place: Place) -> None:
    """Of the one that is named, and of no other; whoever has only that of the workload is told."""
    key = {"type": "ConfigMap", "configMap": {"name": "wanted", "key": "uri"}, "takeover": "Force"}
    document = place.document("digits")
    document["spec"]["target"]["injection"] = key
    other = place.person("other-key", PATCH, PODS, rule("", "configmaps", "patch", "other"))
    assert "may not patch ConfigMap wanted in namespace" in place.refusal(other, document)
    assert place.refusal(place.person("key", PATCH, PODS, rule("", "configmaps", "patch", "wanted")), document) == ""


def test_a_canary_takes_the_right_to_make_one(place: Place) -> None:
    """It is a Deployment of the author's choice; no other strategy makes one."""
    canary = {"rollout": {"strategy": "Canary"}}
    roller = place.person("roller", PATCH, PODS)
    assert place.refusal(roller, place.document("digits")) == ""
    answer = place.refusal(roller, place.document("digits", **canary))
    assert f"roller may not create deployments in namespace {place.namespace}" in answer
    assert "ask for a role with verb create on deployments" in answer
    trier = place.person("trier", PATCH, PODS, rule("apps", "deployments", "create"))
    assert place.refusal(trier, place.document("digits", **canary)) == ""


@pytest.mark.parametrize(("strategy", "field"), [("Canary", "canary"), ("BlueGreen", "blueGreen")])
def test_a_trial_by_a_route_takes_the_right_to_change_that_route(place: Place, strategy: str, field: str) -> None:
    """And to make a Service; a route that a strategy does not use takes none."""
    asked = {field: {"traffic": {"kind": "HTTPRoute", "route": {"name": "digits"}}}}
    trial = {"rollout": {"strategy": strategy} | asked}
    rights, mark = [PATCH, PODS], strategy.lower()
    author = place.person(f"maker-{mark}", *rights)
    assert place.refusal(author, place.document("digits", rollout=asked)) == ""
    assert f"which spec.rollout.strategy {strategy} does" in place.refusal(author, place.document("digits", **trial))
    rights.append(rule("apps", "deployments", "create"))
    answer = place.refusal(place.person(f"router-{mark}", *rights), place.document("digits", **trial))
    assert f"router-{mark} may not patch HTTPRoute digits in namespace {place.namespace}" in answer
    rights.append(rule("gateway.networking.k8s.io", "httproutes", "patch", "digits"))
    answer = place.refusal(place.person(f"weigher-{mark}", *rights), place.document("digits", **trial))
    assert f"weigher-{mark} may not create services in namespace {place.namespace}" in answer
    server = place.person(f"server-{mark}", *rights, rule("", "services", "create"))
    assert place.refusal(server, place.document("digits", **trial)) == ""


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
    [{"mode": "ObserveOnly"}, {"manualNonce": "again"}, {"execution": None}, {"history": {"versions": 1}}],
    ids=["changed", "added", "removed", "bundles that are removed"],
)
def test_a_spec_is_changed_by_entitled_people_only(place: Place, editor: Api, stored: str, spec: Json) -> None:
    """It does not matter whether a field is changed, added or taken away."""
    assert "editor may not patch" in place.changes(editor, stored, **spec)


def test_what_asks_for_nothing_new_is_free(place: Place, editor: Api, stored: str) -> None:
    """Labels, annotations and suspending need no further right."""
    meta = {"labels": {"team": "a"}, "annotations": {"note": "b"}}
    assert refusal(editor, "PATCH", place.path(stored), {"metadata": meta}, kind=MERGE) == ""
    assert place.changes(editor, stored, suspend=True) == ""


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


def test_every_kind_of_target_is_known_to_the_policy() -> None:
    """A kind that the spec can name has the resource whose patch is asked for."""
    (policy, _) = policies_of(rendered())
    (known,) = [each["expression"] for each in policy["spec"]["variables"] if each["name"] == "workloads"]
    kinds = TargetRef.model_json_schema()["properties"]["kind"]
    assert set(kinds.get("enum", [kinds.get("const")])) == set(yaml.safe_load(known))


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
