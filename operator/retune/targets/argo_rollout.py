"""An Argo Rollout as target: Retune changes the one field, and Argo's controller takes the steps that its owner wrote.

What the owner's steps say counts: a pause is waited for, and an abort takes the version back. Nothing here promotes.
"""

from retune.api.base import Json
from retune.plan.observed import Target
from retune.plan.told import Abort
from retune.targets.deployment import refused_pods, surge_outage
from retune.targets.pod_template import PodTemplated, conditions_of, is_made_by

_WORKING_STEPS = ("analysis", "experiment", "plugin")
"""Steps that take as long as their own specs say."""


class ArgoRollout(PodTemplated):
    """`argoproj.io/v1alpha1` Rollout."""

    api_version = "argoproj.io/v1alpha1"
    kind = "Rollout"
    resource = "rollouts"
    merges_lists = False
    spec_fields = ("strategy", "paused", "workloadRef")
    status_fields = (
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "availableReplicas",
        "phase",
        "message",
        "abort",
        "pauseConditions",
        "controllerPause",
        "stableRS",
        "currentPodHash",
        "currentStepIndex",
        "canary",
        "blueGreen",
    )

    def drives(self, raw: Json) -> str | None:
        """Return the Deployment that spec.workloadRef names."""
        ref = raw["spec"].get("workloadRef") or {}
        return ref.get("name") if ref.get("kind") == "Deployment" else None

    def parse(self, raw: Json, *, variable: str) -> Target:
        """Return the Rollout as its controller last reported it."""
        return super().parse(raw, variable=variable).but(held=self._held(raw), aborted=self._aborted(raw))

    def is_seen(self, raw: Json) -> bool:
        """Return whether the controller has seen the newest spec; it writes the generation as a text."""
        return str(raw.get("status", {}).get("observedGeneration")) == str(raw["metadata"].get("generation", 0))

    def settled(self, raw: Json, wanted: int) -> bool:
        """Return whether every step is done: the newest pods are the stable ones, and healthy."""
        status = raw.get("status", {})
        is_stable = bool(status.get("stableRS")) and status.get("stableRS") == status.get("currentPodHash")
        is_healthy = status.get("phase") == "Healthy" and status.get("availableReplicas", 0) >= wanted
        return self.is_seen(raw) and not _is_resuming(status) and is_stable and is_healthy

    def progress(self, raw: Json, wanted: int) -> str:
        """Return how far the steps are, in words."""
        status, words = raw.get("status", {}), super().progress(raw, wanted)
        if held := self._held(raw):
            return held
        if self.settled(raw, wanted) or not self.is_seen(raw):
            return words
        phase, message = status.get("phase", "Progressing"), status.get("message")
        return f"{words}; it is {phase}" + (f": {message}" if message else "")

    def outage(self, spec: Json, wanted: int) -> str | None:
        """Return why no pod may answer while pods are replaced; blue-green and routed traffic keep the stable ones."""
        canary = (spec.get("strategy") or {}).get("canary")
        return surge_outage(canary, wanted) if canary is not None and "trafficRouting" not in canary else None

    def hindrance(self, raw: Json) -> str | None:
        """Return why the controller makes no pods: it does not understand the spec, or pods are refused."""
        invalid = conditions_of(raw).get("InvalidSpec", {})
        return str(invalid.get("message", "")) if invalid.get("status") == "True" else refused_pods(raw)

    def unfit(self, raw: Json) -> str | None:
        """Return that the pod template, and with it the field, is in another object."""
        ref = raw["spec"].get("workloadRef")
        if ref is None:
            return None
        return (
            f"it takes its pods from {ref.get('kind')} {ref.get('name')} (spec.workloadRef), so that the field is "
            "there: move that template into spec.template of the Rollout"
        )

    def belongs(self, pod: Json, name: str) -> bool:
        """Return whether one of the Rollout's ReplicaSets made the pod and it is not being deleted."""
        label = pod["metadata"].get("labels", {}).get("rollouts-pod-template-hash")
        return is_made_by(pod, "ReplicaSet", f"{name}-{label}")

    def _held(self, raw: Json) -> str | None:
        """Return which of the owner's own steps takes its time, and who ends it."""
        status = raw.get("status", {})
        if not self.is_seen(raw) or _is_resuming(status) or status.get("abort"):
            return None
        if raw["spec"].get("paused"):
            return f"it is paused by hand (spec.paused): whoever owns it {_promotes(raw)}"
        for pause in status.get("pauseConditions") or ():
            return _pause(raw, str(pause.get("reason")))
        return _work(raw)

    def _aborted(self, raw: Json) -> Abort | None:
        """Return that the newest template was given up, and whether an analysis of the owner's said so."""
        status = raw.get("status", {})
        is_stable = status.get("stableRS") == status.get("currentPodHash")
        if not self.is_seen(raw) or not status.get("abort") or is_stable:
            return None
        progressing = conditions_of(raw).get("Progressing", {})
        words = progressing.get("message") if progressing.get("reason") == "RolloutAborted" else status.get("message")
        failed = any(run.get("status") == "Failed" for run in _analyses(status))
        return Abort(str(words or "the Rollout was aborted"), by_analysis=failed)


