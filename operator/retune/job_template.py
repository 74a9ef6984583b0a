"""What the administrator gives the pod of every Job: one document, checked whole when the operator starts.

It can say where pods run, as whom, and what they are given on the way; it has no field by which a pod could leave Pod
Security `restricted`, and none that changes what the Job does.
"""

import json
import re
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from retune.api.base import ApiModel, Json, Memory, ObjectName
from retune.api.quantities import memory_bytes

ASSIGNED = "Assigned"
"""Value of runAsUser by which a Job has no user of ours: the platform gives it one, as OpenShift does by namespace."""

_PREFIX = r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?"
_KEY = re.compile(rf"{_PREFIX}[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_OURS = re.compile(
    r"app\.kubernetes\.io/managed-by|([-a-z0-9.]+\.)?retune\.dev/.*|kueue\.x-k8s\.io/.*|batch\.kubernetes\.io/.*"
    r"|controller-uid|job-name"
)
"""Labels and annotations that Retune, its queue or the Job controller set and read."""
_UNCONFINING = re.compile(r"(container\.apparmor\.security\.beta|(container\.)?seccomp\.security\.alpha)\..*")
"""Annotations by which a pod could leave Pod Security `restricted`."""
_RESERVED_VARIABLES = re.compile(
    r"RETUNE_.*|HOME|TMPDIR|MPLCONFIGDIR|DO_NOT_TRACK|ORT_DISABLE_TELEMETRY|PYTHON.*|LD_.*|PATH"
    r"|AWS_EC2_METADATA_DISABLED|(OMP|OPENBLAS|MKL|NUMEXPR)_NUM_THREADS"
)
"""Variables that Retune sets, or that decide which code runs."""
_PROXIES = frozenset({"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"})
_POD_FIELDS = (
    "priorityClassName",
    "runtimeClassName",
    "serviceAccountName",
    "imagePullSecrets",
    "topologySpreadConstraints",
)
_SHOWN = 3
_WORDS = {
    "extra_forbidden": "there is no such field",
    "missing": "it is missing",
    "model_type": "give a mapping of fields",
    "dict_type": "give a mapping of fields",
    "tuple_type": "give a list",
    "string_type": "give a text",
    "int_type": "give a whole number",
    "greater_than_equal": "give {ge} or more",
    "less_than_equal": "give {le} or less",
    "literal_error": "give {expected}",
    "string_pattern_mismatch": "it has characters that it must not have",
}
_METADATA_LIMIT = 16 << 10
"""Bytes of all annotations: the request needs most of the 256 KiB that Kubernetes allows."""


class TemplateError(ValueError):
    """The template cannot be used; the message is a sentence that names the field."""


class Part(ApiModel):
    """A part of the template: a field that is not known is an error, because it would silently do nothing."""

    model_config = ConfigDict(extra="forbid")


class Expression(Part):
    """A requirement on a label."""

    key: str
    """Key of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How the values are meant; Gt and Lt compare whole numbers of nodes' labels."""
    values: tuple[str, ...] | None = None
    """Values to compare with."""

    @model_validator(mode="after")
    def _fit(self) -> "Expression":
        _checked_key(self.key)
        if (self.operator in {"Exists", "DoesNotExist"}) == bool(self.values):
            raise ValueError(f"operator {self.operator} {'takes no' if self.values else 'needs'} values")
        if self.operator in {"Gt", "Lt"} and not re.fullmatch(r"\d+", "".join(self.values or ())):
            raise ValueError(f"operator {self.operator} needs one whole number, as a string")
        return self


class Selector(Part):
    """Which pods, or namespaces, are meant, by their labels."""

    match_labels: dict[str, str] | None = None
    """Labels that they have."""
    match_expressions: tuple[Expression, ...] | None = None
    """Further requirements."""

    @field_validator("match_labels")
    @classmethod
    def _are_labels(cls, labels: dict[str, str] | None) -> dict[str, str] | None:
        return checked_labels(labels or {}) or labels


class NodeTerm(Part):
    """Nodes, by their labels or names."""

    match_expressions: tuple[Expression, ...] | None = None
    """Requirements on labels."""
    match_fields: tuple[Expression, ...] | None = None
    """Requirements on fields, such as metadata.name."""


class NodeTerms(Part):
    """Nodes of which any may be taken."""

    node_selector_terms: tuple[NodeTerm, ...] = Field(min_length=1)
    """Alternatives."""


