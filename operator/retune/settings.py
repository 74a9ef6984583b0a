"""The operator's settings, read once from environment variables that the chart sets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from retune import __version__
from retune.api.base import ObjectName, StoreUri
from retune.api.quantities import memory_bytes
from retune.api.target import TARGET_KINDS
from retune.contract.paths import claim_of
from retune.job_profiles import Profile, parse_profiles
from retune.job_template import PodTemplate, TemplateError, parse_template
from retune.plan.observed import Defaults

_PREFIX = "RETUNE_"
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PRIVATE_ADDRESSES = ("Allow", "Refuse")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LEASE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class SettingsError(ValueError):
    """A variable has a value that cannot be used."""


@dataclass(frozen=True)
class Server:
    """A Prometheus server that resources may name."""

    url: str
    """Address without a trailing slash; paths such as /prometheus are kept."""
    token_file: str | None = None
    """File with a bearer token, read at each request."""
    namespaces: tuple[str, ...] = ()
    """Namespaces whose resources may ask it anything that its token may; `*` for all."""
    parameter: str | None = None
    """Parameter by which it confines an answer to the namespace of whoever asks, as prom-label-proxy and the tenancy
    port of OpenShift's monitoring do."""

    def answers(self, namespace: str) -> bool:
        """Return whether a resource of this namespace may ask it."""
        return self.parameter is not None or bool({"*", namespace} & set(self.namespaces))


@dataclass(frozen=True)
class Settings:
    """Every setting; field `x_y` is read from `RETUNE_X_Y`."""

    optimizer_image: str = f"retune/optimizer:{__version__}"
    """Image of the Jobs of resources that name none."""
    monitor_image: str = f"retune/monitor:{__version__}"
    """Image of the Jobs that check windows of production data."""
    artifact_store: str = "pvc://retune-artifacts"
    """Where resources that name no store keep bundles, studies and reports; empty demands that they name one."""
    artifact_store_credentials: str = ""
    """Secret, expected in the namespace of each resource that names none itself, by which its Jobs are known to that
    store where it is in a bucket; empty: by their service account, or not at all."""
    store_quota: str = ""
    """What the folder of one resource may hold in its store, such as 20Gi; empty: whatever there is room for."""
    image_pull_policy: str = "IfNotPresent"
    """When the kubelet pulls the Jobs' image."""
    private_addresses: str = "Refuse"
    """Whether the https:// URIs of models and data may lead to private addresses: Allow or Refuse."""
    records_key: str | None = field(default=None, repr=False)
    """A secret of the administrator, from which the keys are derived that Jobs seal their records in stores by."""
    job_template: str = "{}"
    """What the pod of every Job is given, as the JSON document that `retune.job_template` describes."""
    job_profiles: str = "{}"
    """Nodes and devices that resources may name for their Jobs, as JSON that `retune.job_profiles` describes."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to work in; empty means all."""
    leader_lease: str = ""
    """Lease as NAMESPACE/NAME, whose holder alone of several operators works; empty: this is the only one."""
    target_kinds: tuple[str, ...] = ()
    """Kinds of targets beside Deployment that the operator has the rights for, and watches."""
    workers: int = 16
    """Resources looked at in parallel."""
    api_threads: int = 16
    """Calls to the API server in flight at most."""
    resync_seconds: float = 600.0
    """Seconds between two lists of everything, which do not depend on what the watches say."""
    scrape_seconds: float = 5.0
    """Seconds between two questions to a running search for its progress."""
    prometheus: tuple[str, ...] = ()
    """Prometheus servers that resources may name, each as name=https://host:port."""
    prometheus_tokens: tuple[str, ...] = ()
    """Files with a bearer token for some of them, each as name=/path."""
    prometheus_namespaces: tuple[str, ...] = ()
    """Namespaces whose resources may ask a server, each entry as name=namespace other-namespace; `*` for all."""
    prometheus_parameters: tuple[str, ...] = ()
    """Parameter by which a server confines answers to a namespace, each as name=parameter."""
    notifications: str = ""
    """File that names the receivers of notices; empty: nobody is told."""
    metrics_port: int = 8080
    """Port of /metrics, /healthz and /readyz; 0 picks a free one."""
    named_resources: int = 500
    """ModelOptimizations that metrics name at most, those that need a look first; 0 names none."""
    log_level: str = "INFO"
    """Least level that is logged."""
    kubecontext: str | None = None
    """Context of the kubeconfig to use outside a cluster."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Return the settings; raises SettingsError naming the variable, its value and what it may be."""
        values: dict[str, Any] = {
            field.name: _parsed(field.name, environment[name], like=field.default)
            for field in fields(cls)
            if (name := _PREFIX + field.name.upper()) in environment
        }
        return cls(**values)

    def __post_init__(self) -> None:
        _within("workers", self.workers, 1, 64)
        _within("api_threads", self.api_threads, 1, 64)
        _within("resync_seconds", self.resync_seconds, 1, 86400)
        _within("scrape_seconds", self.scrape_seconds, 0.1, 3600)
        _within("metrics_port", self.metrics_port, 0, 65535)
        _within("named_resources", self.named_resources, 0, 100_000)
        _one_of("image_pull_policy", self.image_pull_policy, _PULL_POLICIES)
        _one_of("private_addresses", self.private_addresses, _PRIVATE_ADDRESSES)
        _one_of("log_level", self.log_level, _LOG_LEVELS)
        _a_quantity("store_quota", self.store_quota)
        _empty_or("artifact_store", self.artifact_store, StoreUri)
        _empty_or("artifact_store_credentials", self.artifact_store_credentials, ObjectName)
        if self.artifact_store_credentials and (not self.artifact_store or claim_of(self.artifact_store)):
            raise SettingsError(
                f"{_PREFIX}ARTIFACT_STORE_CREDENTIALS names a Secret, which is for a store in a bucket only: give "
                f"{_PREFIX}ARTIFACT_STORE such as s3://BUCKET/PATH, or leave it out"
            )
        for kind in self.target_kinds:
            _one_of("target_kinds", kind, TARGET_KINDS)
        _ = self.pod_template, self.profiles
        if self.leader_lease and not _LEASE.fullmatch(self.leader_lease):
            raise SettingsError(f"{_PREFIX}LEADER_LEASE is {self.leader_lease!r}: give NAMESPACE/NAME")
        _checked_servers(self.servers, _pairs("prometheus_tokens", self.prometheus_tokens))

    @cached_property
    def pod_template(self) -> PodTemplate:
        """What the pod of every Job is given; raises SettingsError."""
        try:
            return parse_template(self.job_template)
        except TemplateError as error:
            raise SettingsError(f"{_PREFIX}JOB_TEMPLATE (the chart's jobs.podTemplate): {error}") from error

    @cached_property
    def profiles(self) -> Mapping[str, Profile]:
        """Profiles that resources may name, by name; raises SettingsError."""
        try:
            return parse_profiles(self.job_profiles)
        except TemplateError as error:
            raise SettingsError(f"{_PREFIX}JOB_PROFILES (the chart's jobs.profiles): {error}") from error

    @property
    def lease(self) -> tuple[str, str] | None:
        """Namespace and name of the Lease whose holder works; None without an election."""
        namespace, _, name = self.leader_lease.partition("/")
        return (namespace, name) if name else None

    @property
    def servers(self) -> Mapping[str, Server]:
        """The Prometheus servers that resources may name, by name; raises SettingsError."""
        tokens = _pairs("prometheus_tokens", self.prometheus_tokens)
        namespaces = _pairs("prometheus_namespaces", self.prometheus_namespaces)
        parameters = _pairs("prometheus_parameters", self.prometheus_parameters)
        return {
            name: Server(
                url.rstrip("/"),
                tokens.get(name),
                namespaces=tuple(namespaces.get(name, "").split()),
                parameter=parameters.get(name),
            )
            for name, url in _pairs("prometheus", self.prometheus).items()
        }

    @property
    def defaults(self) -> Defaults:
        """The settings that decisions depend on."""
        kinds, profiles = frozenset({"Deployment", *self.target_kinds}), tuple(self.profiles)
        return Defaults(artifact_store=self.artifact_store or None, profiles=profiles, target_kinds=kinds)


