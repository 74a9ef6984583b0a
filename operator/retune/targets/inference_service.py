"""A KServe InferenceService as target: its field says where the model lies, and KServe makes a Deployment of it.

Whether a version has arrived is read from that Deployment. KServe's own status says Ready all the while, counts old and
new pods together, and notes a generation late.
"""

from collections.abc import Iterable
from typing import Any, Final

from retune.api.base import Json
from retune.plan.observed import Container, Pods, ServingPod, Target
from retune.targets import serving
from retune.targets.base import BESIDE
from retune.targets.deployment import Deployment
from retune.targets.pod_template import SOURCE, owner_of, picked

CONTAINER: Final = "kserve-container"
"""Name that KServe demands of the container which serves."""
_MODE = "serving.kserve.io/deploymentMode"
_STANDARD = {None, "", "Standard", "RawDeployment"}
_PATH = ["f:spec", "f:predictor", "f:model", "f:storageUri"]
_BESIDE_MODEL = ("canary", "canaryTrafficPercent", "workerSpec", "storageUris")
"""Fields of the predictor, or of the spec, that make other pods than those of the one Deployment."""


class InferenceService:
    """`serving.kserve.io/v1beta1` InferenceService in Standard mode."""

    api_version = "serving.kserve.io/v1beta1"
    kind = "InferenceService"
    resource = "inferenceservices"
    merges_lists = False

    def __init__(self) -> None:
        self._deployment = Deployment()

    def path(self, *, namespace: str, name: str | None = None) -> str:
        """Return the URL path of one InferenceService, or of the namespace's list."""
        folder = f"/apis/{self.api_version}/namespaces/{namespace}/{self.resource}"
        return f"{folder}/{name}" if name else folder

    def beside(self, name: str) -> tuple[str, ...]:
        """Return the name of the Deployment that KServe makes."""
        return (_maker(name),)

    def drives(self, raw: Json) -> str | None:
        """Return nothing: its Deployment is KServe's."""
        del raw
        return None

    def trimmed(self, raw: Json) -> Json:
        """Return what the other methods look at."""
        meta, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
        predictor = spec.get("predictor") or {}
        kept = picked(predictor, "minReplicas", *_BESIDE_MODEL)
        if "model" in predictor:
            kept["model"] = picked(predictor["model"], "storageUri", "storage", "resources")
        conditions = [picked(entry, "type", "status", "reason", "message") for entry in status.get("conditions") or ()]
        return {
            "metadata": {
                **picked(meta, "name", "namespace", "uid", "generation", "deletionTimestamp"),
                "annotations": picked(meta.get("annotations") or {}, _MODE),
                "managedFields": [entry for entry in meta.get("managedFields") or () if owner_of([entry], _PATH)],
            },
            "spec": picked(spec, "canary") | {"predictor": kept},
            "status": picked(status, "deploymentMode", "modelStatus") | {"conditions": conditions},
        }

    def parse(self, raw: Json, *, variable: str) -> Target:
        """Return the InferenceService as the Deployment that KServe makes of it stands."""
        del variable
        meta, made = raw["metadata"], self._made(raw)
        own: dict[str, Any] = {
            "name": meta["name"],
            "uid": meta["uid"],
            "containers": self._containers(raw),
            "unfit": self._unfit(raw),
        }
        if made is None:
            wanted = _predictor(raw).get("minReplicas", 1)
            progress = f"KServe has not made Deployment {_maker(meta['name'])}{_complaint(raw)}"
            return Target(**own, settled=False, available=0, wanted=wanted, progress=progress)
        target = self._deployment.parse(made, variable="")
        claims = target.claims | _claims(_source(raw))
        if _source(made["spec"]["template"], annotated=True) == _source(raw):
            return target.but(**own, claims=claims)
        progress = f"KServe has not given it to Deployment {_maker(meta['name'])}{_complaint(raw)}"
        return target.but(**own, claims=claims, settled=False, progress=progress)

    def apply_body(
        self, *, name: str, uid: str, container: str, variable: str, value: str | None, is_init: bool = False
    ) -> Json:
        """Return the body of the server-side apply that owns storageUri, or nothing any more."""
        del container, variable, is_init
        body: Json = {"apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": name, "uid": uid}}
        if value is not None:
            body["spec"] = {"predictor": {"model": {"storageUri": value}}}
        return body

    def pod_selector(self, raw: Json) -> str:
        """Return the selector of the Deployment's pods; before there is one, one that KServe's pods match."""
        made = self._made(raw)
        if made is not None:
            return self._deployment.pod_selector(made)
        return f"serving.kserve.io/inferenceservice={raw['metadata']['name']}"

    def pods(self, raw: Json, pods: Iterable[Json], *, container: str, variable: str, port: int) -> Pods:
        """Return the pods that KServe has made for the field's value."""
        del variable
        own = (pod for pod in pods if self._belongs(raw, pod))
        present = [pod for pod in own if _source(pod, annotated=True) == _source(raw)]
        return serving.seen(present, container=container, port=port)

    def serving(self, raw: Json, pods: Iterable[Json], *, container: str) -> tuple[ServingPod, ...]:
        """Return its own running pods, of any model."""
        return serving.running((pod for pod in pods if self._belongs(raw, pod)), container=container)

    def _made(self, raw: Json) -> Json | None:
        """Return the Deployment that KServe has made."""
        made: Json | None = (raw.get(BESIDE) or {}).get(_maker(raw["metadata"]["name"]))
        return made

    def _belongs(self, raw: Json, pod: Json) -> bool:
        return self._deployment.belongs(pod, _maker(raw["metadata"]["name"]))

    def _containers(self, raw: Json) -> tuple[Container, ...]:
        """Return the container that gets the model; its limits are those that KServe has merged."""
        model, made = _predictor(raw).get("model"), self._made(raw)
        if model is None:
            return ()
        containers = made["spec"]["template"]["spec"]["containers"] if made else ()
        resources = serving.named(containers, CONTAINER).get("resources") or model.get("resources") or {}
        return (
            Container(
                name=CONTAINER,
                value=model.get("storageUri"),
                indirect=False,
                manager=owner_of(raw["metadata"].get("managedFields", ()), _PATH),
                cpu_limit=serving.cpu_limit(resources),
            ),
        )

    def _unfit(self, raw: Json) -> str | None:
        """Return why a new storageUri is not followed by the pods of one Deployment."""
        predictor, meta = _predictor(raw), raw["metadata"]
        modes = (raw.get("status", {}).get("deploymentMode"), (meta.get("annotations") or {}).get(_MODE))
        other = next((mode for mode in modes if mode not in _STANDARD), None)
        if other is not None:
            return (
                f"its deployment mode is {other}, whose pods belong to no Deployment: set annotation {_MODE}: Standard"
            )
        if "model" not in predictor:
            return "it has no spec.predictor.model, whose storageUri names the model: name a model format and a runtime"
        if "storage" in predictor["model"]:
            return "spec.predictor.model.storage names the model in another way: give storageUri in its place"
        fields = [field for field in _BESIDE_MODEL if field in predictor or field in raw["spec"]]
        return f"its {fields[0]} makes other pods than those that storageUri changes: take it out" if fields else None


def _maker(name: str) -> str:
    return f"{name}-predictor"


def _predictor(raw: Json) -> Json:
    predictor: Json = raw["spec"].get("predictor") or {}
    return predictor


def _source(raw: Json, *, annotated: bool = False) -> str | None:
    """Return where the model lies, as the field says, or as KServe has annotated what it made."""
    if annotated:
        source: str | None = ((raw.get("metadata") or {}).get("annotations") or {}).get(SOURCE)
        return source
    return (_predictor(raw).get("model") or {}).get("storageUri")


def _claims(source: str | None) -> frozenset[str]:
    """Return the claim that KServe mounts; it does so in the pods, and not in their template."""
    is_claim = source is not None and source.startswith("pvc://")
    return frozenset({source.split("/")[2]} if is_claim and source else ())


def _complaint(raw: Json) -> str:
    """Return what KServe says stands in the way, if anything."""
    failure = (raw.get("status", {}).get("modelStatus") or {}).get("lastFailureInfo") or {}
    conditions = raw.get("status", {}).get("conditions") or ()
    unready = (entry for entry in conditions if entry["type"] == "PredictorReady" and entry["status"] == "False")
    words = failure.get("message") or next((entry.get("message") for entry in unready), None)
    return f": {words}" if words else " yet"
