"""The Jobs: every command that opens a model or data.

Never talks to the Kubernetes API, and imports only `retune.api` and `retune.contract` of the operator. Importing this
package disables the telemetry of libraries, before any of them can be imported.
"""

import os
import sys

os.environ.update(DO_NOT_TRACK="1", ITERATIVE_DO_NOT_TRACK="1", ORT_DISABLE_TELEMETRY="1")

# NNCF sends events through this package unless it cannot be imported, and no variable stops it. The images do without
# it; pip, on a person's machine, installs it together with OpenVINO.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
