"""What the real API server says of a ModelOptimization: good objects pass, bad ones are refused with a sentence.

The last tests show of every rule that something would pass if it were gone: no rule is there for nothing.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from tests import samples
from tests.cluster import api_cases, watch_cases
from tests.cluster.api_cases import Case, changed
from tests.cluster.crds import established, path_of
from tools.localcluster.api import Api, ApiError

Json = dict[str, Any]
ACCEPTED = (*api_cases.ACCEPTED, *watch_cases.ACCEPTED)
REFUSED = (*api_cases.REFUSED, *watch_cases.REFUSED)
_STRICT = "fieldValidation=Strict&dryRun=All"
SEVERAL = "is invalid: ["
"""How the server begins a list of more than one complaint."""


def send(api: Api, case: Case, *, group: str = "retune.dev", plural: str = "modeloptimizations") -> str | None:
    """What the server says against the case's object in a dry run; None when it accepts."""
    path = path_of(group, plural)
    document = case.document() | {"apiVersion": f"{group}/v1alpha1"}
    try:
        if case.before is None:
            api.request("POST", f"{path}?{_STRICT}", document)
        else:
            update(api, path, changed(case.before) | {"apiVersion": document["apiVersion"]}, document)
    except ApiError as error:
        return str(error)
    return None


def update(api: Api, path: str, before: Json, after: Json) -> None:
    """Store `before` for a moment and try to change it into `after`."""
    stored = api.request("POST", f"{path}?fieldValidation=Strict", before)
    address = f"{path}/{stored['metadata']['name']}"
    try:
        merged = after | {"metadata": stored["metadata"]}
        api.request("PUT", f"{address}?{_STRICT}", merged)
    finally:
        api.request("DELETE", address)


def says(answer: str | None, case: Case) -> bool:
    """Whether the answer names the case's field and has its sentence."""
    return answer is not None and case.at in answer and str(case.says) in answer


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_good_objects_are_accepted(api: Api, case: Case) -> None:
    """What the documentation allows, the server takes, with unknown fields forbidden."""
    assert send(api, case) is None


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_bad_objects_are_refused_with_a_sentence(api: Api, case: Case) -> None:
    """The answer names the field and says what is wrong in words that lead to the remedy."""
    answer = send(api, case)
    assert says(answer, case), answer


@pytest.mark.parametrize("case", [case for case in REFUSED if case.says], ids=lambda case: case.name)
def test_no_refusal_shows_a_rule_that_broke(api: Api, case: Case) -> None:
    """A rule that cannot be evaluated on a malformed value answers in the language of the rule, not of the user."""
    answer = send(api, case) or ""
    assert not re.search(r"evaluating rule|no such overload|no such key|type conversion error|runtime error", answer)


def test_everything_that_is_wrong_is_told_at_once(api: Api) -> None:
    """Two broken rules are two complaints, so that nobody mends an object sentence by sentence."""
    both = watch_cases.watching(window="1s", minSamples=5000, maxSamples=1000)
    answer = send(api, Case("two faults", {"spec.monitoring": both})) or ""
    assert SEVERAL in answer
    assert "monitoring.window must lie between" in answer
    assert "monitoring.minSamples must not exceed" in answer


def test_defaults_are_filled_in(api: Api) -> None:
    """The smallest object comes back with what a careful engineer would have chosen."""
    path = path_of("retune.dev", "modeloptimizations")
    spec = api.request("POST", f"{path}?{_STRICT}", samples.manifest())["spec"]
    assert "objectives" not in spec, "they depend on the task, so the operator fills them in"
    assert spec["target"]["injection"] == {"type": "EnvVar", "name": "MODEL_URI", "takeover": "Refuse"}
    assert (spec["mode"], spec["suspend"], spec["deletionPolicy"]) == ("Automatic", False, "KeepChampion")
    assert (spec["search"]["maxTrials"], spec["execution"]["runTimeout"]) == (24, "2h")


def test_a_status_is_written_only_through_its_subresource(api: Api) -> None:
    """A status in a user's manifest is dropped, so that nobody can claim what was never observed."""
    path = path_of("retune.dev", "modeloptimizations")
    claimed = {"stage": "Monitoring", "nextRun": 7}
    stored = api.request("POST", f"{path}?{_STRICT}", samples.manifest() | {"status": claimed})
    status = stored.get("status", {})
    assert (status.get("stage"), status.get("nextRun", 1)) == (None, 1)


