"""A target of any kind under its own controller, a resource that names it, and an operator that passes when told to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from retune.contract.requests import JobRequest, VerifyRequest
from retune.contract.results import Failure, JobResult, Reason
from tests.cluster.harness import Bench, Clock, settle
from tests.cluster.kubelet import Kubelet, value_of
from tests.faults.stage import reply as honest
from tests.faults.stagehand import Stagehand

Json = dict[str, Any]
CORE = "/api/v1"
FORCED = {"injection": {"takeover": "Force"}}
DELIVERED = "pvc://models/digits/delivered.onnx"
PATIENCE = 60.0


def pod_template(name: str) -> Json:
    """A template whose server is given the delivered model, and the selector of its pods."""
    labels, env = {"app": name}, [{"name": "MODEL_URI", "value": DELIVERED}]
    container = {"name": "server", "image": "server:test", "env": env, "resources": {"limits": {"cpu": "2"}}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {"selector": {"matchLabels": labels}, "template": template}


def wrong(request: JobRequest) -> JobResult:
    """Answer as a Job would, but that pods answer golden requests wrongly."""
    if isinstance(request, VerifyRequest) and not request.bundle_alone:
        return Failure(reason=Reason.GOLDEN_MISMATCH, object="pod x", message="the answer is wrong.", next_step="")
    return honest(request)


class Play:
    """The target `digits`, the resource `digits`, and what tests ask of both."""

    def __init__(
        self, bench: Bench, *, plural: str, api: str, kind: str, served: Callable[[Json], str | None] = value_of
    ) -> None:
        self.bench = bench
        self.broken = False
        """Whether pods of any other model than the delivered one never get ready."""
        self.reply = honest
        """How Jobs answer."""
        self._plural, self._api, self._kind, self._served = plural, api, kind, served

    @property
    def _version(self) -> str:
        return self._api.removeprefix("/apis/")

    def is_broken(self, pod: Json) -> bool:
        """Whether this pod never gets ready."""
        return self.broken and self._served(pod) != DELIVERED

    def answer(self, request: JobRequest) -> JobResult:
        """Answer as a Job would."""
        return self.reply(request)

    def begin(self, spec: Json, *, rollout: Json | None = None, target: Json = FORCED) -> None:
        """Create both, and start the operator."""
        body = {"apiVersion": self._version, "kind": self._kind, "metadata": {"name": "digits"}, "spec": spec}
        self.bench.create(self._plural, body, api=self._api)
        self.follow(rollout=rollout, target=target)

    def follow(self, *, rollout: Json | None = None, target: Json = FORCED, **spec: Any) -> None:
        """Create the resource of a target that is there, and start the operator."""
        ref, wanted = {"apiVersion": self._version, "kind": self._kind}, {"bakeTime": "0s"} | (rollout or {})
        given = {"execution": {}} | spec
        self.key = self.bench.declare(target="digits", ref=ref, given=target, rollout=wanted, **given)
        self.clock = Clock()
        kinds = () if self._kind == "Deployment" else (self._kind,)
        self.operator = self.clock.drive(self.bench.operator(target_kinds=kinds))

    async def passes_until(self, true: Callable[[], bool]) -> None:
        """Make passes until something is true."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                await settle(self.operator, self.key)
                await asyncio.sleep(0.1)

    async def passes(self, number: int) -> None:
        """Make some passes."""
        for _ in range(number):
            await settle(self.operator, self.key)
            await asyncio.sleep(0.1)

    def reason(self, kind: str) -> str | None:
        """Reason of a condition, None before it is there."""
        conditions = self.bench.resource().get("status", {}).get("conditions", ())
        return next((entry["reason"] for entry in conditions if entry["type"] == kind), None)

    @property
    def status(self) -> Json:
        """Status of the resource."""
        status: Json = self.bench.resource().get("status", {})
        return status

    @property
    def target(self) -> Json:
        """The target as it is."""
        return self.bench.api.get(self.bench.path(self._plural, "digits", api=self._api))

    async def fail_to_get_ready(self) -> None:
        """Let the new pods never get ready, and the progress deadline of 60 s pass; the version is taken back."""
        await self.passes_until(lambda: self.status.get("stage") == "Optimizing")
        self.broken = True
        await self.passes_until(lambda: self.reason("RolledOut") == "Progressing" and len(self.values()) == 2)
        self.clock.wait(61)
        await self.passes_until(lambda: self.reason("RolledOut") == "RolledBack")
        assert self.status["lastRun"]["reason"] == "ProgressDeadlineExceeded"
        assert self.values() == [DELIVERED]

    def report(self, **status: Any) -> None:
        """Write into the target's status, as its controller or its command line does."""
        path = self.bench.path(self._plural, "digits", api=self._api)
        self.bench.patch(f"{path}/status", {"status": status})

    @property
    def value(self) -> str | None:
        """What the target is given."""
        return value_of(self.target["spec"]["template"])

    def pods(self) -> dict[str, Json]:
        """The target's pods that stay, by name."""
        pods = self.bench.items("pods", api=CORE)
        return {
            pod["metadata"]["name"]: pod
            for pod in pods
            if pod["metadata"]["labels"].get("app") in {"digits", "isvc.digits-predictor"}
            and "deletionTimestamp" not in pod["metadata"]
        }

    def values(self) -> list[str | None]:
        """What they serve, each value once."""
        return sorted({self._served(pod) for pod in self.pods().values()}, key=str)

    def owned(self) -> Json:
        """The variables of the server's container that Retune owns."""
        (entry,) = [entry for entry in self.target["metadata"]["managedFields"] if entry["manager"] == "retune"]
        containers = entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
        assert list(entry["fieldsV1"]) == ["f:spec"]
        variables: Json = containers['k:{"name":"server"}']["f:env"]
        return variables


@asynccontextmanager
async def played(
    bench: Bench,
    *,
    plural: str,
    api: str,
    kind: str,
    served: Callable[[Json], str | None] = value_of,
    deployments: bool = True,
    kubelet: Callable[..., Kubelet] = Kubelet,
) -> AsyncIterator[Play]:
    """A namespace in which Jobs end and pods run.

    served: what a pod was given. deployments: whether those of Deployments are played too, for want of a controller.
    kubelet: who plays the kubelet.
    """
    play = Play(bench, plural=plural, api=api, kind=kind, served=served)
    with (
        Stagehand(bench.api, reply=play.answer, namespace=bench.namespace, deployments=deployments),
        kubelet(bench.api, bench.namespace, is_broken=play.is_broken),
    ):
        yield play
    await play.operator.live.close()
    await play.operator.reader.close()
