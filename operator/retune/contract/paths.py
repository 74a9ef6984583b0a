"""Where things lie inside a Job's or a server's container, and the names both sides agree on."""

REQUEST_FILE = "/etc/retune/request.json"
"""The request, projected from the pod's own annotation: one immutable object carries the Job and its request."""

REQUEST_ANNOTATION = "retune.dev/request"
"""Annotation of the Job's pod template that holds the request."""

RESULT_FILE = "/dev/termination-log"
"""Where a Job writes its result for the kubelet to report."""

RESULT_LIMIT = 4096
"""Bytes of a termination message that the kubelet keeps."""

CLAIM_ROOT = "/mnt/pvc"
"""Claim `c` of a `pvc://c/...` URI is mounted at `CLAIM_ROOT/c`; `RETUNE_CLAIM_ROOT` overrides it outside a cluster."""

CLAIMS_VARIABLE = "RETUNE_CLAIMS"
"""Environment variable with a JSON object of claims and the folders they stand for, on a person's own machine."""

PRIVATE_ADDRESSES_VARIABLE = "RETUNE_PRIVATE_ADDRESSES"
"""Environment variable that is `Allow` where https:// URIs may lead to private addresses, such as the cluster's."""

SCRATCH_DIR = "/tmp"  # noqa: S108 - a size-limited emptyDir of the Job's own
"""The only writable folder besides the store."""

METRICS_PORT = 9090
"""Port on which search workers serve Prometheus metrics."""

METRIC_TRIALS_TOTAL = "retune_search_trials_budget"
METRIC_TRIALS_DONE = "retune_search_trials_done"
METRIC_TRIALS_FAILED = "retune_search_trials_failed"
METRIC_BEST = "retune_search_best"
"""Gauge per objective, label `metric`: the best feasible candidate's value as a ratio to the champion's."""


def bundles(store: str) -> str:
    """Return the folder of published bundles, each under its digest."""
    return f"{store.rstrip('/')}/bundles"


def run_folder(store: str, run: str) -> str:
    """Return the folder of one run: study, candidates, report."""
    return f"{store.rstrip('/')}/runs/{run}"
