"""What a person's kubeconfig says, for commands that act with the caller's own rights."""

from kubernetes import config as official_config

DEFAULT = "default"


def current_namespace(context: str | None = None) -> str:
    """Return the namespace of a context (the current one by default); `default` where it names none."""
    try:
        contexts, active = official_config.list_kube_config_contexts()
    except official_config.ConfigException:
        return DEFAULT
    found = active if context is None else next((each for each in contexts if each["name"] == context), None)
    return str(found["context"].get("namespace") or DEFAULT) if found else DEFAULT
