"""`retune proposal`: what is to be changed in Git, in the form in which the target is declared there.

Nothing is changed by it. It shows the version that waits, or where one that others have merged failed, the way back.
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.api.status import ConditionType
from retune.api.target import ConfigMapKey
from retune.cli.access import AccessError, Cluster, parsed
from retune.cli.follow import Exit
from retune.cli.output import dump
from retune.cluster.errors import NotFound
from retune.plan.observed import Container
from retune.plan.rollout.proposing import REVERT_PROPOSED
from retune.targets import TargetKind, kind_of

FORMS = ("patch", "kustomize", "helm", "json")


@dataclass(frozen=True)
class Proposal:
    """The field that names the model, and its value."""

    version: int
    why: str
    """A sentence."""
    target: TargetKind
    namespace: str
    name: str
    """Name of the target."""
    container: str | None
    """None where the field is no variable of a container, but one of KServe's, or a key of a ConfigMap."""
    variable: str
    value: str | None
    """None takes the variable out."""
    is_init: bool = False
    """Whether the container runs before the others."""
    key: ConfigMapKey | None = None
    """The key of a ConfigMap that is the field, and in whose object the change is then."""

    @property
    def changed(self) -> Json:
        """The object that is to be changed, by apiVersion, kind and name."""
        if self.key is not None:
            return {"apiVersion": "v1", "kind": "ConfigMap", "name": self.key.name}
        return {"apiVersion": self.target.api_version, "kind": self.target.kind, "name": self.name}

    @property
    def place(self) -> str:
        """What is to be changed, in words."""
        return f"{self.variable} of container {self.container}" if self.container else self.variable

    @property
    def is_mergeable(self) -> bool:
        """Whether the patch can be applied as it is: it has no list, or the target's lists are merged by name."""
        return self.container is None or self.target.merges_lists

    @property
    def entry(self) -> Json:
        """The variable as an entry of the container's `env`, for a strategic merge."""
        if self.value is None:
            return {"name": self.variable, "$patch": "delete"}
        return {"name": self.variable, "value": self.value}

    @property
    def patch(self) -> Json:
        """The patch of the object that has the field, whose lists are to be merged by name."""
        changed = self.changed
        head = {name: changed[name] for name in ("apiVersion", "kind")}
        head |= {"metadata": {"name": changed["name"], "namespace": self.namespace}}
        if self.key is not None:
            return head | {"data": {self.key.key: self.value}}
        containers = [{"name": self.container, "env": [self.entry]}]
        own = {"template": {"spec": {"initContainers" if self.is_init else "containers": containers}}}
        return head | {"spec": own if self.container else {"predictor": {"model": {"storageUri": self.value}}}}


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the subparsers that argparse's `add_subparsers` returned."""
    text = "show what to change in Git for the version that waits, or to take back one that failed"
    sub = commands.add_parser("proposal", parents=[common], help=text)
    sub.add_argument("name", metavar="NAME", help="a ModelOptimization")
    forms = "patch: a strategic merge patch (default); kustomize: an entry of `patches`; helm: values; json: the parts"
    sub.add_argument("-o", "--output", choices=FORMS, default="patch", help=forms)
    sub.set_defaults(command=show_proposal)


def show_proposal(cluster: Cluster, arguments: argparse.Namespace, _: Console) -> int:
    """Print the proposal in the form that was asked for."""
    resource = parsed(cluster.resource(arguments.name))
    proposal = _proposal(cluster, resource)
    if proposal is None:
        sys.stderr.write(f"nothing is proposed for {resource.key} ({resource.status.message or 'not looked at yet'})\n")
        return Exit.BAD_OUTCOME
    if arguments.output == "patch" and not proposal.is_mergeable:
        raise AccessError(_no_patch(proposal))
    if arguments.output == "json":
        dump(_document(proposal), "json")
    else:
        sys.stdout.write(_text(proposal, arguments.output))
    return Exit.DONE


def _no_patch(proposal: Proposal) -> str:
    """Return why there is no patch to apply, and what is to be changed, as a sentence."""
    kind = proposal.target.kind
    change = f"take {proposal.place} out" if proposal.value is None else f"set {proposal.place} to {proposal.value}"
    return (
        f"a patch of a {kind} replaces the list of containers whole: {change} in the manifest of {kind} "
        f"{proposal.name}, or take -o kustomize, helm or json"
    )


