"""What could be saved: the table over resources, the sum, the documents for programs, and the patch for a person."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from retune.cli import main as command_line
from retune.cli import tables, worth
from retune.cli.access import Cluster, parsed
from retune.cli.follow import Exit
from retune.cluster.client import Request, Response
from retune.contract.results import JudgeResult
from tests import samples
from tests.answers import NOTED, answer
from tests.unit.cli import shelf

MO = "/apis/retune.dev/v1alpha1/namespaces/digits/modeloptimizations"
ALL = "/apis/retune.dev/v1alpha1/modeloptimizations"
DEPLOYMENT = "/apis/apps/v1/namespaces/digits/deployments/digits"
WAITING = {"version": 3, "uri": "pvc://s/3", "digest": "sha256:" + "3c" * 32, "acceptedAt": "2026-11-25T04:00:00Z"}


def resource(name: str = "digits", *noted: dict[str, Any], **status: Any) -> dict[str, Any]:
    """The promoted resource under a name, of which this is noted."""
    raw = shelf.raw("promoted")
    raw["metadata"]["name"] = name
    raw["status"] |= {"worth": list(noted)} | status
    return raw


class Server:
    """Resources and the replicas that the target of `digits` wants; None: nobody may read Deployments."""

    def __init__(self) -> None:
        self.resources = [resource("digits", NOTED)]
        self.replicas: int | None = 6
        self.methods: set[str] = set()

    def send(self, request: Request) -> Response:
        """Answer a read."""
        self.methods.add(request.method)
        if request.path == DEPLOYMENT and self.replicas is None:
            return Response(403, json.dumps({"kind": "Status", "reason": "Forbidden", "message": "no"}).encode())
        answers: dict[str, Any] = {
            MO: {"items": self.resources},
            ALL: {"items": self.resources},
            DEPLOYMENT: {"spec": {"replicas": self.replicas}},
        }
        answers |= {f"{MO}/{raw['metadata']['name']}": raw for raw in self.resources}
        known = answers.get(request.path)
        return Response(404, b"{}") if known is None else Response(200, json.dumps(known).encode())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server in place of the kubeconfig's."""
    recorded = Server()
    monkeypatch.setattr(Cluster, "connect", lambda **_: Cluster(recorded.send, namespace="digits"))
    return recorded


def call(*words: str) -> int:
    """Run the command line."""
    return command_line.main(["savings", *words])


def cells(text: str) -> list[list[str]]:
    """The table's lines as words."""
    return [line.split() for line in text.splitlines() if line]


def test_a_resource_says_what_it_needs_and_what_that_saves(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Rates, replicas and costs of a month, before and after; what it is not; and nothing is written."""
    assert call() == Exit.DONE
    heading, row, *notes = cells(capsys.readouterr().out)
    assert heading[:5] == ["NAME", "VERSION", "SINCE", "REQUESTS/S", "REPLICAS"]
    assert row[:2] == ["digits", "v2"]
    assert row[3:] == ["120", "→", "480", "6", "2", "175.20", "58.40", "116.80"]
    assert "no load test" in " ".join(notes[0])
    assert "retune savings NAME --patch" in " ".join(notes[2])
    assert server.methods == {"GET"}


def test_several_are_added_up_over_all_namespaces(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """What nothing is known of is listed and counts for nothing; the unit of the costs is named."""
    server.resources = [resource("digits", NOTED), resource("fraud", NOTED), resource("text")]
    assert call("-A") == Exit.DONE
    text = capsys.readouterr().out
    lines = cells(text)
    assert lines[0][0] == "NAMESPACE"
    assert lines[3][1:3] == ["text", "v2"]
    assert lines[3][4:] == ["-"] * 6
    assert lines[4] == ["TOTAL", "350.40", "116.80", "233.60"]
    assert "in the unit of serving.pricePerCpuHour" in text


@pytest.mark.parametrize(
    ("replicas", "shown", "saved"),
    [
        (6, ["6", "2"], "116.80"),
        (4, ["4", "(was", "6)", "2"], "58.40"),
        (2, ["2", "(was", "6)", "2"], "0.00"),
        (1, ["1", "(was", "6)", "2"], "0.00"),
        (9, ["9", "(was", "6)", "-"], "-"),
        (None, ["6", "2"], "116.80"),
    ],
)
def test_what_the_target_wants_now_is_what_can_be_saved(
    server: Server, capsys: pytest.CaptureFixture[str], replicas: int | None, shown: list[str], saved: str
) -> None:
    """Saved already is not offered again, and a target that has grown since has other traffic than was known."""
    server.replicas = replicas
    assert call("digits") == Exit.DONE
    row = cells(capsys.readouterr().out)[1]
    assert row[6 : 6 + len(shown)] == shown
    assert row[-1] == saved


def test_a_version_that_waits_is_told_and_not_added(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """A person sees what approving it brings."""
    later = NOTED | {"version": 3, "comparedWith": 2, "replicasNeeded": 3}
    server.resources = [resource("digits", NOTED, later, candidate=WAITING)]
    assert call("digits") == Exit.DONE
    lines = cells(capsys.readouterr().out)
    assert lines[2][1:3] == ["v3", "(waits)"]
    assert lines[3] == ["TOTAL", "175.20", "58.40", "116.80"]


@pytest.mark.parametrize("form,load", [("json", json.loads), ("yaml", yaml.safe_load)])
def test_programs_get_decimal_strings(
    server: Server, capsys: pytest.CaptureFixture[str], form: str, load: Callable[[str], Any]
) -> None:
    """As in the API; what is unknown is left out."""
    server.resources = [resource("digits", NOTED), resource("text")]
    server.replicas = 4
    assert call("-o", form) == Exit.DONE
    document = load(capsys.readouterr().out)
    first, second = document["items"]
    assert (first["namespace"], first["name"], first["waits"], first["version"]) == ("digits", "digits", False, 2)
    assert (first["replicas"], first["replicasNow"], first["replicasNeeded"]) == (6, 4, 2)
    assert (first["costNow"], first["costNeeded"], first["saved"]) == ("116.8", "58.4", "58.4")
    assert second == {"namespace": "digits", "name": "text", "waits": False}
    assert document["total"] == {"costNow": "116.8", "costNeeded": "58.4", "saved": "58.4"}


def test_the_patch_changes_the_replicas_and_says_why(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Ready to be applied, with how it was reckoned and what to do where an autoscaler owns the number."""
    server.resources = [resource("digits", NOTED | {"liveRequests": "800", "liveReplicas": 2})]
    assert call("digits", "--patch") == Exit.DONE
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "digits", "namespace": "digits"},
        "spec": {"replicas": 2},
    }
    for words in (
        "2 in place of 6 replicas",
        "6 replicas divided by 3.8, the lower end of the ratio",
        "800 requests a second were answered in the last window, which need 2 or more",
        "no load test",
        "A HorizontalPodAutoscaler of this Deployment puts the number back: change its minReplicas and maxReplicas",
        "kubectl patch deployment digits -n digits --type merge --patch-file FILE",
    ):
        assert words in text
    assert server.methods == {"GET"}


