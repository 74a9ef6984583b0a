"""The commands by which people steer: what they write, what they refuse in words, and what they leave to Git."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from retune.api import FIELD_MANAGER
from retune.cli import main as command_line
from retune.cli import verbs
from retune.cli.access import Cluster
from retune.cli.follow import Exit
from retune.cluster.client import Request, Response
from tests.unit.cli import shelf

MO = "/apis/retune.dev/v1alpha1/namespaces/digits/modeloptimizations"
SECOND, THIRD = "sha256:" + "2b" * 32, "sha256:" + "3c" * 32
Edit = Callable[[dict[str, Any]], None]


class Server:
    """One ModelOptimization whose champion is version 2, and the patches that it was sent."""

    def __init__(self) -> None:
        self.raw = shelf.raw("promoted")
        self.patches: list[Request] = []
        self.targets: dict[str, Any] = {}
        """Workloads by their path."""

    def send(self, request: Request) -> Response:
        """Answer a read or a patch; nothing else is there."""
        if request.method == "PATCH":
            self.patches.append(request)
        elif request.path == MO:
            return Response(200, json.dumps({"items": [self.raw]}).encode())
        if request.path == f"{MO}/digits":
            return Response(200, json.dumps(self.raw).encode())
        if request.path in self.targets:
            return Response(200, json.dumps(self.targets[request.path]).encode())
        return Response(404, b"{}")

    @property
    def specs(self) -> list[dict[str, Any]]:
        """What the patches change in the spec."""
        return [request.body["spec"] for request in self.patches if request.body]

    def waits(self, digest: str = THIRD, version: int = 3) -> None:
        """Let a version wait for approval."""
        self.raw["spec"].setdefault("rollout", {})["approval"] = "Manual"
        self.raw["status"]["candidate"] = {"version": version, "uri": "pvc://s/x", "digest": digest, "runName": "r3"}
        self.raw["status"]["stage"] = "AwaitingApproval"

    def declares(self, manager: str, *path: str) -> None:
        """Let a manager declare a field by server-side apply."""
        fields: dict[str, Any] = {}
        for part in reversed(path):
            fields = {f"f:{part}": fields}
        entry = {"manager": manager, "operation": "Apply", "fieldsV1": fields}
        self.raw["metadata"].setdefault("managedFields", []).append(entry)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server in place of the kubeconfig's."""
    recorded = Server()
    monkeypatch.setattr(Cluster, "connect", lambda **_: Cluster(recorded.send, namespace="digits"))
    return recorded


def call(*words: str) -> int:
    """Run the command line."""
    return command_line.main(words)


@pytest.mark.parametrize("version", [(), ("3",), ("v3",), ("3c3c3c3c",), (THIRD,)])
def test_approve_names_the_digest_of_the_version_that_waits(server: Server, version: tuple[str, ...]) -> None:
    """However it is called; the patch has a manager of its own and touches nothing else."""
    server.waits()
    assert call("approve", "digits", *version) == Exit.DONE
    assert server.specs == [{"rollout": {"approvedVersion": THIRD}}]
    assert dict(server.patches[0].query) == {"fieldManager": "retune-cli"}
    assert server.patches[0].query["fieldManager"] != FIELD_MANAGER