def test_a_run_cannot_be_changed(api: Api) -> None:
    """History stays as it was written."""
    path = path_of("retune.dev", "optimizationruns")
    stored = api.request("POST", path, run_document())
    address = f"{path}/{stored['metadata']['name']}"
    try:
        stored["spec"]["number"] = 2
        with pytest.raises(ApiError, match="an OptimizationRun's spec is immutable"):
            api.request("PUT", address, stored)
    finally:
        api.request("DELETE", address)


def run_document(group: str = "retune.dev") -> Json:
    """An OptimizationRun."""
    spec = samples.MANIFEST["spec"]
    return {
        "apiVersion": f"{group}/v1alpha1",
        "kind": "OptimizationRun",
        "metadata": {"name": "digits-r1"},
        "spec": {
            "number": 1,
            "trigger": {"reason": "Initial", "message": "first run"},
            "specGeneration": 1,
            "specHash": "abc",
            "championVersion": 1,
            "championDigest": samples.DIGEST,
            "snapshot": {"model": spec["model"], "data": spec["data"], "objectives": [{"metric": "size_bytes"}]},
        },
    }


# --- every rule is needed --------------------------------------------------------------------------------------------


def rules_of(node: Json, path: str = "") -> Iterator[tuple[str, str]]:
    """Every rule below a schema: field path and sentence."""
    for rule in node.get("x-kubernetes-validations", ()):
        yield path, rule["message"]
    for name, inner in node.get("properties", {}).items():
        yield from rules_of(inner, f"{path}.{name}".lstrip("."))
    if "items" in node:
        yield from rules_of(node["items"], f"{path}[0]")


def schema_of(crd: Json) -> Json:
    """The schema of the only version."""
    found: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def lawless(crd: Json, group: str) -> Json:
    """The CRD without rules, in a group and under a plural of its own: kubectl must not take it for the real one."""
    twin = copy.deepcopy(crd)
    names = twin["spec"]["names"]
    twin["metadata"]["name"] = f"{PLURAL}.{group}"
    twin["spec"]["group"] = group
    twin["spec"]["names"] = {"kind": names["kind"], "listKind": names["listKind"], "plural": PLURAL, "singular": "twin"}
    _drop_rules(schema_of(twin))
    return twin


def _drop_rules(node: Json) -> None:
    node.pop("x-kubernetes-validations", None)
    for inner in node.get("properties", {}).values():
        _drop_rules(inner)
    if "items" in node:
        _drop_rules(node["items"])


PLURAL = "twins"
RULES = list(rules_of(schema_of(modeloptimization_crd())))


@pytest.fixture(scope="module")
def without_rules(api: Api) -> Iterator[str]:
    """Group of a ModelOptimization's twin that has its structure and none of its rules."""
    group = "lawless.retune.dev"
    with established(api, [lawless(modeloptimization_crd(), group)]):
        yield group


@pytest.mark.parametrize(("path", "sentence"), RULES, ids=[f"{path or 'root'}: {words}" for path, words in RULES])
def test_every_rule_would_be_missed(api: Api, without_rules: str, path: str, sentence: str) -> None:
    """What the rule's own cases send is refused by this rule alone, and by nothing where there are no rules.

    The server evaluates every rule and lists all that are broken, so a list of one shows that no other would refuse.
    """
    own = [case for case in REFUSED if case.at == path and str(case.says) in sentence]
    assert own, f"no case for the rule at {path or 'the root'}: {sentence}"
    for case in own:
        assert SEVERAL not in str(send(api, case))
        assert send(api, case, group=without_rules, plural=PLURAL) is None


def test_a_run_could_be_changed_without_its_rule(api: Api) -> None:
    """The one rule of OptimizationRun is what keeps history as it was."""
    group = "lawless-runs.retune.dev"
    assert len(list(rules_of(schema_of(optimizationrun_crd())))) == 1
    with established(api, [lawless(optimizationrun_crd(), group)]):
        path = path_of(group, PLURAL)
        stored = api.request("POST", path, run_document(group))
        stored["spec"]["number"] = 2
        changed_run = api.request("PUT", f"{path}/{stored['metadata']['name']}", stored)
    assert changed_run["spec"]["number"] == 2
