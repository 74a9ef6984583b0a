"""The Jobs: every command that opens a model or data.

Never talks to the Kubernetes API, and imports only `retune.api` and `retune.contract` of the operator. Importing this
package disables the telemetry of libraries, before any of them can be imported.
"""

import os

os.environ.update(DO_NOT_TRACK="1", ITERATIVE_DO_NOT_TRACK="1", ORT_DISABLE_TELEMETRY="1")
