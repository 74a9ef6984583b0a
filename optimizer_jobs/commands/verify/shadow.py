"""The shadow of a new version: what users have asked is asked again, of its pods and of the champion's, in turns.

No user sees an answer, and the servers can tell by the request's id that no user asked. The version fails where it is
proved, on the requests that were asked, that its pods err or are slow more often than the owner's margins allow. Each
of the two proofs is wrong with at most half of what the confidence leaves. Why a pod is slow is another question:
asking in turns shares what slows the whole machine, and not what slows one core of one node for as long as the Job
runs. A request that the champion's pods do not answer proves nothing.
"""

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from optimizer_jobs.commands.verify.asking import Unreachable, ask
from optimizer_jobs.errors import JobError
from optimizer_jobs.measure.answers import Answers, alike, answers_of
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineError
from optimizer_jobs.models.golden import SHADOW_ID, GoldenRequest, answered, check, outputs_in
from optimizer_jobs.models.runtime import open_session
from optimizer_jobs.production.windows import Captured, Selection, read_window
from optimizer_jobs.progress import say
from retune.contract.exits import Exit
from retune.contract.requests import Shadow
from retune.contract.results import Reason, Shadowed

Array = NDArray[Any]

LEAST_REQUESTS = 50
"""Requests that the champion has to answer before anything is said."""
CALL_SECONDS = 10.0
"""Longest time of one answer; a longer one is an error."""
MOST_SECONDS = 180.0
"""Time after which no more are asked: what was asked until then counts."""
_UNTIMED = 10
"""First requests whose times do not count, because servers warm up."""
_QUANTILE = 0.95


@dataclass(frozen=True)
class _Reply:
    """What a server made of a request."""

    answer: Mapping[str, Any] | None
    """None where it failed."""
    seconds: float


@dataclass
class _Seen:
    """What was seen of the requests that the champion's pods have answered."""

    requests: int = 0
    failed: int = 0
    wrong: int = 0
    example: str = ""
    """How the first wrong answer is wrong, in words."""
    seconds: list[tuple[float, float]] = field(default_factory=list)
    """Times of champion and new version for what both have answered."""
    outputs: list[tuple[Mapping[str, Array], Mapping[str, Array]]] = field(default_factory=list)
    """Outputs of champion and new version for the same."""


def shadowed(bundle: Bundle, shadow: Shadow, endpoints: Sequence[str], *, model: str) -> Shadowed:
    """Ask captured requests again, and return what came of it.

    Args:
        bundle: The new version.
        shadow: Which requests, the champion's pods, and the owner's margins.
        endpoints: The new version's pods.
        model: Name of the model on the servers.

    Raises:
        JobError: ShadowErrors or ShadowSlow where the version fails, ShadowLacking where there are too few requests; or
            the captured requests cannot be read.
    """
    captured = _captured(bundle, shadow)
    say(f"{len(captured)} captured rows are asked again, of {len(endpoints)} pods and of the champion's")
    seen = _asked(bundle, shadow, endpoints, captured=captured, model=model)
    _judge_errors(seen, shadow)
    if seen.requests < LEAST_REQUESTS:
        raise _lacking(shadow, seen, captured)
    slow = _judge_times(seen, shadow)
    before, after = (_p95([pair[side] for pair in seen.seconds]) for side in (0, 1))
    return Shadowed(
        requests=seen.requests,
        failed=seen.failed,
        wrong=seen.wrong,
        slow=slow,
        agreement=_agreement(bundle, seen),
        champion_p95_ms=before,
        p95_ms=after,
    )


def _captured(bundle: Bundle, shadow: Shadow) -> Captured:
    signature = bundle.manifest.signature
    selection = Selection(start=shadow.since, end=shadow.until, now=max(int(time.time()), shadow.until))
    with tempfile.TemporaryDirectory(prefix="shadow-") as scratch:
        rows = shadow.requests * (signature.batch or 1)
        return read_window(shadow.production, signature, selection, max_rows=rows, into=Path(scratch), seed=shadow.seed)


def _requests(bundle: Bundle, captured: Captured) -> Iterator[GoldenRequest]:
    """Yield each row as a request with the bundle's own answer; rows that no request can hold are left out."""
    session, size = open_session(bundle), bundle.manifest.signature.batch or 1
    for start in range(0, len(captured) - size + 1, size):
        with suppress(EngineError):
            yield answered(session, {name: rows[start : start + size] for name, rows in captured.inputs.items()})


def _asked(bundle: Bundle, shadow: Shadow, endpoints: Sequence[str], *, captured: Captured, model: str) -> _Seen:
    """Ask champion and new version every request, in turns first and second, until harm is proved or time is over."""
    seen, end = _Seen(), time.monotonic() + MOST_SECONDS
    pods = zip(cycle(shadow.champion_endpoints), cycle(endpoints), strict=False)
    for number, (request, pair) in enumerate(zip(_requests(bundle, captured), pods, strict=False)):
        champion, pod = _replies(pair, request, model=model, champion_first=bool(number % 2))
        _note(seen, request, champion, pod, bundle=bundle, timed=number >= _UNTIMED)
        is_proved = _proved(seen.failed + seen.wrong, shadow.requests, shadow.error_margin, risk=_risk(shadow))
        if is_proved or time.monotonic() > end:
            break
    return seen


def _replies(
    pair: tuple[str, str], request: GoldenRequest, *, model: str, champion_first: bool
) -> tuple[_Reply, _Reply]:
    """Return what the pods of champion and new version make of a request."""
    if champion_first:
        champion = _reply(pair[0], request, model=model)
        return champion, _reply(pair[1], request, model=model)
    pod = _reply(pair[1], request, model=model)
    return _reply(pair[0], request, model=model), pod


