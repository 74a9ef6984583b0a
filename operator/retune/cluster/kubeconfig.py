"""What a person's kubeconfig says, for commands that act with the caller's own rights."""

from kubernetes import client as official
from kubernetes import config as official_config

from retune.cluster.client import configuration

DEFAULT = "default"


class NoCluster(Exception):  # noqa: N818 - named after what it says of the machine
    """There is no kubeconfig, or it has no such context."""


def of_caller(context: str | None = None) -> official.Configuration:
    """Return the client's configuration for a context of the kubeconfig (the current one by default)."""
    try:
        return configuration(context=context)
    except official_config.ConfigException as error:
        raise NoCluster(f"no cluster to talk to ({error}): set KUBECONFIG, or check --context") from error


def current_namespace(context: str | None = None) -> str:
    """Return the namespace of a context (the current one by default); `default` where it names none."""
    try:
        contexts, active = official_config.list_kube_config_contexts()
    except official_config.ConfigException:
        return DEFAULT
    found = active if context is None else next((each for each in contexts if each["name"] == context), None)
    return str(found["context"].get("namespace") or DEFAULT) if found else DEFAULT
