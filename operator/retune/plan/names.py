"""Names of everything we create: pure functions of the resource and its counters, so that re-creation is a no-op."""

import hashlib
import re

_NAME_LIMIT = 253
"""Characters of an object's name."""
_SERVICE_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def baseline_job(resource: str, attempt: int, spec_hash: str) -> str:
    """Return the name of a baseline attempt's Job."""
    return f"{baseline_job_prefix(resource)}{attempt}-{spec_hash[:8]}"


def baseline_job_prefix(resource: str) -> str:
    """Return what the names of a resource's baseline attempts have in common."""
    return f"{resource}-b"


def run(resource: str, number: int) -> str:
    """Return the name of an OptimizationRun."""
    return f"{resource}-r{number}"


def run_in_store(run_name: str, *, uid: str) -> str:
    """Return what a run of the resource with this UID is called in the store.

    The store outlives a resource: the next one of that name must never go on with its studies or repeat its verdicts.
    """
    return f"{run_name}-{hashlib.sha256(uid.encode()).hexdigest()[:8]}"


def gather_job(run_name: str) -> str:
    """Return the name of the Job that builds a run's data."""
    return f"{run_name}-gather"


def check_job(resource: str, window: int) -> str:
    """Return the name of the Job that checks a window; re-creation is a no-op, so nothing is written ahead."""
    return f"{resource}-w{window}"


def checked_window(resource: str, job: str) -> int | None:
    """Return the window that a Job of the resource checks, or None when it does something else."""
    number = job.removeprefix(f"{resource}-w")
    return int(number) if number != job and number.isdecimal() else None


def search_job(run_name: str) -> str:
    """Return the name of a run's search Job."""
    return f"{run_name}-search"


def judge_job(run_name: str) -> str:
    """Return the name of a run's judge Job."""
    return f"{run_name}-judge"


def canary(target: str) -> str:
    """Return the name of the Deployment that a target's next version is tried in."""
    name = f"{target}-canary"
    if len(name) <= _NAME_LIMIT:
        return name
    return f"{target[: _NAME_LIMIT - 16].rstrip('.-')}-{hashlib.sha256(target.encode()).hexdigest()[:8]}-canary"


def canary_service(target: str) -> str:
    """Return the name of the Service of a canary's pods: the canary's own where a Service can have it."""
    name = canary(target)
    if _SERVICE_NAME.fullmatch(name):
        return name
    return f"canary-{hashlib.sha256(target.encode()).hexdigest()[:16]}"


def verify_job(run_name: str, attempt: int) -> str:
    """Return the name of a Job that asks golden requests."""
    return f"{run_name}-verify{attempt}"


def register_job(resource: str, number: int) -> str:
    """Return the name of a Job that tells the registry something."""
    return f"{register_job_prefix(resource)}{number}"


def register_job_prefix(resource: str) -> str:
    """Return what the names of a resource's Jobs have in common that tell the registry something."""
    return f"{resource}-reg"


def rollback_job(resource: str, number: int, task: str) -> str:
    """Return the name of a Job of a rollback that a person has asked for; `task` says what it does."""
    return f"{resource}-back{number}-{task}"