def _reply(endpoint: str, request: GoldenRequest, *, model: str) -> _Reply:
    began = time.perf_counter()
    try:
        answer = ask(endpoint, model=model, body=request.body(SHADOW_ID), seconds=CALL_SECONDS)
    except (Unreachable, JobError):
        return _Reply(None, time.perf_counter() - began)
    return _Reply(answer, time.perf_counter() - began)


def _note(seen: _Seen, request: GoldenRequest, champion: _Reply, pod: _Reply, *, bundle: Bundle, timed: bool) -> None:
    if champion.answer is None:
        return
    seen.requests += 1
    if pod.answer is None:
        seen.failed += 1
        return
    reason = check(pod.answer, request, golden=bundle.golden)
    if reason is not None:
        seen.wrong += 1
        seen.example = seen.example or reason
    if timed:
        seen.seconds.append((champion.seconds, pod.seconds))
    outputs = [outputs_in(reply.answer or {}, request) for reply in (champion, pod)]
    if outputs[0] is not None and outputs[1] is not None:
        seen.outputs.append((outputs[0], outputs[1]))


def _proved(count: int, requests: int, share: float, *, risk: float) -> bool:
    """Whether so many of the requests are more than this share can explain: an exact binomial test."""
    return bool(count and binomtest(count, requests, share, alternative="greater").pvalue <= risk)


def _judge_errors(seen: _Seen, shadow: Shadow) -> None:
    if not _proved(seen.failed + seen.wrong, seen.requests, shadow.error_margin, risk=_risk(shadow)):
        return
    wrong = f" and answered {seen.wrong} otherwise than its bundle does ({seen.example})" if seen.wrong else ""
    raise JobError(
        Reason.SHADOW_ERRORS,
        "the new version's pods",
        f"of {seen.requests} captured requests that the champion answered, they failed {seen.failed}{wrong}; "
        f"analysis.errorMargin allows {shadow.error_margin:.3g} of them.",
        "See the pods' log for what they fail at.",
        Exit.INFEASIBLE,
    )


def _risk(shadow: Shadow) -> float:
    """Return the chance with which one of the two proofs may be wrong."""
    return (1 - shadow.confidence) / 2


def surely_slow(champion: Array, pod: Array, *, margin: float, risk: float) -> bool:
    """Whether it is proved that more than 5 % and the margin of a version's answers exceed the champion's p95.

    Where that p95 lies is not known either: it is put at the upper end of its interval, an order statistic, at half of
    the risk (Conover, Practical Nonparametric Statistics, 3.2). Few answers of the champion have no such end.

    Args:
        champion: Times (N,) of the champion's answers.
        pod: Times (M,) of the version's.
        margin: Share of the answers.
        risk: Chance with which this may be wrong for a version that keeps the margin.
    """
    place = int(binom.ppf(1 - risk / 2, len(champion), _QUANTILE))
    if place >= len(champion):
        return False
    slow = int((pod > np.sort(champion)[place]).sum())
    return _proved(slow, len(pod), min(1.0, 1 - _QUANTILE + margin), risk=risk / 2)


def _judge_times(seen: _Seen, shadow: Shadow) -> int:
    """Return how many answers took longer than 95 % of the champion's; raises JobError where these are too many."""
    if not seen.seconds:
        return 0
    champion, pod = np.array(seen.seconds).T
    slow, allowed = int((pod > np.quantile(champion, _QUANTILE)).sum()), 1 - _QUANTILE + shadow.slow_margin
    if surely_slow(champion, pod, margin=shadow.slow_margin, risk=_risk(shadow)):
        before, after = (_p95(list(times)) for times in (champion, pod))
        raise JobError(
            Reason.SHADOW_SLOW,
            "the new version's pods",
            f"{slow} of {len(pod)} answers to captured requests took longer than 95 % of the champion's (p95 {after} "
            f"beside {before} ms); analysis.slowMargin allows {allowed:.3g} of them.",
            "See whether its pods share their CPUs with others, or are limited to less than the champion's.",
            Exit.INFEASIBLE,
        )
    return slow


def _p95(seconds: Sequence[float]) -> str:
    return f"{1e3 * float(np.quantile(seconds, _QUANTILE)):.4g}" if seconds else "0"


def _agreement(bundle: Bundle, seen: _Seen) -> str | None:
    """Return the share of the answers in which both agree, as the task says; None where they cannot be compared."""
    if not seen.outputs or not bundle.manifest.signature.is_rows_first:
        return None
    try:
        champion, pod = (_answers(bundle, [pair[side] for pair in seen.outputs]) for side in (0, 1))
    except (UnfitAnswersError, ValueError, KeyError):
        return None
    share = float(np.mean(alike(champion, pod)))
    return f"{share:.4f}" if math.isfinite(share) else None


def _answers(bundle: Bundle, parts: Sequence[Mapping[str, Array]]) -> Answers:
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    manifest = bundle.manifest
    return answers_of(
        outputs,
        rows=len(next(iter(outputs.values()))),
        task=manifest.task,
        classes=manifest.classes or None,
        reading=manifest.signature.reading,
    )


def _lacking(shadow: Shadow, seen: _Seen, captured: Captured) -> JobError:
    why = next(iter(captured.violations), "")
    return JobError(
        Reason.SHADOW_LACKING,
        shadow.production.uri,
        f"the champion's pods answered {seen.requests} requests of {len(captured)} captured rows that fit the model; a "
        f"shadow needs {LEAST_REQUESTS}. {why}".strip(),
        "See that requests are captured and that the champion's pods answer; or raise canary.shadow.span.",
        Exit.INFEASIBLE,
    )
