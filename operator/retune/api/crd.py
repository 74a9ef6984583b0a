"""Turn the typed models into CustomResourceDefinitions.

The models are the only source. The generated schema is structural, as the API server demands: references are written
out and optional fields lose their null branch. Every field has a description: `kubectl explain` is the reference.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from retune.api import GROUP, VERSION
from retune.api.base import Json, rules
from retune.api.objects import OptimizationRunSpec, OptimizationRunStatus
from retune.api.spec import ModelOptimizationSpec
from retune.api.status import ModelOptimizationStatus

_RULES = "x-kubernetes-validations"
_FIRST = ("description", "type")
_DROPPED = {"title", "$defs"}
_UNSEEN = {"observedGeneration": -1}
"""Status of a resource that no operator has looked at; kstatus would take one without a word in it for reconciled."""
_NAME_RULE = rules(
    (
        "size(self.metadata.name) <= 40 && !self.metadata.name.contains('.')",
        "metadata.name must have at most 40 characters and no dot: the names of Jobs are made from it",
    )
)


def modeloptimization_crd() -> Json:
    """Return the CRD of ModelOptimization."""
    columns = [
        _column("Stage", "string", ".status.stage"),
        _column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
        _column("Champion", "integer", ".status.champion.version"),
        _column("Candidate", "integer", ".status.candidate.version"),
        _column("Run", "string", ".status.run.name"),
        _column("Trials", "integer", ".status.run.trials.done"),
        _column("Last", "string", ".status.lastRun.outcome"),
        _column("Drift", "string", ".status.monitoring.driftShare"),
        _column("Quality", "string", ".status.monitoring.quality"),
        _column("Age", "date", ".metadata.creationTimestamp"),
        _column("Target", "string", ".spec.target.ref.name", priority=1),
        _column("Message", "string", ".status.message", priority=1),
    ]
    schema = _object(ModelOptimizationSpec, ModelOptimizationStatus, "A served model that Retune keeps at its best.")
    schema["properties"]["status"]["default"] = _UNSEEN
    return _crd("ModelOptimization", "modeloptimizations", ["mo"], columns, schema | _NAME_RULE)


def optimizationrun_crd() -> Json:
    """Return the CRD of OptimizationRun."""
    columns = [
        _column("Run", "integer", ".spec.number"),
        _column("Trigger", "string", ".spec.trigger.reason"),
        _column("Outcome", "string", ".status.outcome"),
        _column("Trials", "integer", ".status.trials.done"),
        _column("Age", "date", ".metadata.creationTimestamp"),
        _column("Message", "string", ".status.message", priority=1),
    ]
    schema = _object(OptimizationRunSpec, OptimizationRunStatus, "One attempt to improve a model, kept as history.")
    snapshot = schema["properties"]["spec"]["properties"]
    snapshot["snapshot"] = _without_rules(snapshot["snapshot"])
    return _crd("OptimizationRun", "optimizationruns", ["orun"], columns, schema)


def _without_rules(node: Any) -> Any:
    """Return the schema without CEL rules.

    A snapshot copies what was admitted, perhaps under older rules. Tighter ones must not keep it from being recorded.
    """
    if isinstance(node, Mapping):
        return {key: _without_rules(value) for key, value in node.items() if key != _RULES}
    return [_without_rules(item) for item in node] if isinstance(node, list) else node


def _without_defaults(node: Json) -> Json:
    """Return the schema without defaults of fields.

    A user fills in no status, and the operator knows the defaults: written out, they would make every object larger.
    """
    bare = {key: value for key, value in node.items() if key != "default"}
    if "properties" in node:
        bare["properties"] = {name: _without_defaults(inner) for name, inner in node["properties"].items()}
    if "items" in node:
        bare["items"] = _without_defaults(node["items"])
    return bare


def _column(name: str, kind: str, path: str, *, priority: int = 0) -> Json:
    return {"name": name, "type": kind, "jsonPath": path} | ({"priority": priority} if priority else {})


def _object(spec: type[BaseModel], status: type[BaseModel], description: str) -> Json:
    return {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the schema this object is written in."},
            "kind": {"type": "string", "description": "Kind of this object."},
            "metadata": {"type": "object"},
            "spec": structural(spec),
            "status": _without_defaults(structural(status)),
        },
    }


def _crd(kind: str, plural: str, short: list[str], columns: list[Json], schema: Json) -> Json:
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower(), "shortNames": short}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "labels": {"app.kubernetes.io/name": "retune"}},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names | {"categories": ["ml"]}, "versions": [version]},
    }


def structural(model: type[BaseModel]) -> Json:
    """Return the structural schema of a model: an OpenAPI v3 schema without references, null types or titles."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _resolve(schema, schema.get("$defs", {}))


def _resolve(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Json:
    """Write out references and null branches below `node`; siblings of a reference win over what it refers to."""
    if "$ref" in node:
        target = _resolve(defs[node["$ref"].rsplit("/", 1)[-1]], defs)
        own = _resolve({key: value for key, value in node.items() if key != "$ref"}, defs)
        return _merge(target, own)
    if "anyOf" in node:
        branches = [branch for branch in node["anyOf"] if branch.get("type") != "null"]
        own = {key: value for key, value in node.items() if key != "anyOf"}
        return _merge(_resolve(branches[0], defs), _resolve(own, defs))
    return _fields(node, defs)


def _merge(target: Json, own: Json) -> Json:
    merged = target | own
    if _RULES in target and _RULES in own:
        merged[_RULES] = target[_RULES] + own[_RULES]
    if isinstance(merged.get("default"), Mapping) and "properties" in merged:
        merged["default"] = _written_out(merged)
    return _ordered(merged)


def _written_out(schema: Json) -> Json:
    """Return an object's default without what its own fields leave to the operator."""
    fields, required = schema["properties"], schema.get("required", ())
    return {name: value for name, value in schema["default"].items() if "default" in fields[name] or name in required}


def _fields(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Json:
    out: Json = {}
    for key, value in node.items():
        if key in _DROPPED or (key == "default" and value is None):
            continue
        if key == "const":
            out["enum"] = [value]
        elif key == "default":
            out[key] = _without_nulls(value)
        elif key == "properties":
            out[key] = {name: _resolve(field, defs) for name, field in value.items()}
        elif key in {"items", "additionalProperties"} and isinstance(value, Mapping):
            out[key] = _resolve(value, defs)
        else:
            out[key] = value
    return _flat(out)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _flat(schema: Json) -> Json:
    """Write descriptions on one line, and first."""
    if isinstance(schema.get("description"), str):
        schema["description"] = " ".join(schema["description"].split())
    if schema.get("type") == "object" and schema.get("additionalProperties") is False:
        del schema["additionalProperties"]
    return _ordered(schema)


def _ordered(schema: Json) -> Json:
    return {key: schema[key] for key in _FIRST if key in schema} | schema
