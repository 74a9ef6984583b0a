"""Kueue for tests: its controller with its webhooks as a process beside an API server, queues, and pods of Jobs.

The API server has to be on this machine: a Service named after this machine leads it to the webhooks. Played is what
a kubelet does: it mounts the certificate that Kueue has made for itself, and says what becomes of the pods of Jobs.
"""

import base64
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.contract.exits import Exit
from retune.contract.paths import REQUEST_ANNOTATION
from retune.contract.requests import (
    InspectRequest,
    JobRequest,
    RenderRequest,
    SuggestRequest,
    SurveyRequest,
    parse_request,
)
from retune.contract.results import JobResult, encode_result
from tests.cluster.crds import install
from tests.cluster.harness import Bench
from tests.faults.background import Background
from tools.localcluster import binaries
from tools.localcluster.api import Api, ApiError
from tools.localcluster.controlplane import ControlPlane, control_plane, free_ports
from tools.localcluster.settings import load
from tools.localcluster.shell import run, tail, wait_for

Json = dict[str, Any]
NAMESPACE = "kueue-system"
QUEUE, URGENT = "team", "urgent"
API, CORE, BATCH = "/apis/kueue.x-k8s.io/v1beta2", "/api/v1", "/apis/batch/v1"
CONTROLLERS = ("deployment-controller", "replicaset-controller", "job-controller", "garbage-collector-controller")
_MODULE = "sigs.k8s.io/kueue"
_GROUPS = {"batch", "kueue.x-k8s.io"}
"""Groups whose objects Kueue is asked about: it manages Jobs alone here."""
_PATIENCE_SECONDS = 180.0


def _rendered() -> list[Json]:
    """Return the documents of the release's chart."""
    chart = binaries.source_folder(load(), binaries.KUEUE, _MODULE) / "charts" / "kueue"
    helm = binaries.ensure(load(), ["helm"])["helm"]
    frameworks = "managerConfig.controllerManagerConfigYaml=integrations: {frameworks: [batch/job]}"
    words: list[str | Path] = [helm, "template", "kueue", chart, "-n", NAMESPACE, "--set-literal", frameworks]
    return [document for document in yaml.safe_load_all(run(words)) if document]


@contextmanager
def beside_an_api_server(folder: Path) -> Iterator[ControlPlane]:
    """Run Kueue beside a control plane that makes pods of Deployments and Jobs, with our CRDs and Kueue's.

    Args:
        folder: Where the certificate, the settings and the log go.
    """
    documents, (hooks, metrics, health) = _rendered(), free_ports(3)
    with control_plane(controllers=CONTROLLERS) as started:
        api = Api(started.kubeconfig)
        install(api, [modeloptimization_crd(), optimizationrun_crd(), *_crds(documents, hooks)])
        api.request("POST", f"{CORE}/namespaces", {"metadata": {"name": NAMESPACE}})
        for document in _of_webhooks(documents, hooks):
            started.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(document))
        settings = _settings(documents, folder, hooks=hooks, metrics=metrics, health=health)
        with _controller(started.kubeconfig, folder, settings) as process:
            _mount_certificate(api, folder, process)
            _wait(lambda: _is_ready(health), folder, process, what="readiness of Kueue")
            yield started


def _crds(documents: list[Json], port: int) -> list[Json]:
    """Return Kueue's CustomResourceDefinitions, which convert their versions at this port."""
    crds = [document for document in documents if document["kind"] == "CustomResourceDefinition"]
    for crd in crds:
        webhook = crd["spec"].get("conversion", {}).get("webhook")
        if webhook:
            webhook["clientConfig"]["service"]["port"] = port
    return crds


def _of_webhooks(documents: list[Json], port: int) -> Iterator[Json]:
    """Yield the Service that leads to this machine, the Secret, and what the API server asks at this port."""
    service = {"type": "ExternalName", "externalName": "localhost"}
    meta = {"name": "kueue-webhook-service", "namespace": NAMESPACE}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service}
    for document in documents:
        if document["kind"] == "Secret" and document["metadata"]["name"] == "kueue-webhook-server-cert":
            yield document
        if document["kind"] in {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}:
            document["webhooks"] = [hook for hook in document["webhooks"] if _is_of_jobs(hook)]
            for hook in document["webhooks"]:
                hook["clientConfig"]["service"]["port"] = port
            yield document


def _is_of_jobs(hook: Json) -> bool:
    return all(set(rule["apiGroups"]) <= _GROUPS for rule in hook["rules"])


