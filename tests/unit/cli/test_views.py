"""Versions, history and explanations: everything that the status tells, for people and for programs."""

import json
from typing import Any

import pytest
import yaml

from retune.cli import explaining, views
from retune.cli import main as command_line
from retune.cli.access import Cluster, parsed
from retune.cli.follow import Exit
from tests.unit.cli import shelf
from tests.unit.cli.test_commands import Server

TRIED = {"version": 4, "startTime": "2026-11-29T05:12:40Z", "analysis": "At 10 % of the requests: nothing failed"}
REJECTED = {"digest": "sha256:" + "3c" * 32, "version": 3, "reason": "LiveErrors", "message": "half of them failed"}
WAITING = {"version": 4, "uri": "pvc://s/4", "digest": "sha256:" + "4d" * 32, "runName": "digits-r4"}
BACK = {
    "version": 1,
    "digest": "sha256:" + "5e" * 32,
    "replacedVersion": 2,
    "specGeneration": 3,
    "message": "a person put version 1 back",
    "completionTime": "2026-11-25T04:00:00Z",
}

DELIVERED = {
    "type": "DeliveredLive",
    "status": "False",
    "reason": "AccuracyBelowMargin",
    "message": "version 3, as delivered, stays off: accuracy is below the limit",
    "lastTransitionTime": "2026-11-25T04:00:00Z",
    "observedGeneration": 3,
}


def resource(*, spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None) -> Any:
    """The promoted resource with changes."""
    raw = shelf.raw("promoted")
    raw["spec"] |= spec or {}
    raw["status"] |= status or {}
    return parsed(raw)


def explained(**changes: Any) -> str:
    """The answers about the promoted resource with changes, a line for each."""
    answers = explaining.answers(resource(**changes), now=shelf.NOW)
    return "\n".join(f"{question}: {answer}" for question, answer in answers)


def test_every_version_is_listed_once_with_what_it_is() -> None:
    """Delivered, champion, candidate, rejected: by number, with the reason beside it."""
    table = views.version_table(resource(status={"rejected": [REJECTED], "candidate": WAITING}).status, now=shelf.NOW)
    rows = [line.split() for line in shelf.drawn(table, width=200).splitlines()]
    assert [row[:2] for row in rows[1:]] == [
        ["1", "delivered"],
        ["2", "champion"],
        ["3", "rejected"],
        ["4", "candidate"],
    ]
    assert rows[3][-4:] == ["half", "of", "them", "failed"]


def test_an_earlier_champion_may_be_rejected_too() -> None:
    """Both are said."""
    earlier = {"version": 3, "uri": "pvc://s/3", "digest": REJECTED["digest"], "runName": "digits-r3"}
    states = dict(views.known(resource(status={"versions": [earlier], "rejected": [REJECTED]}).status))
    assert [state for version, state in states.items() if version.version == 3] == ["earlier, rejected"]


def test_history_puts_runs_and_a_persons_rollback_in_order() -> None:
    """The newest last."""
    status = resource(status={"lastRollback": BACK}).status
    lines = shelf.drawn(views.history_table([shelf.run()], status.last_rollback, now=shelf.NOW)).splitlines()
    (first, second) = [line.split()[0] for line in lines if line and not line.startswith((" ", "WHAT"))]
    assert {first, second} == {"digits-r1", "rollback"}


