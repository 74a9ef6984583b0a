"""Single verbs and reads on a real API server: what is said of a refusal, events, last words, progress.

What every verb does is in `test_writer.py`.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from retune.api.objects import ModelOptimization
from retune.api.rolling import ActiveRollout
from retune.api.status import ActiveRun
from retune.cluster.errors import Conflict, Refused
from retune.cluster.kinds import JOBS
from retune.contract.results import encode_result
from retune.plan.actions import EmitEvent, InjectModel
from retune.runtime import Operator
from retune.signals.scrape import Scraper
from tests.cluster.harness import Bench, env_of, settle
from tests.conformance.scene import CREATE_RUN, RECORD_RUN, RUN
from tests.unit.operator.test_parse import BAD_MODEL
from tests.unit.operator.test_scrape import EXPOSITION
from tests.unit.operator.test_signals_exposition import Server
from tests.unit.operator.web import saying, serving

Json = dict[str, Any]
APPS = "/apis/apps/v1"
BATCH = "/apis/batch/v1"
CORE = "/api/v1"
NOW = "2026-11-25T12:00:00Z"


async def ready(bench: Bench, key: str, **settings: Any) -> tuple[Operator, ModelOptimization]:
    """An operator that has listed everything, and the resource as it holds it."""
    operator = bench.operator(**settings)
    await operator.resync.once()
    resource = operator.cache.resource(key)
    assert resource is not None
    return operator, resource


async def inject(operator: Operator, resource: ModelOptimization, value: str | None) -> None:
    """Give the target that memory knows a value."""
    target = (await operator.reader.observe(resource)).target
    await operator.writer.inject(resource, InjectModel("server", "MODEL_URI", value), target=target)


async def test_a_target_that_came_after_the_decision_is_not_changed(bench: Bench) -> None:
    """Fault 26: a watch may have told of it by then; whose Lease it is under, nobody has asked yet."""
    bench.deploy()
    key = bench.declare()
    operator, resource = await ready(bench, key)
    decided = (await operator.reader.observe(resource)).target
    bench.api.request("DELETE", bench.path("deployments", "digits-server", api=APPS))
    bench.deploy()
    await operator.resync.once()
    await operator.writer.inject(resource, InjectModel("server", "MODEL_URI", "pvc://store/a"), target=decided)
    assert env_of(bench) == []


async def test_a_field_of_another_manager_is_a_refusal_that_names_it(bench: Bench) -> None:
    """Fault 26: nothing is forced unless it was asked for."""
    bench.deploy(value="file:///delivered")
    key = bench.declare()
    operator, resource = await ready(bench, key)
    with pytest.raises(Refused) as refused:
        await inject(operator, resource, "pvc://store/a")
    assert refused.value.reason == "FieldConflict"
    assert "retune-localcluster" in refused.value.message
    assert env_of(bench)[0]["value"] == "file:///delivered"


async def test_a_field_that_others_keep_from_being_emptied_is_a_refusal_that_names_them(bench: Bench) -> None:
    """The server lets everybody give up what is not theirs; whoever waits for the field to be empty must hear of it."""
    bench.deploy()
    key = bench.declare()
    operator, resource = await ready(bench, key)
    await inject(operator, resource, "pvc://store/a")
    bench.deploy(value="file:///delivered")
    with pytest.raises(Refused, match="retune-localcluster owns MODEL_URI of Deployment digits-server") as refused:
        await inject(operator, resource, None)
    assert refused.value.reason == "FieldConflict"


async def test_a_run_that_others_have_touched_is_read_again_and_then_recorded(bench: Bench) -> None:
    """A status is written on the newest reading only; the pass that meets a newer one decides again."""
    bench.deploy()
    key = bench.declare()
    operator, resource = await ready(bench, key)
    await operator.writer.create_run(resource, CREATE_RUN)
    path = bench.path("optimizationruns", RUN)
    bench.patch(path, {"metadata": {"annotations": {"example.com/ticket": "7"}}})
    with pytest.raises(Conflict):
        await operator.writer.record_run(resource, RECORD_RUN)
    await operator.writer.record_run(resource, RECORD_RUN)
    stored = bench.api.get(path)
    assert stored["status"]["outcome"] == "NoGain"
    assert stored["metadata"]["annotations"] == {"example.com/ticket": "7"}


async def test_an_event_is_posted_under_our_name(bench: Bench) -> None:
    """`kubectl describe` shows it at the resource."""
    bench.deploy()
    key = bench.declare()
    operator, resource = await ready(bench, key)
    await operator.writer.emit(resource, EmitEvent("Promoted", "version 2 is champion", warning=False))
    (event,) = bench.items("events", api=CORE)
    assert event["reportingComponent"] == "retune"
    assert (event["reason"], event["type"], event["involvedObject"]["name"]) == ("Promoted", "Normal", "digits")


async def test_an_event_that_cannot_be_posted_stops_nothing(bench: Bench) -> None:
    """Nobody hears it, and the pass goes on."""
    bench.deploy()
    key = bench.declare()
    operator, resource = await ready(bench, key)

    def away(_: int, __: object) -> None:
        raise ConnectionRefusedError

    bench.spy.before = away
    await operator.writer.emit(resource, EmitEvent("Promoted", "version 2 is champion"))
    bench.spy.before = None
    assert bench.items("events", api=CORE) == []


def _pod(bench: Bench, job: Json, *, status: Json) -> None:
    """A pod of a Job, with the status a kubelet would give it."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    labels = {"app.kubernetes.io/managed-by": "retune", "retune.dev/resource": "digits", "retune.dev/command": "search"}
    labels |= {"batch.kubernetes.io/controller-uid": job["metadata"]["uid"]}
    container = {"name": "optimizer", "image": "optimizer:test"}
    meta = {"name": "digits-pod", "labels": labels, "ownerReferences": [owner | {"controller": True}]}
    bench.create("pods", {"metadata": meta, "spec": {"containers": [container], "schedulerName": "nobody"}}, api=CORE)
    bench.patch(bench.path("pods", "digits-pod", api=CORE) + "/status", {"status": status})


