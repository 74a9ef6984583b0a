"""`spec.target`: the workload that serves the model, the one field of it that Retune owns, and how it is asked."""

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from retune.api.base import ApiModel, ObjectName, Rule, Text, rules

TARGET_KINDS = ("StatefulSet", "Rollout", "InferenceService")
"""Kinds of targets that an operator has to be set up for; Deployment is not among them, as it always is."""


class Takeover(StrEnum):
    """What to do when another manager already owns the field that names the model."""

    REFUSE = "Refuse"
    FORCE = "Force"


class TargetRef(ApiModel):
    """The workload that serves the model, in the resource's own namespace."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.apiVersion == (self.kind == 'Rollout' ? 'argoproj.io/v1alpha1' : "
                "self.kind == 'InferenceService' ? 'serving.kserve.io/v1beta1' : 'apps/v1')",
                "target.ref: kind Rollout is of apiVersion argoproj.io/v1alpha1, kind InferenceService of "
                "serving.kserve.io/v1beta1, the others of apps/v1",
            )
        )
    )

    api_version: Literal["apps/v1", "argoproj.io/v1alpha1", "serving.kserve.io/v1beta1"] = "apps/v1"
    """API version of the workload."""
    kind: Literal["Deployment", "StatefulSet", "Rollout", "InferenceService"] = "Deployment"
    """Kind of the workload. The chart's value targets says which kinds the operator is set up for."""
    name: ObjectName
    """Name of the workload."""


_RESERVED = (
    "PATH|HOME|SHELL|ENV|IFS|BASH_.*|LD_.*|DYLD_.*|GCONV_PATH|LOCPATH|GLIBC_TUNABLES|MALLOC_.*|HOSTALIASES|RES_OPTIONS|"
    "NODE_PATH|CLASSPATH|JAVA_HOME|.*_OPTIONS|.*_OPTS|PYTHON.*|PERL.*|RUBY.*|PHP.*|LUA_.*|R_.*|GIT_.*|SSH_.*|"
    ".*_PROXY|SSL_CERT_.*|.*_CA_BUNDLE|NODE_EXTRA_CA_CERTS|OPENSSL_.*|KUBERNETES_.*|KUBECONFIG|AWS_.*|GOOGLE_.*|AZURE_.*"
)
"""Variables that decide which code a process loads, which servers it talks to or whom it believes, without regard to
upper and lower case."""


def is_reserved(variable: str) -> bool:
    """Return whether an environment variable may never name a model, because something else than a server reads it."""
    return re.fullmatch(_RESERVED, variable, re.IGNORECASE) is not None


class InjectionType(StrEnum):
    """How the server learns which model to load."""

    ENV_VAR = "EnvVar"
    """From an environment variable of its container."""
    STORAGE_URI = "StorageUri"
    """From KServe, which mounts what spec.predictor.model.storageUri of an InferenceService names."""
    CONFIG_MAP = "ConfigMap"
    """From an agent beside it, which follows a key of a ConfigMap, while the pod runs on."""


class ConfigMapKey(ApiModel):
    """A key of a ConfigMap in the resource's own namespace, and where the agents that follow it answer."""

    name: Annotated[
        ObjectName,
        Rule("self == oldSelf", "target.injection.configMap.name is immutable: create another ModelOptimization"),
    ]
    """Name of the ConfigMap, which is never created or deleted."""
    key: Annotated[
        str,
        Text(
            pattern=r"[A-Za-z0-9._-]+",
            max_length=253,
            message="a key of a ConfigMap has letters, digits and . _ -",
        ),
        Rule("self == oldSelf", "target.injection.configMap.key is immutable: create another ModelOptimization"),
    ]
    """The key below `data`, whose value is the URI of a bundle, or empty."""
    agent_port: int = Field(default=8090, ge=1, le=65535)
    """HTTP port of the agent in each pod of the target, `python -m retune_runtime follow`."""


