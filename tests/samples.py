"""Small valid objects that tests start from and change one thing of."""

import copy
from typing import Any

from retune.api.model import Data, Model
from retune.api.monitoring import Drift, Quality
from retune.api.objects import ModelOptimization, ObjectMeta
from retune.api.production import Labels, Production
from retune.api.registry import Registry
from retune.api.spec import ModelOptimizationSpec
from retune.api.triggers import Refresh
from retune.contract.requests import (
    BaselineRequest,
    BundleRef,
    CheckRequest,
    GatherRequest,
    JudgeRequest,
    RegisterRequest,
    RegistryEntry,
    SearchRequest,
    VerifyRequest,
    Window,
)

Json = dict[str, Any]

DIGEST = "sha256:" + "ab" * 32
STORE = "pvc://artifacts/digits"
RESOURCE_UID = "6f6b9a5e-0000-4000-8000-000000000001"

MANIFEST: Json = {
    "apiVersion": "retune.dev/v1alpha1",
    "kind": "ModelOptimization",
    "metadata": {"name": "digits", "namespace": "default"},
    "spec": {
        "model": {"uri": "pvc://models/digits/model.onnx"},
        "data": {
            "training": {"uri": "pvc://data/digits/train.npz"},
            "validation": {"uri": "pvc://data/digits/validation.npz"},
            "test": {"uri": "pvc://data/digits/test.npz"},
        },
        "target": {"ref": {"name": "digits-server"}},
    },
}


def manifest(**spec: Any) -> Json:
    """A ModelOptimization as a user writes it, with these fields of its spec replaced."""
    document = copy.deepcopy(MANIFEST)
    document["spec"] |= spec
    return document


def resource(**spec: Any) -> ModelOptimization:
    """The same as the operator holds it."""
    meta = ObjectMeta(name="digits", namespace="ml", uid=RESOURCE_UID, generation=1)
    return ModelOptimization(metadata=meta, spec=ModelOptimizationSpec.model_validate(manifest(**spec)["spec"]))


def _data() -> Data:
    return Data.model_validate(MANIFEST["spec"]["data"])


def baseline_request() -> BaselineRequest:
    """What the first Job is asked."""
    model = Model.model_validate(MANIFEST["spec"]["model"])
    return BaselineRequest(
        resource="ml/digits", spec_hash="0123456789abcdef", model=model, data=_data(), store=STORE, threads=2
    )


def _comparing() -> Json:
    spec = resource().spec
    bundle = BundleRef(uri=f"{STORE}/bundles/{DIGEST[7:]}", digest=DIGEST)
    return {
        "resource": "ml/digits",
        "run": "digits-r1",
        "spec_hash": "0123456789abcdef",
        "data": _data(),
        "objectives": spec.better,
        "selection": spec.selection,
        "techniques": None,
        "search": spec.search,
        "champion": bundle,
        "original": bundle,
        "store": STORE,
        "threads": 2,
    }


def search_request() -> SearchRequest:
    """What search workers are asked."""
    return SearchRequest(**_comparing())


def judge_request() -> JudgeRequest:
    """What the judge is asked."""
    return JudgeRequest(**_comparing(), trigger="Initial")


def _production() -> Production:
    return Production(uri="pvc://production/digits", labels=Labels(uri="pvc://labels/digits"), retention="720h")


def check_request() -> CheckRequest:
    """What is asked about one hour of production data."""
    bundle = BundleRef(uri=f"{STORE}/bundles/{DIGEST[7:]}", digest=DIGEST)
    return CheckRequest(
        resource="ml/digits",
        spec_hash="0123456789abcdef",
        window=Window(index=1, start=3600, end=7200),
        champion=bundle,
        production=_production(),
        reference=_data().validation,
        drift=Drift(),
        quality=Quality(),
        min_samples=500,
        max_samples=20000,
        store=STORE,
    )


def gather_request() -> GatherRequest:
    """What builds the data of a run."""
    bundle = BundleRef(uri=f"{STORE}/bundles/{DIGEST[7:]}", digest=DIGEST)
    return GatherRequest(
        resource="ml/digits",
        run="digits-r2",
        spec_hash="0123456789abcdef",
        data=_data(),
        production=_production(),
        refresh=Refresh(),
        until=7200,
        champion=bundle,
        store=STORE,
    )


def verify_request() -> VerifyRequest:
    """What is asked after a rollout."""
    bundle = BundleRef(uri=f"{STORE}/bundles/{DIGEST[7:]}", digest=DIGEST)
    return VerifyRequest(resource="ml/digits", bundle=bundle, endpoints=("http://10.0.0.7:8080",), model_name="digits")


def register_request() -> RegisterRequest:
    """What a registry is to say after a run."""
    bundle = BundleRef(uri=f"{STORE}/bundles/{DIGEST[7:]}", digest=DIGEST)
    return RegisterRequest(
        resource="ml/digits",
        state="0123456789abcdef",
        store=STORE,
        registry=Registry(uri="mlflow://digits"),
        challenger=RegistryEntry(bundle=bundle, version=2, run="digits-r1"),
    )