async def test_a_job_that_finished_before_its_pods_were_heard_of_is_heard_out(bench: Bench) -> None:
    """The watches of Jobs and pods are two streams: a result that is not here yet is read live, once."""
    bench.deploy()
    key = bench.declare(execution={})
    operator = bench.operator()
    await settle(operator, key)
    (job,) = bench.jobs
    text = encode_result(BAD_MODEL).decode()
    ended = {"exitCode": 64, "message": text, "finishedAt": NOW}
    state = [
        {
            "name": "optimizer",
            "image": "i",
            "imageID": "i",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
    ]
    _pod(bench, job, status={"phase": "Failed", "containerStatuses": state, "startTime": NOW})
    failed = {"status": "True", "reason": "PodFailurePolicy", "lastTransitionTime": NOW, "lastProbeTime": NOW}
    conditions = [failed | {"type": "FailureTarget"}, failed | {"type": "Failed"}]
    path = bench.path("jobs", job["metadata"]["name"], api=BATCH)
    raw = bench.patch(
        f"{path}/status",
        {"status": {"failed": 1, "startTime": job["metadata"]["creationTimestamp"], "conditions": conditions}},
    )
    operator.cache.put(JOBS, raw)
    await operator.reconciler.run(key)
    condition = bench.condition("Baselined")
    assert condition["reason"] == "ModelInvalid"
    assert "is no ONNX file" in condition["message"]
    listed = sum("/pods" in path for path in bench.spy.reads)
    await operator.reconciler.run(key)
    assert sum("/pods" in path for path in bench.spy.reads) == listed


async def test_a_running_search_is_asked_for_its_progress(bench: Bench) -> None:
    """Only pods of our own search Job are asked, and only while they run."""
    bench.deploy()
    key = bench.declare()
    operator, resource = await ready(bench, key)
    run = ActiveRun(name="digits-r1", number=1, trigger="Initial", spec_hash="ab", start_time="2026-11-25T12:00:00Z")
    resource = resource.model_copy(update={"status": resource.status.model_copy(update={"run": run})})
    owner = {"apiVersion": "retune.dev/v1alpha1", "kind": "ModelOptimization", "name": "digits", "controller": True}
    labels = {"app.kubernetes.io/managed-by": "retune", "retune.dev/resource": "digits", "retune.dev/command": "search"}
    meta = {"name": "digits-r1-search", "labels": labels, "ownerReferences": [owner | {"uid": resource.metadata.uid}]}
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "optimizer", "image": "optimizer:test"}]}}
    job = bench.create("jobs", {"metadata": meta, "spec": {"template": template}}, api=BATCH)
    assert operator.reader.searching(resource) == []
    _pod(bench, job, status={"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]})
    await operator.resync.once()
    assert operator.reader.searching(resource) == ["127.0.0.1"]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=EXPOSITION)

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scraper = Scraper(interval=5, port=runner.addresses[0][1])
    operator.reader._scraper = scraper
    try:
        async with asyncio.timeout(10):
            observed = await operator.reader.observe(resource)
    finally:
        await scraper.close()
        await runner.cleanup()
    assert observed.trials is not None
    assert (observed.trials.done, observed.trials.total) == (9, 24)


async def test_a_job_that_may_have_no_pods_says_why(bench: Bench) -> None:
    """Fault 13: a quota on pods is told only in events, which are asked once a Job has had no pod for a while."""
    bench.deploy()
    key = bench.declare(execution={})
    operator = bench.operator()
    await settle(operator, key)
    (job,) = bench.jobs
    started = {"status": {"startTime": job["metadata"]["creationTimestamp"]}}
    bench.patch(bench.path("jobs", job["metadata"]["name"], api=BATCH) + "/status", started)
    _, look_again = await settle(operator, key)
    assert look_again is not None
    about = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "namespace": bench.namespace}
    message = 'Error creating: pods "x" is forbidden: exceeded quota: few, requested: pods=1, limited: pods=0'
    event = {"metadata": {"name": "x.1"}, "involvedObject": about | {"uid": job["metadata"]["uid"]}, "type": "Warning"}
    times = {"firstTimestamp": NOW, "lastTimestamp": NOW}
    bench.create("events", event | times | {"reason": "FailedCreate", "message": message}, api=CORE)
    operator.reader._clock = lambda: datetime.now(UTC) + timedelta(seconds=60)
    await operator.reconciler.run(key)
    condition = bench.condition("Baselined")
    assert condition["reason"] == "QuotaExceeded"
    assert "exceeded quota: few" in condition["message"]


