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
from retune.cli.access import AccessError, Cluster, parsed
from retune.cli.follow import Exit
from retune.cli.output import dump
from retune.cluster.errors import NotFound
from retune.plan.rollout.proposing import REVERT_PROPOSED

FORMS = ("patch", "kustomize", "helm", "json")
_DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments/{}"


@dataclass(frozen=True)
class Proposal:
    """One variable of one container, and its value."""

    version: int
    why: str
    """A sentence."""
    namespace: str
    deployment: str
    container: str
    variable: str
    value: str | None
    """None takes the variable out."""

    @property
    def entry(self) -> Json:
        """The variable as an entry of the container's `env`, for a strategic merge."""
        if self.value is None:
            return {"name": self.variable, "$patch": "delete"}
        return {"name": self.variable, "value": self.value}

    @property
    def patch(self) -> Json:
        """The strategic merge patch of the Deployment."""
        containers = [{"name": self.container, "env": [self.entry]}]
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.deployment, "namespace": self.namespace},
            "spec": {"template": {"spec": {"containers": containers}}},
        }


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
    if arguments.output == "json":
        dump(vars(proposal) | {"patch": proposal.patch}, "json")
    else:
        sys.stdout.write(_text(proposal, arguments.output))
    return Exit.DONE


def _proposal(cluster: Cluster, resource: ModelOptimization) -> Proposal | None:
    status, target = resource.status, resource.spec.target
    shown = next((known for known in status.conditions if known.type == ConditionType.ROLLED_OUT), None)
    is_revert = shown is not None and shown.reason == REVERT_PROPOSED
    version = status.champion if is_revert else status.candidate
    if version is None or (status.rollout is not None and not is_revert):
        return None
    return Proposal(
        version=version.version,
        why=shown.message if shown else f"version {version.version} of {resource.key} has passed the gate",
        namespace=resource.metadata.namespace,
        deployment=target.ref.name,
        container=target.container or _only_container(cluster, resource),
        variable=target.injection.name,
        value=version.injected_value,
    )


def _only_container(cluster: Cluster, resource: ModelOptimization) -> str:
    """Return the container of a target that has one; raises AccessError where there is none or several."""
    name = resource.spec.target.ref.name
    try:
        raw = cluster.call("GET", _DEPLOYMENTS.format(resource.metadata.namespace, name))
    except NotFound as error:
        raise AccessError(f"there is no Deployment {name} in namespace {resource.metadata.namespace}") from error
    containers = [container["name"] for container in raw["spec"]["template"]["spec"]["containers"]]
    if len(containers) != 1:
        raise AccessError(
            f"Deployment {name} has containers {', '.join(containers)}: name one in spec.target.container"
        )
    return str(containers[0])


def _text(proposal: Proposal, form: str) -> str:
    """Return YAML for people and for Git, with the reason as a comment."""
    reason = " ".join(proposal.why.split())
    body = {"patch": proposal.patch, "kustomize": _kustomize(proposal), "helm": _helm(proposal)}[form]
    hint = _HELM_HINT.format(proposal.container) if form == "helm" else ""
    return f"# {reason}\n{hint}{yaml.safe_dump(body, sort_keys=False, width=10_000)}"


_HELM_HINT = (
    "# Put this where your chart takes the environment of container {} from; many call the key env or extraEnv.\n"
)


def _kustomize(proposal: Proposal) -> Json:
    target = {"group": "apps", "version": "v1", "kind": "Deployment", "name": proposal.deployment}
    return {"patches": [{"target": target, "patch": yaml.safe_dump(proposal.patch, sort_keys=False, width=10_000)}]}


def _helm(proposal: Proposal) -> Json:
    return {"env": [proposal.entry] if proposal.value is not None else []}
