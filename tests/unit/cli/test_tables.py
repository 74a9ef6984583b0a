"""What a person sees, kept as text: a change of a picture is a change on purpose."""

import pytest

from retune.cli import tables
from retune.cli.access import parsed
from tests.unit.cli import shelf

MOMENTS = ("blocked", "optimizing", "gating", "rolling_out", "baking", "promoted", "watched", "relearning")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_resource_in_full_looks_as_kept(moment: str) -> None:
    """Stage, run, versions with their numbers, and every condition with its reason are shown at every moment."""
    shelf.assert_golden(
        shelf.drawn(tables.picture(shelf.resource(moment), now=shelf.seen_at(moment))), f"status-{moment}"
    )


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_list_looks_as_kept(*, everywhere: bool) -> None:
    """One line a resource; namespaces only when all are listed."""
    listed = [shelf.resource(moment) for moment in ("blocked", "optimizing", "promoted", "watched")]
    picture = tables.listing(listed, now=shelf.NOW, everywhere=everywhere)
    shelf.assert_golden(shelf.drawn(picture, width=160), "list-everywhere" if everywhere else "list")


def test_the_comparison_looks_as_kept() -> None:
    """Champion and candidate stand side by side with intervals, change and digests."""
    shelf.assert_golden(shelf.drawn(tables.comparison(shelf.run())), "compare")


def test_the_comparison_tells_of_data_that_are_not_the_spec_s() -> None:
    """What a run of fresh data learned from is told beside why it started."""
    run = shelf.run()
    fresh = run.model_copy(update={"status": run.status.model_copy(update={"data": "1,200 rows since Monday"})})
    assert "data: 1,200 rows since Monday" in shelf.drawn(tables.comparison(fresh))
    assert "data:" not in shelf.drawn(tables.comparison(run))


def test_the_comparison_fits_eighty_columns() -> None:
    """On a small terminal no number is cut."""
    text = shelf.drawn(tables.comparison(shelf.run()), width=80)
    assert "…" not in text
    assert "[0.9788, 0.9967]" in text


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_message_is_told_once(moment: str) -> None:
    """A sentence that several conditions share does not bury the others."""
    resource = shelf.resource(moment)
    status, text = resource.status, shelf.drawn(tables.picture(resource, now=shelf.NOW), width=2000)
    for condition in status.conditions:
        shown = text.count(condition.message)
        stage = (status.message or "").count(condition.message)
        last = (status.last_run.message if status.last_run else "").count(condition.message)
        longer = sum(condition.message in other.message for other in status.conditions)
        assert 1 <= shown <= max(1, stage + last + longer)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (None, "pods are being replaced"),
        ("FirstGolden", "first new pod"),
        ("Ready", "pods are being replaced"),
        ("Golden", "every pod is asked"),
        ("CanaryReady", "the canary's pod is waited for"),
        ("StepOfALaterRelease", "pods are being replaced"),
    ],
)
def test_a_rollout_says_what_it_waits_for(step: str | None, words: str) -> None:
    """In words, whichever release has begun it."""
    resource = shelf.resource("rolling_out")
    assert resource.status.rollout is not None
    rollout = resource.status.rollout.model_copy(update={"step": step})
    moving = resource.model_copy(update={"status": resource.status.model_copy(update={"rollout": rollout})})
    assert words in shelf.drawn(tables.picture(moving, now=shelf.NOW))


def test_a_canary_tells_its_share_and_what_its_pods_make_of_it() -> None:
    """The one is what the spec wants, the other what there is."""
    resource = shelf.resource("rolling_out")
    assert resource.status.rollout is not None
    weights = {"step": "Weight", "weight": 10, "effective_weight": 25}
    rollout = resource.status.rollout.model_copy(update=weights)
    moving = resource.model_copy(update={"status": resource.status.model_copy(update={"rollout": rollout})})
    words = "a canary with 10 % of the requests (25 % by its pods)"
    assert words in shelf.drawn(tables.picture(moving, now=shelf.NOW), width=200)


def test_a_switch_tells_that_all_requests_go_beside_the_champion() -> None:
    """By the route, whatever the number of pods is."""
    raw = shelf.raw("rolling_out")
    traffic = {"kind": "HTTPRoute", "route": {"name": "digits"}}
    raw["spec"]["rollout"] = {"strategy": "BlueGreen", "blueGreen": {"traffic": traffic}}
    raw["status"]["rollout"] |= {"step": "Weight", "weight": 100, "effectiveWeight": 100}
    raw["status"]["canaryRoute"] = {"name": "digits", "service": "digits"}
    words = "beside the champion with 100 % of the requests (100 % by the route)"
    assert words in shelf.drawn(tables.picture(parsed(raw), now=shelf.NOW), width=200)


def test_a_run_says_why_it_started_and_which_data_it_uses() -> None:
    """Other data than the spec's is told beside the run, and the reason is not repeated below."""
    resource = shelf.resource("optimizing")
    assert resource.status.run is not None
    words = {"why": "accuracy fell [see x[mean]]", "data": "1000 labelled rows of the last 168 h"}
    run = resource.status.run.model_copy(update=words)
    resource = resource.model_copy(update={"status": resource.status.model_copy(update={"run": run})})
    lines = shelf.drawn(tables.picture(resource, now=shelf.NOW)).splitlines()
    assert [line.split()[0] for line in lines if any(text in line for text in words.values())] == ["Why", "Data"]


def test_a_version_that_waits_is_seen_in_the_list_and_in_full() -> None:
    """Its number beside the champion's, and in full its digest and numbers."""
    raw = shelf.raw("promoted")
    metrics = [{"name": "accuracy", "value": "0.9731"}]
    raw["status"]["candidate"] = {"version": 3, "uri": "pvc://s/3", "digest": "sha256:" + "3c" * 32, "metrics": metrics}
    raw["status"]["stage"] = "AwaitingApproval"
    waiting = parsed(raw)
    listed = shelf.drawn(tables.listing([waiting], now=shelf.NOW, everywhere=False), width=200)
    assert "AwaitingApproval" in listed
    assert "v2 (v3 waits)" in listed
    full = shelf.drawn(tables.picture(waiting, now=shelf.NOW), width=200)
    assert all(text in full for text in ("CANDIDATE", "0.9731", "3c3c3c3c3c3c"))


@pytest.mark.parametrize(("step", "words"), [("Look", "looked for in the store"), ("Ready", "pods are being replaced")])
def test_a_persons_rollback_is_told_as_one(step: str, words: str) -> None:
    """It is no new version that goes live."""
    raw = shelf.raw("promoted")
    raw["status"]["rollout"] = {"version": 1, "rollbackNumber": 1, "startTime": "2026-11-25T04:59:00Z", "step": step}
    full = shelf.drawn(tables.picture(parsed(raw), now=shelf.NOW), width=200)
    assert "v1 is put back, as rollbackTo says" in full
    assert words in full