def serving_pod(bench: Bench, name: str = "serving", **status: Any) -> None:
    """Create a pod of the Deployment's present template, as its controllers and a kubelet would."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "digits-server-5d", "uid": "rs", "controller": True}
    meta = {"name": name, "labels": {"app": "digits-server", "pod-template-hash": "5d"}, "ownerReferences": [owner]}
    container = {"name": "server", "image": "server:test", "env": [{"name": "MODEL_URI", "value": "pvc://store/a"}]}
    bench.create("pods", {"metadata": meta, "spec": {"containers": [container], "schedulerName": "nobody"}}, api=CORE)
    running = {"phase": "Running", "podIP": "10.9.8.7", "podIPs": [{"ip": "10.9.8.7"}]}
    bench.patch(bench.path("pods", name, api=CORE) + "/status", {"status": running | status})


def rolling_out(resource: ModelOptimization) -> ModelOptimization:
    """The resource in the middle of a rollout."""
    rollout = ActiveRollout(version=2, start_time=datetime.now(UTC))
    return resource.model_copy(update={"status": resource.status.model_copy(update={"rollout": rollout})})


async def test_during_a_rollout_the_targets_pods_are_read_live(bench: Bench) -> None:
    """Only ready pods of the newest template are asked golden requests; outside a rollout no pod is read."""
    bench.deploy(value="pvc://store/a")
    key = bench.declare()
    operator, resource = await ready(bench, key)
    serving_pod(bench, conditions=[{"type": "Ready", "status": "True"}])
    assert (await operator.reader.observe(resource)).pods.endpoints == ()
    (endpoint,) = (await operator.reader.observe(rolling_out(resource))).pods.endpoints
    assert endpoint.startswith("http://10.9.8.7:")


async def test_in_a_bake_the_new_pods_own_counters_are_read(bench: Bench) -> None:
    """Fault 25: by the addresses that the API server has; outside a bake, and without a verdict, nobody is asked."""
    bench.deploy(value="pvc://store/a")
    counted = Server()
    counted.answer(0.02, times=30)
    counted.answer(0.02, status=500, times=20)
    async with serving(saying(counted.text)) as port:
        key = bench.declare(monitoring={"window": "1h", "performance": {"pods": {"port": port}}})
        operator, resource = await ready(bench, key)
        serving_pod(bench, podIP="127.0.0.1", podIPs=[{"ip": "127.0.0.1"}])
        moving = rolling_out(resource)
        assert (await operator.reader.observe(moving)).heard is None
        rollout = moving.status.rollout
        assert rollout is not None
        baking = rollout.model_copy(update={"bake_start_time": datetime.now(UTC)})
        status = moving.status.model_copy(update={"rollout": baking})
        heard = (await operator.reader.observe(moving.model_copy(update={"status": status}))).heard
        await operator.live.close()
    assert heard is not None
    assert (heard.pods, heard.requests, heard.errors) == (1, 50, 20)


async def test_a_crash_of_the_model_is_told_from_a_pod_that_was_taken_away(bench: Bench) -> None:
    """Fault 18: in the fields that the API server really keeps of a pod."""
    bench.deploy(value="pvc://store/a")
    key = bench.declare()
    operator, resource = await ready(bench, key)
    ended = {"exitCode": 137, "reason": "Error", "startedAt": NOW, "finishedAt": NOW}
    known = {"image": "x", "imageID": "x", "name": "server", "ready": False, "restartCount": 1}
    crashed = [known | {"state": {"terminated": ended}}]
    drained = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
    serving_pod(bench, "drained", containerStatuses=crashed, conditions=drained)
    serving_pod(bench, "evicted", containerStatuses=crashed, phase="Failed", reason="Evicted")
    assert (await operator.reader.observe(rolling_out(resource))).pods.crash is None
    serving_pod(bench, "broken", containerStatuses=crashed)
    crash = (await operator.reader.observe(rolling_out(resource))).pods.crash
    assert crash is not None
    assert crash.message.startswith("pod broken: container server")
    assert crash.at == datetime.fromisoformat(NOW)


async def test_a_template_that_others_change_is_told_from_our_own_change(bench: Bench) -> None:
    """What memory keeps of a Deployment is enough to see it, and defaults that the API server sets are no change."""
    bench.deploy()
    key = bench.declare()
    operator, resource = await ready(bench, key)

    async def template() -> str:
        await operator.resync.once()
        target = (await operator.reader.observe(resource)).target
        assert target is not None
        return target.template

    before = await template()
    await inject(operator, resource, "pvc://store/a")
    assert await template() == before
    path = bench.path("deployments", "digits-server", api=APPS)
    bench.patch(path, {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}})
    assert await template() != before
