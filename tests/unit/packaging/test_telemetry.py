"""Nothing reports home: not ONNX Runtime, whose Linux builds collect by default, and not NNCF."""

import os
import subprocess
import sys
from pathlib import Path

from onnx import TensorProto, checker, helper, save

OPEN_A_SESSION = """
import sys
import optimizer_jobs
import onnxruntime
for _ in range(2):
    onnxruntime.InferenceSession(sys.argv[1]).run(None, {"x": [1.0]})
"""


def test_opening_a_model_leaves_no_trace(tmp_path: Path) -> None:
    """Importing our package is enough: without it ONNX Runtime keeps a device id and a queue of events in $HOME."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "negate",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, tmp_path / "model.onnx")
    home = tmp_path / "home"
    home.mkdir()
    switches = {"CI", "DO_NOT_TRACK", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "TF_BUILD", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in switches}

    subprocess.run(
        [sys.executable, "-c", OPEN_A_SESSION, str(tmp_path / "model.onnx")],
        env={**environment, "HOME": str(home)},
        check=True,
        timeout=60,
    )

    assert list(home.rglob("*")) == []


IMPORT_IT = """
import optimizer_jobs
try:
    import openvino_telemetry
except ImportError:
    print("without")
"""


def test_the_package_through_which_nncf_reports_is_not_imported(tmp_path: Path) -> None:
    """Pip installs it with OpenVINO; importing our package is enough to keep it out."""
    (tmp_path / "openvino_telemetry.py").write_text("")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_IT],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "without\n"