@pytest.mark.parametrize(
    ("spec", "status", "words"),
    [
        ({}, {}, "Goes live: a version that passes the gate, by itself"),
        ({"suspend": True}, {}, "To do: retune resume digits -n digits"),
        ({"mode": "RecommendOnly"}, {}, "Goes live: nothing by itself: spec.mode is RecommendOnly"),
        ({"rollout": {"rollbackTo": 2}}, {}, "Goes live: nothing new: spec.rollout.rollbackTo keeps version 2"),
        ({"rollout": {"rollbackTo": 2}}, {}, "To do: retune unpin digits -n digits"),
        ({"rollout": {"approval": "Manual"}}, {}, "Goes live: what a person approves: none waits now"),
        (
            {"rollout": {"approval": "Manual"}},
            {"candidate": WAITING, "stage": "AwaitingApproval"},
            "To do: retune approve digits 4 -n digits",
        ),
        ({}, {"rejected": [REJECTED]}, "Goes live: not version 3 again, without rollout.retry: half of them failed"),
        ({}, {"triggers": {"circuit": "RollbackLoop"}}, "Starts: held back: circuit open (RollbackLoop)"),
        ({}, {"triggers": {"held": "cooling down"}}, "Starts: held back: cooling down"),
        ({}, {}, "Starts: runs by a change of the spec or of manualNonce alone"),
        ({"mode": "ObserveOnly"}, {}, "Starts: no run: spec.mode is ObserveOnly"),
        ({}, {"lastRollback": BACK}, "Last rollback: 60m ago: a person put version 1 back"),
        ({}, {"champion": None}, "Serves: what the manifest says"),
        ({}, {"rollout": TRIED}, "On trial: At 10 % of the requests: nothing failed"),
        ({}, {"conditions": [DELIVERED]}, "Delivered: version 3, as delivered, stays off: accuracy is below the limit"),
    ],
)
def test_what_keeps_things_from_happening_is_said(spec: dict[str, Any], status: dict[str, Any], words: str) -> None:
    """With the operator's own sentence where it has said why, and with the command that changes it."""
    assert words in explained(spec=spec, status=status)


def test_what_moved_is_said_with_what_it_carries() -> None:
    """Much, hardly anything, nothing, or nothing known."""
    raw = shelf.raw("watched")
    carried = {"income": "0.41", "age": "0.004", "session": "0", "prediction": None}
    raw["status"]["monitoring"]["moved"] = [
        {"name": name, "size": "0.3071", "measure": "Wasserstein"} | ({"carries": share} if share else {})
        for name, share in carried.items()
    ]
    raw["status"]["monitoring"]["moved"][0]["looksLike"] = "one value alone: 0"
    said = [answer for question, answer in explaining.answers(parsed(raw), now=shelf.NOW) if question == "Moved"]
    assert said == [
        "income moved by 0.31 (Wasserstein) and carries 41 % of the answers: one value alone: 0",
        "age moved by 0.31 (Wasserstein) and carries under 1 % of the answers",
        "session moved by 0.31 (Wasserstein) and carries nothing",
        "prediction moved by 0.31 (Wasserstein)",
    ]


def test_what_is_estimated_is_said_with_why_it_is_or_is_not_believed() -> None:
    """Verdict, value, interval, the share outside, and the check's own sentence."""
    raw = shelf.raw("watched")
    estimate = next(one for one in raw["status"]["monitoring"]["signals"] if one["name"] == "EstimatedQuality")
    estimate |= {"verdict": "Clear", "value": "0.95", "low": "0.93", "high": "0.97", "outside": "0.012"}
    estimate["message"] = "accuracy is 0.95 on 600 rows."
    said = [answer for question, answer in explaining.answers(parsed(raw), now=shelf.NOW) if question == "Estimated"]
    assert said == [
        "Clear: 0.95, 95 % between 0.93 and 0.97, without labels; 1.2 % of the rows outside the reference",
        "accuracy is 0.95 on 600 rows.",
    ]


def test_what_is_wrong_is_said() -> None:
    """A condition that is bad, whichever value that is."""
    raw = shelf.raw("blocked")
    answers = explaining.answers(parsed(raw), now=shelf.NOW)
    assert any(question in {"Trouble", "Now"} and "Blocked" in answer for question, answer in answers)


@pytest.mark.parametrize("command", ["versions", "history", "explain"])
def test_views_are_for_people_and_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """JSON and YAML hold the same."""
    server = Server()
    monkeypatch.setattr(Cluster, "connect", lambda **_: Cluster(server.send, namespace="digits"))
    assert command_line.main([command, "digits"]) == Exit.DONE
    assert "digits" in capsys.readouterr().out or command == "versions"
    documents = []
    for form, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        assert command_line.main([command, "digits", "-o", form]) == Exit.DONE
        documents.append(load(capsys.readouterr().out))
    assert documents[0] == documents[1]
    assert documents[0]
