"""What a person's kubeconfig says, for commands that act with the caller's own rights."""

from kubernetes import config as official_config

DEFAULT = "default"


def current_namespace(context: str | None = None) -> str:
    """Return the namespace of a context (the current one by default); `default` where it names none."""
    try:
        contexts, active = official_config.list_kube_config_contexts()
    except official_config.ConfigException:
        return DEFAULT
    named = (entry for entry in contexts if entry["name"] == context)
    chosen = active if context is None else next(named, None)
    return str(chosen["context"].get("namespace") or DEFAULT) if chosen else DEFAULT
