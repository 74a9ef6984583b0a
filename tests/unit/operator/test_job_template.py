"""What an administrator gives every Job's pod: taken whole or refused at the start, and never less restricted."""

import json
from typing import Any

import pytest

from retune.job_template import PodTemplate, TemplateError, parse_template
from retune.settings import Settings, SettingsError
from tests.jobs_given import EVERYTHING

Json = dict[str, Any]


def test_nothing_given_changes_nothing() -> None:
    """An empty document, and none, are the template of an operator that was told nothing."""
    assert parse_template("{}") == parse_template("") == Settings().pod_template == PodTemplate()


def test_everything_that_can_be_given_is_read_back_as_it_was() -> None:
    """No field is lost or renamed on the way to the pod."""
    assert parse_template(json.dumps(EVERYTHING)).to_dict() == EVERYTHING


@pytest.mark.parametrize(
    "document,says",
    [
        ("{", "it is no JSON document"),
        ("[]", "it is not a mapping"),
        ('{"scratchSize": NaN}', "it is no JSON document"),
        ({"priorityClass": "high"}, "priorityClass: there is no such field"),
        ({"securityContext": {"privileged": True}}, "securityContext: there is no such field"),
        ({"hostNetwork": True}, "hostNetwork: there is no such field"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "volumes: there is no such field"),
        ({"runAsUser": 0}, "runAsUser: give 1 or more or give 'Assigned'"),
        ({"runAsUser": True}, "runAsUser"),
        ({"runAsUser": "root"}, "runAsUser: give a whole number or give 'Assigned'"),
        ({"caCertificates": "ca"}, "caCertificates: give a mapping of fields"),
        ({"env": {"A": "b"}}, "env: give a list"),
        ({"serviceAccountName": "Not A Name"}, "serviceAccountName: a name has lower-case letters"),
        ({"labels": {"team": "a b"}}, "labels: team has 'a b'"),
        ({"labels": {"team": "x" * 64}}, "in at most 63 characters"),
        ({"labels": {"x" * 64: "a"}}, "is no key of a label"),
        ({"labels": {"retune.dev/resource": "x"}}, "is set by Retune or Kubernetes"),
        ({"labels": {"app.kubernetes.io/managed-by": "helm"}}, "is set by Retune or Kubernetes"),
        ({"labels": {"batch.kubernetes.io/job-name": "x"}}, "is set by Retune or Kubernetes"),
        ({"annotations": {"retune.dev/request": "{}"}}, "is set by Retune or Kubernetes"),
        ({"annotations": {"note": "x" * 20_000}}, "all together have more than 16384 bytes"),
        (
            {"annotations": {"container.apparmor.security.beta.kubernetes.io/optimizer": "unconfined"}},
            "Pod Security restricted",
        ),
        ({"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}, "Pod Security restricted"),
        ({"env": [{"name": "RETUNE_PRIVATE_ADDRESSES", "value": "Allow"}]}, "env.0.name: RETUNE_PRIVATE_ADDRESSES"),
        ({"env": [{"name": "LD_PRELOAD", "value": "/x"}]}, "decides which code runs"),
        ({"env": [{"name": "X", "valueFrom": {}}]}, "env.0.valueFrom: there is no such field"),
        ({"scratchSize": "much"}, "scratchSize: a memory quantity"),
        ({"scratchSize": "0"}, "scratchSize: must be above zero"),
        ({"ephemeralStorage": {"request": "2Gi", "limit": "1Gi"}}, "request must not exceed limit"),
        (
            {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}},
            "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        ),
        (
            {"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "Wait"}]},
            "topologySpreadConstraints.0.whenUnsatisfiable",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_start_in_words(document: Any, says: str) -> None:
    """The sentence names the variable, the chart's value and the field; nothing waits for the first Job."""
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(SettingsError) as error:
        Settings.from_environment({"RETUNE_JOB_TEMPLATE": text})
    assert says in str(error.value)
    assert "RETUNE_JOB_TEMPLATE (the chart's jobs.podTemplate)" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("operator,values", [("In", None), ("Exists", ["a"]), ("Gt", ["many"])])
def test_a_requirement_on_labels_must_make_sense(operator: str, values: list[str] | None) -> None:
    """The API server would refuse it with the first Job."""
    expression = {"key": "zone", "operator": operator} | ({} if values is None else {"values": values})
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    with pytest.raises(TemplateError, match=operator):
        parse_template(json.dumps({"affinity": affinity}))