def _parsed(name: str, text: str, *, like: object) -> object:
    if isinstance(like, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(like, int | float):
        return _number(name, text, whole=isinstance(like, int))
    return text if like is not None else text or None


def _number(name: str, text: str, *, whole: bool) -> float:
    try:
        return int(text) if whole else float(text)
    except ValueError as error:
        kind = "a whole number" if whole else "a number"
        raise SettingsError(f"{_PREFIX}{name.upper()} is {text!r}: give {kind}") from error


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SettingsError(f"{_PREFIX}{name.upper()} is {value:g}: it must lie between {low:g} and {high:g}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingsError(f"{_PREFIX}{name.upper()} is {value!r}: it must be one of {', '.join(allowed)}")


def _empty_or(name: str, value: str, kind: Any) -> None:
    try:
        TypeAdapter(kind).validate_python(value) if value else None
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{_PREFIX}{name.upper()} is {value!r}: {why}") from error


def _a_quantity(name: str, value: str) -> None:
    try:
        positive = not value or memory_bytes(value) > 0
    except ValueError:
        positive = False
    if not positive:
        raise SettingsError(f"{_PREFIX}{name.upper()} is {value!r}: give a quantity of bytes, such as 20Gi")


def _pairs(name: str, entries: tuple[str, ...]) -> dict[str, str]:
    """Return a list of name=value as a mapping; names are those of Kubernetes objects, and none comes twice."""
    pairs: dict[str, str] = {}
    for entry in entries:
        key, _, value = entry.partition("=")
        if not _NAME.fullmatch(key) or not value or key in pairs:
            raise SettingsError(f"{_PREFIX}{name.upper()} has {entry!r}: give name=value, and each name once")
        pairs[key] = value
    return pairs


def _checked_servers(servers: Mapping[str, Server], tokens: Mapping[str, str]) -> None:
    variable = f"{_PREFIX}PROMETHEUS"
    for name, server in servers.items():
        if not _is_address(server.url):
            raise SettingsError(f"{variable}: server {name} is {server.url!r}: give https://host:port or http://...")
        if not (server.namespaces or server.parameter):
            raise SettingsError(
                f"{variable}: nobody may ask server {name}: name namespaces in {variable}_NAMESPACES, or in "
                f"{variable}_PARAMETERS the parameter by which it confines answers to one"
            )
    for name, path in tokens.items():
        if name not in servers or not path.startswith("/"):
            raise SettingsError(
                f"{variable}_TOKENS has {name}={path}: give the absolute path of a file, for a server of {variable}"
            )


def _is_address(url: str) -> bool:
    """Whether this is an http(s) address with a host, and without credentials, query and fragment."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
            and not any((parts.username, parts.password, parts.query, parts.fragment))
            and url.isprintable()
            and " " not in url
        )
    except ValueError:
        return False