def _settings(documents: list[Json], folder: Path, *, hooks: int, metrics: int, health: int) -> Path:
    """Write the chart's own settings, for one process on this machine."""
    (chart,) = [
        each for each in documents if each["kind"] == "ConfigMap" and "manager-config" in each["metadata"]["name"]
    ]
    settings = yaml.safe_load(chart["data"]["controller_manager_config.yaml"])
    settings |= {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": NAMESPACE,
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": f"127.0.0.1:{metrics}"},
        "webhook": {"host": "127.0.0.1", "port": hooks, "certDir": str(folder / "certificate")},
        "leaderElection": {"leaderElect": False},
    }
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@contextmanager
def _controller(kubeconfig: Path, folder: Path, settings: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = binaries.ensure(load(), [binaries.KUEUE])["kueue"]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"KUBECONFIG": str(kubeconfig), "TMPDIR": str(folder)}
    argv = [str(program), f"--config={settings}", "--feature-gates=VisibilityOnDemand=false", "--zap-log-level=2"]
    with (folder / "log").open("wb") as sink:
        process = subprocess.Popen(argv, stdout=sink, stderr=sink, env=environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _wait(true: Callable[[], bool], folder: Path, process: subprocess.Popen[bytes], *, what: str) -> None:
    """Wait until something is true of the controller; what it says last is told where it is not."""

    def check() -> bool:
        assert process.poll() is None, f"Kueue has ended: {log()}"
        return true()

    def log() -> str:
        return tail((folder / "log").read_text(errors="replace"))

    wait_for(check, what=what, seconds=_PATIENCE_SECONDS, hint=log)


def _mount_certificate(api: Api, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Put the certificate that Kueue has made into the folder in which its pod would find it."""
    place = folder / "certificate"
    place.mkdir()

    def check() -> bool:
        data = api.get(f"{CORE}/namespaces/{NAMESPACE}/secrets/kueue-webhook-server-cert").get("data") or {}
        for name, value in data.items():
            (place / name).write_bytes(base64.b64decode(value))
        return "tls.crt" in data

    _wait(check, folder, process, what="a certificate of Kueue's")


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class Quota:
    """The queue of a test's namespace, with so much CPU, and what else would use it.

    plenty: the other resources that it covers, all with enough of them.
    """

    def __init__(self, bench: Bench, *, cpu: str, plenty: Sequence[str] = ("memory", "ephemeral-storage")) -> None:
        self._bench = bench
        self.name = bench.namespace
        self._make("resourceflavors", {"kind": "ResourceFlavor", "metadata": {"name": self.name}})
        quotas = {"cpu": cpu} | dict.fromkeys(plenty, "1Ti")
        amounts = [{"name": name, "nominalQuota": most} for name, most in quotas.items()]
        group = {
            "coveredResources": [amount["name"] for amount in amounts],
            "flavors": [{"name": self.name, "resources": amounts}],
        }
        spec = {
            "namespaceSelector": {},
            "resourceGroups": [group],
            "preemption": {"withinClusterQueue": "LowerPriority"},
        }
        self._make("clusterqueues", {"kind": "ClusterQueue", "metadata": {"name": self.name}, "spec": spec})
        urgent = {"kind": "WorkloadPriorityClass", "metadata": {"name": URGENT}, "value": 1000, "description": ""}
        try:
            self._make("workloadpriorityclasses", urgent)
        except ApiError as error:
            if error.status != 409:
                raise
        local = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": QUEUE}}
        bench.create("localqueues", local | {"spec": {"clusterQueue": self.name}}, api=API)

    def _make(self, plural: str, body: Json) -> None:
        self._bench.api.request("POST", f"{API}/{plural}", {"apiVersion": "kueue.x-k8s.io/v1beta2"} | body)

    def occupy(self, *, cpu: str, urgent: bool = False) -> None:
        """Let a Job of somebody else ask for so much CPU."""
        labels = {"kueue.x-k8s.io/queue-name": QUEUE}
        labels |= {"kueue.x-k8s.io/priority-class": URGENT} if urgent else {}
        container = {"name": "other", "image": "other:test", "resources": {"requests": {"cpu": cpu}}}
        template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
        body = {"metadata": {"name": "other", "labels": labels}, "spec": {"suspend": True, "template": template}}
        self._bench.create("jobs", body, api=BATCH)

    def leave(self) -> None:
        """Let that Job go."""
        path = self._bench.path("jobs", "other", api=BATCH)
        self._bench.api.request("DELETE", path, {"propagationPolicy": "Background"})

    def close(self) -> None:
        """Remove what is of no namespace."""
        for plural in ("clusterqueues", "resourceflavors"):
            self._bench.api.request("DELETE", f"{API}/{plural}/{self.name}")


class Pods(Background):
    """Speaks for the pods of Jobs until stopped: they run, and end with the answer to their request.

    reply: what they answer. busy: kinds of Jobs whose pods run on and on, while it names them. clock: what shows them
    the time; the true one where the test moves none.
    """

    def __init__(self, bench: Bench, *, reply: Callable[[JobRequest], JobResult]) -> None:
        self._bench, self._reply = bench, reply
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.busy: set[str] = set()
        super().__init__("pods of Jobs")

    def play_once(self) -> None:
        """Let pods of Jobs of ours begin, and end those that are not to run on."""
        for pod in self._bench.items("pods", api=CORE):
            text = pod["metadata"].get("annotations", {}).get(REQUEST_ANNOTATION)
            if text is None or "deletionTimestamp" in pod["metadata"]:
                continue
            request = parse_request(text)
            assert not isinstance(request, InspectRequest | SurveyRequest | RenderRequest | SuggestRequest), (
                "no Job does that"
            )
            try:
                self._go_on(pod, request)
            except ApiError as error:
                if error.status not in {404, 409}:  # it was deleted meanwhile
                    raise

    def _go_on(self, pod: Json, request: JobRequest) -> None:
        match pod.get("status", {}).get("phase"):
            case "Pending":
                self._write(pod, "Running", {"running": {"startedAt": self._now()}})
            case "Running" if request.command not in self.busy:
                message = encode_result(self._reply(request)).decode()
                ended = {"exitCode": int(Exit.DONE), "reason": "Completed", "message": message}
                moments = {"startedAt": self._now(), "finishedAt": self._now()}
                self._write(pod, "Succeeded", {"terminated": ended | moments})

    def _now(self) -> str:
        return self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")

    def _write(self, pod: Json, phase: str, state: Json) -> None:
        name = pod["spec"]["containers"][0]["name"]
        container = {"name": name, "image": "x", "imageID": "x", "ready": False, "restartCount": 0, "state": state}
        path = self._bench.path("pods", pod["metadata"]["name"], api=CORE)
        self._bench.patch(f"{path}/status", {"status": {"phase": phase, "containerStatuses": [container]}})
