"""The command `survey`: what this Python environment and this machine can do, for `retune doctor`.

It imports no library that may be missing, so it has an answer in any environment.
"""

import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from optimizer_jobs.measure.fingerprint import fingerprint
from retune.api.model import ModelFormat
from retune.api.servers import EngineName
from retune.api.techniques import TechniqueType
from retune.contract.machines import Kind, Machine, Package, Part, State, SurveyResult
from retune.contract.requests import SurveyRequest

MEMORY_INFO = Path("/proc/meminfo")
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?(?P<wanted>[^;]*)")
_TOOLS = re.compile(r"""extra == ["'](dev|peers|triton)["']""")
"""What is of the repository alone, where a package may be wanted in another version."""
_BOUND = re.compile(r"(>=|==|<)([0-9.]+)")

_JOBS = (
    "aiohttp",
    "cmaes",
    "cronsim",
    "fsspec",
    "jinja2",
    "markupsafe",
    "matplotlib",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxslim",
    "optuna",
    "pandas",
    "prometheus-client",
    "protobuf",
    "pyarrow",
    "pyyaml",
    "scikit-learn",
    "scipy",
    "skl2onnx",
    "treelite",
)
"""The extra `jobs`, without which no Job runs."""
_ESTIMATORS = ("skops",)
_BOOSTERS = ("catboost", "lightgbm", "pandas", "xgboost-cpu")
_NETWORKS = ("torch", "onnxscript", "safetensors", "torch-pruning")
_FOLDERS = ("transformers",)
_BRINGS = {
    "every Job": _JOBS,
    "estimators of scikit-learn": _ESTIMATORS,
    "estimators of boosted trees, and CatBoost's files": _BOOSTERS,
    "networks of torch": _NETWORKS,
    "folders of Hugging Face, beside networks of torch": _FOLDERS,
    "smooth quantization of transformers": ("nncf",),
    "engine OpenVINO": ("openvino",),
}
"""Distributions by what they bring. The first are needed by everything."""
_SAME = {"xgboost-cpu": "xgboost"}
"""Another distribution of the same library, by the name of ours."""
_TRAINED = {"estimators": _ESTIMATORS, "networks": _NETWORKS}

Ways = Mapping[str, tuple[str, ...]]
"""Ways in which a part can be used, and the distributions that each needs. One way is enough to be ready."""

_FORMATS: Mapping[str, Ways] = {
    ModelFormat.ONNX: {"as it is": ()},
    **{
        format_: {
            "estimators of scikit-learn": _ESTIMATORS,
            "of XGBoost, LightGBM and CatBoost": (*_ESTIMATORS, *_BOOSTERS),
        }
        for format_ in (ModelFormat.SKOPS, ModelFormat.JOBLIB, ModelFormat.PICKLE)
    },
    ModelFormat.XGBOOST: {"trees, read without the library": ()},
    ModelFormat.LIGHTGBM: {"trees, read without the library": ()},
    ModelFormat.CATBOOST: {"trees": ("catboost",)},
    **{
        format_: {"networks of torch": _NETWORKS}
        for format_ in (
            ModelFormat.SAFETENSORS,
            ModelFormat.STATE_DICT,
            ModelFormat.TORCHSCRIPT,
            ModelFormat.TORCH_EXPORT,
        )
    },
    ModelFormat.HUGGING_FACE: {"encoders, and classifiers of texts and images": (*_NETWORKS, *_FOLDERS)},
}
_TECHNIQUES: Mapping[str, Ways] = {
    TechniqueType.CUSTOM_TRAINING: {"your own command, with --run-training-here": ()},
    TechniqueType.HYPERPARAMETER_TUNING: _TRAINED,
    TechniqueType.ARCHITECTURE: _TRAINED,
    TechniqueType.DATA_PREPARATION: {"estimators": _ESTIMATORS},
    TechniqueType.AUGMENTATION: {"networks": _NETWORKS},
    TechniqueType.ADVERSARIAL_TRAINING: {"networks": _NETWORKS},
    TechniqueType.DISTILLATION: {"models of tables": (), "networks": _NETWORKS},
    TechniqueType.FACTORIZATION: {"networks": _NETWORKS},
    TechniqueType.PRUNING: {"ensembles of trees": (), "networks": _NETWORKS},
    TechniqueType.GRAPH_OPTIMIZATION: {"every graph": ()},
    TechniqueType.QUANTIZATION: {
        "static, dynamic, weights only": (),
        "smoothed transformers": ("nncf",),
        "trained in 8 bits": _NETWORKS,
    },
    TechniqueType.RECALIBRATION: {"classifiers": ()},
}
_ENGINES: Mapping[str, Ways] = {
    EngineName.ONNX_RUNTIME: {"judges and serves by default": ()},
    EngineName.OPENVINO: {"where serving.engines names it": ("openvino",)},
}
_PARTS: Mapping[Kind, Mapping[str, Ways]] = {"Format": _FORMATS, "Technique": _TECHNIQUES, "Engine": _ENGINES}