Weight = Annotated[int, Field(strict=True, ge=1, le=100)]


class WeightedNodes(Part):
    """Nodes that are preferred."""

    weight: Weight
    """How much."""
    preference: NodeTerm
    """Which."""


class NodeAffinity(Part):
    """Nodes for Jobs."""

    required_during_scheduling_ignored_during_execution: NodeTerms | None = None
    """Nodes that may be taken."""
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedNodes, ...] | None = None
    """Nodes that are preferred."""


class PodTerm(Part):
    """Pods that a Job's pod is put beside, or apart from."""

    topology_key: str = Field(min_length=1)
    """Label of nodes that says what beside means."""
    label_selector: Selector | None = None
    """Which pods."""
    namespaces: tuple[str, ...] | None = None
    """Their namespaces; left out, the Job's own."""
    namespace_selector: Selector | None = None
    """The same by labels."""
    match_label_keys: tuple[str, ...] | None = None
    """Labels whose value must be the pod's own."""
    mismatch_label_keys: tuple[str, ...] | None = None
    """Labels whose value must be another."""


class WeightedPods(Part):
    """Pods whose nearness, or distance, is preferred."""

    weight: Weight
    """How much."""
    pod_affinity_term: PodTerm
    """Which."""


class PodAffinity(Part):
    """Pods that count, for affinity or against it."""

    required_during_scheduling_ignored_during_execution: tuple[PodTerm, ...] | None = None
    """What must hold."""
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPods, ...] | None = None
    """What is preferred."""


class Affinity(Part):
    """Where Jobs' pods run in relation to nodes and other pods."""

    node_affinity: NodeAffinity | None = None
    """Nodes."""
    pod_affinity: PodAffinity | None = None
    """Pods to be near."""
    pod_anti_affinity: PodAffinity | None = None
    """Pods to be apart from."""


class Spread(Part):
    """How Jobs' pods are spread."""

    max_skew: Annotated[int, Field(strict=True, ge=1)]
    """Most by which places may differ."""
    topology_key: str = Field(min_length=1)
    """Label of nodes that says what a place is."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    """Whether a pod waits or is placed all the same."""
    label_selector: Selector | None = None
    """Pods that are counted."""
    min_domains: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Fewest places."""
    match_label_keys: tuple[str, ...] | None = None
    """Labels whose value must be the pod's own."""
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    """Whether nodes that the pod cannot take count."""
    node_taints_policy: Literal["Honor", "Ignore"] | None = None
    """Whether tainted nodes count."""


class Reference(Part):
    """An object in the Job's namespace."""

    name: ObjectName
    """Its name."""


class Variable(Part):
    """An environment variable."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)
    """Its name."""
    value: str = Field(max_length=4096)
    """Its value."""

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if _RESERVED_VARIABLES.fullmatch(name):
            raise ValueError(f"{name} is set by Retune, or decides which code runs: take it out")
        return name


class ConfigMapKey(Part):
    """A key of a ConfigMap in the Job's namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: str = Field(default="ca.crt", pattern=r"^[-._a-zA-Z0-9]{1,253}$")
    """Key in it."""


class Storage(Part):
    """Storage of the node that a Job's container is promised, and the most it may use."""

    request: Memory | None = None
    """Amount promised."""
    limit: Memory | None = None
    """Most it may use, its scratch folder and logs together."""

    @model_validator(mode="after")
    def _fit(self) -> "Storage":
        if self.request and self.limit and memory_bytes(self.request) > memory_bytes(self.limit):
            raise ValueError("request must not exceed limit")
        return self