@pytest.mark.parametrize(
    ("replicas", "noted", "words"),
    [
        (2, [NOTED], "wants 2 replicas, and 2 are needed"),
        (9, [NOTED], "it is not known how many replicas digits/digits needs with version 2 for the traffic of now"),
        (6, [], "it is not known how many replicas"),
        (6, [NOTED | {"replicasNeeded": 6}], "wants 6 replicas, and 6 are needed"),
    ],
)
def test_a_patch_that_would_change_nothing_is_no_success(
    server: Server, capsys: pytest.CaptureFixture[str], replicas: int, noted: list[dict[str, Any]], words: str
) -> None:
    """A script notices by the exit code, and nothing is printed that it could apply."""
    server.resources, server.replicas = [resource("digits", *noted)], replicas
    assert call("digits", "--patch") == Exit.BAD_OUTCOME
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err


@pytest.mark.usefixtures("server")
def test_a_patch_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    """It changes one target."""
    assert call("--patch") == Exit.USAGE
    assert "retune savings NAME --patch" in capsys.readouterr().err


def test_an_empty_namespace_is_said(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table would leave the reader guessing."""
    server.resources = []
    assert call() == Exit.DONE
    assert capsys.readouterr().err == "no ModelOptimization in namespace digits\n"


def test_numbers_that_are_none_are_shown_as_they_are(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """A status that others wrote ends in no traceback."""
    server.resources = [resource("digits", NOTED | {"requestsAfter": "many", "costBefore": "1e999"})]
    assert call() == Exit.DONE
    assert "120 → many" in capsys.readouterr().out


def test_status_has_one_line_of_it() -> None:
    """In full, beside how the last run ended; nothing where nothing is known."""
    shown = shelf.drawn(tables.picture(parsed(resource("digits", NOTED)), now=shelf.NOW), width=200)
    (line,) = [line for line in shown.splitlines() if line.startswith("Worth")]
    assert "v2 answers 480 requests a second a process where v1 answered 120 (95 % within 5.25 ms)" in line
    assert "2 in place of 6 replicas, 58.4 in place of 175.2 a month" in line
    assert "Worth" not in shelf.drawn(tables.picture(parsed(resource("digits")), now=shelf.NOW))


def test_a_run_on_this_machine_tells_it_without_replicas() -> None:
    """The rates with their intervals, the limit, and what it is not; or why nothing is said; or nothing."""
    result = answer(samples.judge_request())
    assert isinstance(result, JudgeResult)
    section = worth.section(result)
    assert section is not None
    text = shelf.drawn(section)
    assert "480 [460, 500], 4 [3.8, 4.2] times as many" in text
    assert "as by the champion while half busy" in text
    assert "no load test" in text
    unknown = worth.section(result.model_copy(update={"worth": None, "worth_unknown": "the node was busy"}))
    assert unknown is not None
    assert "nothing is said: the node was busy" in shelf.drawn(unknown)
    assert worth.section(result.model_copy(update={"worth": None})) is None
