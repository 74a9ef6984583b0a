"""What the peers make of a model, each by the recipe its own documentation gives, with the same calibration rows.

A peer that cannot take a model says why in the table; nothing is left out silently.
"""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.engine import EngineOptions
from tests.bench.optimizer.subjects import Subject

if TYPE_CHECKING:
    from onnx import ModelProto

SAMPLES = 128
_PER_CHANNEL = 13
"""First operator set whose quantization takes a scale for each channel."""
PACKAGES = "peers"
"""Folder in the cache with the peers' own packages; `make bench-optimizer` installs them."""


@dataclass(frozen=True)
class Made:
    """A file and how it is run."""

    model: Path
    engine: EngineOptions


Make = Callable[[Subject, Path, Rows, Path], Path]


@dataclass(frozen=True)
class Peer:
    """A recipe of somebody else."""

    name: str
    engine: str
    make: Make
    precision: str = "float32"

    def run(self, subject: Subject, model: Path, rows: Rows, *, folder: Path, threads: int) -> Made:
        """Make the peer's version of a model; whatever the peer raises passes."""
        folder.mkdir(parents=True)
        with _quiet():
            made = self.make(subject, model, rows, folder)
        engine = {"engine": self.engine, "threads": threads, "precision": self.precision}
        return Made(made, EngineOptions.model_validate(engine))


def as_delivered(_: Subject, model: Path, _rows: Rows, _folder: Path) -> Path:
    """Nothing but another engine."""
    return model


def ort_dynamic(_: Subject, model: Path, _rows: Rows, folder: Path) -> Path:
    """ONNX Runtime's dynamic quantization, per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = folder / "model.onnx"
    quantize_dynamic(model, target, weight_type=QuantType.QInt8, per_channel=True)
    return target


def ort_prepared(model: Path, folder: Path, *, symbolic: bool) -> Path:
    """ONNX Runtime's preprocessing; where its symbolic shape inference gives up, without that, as its error says."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    target = folder / "prepared.onnx"
    try:
        quant_pre_process(model, target, skip_symbolic_shape=not symbolic)
    except Exception:
        if not symbolic:
            raise
        return ort_prepared(model, folder, symbolic=False)
    return target


def _with_new_operators(model: Path, folder: Path) -> Path:
    """Return a model of an operator set that can be quantized per channel, as ONNX's own converter makes it."""
    import onnx
    from onnx import version_converter

    loaded = onnx.load(model)
    if any(entry.version >= _PER_CHANNEL for entry in loaded.opset_import if entry.domain in {"", "ai.onnx"}):
        return model
    onnx.save(version_converter.convert_version(loaded, _PER_CHANNEL), folder / "converted.onnx")
    return folder / "converted.onnx"


def ort_static(subject: Subject, model: Path, rows: Rows, folder: Path) -> Path:
    """ONNX Runtime's static quantization: preprocessing, then QDQ per channel with MinMax.

    Its adjustment of weights to 32-bit biases fails on some networks that are quantized per channel ("The truth value
    of an array"); the documented option leaves it out.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    target = folder / "model.onnx"
    quantize = partial(
        quantize_static,
        ort_prepared(_with_new_operators(model, folder), folder, symbolic=not subject.transformer),
        target,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    try:
        quantize(_reader(rows))
    except ValueError:
        quantize(_reader(rows), extra_options={"QDQDisableWeightAdjustForInt32Bias": True})
    return target


def _of_plain_operators(model: "ModelProto") -> "ModelProto":
    """Return the part of a model that OpenVINO can run: without outputs that need ONNX-ML, such as labels."""
    import onnx

    special = {
        name for node in model.graph.node if node.domain not in {"", "ai.onnx", "com.microsoft"} for name in node.output
    }
    for node in model.graph.node:  # in topological order, as the format demands
        if special & set(node.input):
            special |= set(node.output)
    outputs = [output.name for output in model.graph.output if output.name not in special]
    if not special or not outputs:
        return model
    return onnx.utils.Extractor(model).extract_model([tensor.name for tensor in model.graph.input], outputs)


def nncf_static(subject: Subject, model: Path, rows: Rows, folder: Path) -> Path:
    """NNCF's post-training quantization of the ONNX file, to be run by OpenVINO."""
    import nncf
    import onnx

    kind = nncf.ModelType.TRANSFORMER if subject.transformer else None
    made = nncf.quantize(
        _of_plain_operators(onnx.load(model)),
        nncf.Dataset(list(_feeds(rows))),
        model_type=kind,
        subset_size=min(SAMPLES, len(rows)),
    )
    onnx.save(made, folder / "model.onnx")
    return folder / "model.onnx"


def olive_dynamic(_: Subject, model: Path, _rows: Rows, folder: Path) -> Path:
    """Olive's dynamic quantization pass by its own command line, in a process of its own."""
    packages = str(Path(os.environ["RETUNE_CACHE"]) / PACKAGES)
    code = f"import sys; sys.path.append({packages!r}); from olive.cli.launcher import main; main()"
    config = json.dumps({"precision": "int8", "per_channel": True})
    words = ["run-pass", "--pass-name", "OnnxDynamicQuantization", "--pass-config", config, "-m", str(model), "-o"]
    environment = {**os.environ, "OLIVE_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words, str(folder / "out")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    return folder / "out" / "model.onnx"


PEERS = (
    Peer("ONNX Runtime, dynamic int8", "onnxruntime", ort_dynamic),
    Peer("ONNX Runtime, static int8", "onnxruntime", ort_static),
    Peer("Olive, dynamic int8", "onnxruntime", olive_dynamic),
    Peer("OpenVINO, float32", "openvino", as_delivered),
    Peer("OpenVINO, bfloat16", "openvino", as_delivered, precision="bfloat16"),
    Peer("NNCF + OpenVINO, int8", "openvino", nncf_static),
)


def _feeds(rows: Rows) -> Iterator[dict[str, Any]]:
    """Yield calibration rows one by one."""
    for row in range(min(SAMPLES, len(rows))):
        yield {name: np.ascontiguousarray(values[row : row + 1]) for name, values in rows.inputs.items()}


def _reader(rows: Rows) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc] # the library has no types
        """Hands the rows out one by one."""

        def __init__(self) -> None:
            self._left = _feeds(rows)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the peers print and log; their errors pass."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
