"""A Service that a Job asks all the time, and the answers that the Job has counted."""

import json
from pathlib import Path
from typing import Any

from tests.e2e import kube
from tests.e2e.scenario import NAMESPACE

Json = dict[str, Any]
ASKED_SECONDS = 240
HERE = Path(__file__).parent


def service(name: str) -> Json:
    """Return the Service of a target."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": name}, "ports": [{"port": 8080}]},
    }


def ask(name: str) -> str:
    """Begin to ask the Service; returns the name of the Job that does."""
    job, url = f"{name}-asking", f"http://{name}.{NAMESPACE}:8080/v2/models/model/infer"
    script, asking = kube.python_job(
        job, HERE / "asking.py", namespace=NAMESPACE, claims=(), arguments=(url, str(ASKED_SECONDS))
    )
    kube.apply(script, asking)
    return job


def answers(job: str) -> dict[str, int]:
    """Wait until the Job has asked enough; returns the answers by their code."""
    kube.kubectl(
        "wait",
        f"job/{job}",
        "-n",
        NAMESPACE,
        "--for=condition=Complete",
        f"--timeout={2 * ASKED_SECONDS}s",
        seconds=600,
    )
    counts: dict[str, int] = json.loads(kube.kubectl("logs", f"job/{job}", "-n", NAMESPACE))
    return counts
