"""The backends of a route's rules, as shares are reckoned from: nothing else of a rule counts for that."""

from retune.api.base import Json
from retune.traffic import Backend, Rule


def backends(rule: Json, *, namespace: str) -> Rule:
    """Return the backends of a rule of a route in this namespace."""
    return tuple(Backend(_name(ref, namespace), ref.get("weight")) for ref in rule.get("backendRefs") or ())


def _name(ref: Json, namespace: str) -> str:
    """Return the name of a Service in the namespace; of anything else, a text with slashes, which no Service has."""
    place = (ref.get("group") or "", ref.get("kind") or "Service", ref.get("namespace") or namespace)
    return str(ref["name"]) if place == ("", "Service", namespace) else "/".join((*place, ref["name"]))