class PodTemplate(Part):
    """What every Job's pod is given besides what the Job itself needs."""

    labels: dict[str, str] = Field(default={})
    """Labels of the pods."""
    annotations: dict[str, str] = Field(default={})
    """Annotations of the pods."""
    priority_class_name: ObjectName | None = None
    """Priority of the pods."""
    runtime_class_name: ObjectName | None = None
    """How the nodes run them, such as in a sandbox."""
    service_account_name: ObjectName | None = None
    """Service account in the Job's namespace, for workload identity. Its token is never mounted."""
    image_pull_secrets: tuple[Reference, ...] = Field(default=(), max_length=16)
    """Secrets in the Job's namespace with which images are pulled."""
    affinity: Affinity | None = None
    """Nodes and neighbours."""
    topology_spread_constraints: tuple[Spread, ...] = Field(default=(), max_length=16)
    """How pods are spread."""
    env: tuple[Variable, ...] = Field(default=(), max_length=64)
    """Environment variables, such as those that name a proxy."""
    ca_certificates: ConfigMapKey | None = None
    """Authorities that Jobs trust besides the usual ones, as PEM."""
    ephemeral_storage: Storage = Storage()
    """Storage of the node."""
    scratch_size: Memory = "4Gi"
    """Size of the scratch folder of Jobs whose resource names none."""
    store_access: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    """Whether one node at a time may mount the claims of stores: pods are then put beside those that have it."""
    run_as_user: Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)] | Literal["Assigned"] = 65532
    """User, group and group of volumes; never root. Assigned leaves all three to the platform."""

    @field_validator("labels")
    @classmethod
    def _are_free_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        return checked_labels({_free(key): value for key, value in labels.items()})

    @field_validator("annotations")
    @classmethod
    def _are_free_annotations(cls, annotations: dict[str, str]) -> dict[str, str]:
        for key in annotations:
            _checked_key(_free(key))
            if _UNCONFINING.fullmatch(key):
                raise ValueError(f"{key} could take a pod out of Pod Security restricted: take it out")
        if sum(len(key) + len(value.encode()) for key, value in annotations.items()) > _METADATA_LIMIT:
            raise ValueError(f"all together have more than {_METADATA_LIMIT} bytes")
        return annotations

    @field_validator("scratch_size")
    @classmethod
    def _is_some(cls, size: str) -> str:
        if memory_bytes(size) <= 0:
            raise ValueError("must be above zero")
        return size

    @property
    def names_proxies(self) -> bool:
        """Whether a variable names a proxy."""
        return any(variable.name.upper() in _PROXIES for variable in self.env)

    @property
    def pod_fields(self) -> Json:
        """The fields of the pod's spec that are the template's alone."""
        fields = self.to_dict()
        return {name: fields[name] for name in _POD_FIELDS if fields.get(name)}

    @property
    def security(self) -> Json:
        """The pod's user and groups."""
        if self.run_as_user == ASSIGNED:
            return {}
        names = ("runAsUser", "runAsGroup", "fsGroup")
        return dict.fromkeys(names, self.run_as_user) | {"fsGroupChangePolicy": "OnRootMismatch"}


def parse_template(text: str) -> PodTemplate:
    """Return the template that a JSON document describes; raises TemplateError."""
    try:
        return PodTemplate.model_validate(mapping_in(text))
    except ValidationError as error:
        raise TemplateError(sentence_of(error)) from error


def mapping_in(text: str) -> Json:
    """Return the mapping that a JSON document is, and an empty one where there is none; raises TemplateError."""
    try:
        document = json.loads(text or "{}", parse_constant=partial(_refuse_word, "is no JSON"))
    except ValueError as error:
        raise TemplateError(f"it is no JSON document: {error}") from error
    if not isinstance(document, dict):
        raise TemplateError("it is not a mapping of fields")
    return document


def _refuse_word(why: str, word: str) -> Any:
    raise ValueError(f"{word} {why}")


def sentence_of(error: ValidationError) -> str:
    """Return what is wrong with each field; what a field of several forms could be is told once."""
    faults: dict[str, list[str]] = {}
    for fault in error.errors(include_url=False):
        path = ".".join(str(part) for part in fault["loc"] if not str(part).startswith(("constrained", "literal")))
        faults.setdefault(path or "it", []).append(_words(fault))
    return "; ".join(f"{path}: {' or '.join(words)}" for path, words in list(faults.items())[:_SHOWN])


def _words(fault: Any) -> str:
    """Return what is wrong with one value in plain words, where pydantic's own are those of its library."""
    known = _WORDS.get(fault["type"])
    return known.format(**fault.get("ctx", {})) if known else fault["msg"].removeprefix("Value error, ")


def _free(key: str) -> str:
    if _OURS.fullmatch(key):
        raise ValueError(f"{key} is set by Retune or Kubernetes: take it out")
    return key


def _checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key of a label: letters, digits and - _ . in at most 63 characters")
    return key


def checked_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return labels; raises ValueError where the API server would not take one."""
    for key, value in labels.items():
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{_checked_key(key)} has {value!r}: letters, digits and - _ . in at most 63 characters")
        _checked_key(key)
    return labels