class Injection(ApiModel):
    """The one field that Retune owns: the one that names the model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.type == 'EnvVar' || self.name == 'MODEL_URI'",
                "target.injection.name is the name of a variable, which only type EnvVar has: leave it out",
            ),
            (
                "(self.type == 'ConfigMap') == has(self.configMap)",
                "target.injection.configMap names the ConfigMap and the key of type ConfigMap, and belongs to no other",
            ),
            (
                "self.type != 'ConfigMap' || self.takeover == 'Force'",
                "a key of a ConfigMap is owned by whoever has made it: set target.injection.takeover to Force, so that "
                "the first version can go live",
            ),
        )
    )

    type: Annotated[
        InjectionType,
        Rule("self == oldSelf", "target.injection.type is immutable: create another ModelOptimization"),
    ] = InjectionType.ENV_VAR
    """How the server learns which model to load: EnvVar, from a variable of its container; StorageUri, from KServe,
    which mounts what spec.predictor.model.storageUri of an InferenceService names; ConfigMap, from an agent beside it,
    which follows a key of a ConfigMap while the pod runs on."""
    name: Annotated[
        str,
        Text(
            pattern=r"[A-Za-z_][A-Za-z0-9_]*",
            max_length=128,
            message="an environment variable's name has letters, digits and _, and does not start with a digit",
        ),
        Rule("self == oldSelf", "target.injection.name is immutable: create another ModelOptimization"),
        Rule(
            f"!self.matches('(?i)^({_RESERVED})$')",
            "target.injection.name is a variable that loaders, interpreters or network libraries read: name one "
            "that only the server reads, such as MODEL_URI",
        ),
    ] = "MODEL_URI"
    """Name of the environment variable."""
    config_map: ConfigMapKey | None = None
    """The key of a ConfigMap, with type ConfigMap."""
    takeover: Takeover = Takeover.REFUSE
    """Refuse stops with FieldConflict when another manager owns the field; Force takes it over."""

    @property
    def is_variable(self) -> bool:
        """Whether the field is an environment variable of a container."""
        return self.type is InjectionType.ENV_VAR

    @property
    def field(self) -> str:
        """What a sentence calls the field, and the variable's name where it is one."""
        if self.config_map is not None:
            return f"key {self.config_map.key} of ConfigMap {self.config_map.name}"
        return self.name if self.is_variable else "spec.predictor.model.storageUri"


class Inference(ApiModel):
    """How golden requests reach the served model: by the Open Inference Protocol v2 over HTTP."""

    port: int = Field(default=8080, ge=1, le=65535)
    """HTTP port of the server's pods."""
    model_name: Annotated[
        str,
        Text(
            pattern=r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?",
            max_length=128,
            message="a served model's name has letters, digits and _ . -, and starts and ends with a letter or digit",
        ),
    ]
    """Name under which the server serves the model."""


class Target(ApiModel):
    """The workload that serves the model, and how a new version is given to it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(self.injection.type == 'StorageUri') == (self.ref.kind == 'InferenceService')",
                "target.injection.type StorageUri is for kind InferenceService, and EnvVar for the others",
            ),
            (
                "self.injection.type != 'ConfigMap' || self.ref.kind in ['Deployment', 'StatefulSet']",
                "target.injection.type ConfigMap is for pods that run on, of a Deployment or StatefulSet: take EnvVar "
                "for another kind of target",
            ),
        )
    )

    ref: Annotated[
        TargetRef,
        Field(
            json_schema_extra=rules(
                ("self == oldSelf", "target.ref is immutable: create another ModelOptimization for it")
            )
        ),
    ]
    """The workload."""
    container: str | None = Field(default=None, min_length=1, max_length=63)
    """Container that loads the model; may be left out where the pod has only one beside init containers. May be one of
    these."""
    injection: Injection = Injection()
    """The field that names the model."""
    inference: Inference | None = None
    """How to ask the server golden requests after a rollout. Left out: readiness alone decides."""
