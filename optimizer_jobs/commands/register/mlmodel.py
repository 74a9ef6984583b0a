"""What MLflow wants beside a bundle's files, so that its own library loads and serves the model.

The flavour is onnx whatever the bundle's engine is: its file is one. What MLflow can say of how the model was judged
(threads, graph level, spinning) is said; it knows no fixed number of rows, and runs OpenVINO's bundles by ONNX Runtime.
"""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.names import MODEL
from optimizer_jobs.signature import TEXT, Signature, TensorSpec

MLMODEL, REQUIREMENTS, ENVIRONMENT = "MLmodel", "requirements.txt", "python_env.yaml"

_LEVELS = {"disabled": 0, "basic": 1, "extended": 2, "all": 99}
"""ONNX Runtime's numbers of its graph levels. MLflow takes 0 for not set, which is all."""
_LIBRARIES = ("numpy", "onnx", "onnxruntime")
_DTYPES = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
)


def described(bundle: Bundle) -> Mapping[str, str]:
    """Return the text of each file that MLflow wants beside a bundle's own, by name."""
    return {
        MLMODEL: yaml.safe_dump(_mlmodel(bundle), sort_keys=False),
        REQUIREMENTS: "\n".join(("mlflow", *map(_pinned, _LIBRARIES), "")),
        ENVIRONMENT: yaml.safe_dump(
            {
                "python": platform.python_version(),
                "build_dependencies": ["pip", "setuptools", "wheel"],
                "dependencies": [f"-r {REQUIREMENTS}"],
            },
            sort_keys=False,
        ),
    }


def _mlmodel(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    onnx = {"data": MODEL, "providers": ["CPUExecutionProvider"], "onnx_session_options": _options(manifest.engine)}
    pyfunc = {
        "loader_module": "mlflow.onnx",
        "data": MODEL,
        "env": {"virtualenv": ENVIRONMENT},
        "python_version": platform.python_version(),
    }
    signature = _signature(manifest.signature)
    return {
        "flavors": {"onnx": onnx, "python_function": pyfunc},
        "model_uuid": bundle.digest.removeprefix("sha256:")[:32],
        "model_size_bytes": manifest.size_bytes,
        "metadata": {"retune.digest": bundle.digest, "retune.engine": manifest.engine.engine},
        **({"signature": signature} if signature else {}),
    }


def _options(engine: EngineOptions) -> dict[str, Any]:
    """Return MLflow's options of an ONNX Runtime session; of another engine only what both understand."""
    options: dict[str, Any] = {"intra_op_num_threads": engine.threads, "inter_op_num_threads": 1}
    if engine.engine != "onnxruntime":
        return options
    spinning = {"session.intra_op.allow_spinning": "1" if engine.spinning else "0"}
    level = {"graph_optimization_level": _LEVELS[engine.graph_level], "extra_session_config": spinning}
    return {**options, "execution_mode": "sequential", **level}


def _signature(signature: Signature) -> dict[str, Any] | None:
    """Return MLflow's signature; None where a tensor has a type that NumPy does not know."""
    if any(spec.dtype not in _DTYPES for spec in (*signature.inputs, *signature.outputs) if spec.dtype != TEXT):
        return None
    ends = {"inputs": signature.inputs, "outputs": signature.outputs}
    return {name: json.dumps([_tensor(spec) for spec in specs]) for name, specs in ends.items()} | {"params": None}


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    dtype = "object" if spec.dtype == TEXT else spec.dtype
    return {"name": spec.name, "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(spec.shape)}}


def _pinned(library: str) -> str:
    """Return a requirement with the version that is installed here."""
    try:
        return f"{library}=={version(library)}"
    except PackageNotFoundError:
        return library