def _is_resuming(status: Json) -> bool:
    """Whether somebody has ended a pause and the controller has not seen it yet."""
    return bool(status.get("controllerPause")) and not status.get("pauseConditions")


def _promotes(raw: Json) -> str:
    meta = raw["metadata"]
    return f"lets it go on with `kubectl argo rollouts promote {meta['name']} -n {meta.get('namespace')}`"


def _pause(raw: Json, reason: str) -> str:
    """Return what a pause of the controller waits for."""
    strategy = raw["spec"].get("strategy") or {}
    if reason == "CanaryPauseStep":
        step, words = _step(raw)
        duration = (step.get("pause") or {}).get("duration")
        ends = f"it goes on after {duration}" if duration else f"whoever owns it {_promotes(raw)}"
        return f"it is paused by {words} of its own: {ends}"
    if reason == "BlueGreenPause":
        seconds = (strategy.get("blueGreen") or {}).get("autoPromotionSeconds")
        ends = f"it goes on after {seconds} s" if seconds else f"whoever owns it {_promotes(raw)}"
        return f"it is paused before it switches to the new pods: {ends}"
    return f"it is paused ({reason}): whoever owns it {_promotes(raw)}, or aborts it"


def _work(raw: Json) -> str | None:
    """Return which analysis, experiment or plugin is under way."""
    step, words = _step(raw)
    kind = next((kind for kind in _WORKING_STEPS if kind in step), None)
    blue_green = raw.get("status", {}).get("blueGreen") or {}
    runs = (blue_green.get(f"{when}PromotionAnalysisRunStatus") or {} for when in ("pre", "post"))
    if kind is not None:
        return f"its {words}, {kind}, is under way"
    return "its analysis is under way" if any(run.get("status") in {"Pending", "Running"} for run in runs) else None


def _step(raw: Json) -> tuple[Json, str]:
    """Return the owner's step that is taken now, empty after the last one, and its number in words."""
    steps = ((raw["spec"].get("strategy") or {}).get("canary") or {}).get("steps") or []
    index = raw.get("status", {}).get("currentStepIndex")
    if index is None or not 0 <= index < len(steps):
        return {}, "no step"
    return steps[index], f"step {index + 1} of {len(steps)}"


def _analyses(status: Json) -> list[Json]:
    canary, blue_green = status.get("canary") or {}, status.get("blueGreen") or {}
    runs = [canary.get(f"current{kind}AnalysisRunStatus") for kind in ("Step", "Background")]
    runs += [blue_green.get(f"{when}PromotionAnalysisRunStatus") for when in ("pre", "post")]
    return [run for run in runs if run]
