"""Where files lie in the containers of Jobs and servers, and the names that operator and Jobs agree on."""

REQUEST_FILE = "/etc/retune/request.json"
"""Where a Job finds its request: projected from the pod's own annotation, so that the Job and its request are one
immutable object."""

REQUEST_ANNOTATION = "retune.dev/request"
"""Annotation of the Job's pod template that holds the request."""

JOB_CONTAINER = "optimizer"
"""Name of the container in every Job's pod that does the work and leaves the result."""

RESULT_FILE = "/dev/termination-log"
"""Where a Job writes its result for the kubelet to report."""

RESULT_LIMIT = 4096
"""Bytes of a termination message: the kubelet keeps no more."""

CLAIM_ROOT = "/mnt/pvc"
"""Folder below which the PersistentVolumeClaim `c` of a URI `pvc://c/...` is mounted at `c`. Outside a cluster, the
environment variable RETUNE_CLAIM_ROOT names another."""

CLAIMS_VARIABLE = "RETUNE_CLAIMS"
"""Environment variable for a person's own machine: a JSON object of claims and the folders that they stand for."""

CODE_VARIABLE = "RETUNE_CODE"
"""Environment variable with folders of the owner's own code, separated as in PATH; factories are looked for there."""

PRIVATE_ADDRESSES_VARIABLE = "RETUNE_PRIVATE_ADDRESSES"
"""Environment variable that is `Allow` where https:// URIs may lead to private addresses, such as the cluster's own."""

SEAL_VARIABLE = "RETUNE_SEAL"
"""Environment variable with the key by which a Job seals what it records for its own next start. No other Job gets it,
and it is no part of the request, so that no request is a secret."""

STUDY_SEAL_VARIABLE = "RETUNE_STUDY_SEAL"
"""Environment variable with the key by which the workers of a search seal their trials. The judge of that run gets it
too; its own verdict has another key."""

CREDENTIALS_VARIABLE = "RETUNE_CREDENTIALS_SECRET"
"""Environment variable with the name of the Secret that a Job's credentials come from, so that it can say that the
Secret is missing."""

AUTHORITIES_VARIABLE = "RETUNE_CA_CERTIFICATES"
"""Environment variable with certificates, as PEM text, that the administrator lets every Job trust besides the usual
ones and those of its own Secret."""

SCRATCH_VARIABLE = "RETUNE_SCRATCH_BYTES"
"""Environment variable with the size of the scratch folder in bytes; a pod that fills more of it is evicted."""

QUOTA_VARIABLE = "RETUNE_STORE_QUOTA"
"""Environment variable with the quantity of bytes that a resource's folder of the store may hold, such as 20Gi."""

PROXIES_VARIABLE = "RETUNE_PROXIES"
"""Environment variable that is `Trust` where the administrator has named proxies in HTTPS_PROXY and its like."""

SCRATCH_DIR = "/tmp"  # noqa: S108 - a size-limited emptyDir of the Job's own
"""The only writable folder besides the store."""

METRICS_PORT = 9090
"""Port on which search workers serve Prometheus metrics."""

CHECK_HOST_PORT = 9091
"""Port on which a check host answers the Jobs of its namespace."""

METRIC_TRIALS_TOTAL = "retune_search_trials_budget"
METRIC_TRIALS_DONE = "retune_search_trials_done"
METRIC_TRIALS_FAILED = "retune_search_trials_failed"
METRIC_BEST = "retune_search_best"
"""Gauge with label `metric`, one for each objective: the best candidate's value divided by the champion's."""


_CLAIM_SCHEME = "pvc://"


def claim_of(uri: str) -> str | None:
    """Return the claim's name in `pvc://CLAIM/PATH`; None for any other scheme."""
    return uri.removeprefix(_CLAIM_SCHEME).split("/", 1)[0] if uri.startswith(_CLAIM_SCHEME) else None


def place_of(uri: str) -> str:
    """Return what a URI lies in, and others may too: such as `pvc://CLAIM` or `s3://BUCKET`."""
    return "/".join(uri.split("/", 3)[:3])


def is_below(uri: str, folder: str) -> bool:
    """Return whether a URI is that of a folder or of anything in it."""
    return f"{uri.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def removable_below(store: str) -> str:
    """Return the folder below which a check may remove captured files in the claim or bucket of a resource's store.

    On a claim it is the resource's own folder; in a bucket that of its namespace, which is all that credentials part.
    """
    return store if claim_of(store) else store.rpartition("/")[0]


def bundles(store: str) -> str:
    """Return the URI of the folder of published bundles, which are named by their digests."""
    return f"{store.rstrip('/')}/bundles"


def bundle_uri(store: str, digest: str) -> str:
    """Return where a bundle is published: its digest, without `sha256:`, is the folder's name."""
    return f"{bundles(store)}/{digest.removeprefix('sha256:')}"


def leftover_bundle(digest: str) -> str:
    """Return the path in the store of a bundle that nobody needs any more, which stands for its reference too."""
    return f"bundles/{digest.removeprefix('sha256:')}"


def leftover_run(run: str) -> str:
    """Return the path in the store of the folder of a run that nobody needs any more."""
    return f"runs/{run}"


def run_folder(store: str, run: str) -> str:
    """Return the URI of the folder of one run: its study, candidates and report."""
    return f"{store.rstrip('/')}/runs/{run}"