def run(_: SurveyRequest) -> SurveyResult:
    """Return packages with their versions, what is ready and what is missing, and what the machine offers."""
    wanted = wanted_versions()
    packages = {
        name: _package(name, wanted.get(name, ""), brings=brings) for brings, names in _BRINGS.items() for name in names
    }
    parts = [_part(name, kind, ways, packages) for kind, table in _PARTS.items() for name, ways in table.items()]
    return SurveyResult(
        python=platform.python_version(),
        packages=tuple(packages.values()),
        parts=(*parts, _tensorrt()),
        machine=machine(),
    )


def wanted_versions() -> dict[str, str]:
    """Return the versions that fit, as pip takes them, by distribution; empty where Retune is not installed."""
    try:
        lines = requires("retune") or []
    except PackageNotFoundError:
        return {}
    parsed = (_REQUIREMENT.match(line) for line in lines if not _TOOLS.search(line))
    return {match["name"]: _least_first(match["wanted"].strip()) for match in parsed if match is not None}


def _least_first(bounds: str) -> str:
    """Return bounds with the least version first, as people write them: `>=2.9,<3`."""
    return ",".join(sorted(bounds.split(","), reverse=True))


def fits(installed: str, wanted: str) -> bool:
    """Return whether a version lies within bounds such as `>=2.9,<3`; bounds of other kinds are not looked at."""
    have = _numbers(installed)
    for sign, bound in _BOUND.findall(wanted):
        least = _numbers(bound)
        if sign == "<" and have >= least:
            return False
        if sign == ">=" and have < least:
            return False
        if sign == "==" and have[: len(least)] != least:
            return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: `2.9.1+cpu` is (2, 9, 1)."""
    leading = re.match(r"[0-9.]*", text)
    return tuple(int(part) for part in (leading[0] if leading else "").split(".") if part)


def machine() -> Machine:
    """Return what this machine offers to this process."""
    seen = fingerprint()
    memory = _memory()
    total = memory.get("MemTotal", 0)
    return Machine(
        cpu=seen.cpu,
        architecture=seen.architecture,
        cores=seen.threads,
        cpu_limit=seen.cpu_limit,
        features=seen.features,
        memory_bytes=min(total, seen.memory_limit) if seen.memory_limit else total,
        available_bytes=memory.get("MemAvailable", 0),
        gpu=seen.gpu,
    )


def _package(name: str, wanted: str, *, brings: str) -> Package:
    installed = _version(name) or _version(_SAME.get(name, name))
    usable = installed is not None and fits(installed, wanted)
    return Package(name=name, brings=brings, version=installed, wanted=wanted, fits=usable)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _part(name: str, kind: Kind, ways: Ways, packages: Mapping[str, Package]) -> Part:
    """Return in which ways a part can be used here; what every Job needs counts for each of them."""
    usable = [words for words, needs in ways.items() if not _lacking((*_JOBS, *needs), packages)]
    others = [words for words in ways if words not in usable]
    if not usable:
        return Part(name=name, kind=kind, state="missing", words=f"needs {_needs(ways, packages)}")
    words = "; ".join(usable) + (f" (not: {'; '.join(others)})" if others else "")
    return Part(name=name, kind=kind, state="partly" if others else "ready", words=words)


def _needs(ways: Ways, packages: Mapping[str, Package]) -> str:
    """Return what is missing for each way, in words; what every Job needs is named as one."""
    if _lacking(_JOBS, packages):
        return "what every Job needs"
    return ", or ".join(f"{', '.join(_lacking(needs, packages))} for {words}" for words, needs in ways.items())


def _lacking(names: Sequence[str], packages: Mapping[str, Package]) -> list[str]:
    """Return the names of distributions that are missing or have another version than is needed."""
    return [name for name in dict.fromkeys(names) if not packages[name].fits]


def _tensorrt() -> Part:
    """Return whether TensorRT can run, in the words of its engine; no command of pip brings a GPU."""
    with suppress(ImportError):
        from optimizer_jobs.models.tensorrt import unavailable

        reason = unavailable()
        state: State = "missing" if reason else "ready"
        return Part(name=EngineName.TENSORRT, kind="Engine", state=state, words=reason or "on the GPU")
    return Part(name=EngineName.TENSORRT, kind="Engine", state="missing", words="needs onnxruntime-gpu and a GPU")


def _memory() -> dict[str, int]:
    """Return the fields of the kernel's account of memory, in bytes."""
    try:
        lines = MEMORY_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields = (line.partition(":") for line in lines)
    return {name: int(value.split()[0]) * 1024 for name, _, value in fields if value.strip()}
