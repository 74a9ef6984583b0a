"""What the real API server says of a ModelOptimization: good objects pass, bad ones are refused with a sentence.

The last tests take every rule away in turn and show that a case notices: no rule is there for nothing.
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
from tests.localcluster.api import Api, ApiError

Json = dict[str, Any]
ACCEPTED = (*api_cases.ACCEPTED, *watch_cases.ACCEPTED)
REFUSED = (*api_cases.REFUSED, *watch_cases.REFUSED)
_STRICT = "fieldValidation=Strict&dryRun=All"
_ABSENT = 404


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
    stored = api.request("POST", f"{path}?{_STRICT}", samples.manifest() | {"status": {"stage": "Monitoring"}})
    assert "status" not in stored


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


def rules_of(node: Json, path: str = "", keys: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...], int, str]]:
    """Every rule below a schema: field path, keys that lead to it, index and sentence."""
    for index, rule in enumerate(node.get("x-kubernetes-validations", ())):
        yield path, keys, index, rule["message"]
    for name, inner in node.get("properties", {}).items():
        yield from rules_of(inner, f"{path}.{name}".lstrip("."), (*keys, "properties", name))
    if "items" in node:
        yield from rules_of(node["items"], f"{path}[0]", (*keys, "items"))


def schema_of(crd: Json) -> Json:
    """The schema of the only version."""
    found: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def without(crd: Json, keys: tuple[str, ...], index: int, group: str) -> Json:
    """The CRD without one rule, in a group and under a plural of its own: kubectl must not take it for the real one."""
    mutant = copy.deepcopy(crd)
    mutant["metadata"]["name"] = f"mutants.{group}"
    mutant["spec"]["group"] = group
    names = mutant["spec"]["names"]
    mutant["spec"]["names"] = {
        "kind": names["kind"],
        "listKind": names["listKind"],
        "plural": "mutants",
        "singular": "mutant",
    }
    node = schema_of(mutant)
    for key in keys:
        node = node[key]
    del node["x-kubernetes-validations"][index]
    return mutant


RULES = list(rules_of(schema_of(modeloptimization_crd())))


@pytest.fixture(scope="module")
def mutants(api: Api) -> Iterator[dict[int, str]]:
    """One CRD a rule, each in a group of its own and without that rule; the group by the rule's number."""
    groups = {number: f"m{number}.mutants.retune.dev" for number in range(len(RULES))}
    crds = [
        without(modeloptimization_crd(), RULES[number][1], RULES[number][2], group) for number, group in groups.items()
    ]
    with established(api, crds):
        yield groups


@pytest.mark.timeout(480)  # the first of them waits for a CRD a rule
@pytest.mark.parametrize("number", range(len(RULES)), ids=[f"{path or 'root'}: {words}" for path, _, _, words in RULES])
def test_every_rule_is_missed_when_it_is_gone(api: Api, mutants: dict[int, str], number: int) -> None:
    """Without the rule, the real API server accepts what the rule's own cases send."""
    path, _, _, sentence = RULES[number]
    own = [case for case in REFUSED if case.at == path and str(case.says) in sentence]
    assert own, f"no case for the rule at {path or 'the root'}: {sentence}"
    assert [send(api, case, group=mutants[number], plural="mutants") for case in own] == [None] * len(own)


def test_a_run_could_be_changed_without_its_rule(api: Api) -> None:
    """The one rule of OptimizationRun is what keeps history as it was."""
    group = "r0.mutants.retune.dev"
    (found,) = rules_of(schema_of(optimizationrun_crd()))
    with established(api, [without(optimizationrun_crd(), found[1], found[2], group)]):
        path = path_of(group, "mutants")
        stored = api.request("POST", path, run_document(group))
        stored["spec"]["number"] = 2
        changed_run = api.request("PUT", f"{path}/{stored['metadata']['name']}", stored)
    assert changed_run["spec"]["number"] == 2
