"""What a person does after `retune optimize`: how the winner is used, or what may help where there is none.

The words follow from the verdict and from the spec alone.
"""

import json
from pathlib import Path
from typing import Any

from retune.api.objects import Snapshot
from retune.cli.local.optimize import Finished
from retune.contract.results import Verdict

MODEL, MANIFEST = "model.onnx", "bundle.json"
"""Files of a bundle."""
_ENGINES = {
    "openvino": (
        "import openvino",
        "model = openvino.compile_model({path!r}, 'CPU')",
        "answers = model({feed})  # {inputs}",
    ),
    "onnxruntime": (
        "import onnxruntime",
        "session = onnxruntime.InferenceSession({path!r})",
        "answers = session.run(None, {feed})  # {inputs}",
    ),
}
"""Lines of Python that answer rows with a model file, by engine; TensorRT runs through ONNX Runtime too."""
_REFUSED = {
    "AccuracyBelowMargin": "allow a larger loss in spec.objectives, or more trials in spec.search.maxTrials",
    "QualityBelowMargin": "allow a larger loss in spec.objectives, or more trials in spec.search.maxTrials",
    "LatencyAboveLimit": "raise the limit on latency in spec.objectives, or allow more techniques",
    "LatencyUncertain": "measure again while nothing else runs on this machine",
    "MeasurementUnreliable": "measure again while nothing else runs on this machine",
    "SizeAboveLimit": "raise the limit on size in spec.objectives",
    "MemoryAboveLimit": "raise spec.serving.memory",
}


def after(finished: Finished) -> str:
    """Return what to do now, as lines."""
    verdict, reason = finished.result.verdict, finished.result.reason
    if verdict is Verdict.PROMOTE and finished.bundle is not None:
        return usage(finished.bundle)
    if finished.kept is not None:
        return (
            "next: give more test rows and optimize again. Or look at the report and accept the candidate yourself; "
            f"it is kept in {finished.kept}\n{usage(finished.kept)}"
        )
    if verdict is Verdict.GATE_FAILED:
        words = _REFUSED.get(reason, "look at the limits in spec.objectives, and at the report")
    else:
        words = _more(finished.run.spec.snapshot, reason)
    return f"next: {words}. The model as delivered stays: {finished.original / MODEL}"


def usage(bundle: Path) -> str:
    """Return lines of Python that use the model of a bundle, with the engine that it was judged with."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    inputs = manifest["signature"]["inputs"]
    lines = _ENGINES["openvino" if manifest["engine"].get("engine") == "openvino" else "onnxruntime"]
    names = {
        "path": str(bundle / MODEL),
        "feed": "{" + ", ".join(f"{tensor['name']!r}: rows" for tensor in inputs) + "}",
        "inputs": "; ".join(_words(tensor) for tensor in inputs),
    }
    return "\n".join(["use it in Python:", *(f"  {line.format(**names)}" for line in lines)])


def _words(tensor: dict[str, Any]) -> str:
    shape = ", ".join("N" if size < 0 else str(size) for size in tensor["shape"])
    return f"{tensor['name']} {tensor['dtype']} ({shape})"


def _more(spec: Snapshot, reason: str) -> str:
    """Return what could show a gain where none was shown."""
    if reason == "MeasurementUnreliable":
        return _REFUSED[reason]
    training = [] if spec.data.training else ["give spec.data.training, on which more techniques learn"]
    trials = f"allow more than {spec.search.max_trials} trials (spec.search.maxTrials)"
    return "; ".join([*training, trials, "or ask `retune doctor` which techniques are missing here"])