def test_approve_refuses_another_version_than_waits(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that was copied from an old message approves nothing new."""
    server.waits()
    assert call("approve", "digits", "4") == Exit.BAD_OUTCOME
    assert "version 3" in capsys.readouterr().err
    assert server.patches == []


def test_nothing_to_approve_is_no_success(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """A script notices by the exit code."""
    assert call("approve", "digits") == Exit.BAD_OUTCOME
    assert "no version of digits/digits waits for approval" in capsys.readouterr().err
    assert server.patches == []


def test_rollback_takes_the_version_that_served_before(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Without earlier champions that is what was delivered; it says how long it stays."""
    assert call("rollback", "digits") == Exit.DONE
    assert server.specs == [{"rollout": {"rollbackTo": 1}}]
    assert "until `retune unpin digits -n digits`" in capsys.readouterr().out


def test_rollback_prefers_the_newest_earlier_champion(server: Server) -> None:
    """The champion itself may stand among the earlier ones."""
    status = server.raw["status"]
    champion = status["champion"]
    earlier = {"version": 7, "uri": "pvc://s/7", "digest": SECOND, "runName": "digits-r7"}
    status["versions"] = [earlier, champion]
    assert call("rollback", "digits") == Exit.DONE
    assert server.specs == [{"rollout": {"rollbackTo": 7}}]


def test_rollback_to_what_is_not_kept_lists_what_is(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the operator has to say so."""
    assert call("rollback", "digits", "--to", "9") == Exit.BAD_OUTCOME
    assert "kept: 1, 2" in capsys.readouterr().err
    assert server.patches == []


def test_rollback_to_a_rejected_version_points_to_retry(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """It never was champion, so it has to prove itself."""
    server.raw["status"]["rejected"] = [{"digest": THIRD, "version": 3, "reason": "GoldenMismatch"}]
    assert call("rollback", "digits", "--to", "3") == Exit.BAD_OUTCOME
    assert "`retune retry`" in capsys.readouterr().err


def test_a_rollback_that_has_failed_is_asked_for_anew(server: Server) -> None:
    """The same value would be no change of the spec, and taken out for a moment it would let others go live."""
    status = server.raw["status"]
    digest = status["original"]["digest"]
    server.raw["spec"].setdefault("rollout", {})["rollbackTo"] = 1
    failed = {"version": 1, "digest": digest, "replacedVersion": 2, "specGeneration": 1, "failed": "GoldenMismatch"}
    status["lastRollback"] = failed | {"message": "no", "completionTime": "2026-11-25T05:00:00Z"}
    assert call("rollback", "digits") == Exit.DONE
    server.raw["spec"]["rollout"]["rollbackTo"] = digest
    assert call("rollback", "digits") == Exit.DONE
    assert server.specs == [{"rollout": {"rollbackTo": digest}}, {"rollout": {"rollbackTo": 1}}]


def test_unpin_takes_the_field_out(server: Server) -> None:
    """And is no success where there is none."""
    assert call("unpin", "digits") == Exit.BAD_OUTCOME
    server.raw["spec"].setdefault("rollout", {})["rollbackTo"] = "2"
    assert call("unpin", "digits") == Exit.DONE
    assert server.specs == [{"rollout": {"rollbackTo": None}}]


def test_abort_keeps_the_champion(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """As with Argo Rollouts: what is under way ends, the stable version serves, and nothing follows by itself."""
    assert call("abort", "digits") == Exit.BAD_OUTCOME
    server.raw["status"]["rollout"] = {"version": 3, "startTime": "2026-11-25T05:00:00Z", "step": "Bake"}
    assert call("abort", "digits") == Exit.DONE
    assert server.specs == [{"rollout": {"rollbackTo": 2}}]
    assert "the rollout of version 3 ends; version 2 is champion and is kept" in capsys.readouterr().out


def test_pause_and_resume_are_each_done_once(server: Server) -> None:
    """Twice is nothing to do."""
    assert call("resume", "digits") == Exit.BAD_OUTCOME
    assert call("pause", "digits") == Exit.DONE
    server.raw["spec"]["suspend"] = True
    assert call("pause", "digits") == Exit.BAD_OUTCOME
    assert call("resume", "digits") == Exit.DONE
    assert server.specs == [{"suspend": True}, {"suspend": False}]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"suspend": True}, "It is paused"),
        ({"mode": "ObserveOnly"}, "ObserveOnly"),
        ({"rollout": {"rollbackTo": 2}}, "rollbackTo keeps version 2"),
        ({}, "Follow it with `retune watch digits -n digits`"),
    ],
)
def test_run_says_what_keeps_it_from_starting(
    server: Server, capsys: pytest.CaptureFixture[str], spec: dict[str, Any], words: str
) -> None:
    """The nonce is new each time, and stays to be followed."""
    server.raw["spec"] |= spec
    assert call("run", "digits") == Exit.DONE
    assert call("run", "digits") == Exit.DONE
    first, second = (change["manualNonce"] for change in server.specs)
    assert first != second
    assert words in capsys.readouterr().out


def test_retry_finds_the_digest_of_a_rejected_version(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """A number is enough; what is not rejected is not tried again."""
    server.raw["status"]["rejected"] = [{"digest": THIRD, "version": 3, "reason": "GoldenMismatch"}]
    assert call("retry", "digits", "3") == Exit.DONE
    assert server.specs == [{"rollout": {"retry": THIRD}}]
    assert call("retry", "digits", "2") == Exit.BAD_OUTCOME
    assert "rejected: 3" in capsys.readouterr().err


def test_a_retry_that_was_followed_is_set_anew_once_the_operator_has_seen_it_go(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken out and set again within one look of the operator, it would be followed by nothing."""
    server.raw["status"]["rejected"] = [{"digest": THIRD, "version": 3, "reason": "GoldenMismatch"}]
    server.raw["spec"].setdefault("rollout", {})["retry"] = server.raw["status"]["observedRetry"] = THIRD
    monkeypatch.setattr(verbs, "_SEEN_SECONDS", 0.0)
    assert call("retry", "digits", "3") == Exit.TIMEOUT
    assert "the operator has not seen that" in capsys.readouterr().err
    assert server.specs == [{"rollout": {"retry": None}}]
    monkeypatch.setattr(verbs, "_SEEN_SECONDS", 30.0)
    monkeypatch.setattr(time, "sleep", lambda _: server.raw["status"].pop("observedRetry"))
    assert call("retry", "digits", "3") == Exit.DONE
    assert server.specs[1:] == [{"rollout": {"retry": None}}, {"rollout": {"retry": THIRD}}]


def test_a_retry_that_is_still_to_be_followed_is_not_set_anew(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """What keeps it from being followed is said instead."""
    server.raw["status"]["rejected"] = [{"digest": THIRD, "version": 3, "reason": "GoldenMismatch"}]
    server.raw["spec"] |= {"rollout": {"retry": THIRD}, "suspend": True}
    assert call("retry", "digits", "3") == Exit.BAD_OUTCOME
    assert "no run has started for it yet" in (said := capsys.readouterr().err)
    assert "It is paused" in said
    assert server.patches == []


def test_a_dry_run_shows_what_belongs_into_git(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """It can be pasted, and changes nothing."""
    assert call("rollback", "digits", "--dry-run") == Exit.DONE
    assert yaml.safe_load(capsys.readouterr().out) == {"spec": {"rollout": {"rollbackTo": 1}}}
    assert server.patches == []


@pytest.mark.parametrize("manager", ["kustomize-controller", "argocd-controller"])
def test_what_git_declares_is_changed_in_git(server: Server, capsys: pytest.CaptureFixture[str], manager: str) -> None:
    """Its controller would take the change back; the lines for Git are shown, and a script sees it by the exit code."""
    server.declares(manager, "spec", "suspend")
    assert call("pause", "digits") == Exit.DECLARED_ELSEWHERE
    said = capsys.readouterr().err
    assert f"spec.suspend is declared by {manager}" in said
    assert "spec:\n  suspend: true" in said
    assert server.patches == []


def test_what_git_does_not_declare_may_be_changed_here(server: Server) -> None:
    """A controller leaves alone what is not in its manifest."""
    server.declares("kustomize-controller", "spec", "target")
    assert call("pause", "digits") == Exit.DONE


def test_a_manifest_that_a_person_applies_is_mentioned(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The change is made, and the next apply would take it back."""
    applied = {"spec": {"suspend": False}}
    server.raw["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(applied)}
    assert call("pause", "digits") == Exit.DONE
    assert "change it in the manifest too" in capsys.readouterr().err
    assert server.specs == [{"suspend": True}]


def test_what_a_controller_applies_from_a_client_is_declared_by_it(server: Server) -> None:
    """It leaves kubectl's annotation; a default that the server has filled in is in no manifest."""
    name = "kubectl.kubernetes.io/last-applied-configuration"
    server.raw["metadata"]["annotations"] = {name: json.dumps({"spec": {"suspend": False}})}
    fields = {"f:metadata": {"f:annotations": {f"f:{name}": {}}}, "f:spec": {"f:suspend": {}}}
    entry = {"manager": "argocd-controller", "operation": "Update", "fieldsV1": fields}
    server.raw["metadata"]["managedFields"] = [entry]
    assert call("pause", "digits") == Exit.DECLARED_ELSEWHERE
    server.raw["metadata"]["annotations"] = {name: json.dumps({"spec": {}})}
    assert call("pause", "digits") == Exit.DONE