def _document(proposal: Proposal) -> Json:
    """Return the parts for programs; a patch only where it can be applied as it is."""
    parts = {"version": proposal.version, "why": proposal.why, "namespace": proposal.namespace}
    entry = {"container": proposal.container, "variable": proposal.variable, "value": proposal.value}
    return parts | {"target": proposal.changed} | entry | ({"patch": proposal.patch} if proposal.is_mergeable else {})


def _proposal(cluster: Cluster, resource: ModelOptimization) -> Proposal | None:
    status, target = resource.status, resource.spec.target
    shown = next((known for known in status.conditions if known.type == ConditionType.ROLLED_OUT), None)
    is_revert = shown is not None and shown.reason == REVERT_PROPOSED
    version = status.champion if is_revert else status.candidate
    if version is None or (status.rollout is not None and not is_revert):
        return None
    container, is_init = _container(cluster, resource) if target.injection.is_variable else (None, False)
    return Proposal(
        version=version.version,
        why=shown.message if shown else f"version {version.version} of {resource.key} has passed the gate",
        target=kind_of(target.ref),
        namespace=resource.metadata.namespace,
        name=target.ref.name,
        container=container,
        variable=target.injection.field,
        value=version.injected_value,
        is_init=is_init,
        key=target.injection.config_map,
    )


def _container(cluster: Cluster, resource: ModelOptimization) -> tuple[str, bool]:
    """Return the container that loads the model, and whether it runs before the others.

    One that the spec names needs no look at the target: where that cannot be read, it is taken for one that runs.

    Raises:
        AccessError: None is named, and the target cannot be read, or has none or several.
    """
    named = resource.spec.target.container
    try:
        found = _found(cluster, resource)
    except AccessError:
        if named is None:
            raise
        return named, False
    return found.name, found.is_init


def _found(cluster: Cluster, resource: ModelOptimization) -> Container:
    target, namespace = resource.spec.target, resource.metadata.namespace
    kind, name = kind_of(target.ref), f"{target.ref.kind} {target.ref.name}"
    try:
        raw = cluster.call("GET", kind.path(namespace=namespace, name=target.ref.name))
    except NotFound as error:
        raise AccessError(f"there is no {name} in namespace {namespace}") from error
    found = kind.parse(raw, variable=target.injection.name)
    container = found.container(target.container)
    if container is None:
        names = [known.name for known in found.containers if target.container or not known.is_init]
        raise AccessError(
            f"{name} has containers {', '.join(names) or 'of another object'}: name one in spec.target.container"
        )
    return container


def _text(proposal: Proposal, form: str) -> str:
    """Return YAML for people and for Git, with the reason as a comment."""
    reason = " ".join(proposal.why.split())
    body = {"patch": proposal.patch, "kustomize": _kustomize(proposal), "helm": _helm(proposal)}[form]
    return f"# {reason}\n{_hint(proposal, form)}{yaml.safe_dump(body, sort_keys=False, width=10_000)}"


_HELM_HINT = (
    "# Put this where your chart takes the environment of container {} from; many call the key env or extraEnv.\n"
)


_PLACE_HINT = "# Put this where your chart takes the model's place from.\n"
_KUSTOMIZE_HINT = (
    "# The kustomization needs the schema of {0}s (`openapi: {{path: ...}}`), by which lists are merged by name.\n"
    "# Without it, kustomize puts these lists in place of the containers and variables that the {0} has.\n"
)


def _hint(proposal: Proposal, form: str) -> str:
    """Return what is to be known before a form is used, as lines of comments."""
    if form == "helm":
        return _HELM_HINT.format(proposal.container) if proposal.container else _PLACE_HINT
    is_replaced = form == "kustomize" and not proposal.is_mergeable
    return _KUSTOMIZE_HINT.format(proposal.target.kind) if is_replaced else ""


def _kustomize(proposal: Proposal) -> Json:
    changed = proposal.changed
    group, _, version = changed["apiVersion"].rpartition("/")
    named = {"version": version, "kind": changed["kind"], "name": changed["name"]}
    target = ({"group": group} if group else {}) | named
    return {"patches": [{"target": target, "patch": yaml.safe_dump(proposal.patch, sort_keys=False, width=10_000)}]}


def _helm(proposal: Proposal) -> Json:
    if proposal.key is not None:
        return {proposal.key.key: proposal.value}
    if proposal.container is None:
        return {"storageUri": proposal.value}
    return {"env": [proposal.entry] if proposal.value is not None else []}
