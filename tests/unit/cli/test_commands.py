"""The commands against recorded answers of a real API server: output for people and programs, errors, exit codes."""

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from retune.cli import buckets, reports
from retune.cli import main as command_line
from retune.cli.access import AccessError, Cluster, parsed
from retune.cli.follow import Exit
from retune.cluster.client import Request, Response
from tests.unit.cli import shelf

MO = "/apis/retune.dev/v1alpha1/namespaces/digits/modeloptimizations"
RUNS = "/apis/retune.dev/v1alpha1/namespaces/digits/optimizationruns"
PODS = "/api/v1/namespaces/digits/pods"
JOBS = "/apis/batch/v1/namespaces/digits/jobs"
PAGE = b"<!doctype html><title>Report</title>"

Send = Callable[[Request], Response]


def listed(*items: dict[str, Any]) -> dict[str, Any]:
    """A List document."""
    return {"kind": "List", "items": list(items)}


class Server:
    """Recorded answers by method and path, and what was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        job = {
            "metadata": {"name": "digits-r1-judge"},
            "spec": {
                "template": {"spec": {"containers": [{"image": "retune/optimizer:1"}], "nodeSelector": {"a": "b"}}}
            },
        }
        self.answers: dict[str, Any] = {
            f"GET {MO}": listed(shelf.raw("promoted")),
            f"GET {MO}/digits": shelf.raw("promoted"),
            f"GET {RUNS}": listed(shelf.raw("run")),
            f"GET {JOBS}": listed(job),
            f"POST {PODS}": {},
            "GET pod": {"status": {"phase": "Succeeded"}},
            "GET log": base64.b64encode(gzip.compress(PAGE)) + b"\n",
            "DELETE pod": {},
        }

    def send(self, request: Request) -> Response:
        """Answer as recorded; 404 where nothing is."""
        self.asked.append(request)
        key = f"{request.method} {request.path}"
        if "/pods/retune-report-" in request.path:
            key = f"{request.method} {'log' if request.path.endswith('/log') else 'pod'}"
        if key not in self.answers:
            return Response(404, json.dumps({"kind": "Status", "message": f"{request.path} not found"}).encode())
        answer = self.answers[key]
        if isinstance(answer, Response):
            return answer
        return Response(200, answer if isinstance(answer, bytes) else json.dumps(answer).encode())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A recorded server in place of the kubeconfig's."""
    recorded = Server()

    def connect(**_: object) -> Cluster:
        return Cluster(recorded.send, namespace="digits")

    monkeypatch.setattr(Cluster, "connect", connect)
    return recorded


def call(*words: str) -> int:
    """Run the command line."""
    return command_line.main(words)


@pytest.mark.usefixtures("server")
def test_status_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name a line each, with a name everything."""
    assert call("status") == Exit.DONE
    assert "Monitoring  True   v2" in capsys.readouterr().out
    assert call("status", "digits") == Exit.DONE
    assert "ChampionServing" in capsys.readouterr().out


@pytest.mark.parametrize("form,load", [("json", json.loads), ("yaml", yaml.safe_load)])
@pytest.mark.usefixtures("server")
def test_status_gives_programs_the_object_itself(
    capsys: pytest.CaptureFixture[str], form: str, load: Callable[[str], Any]
) -> None:
    """Nothing is added, left out or cut."""
    assert call("status", "digits", "-o", form) == Exit.DONE
    assert load(capsys.readouterr().out) == shelf.raw("promoted")


def test_an_empty_namespace_is_said_not_drawn(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table would leave the reader guessing."""
    server.answers[f"GET {MO}"] = listed()
    assert call("status") == Exit.DONE
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "no ModelOptimization in namespace digits\n")


def test_all_namespaces_are_listed_with_their_names(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """One request for the whole cluster, and a column that tells equal names apart."""
    server.answers["GET /apis/retune.dev/v1alpha1/modeloptimizations"] = listed(shelf.raw("promoted"))
    assert call("status", "-A") == Exit.DONE
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["NAMESPACE", "NAME"]
    assert row.split()[:2] == ["digits", "digits"]


@pytest.mark.parametrize("timeout", ["soon", "0s", "-1m", "5m later"])
def test_a_time_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str], timeout: str) -> None:
    """The sentence says how a time is written."""
    with pytest.raises(SystemExit) as ended:
        call("watch", "digits", f"--timeout={timeout}")
    assert ended.value.code == Exit.USAGE
    assert "write it like 90s, 10m or 1h30m" in capsys.readouterr().err


@pytest.mark.usefixtures("server")
def test_a_missing_resource_names_the_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    """The usual mistake is the namespace."""
    assert call("status", "digit") == Exit.USAGE
    assert "no ModelOptimization digit in namespace digits" in capsys.readouterr().err


def test_a_cluster_without_retune_is_told_to_install_it(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the list nor a name brings a bare 404."""
    del server.answers[f"GET {MO}"], server.answers[f"GET {MO}/digits"]
    for words in (("status",), ("status", "digits"), ("watch", "digits")):
        assert call(*words) == Exit.USAGE
        assert "helm install retune" in capsys.readouterr().err


def test_a_refusal_is_told_in_the_servers_words(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """RBAC's sentence says who lacks what."""
    refusal = {"kind": "Status", "reason": "Forbidden", "message": 'User "eve" cannot list resource'}
    server.answers[f"GET {MO}"] = Response(403, json.dumps(refusal).encode())
    assert call("status") == Exit.USAGE
    assert 'User "eve" cannot list resource' in capsys.readouterr().err


@pytest.mark.usefixtures("server")
def test_watch_ends_with_the_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    """A finished run ends it at once."""
    assert call("watch", "digits", "--until", "Promoted") == Exit.DONE
    assert "digits-r1 Promoted" in capsys.readouterr().out


@pytest.mark.usefixtures("server")
def test_compare_shows_the_judges_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """For people a table, for programs the numbers with both digests."""
    assert call("compare", "digits") == Exit.DONE
    assert "BEFORE (v1)" in capsys.readouterr().out
    assert call("compare", "digits", "-o", "json") == Exit.DONE
    document = json.loads(capsys.readouterr().out)
    assert document["run"] == "digits-r1"
    assert {row["name"] for row in document["comparisons"]} >= {"accuracy", "size_bytes"}
    assert document["championDigest"] != document["candidateDigest"]


def test_compare_waits_for_the_record_of_a_run_that_has_just_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The resource says first that the run has ended; whoever has watched it asks at once."""
    whole = shelf.raw("run")
    server.answers[f"GET {RUNS}"] = listed(whole | {"status": {}})
    monkeypatch.setattr("retune.cli.main.time.sleep", lambda _: server.answers.update({f"GET {RUNS}": listed(whole)}))
    assert call("compare", "digits") == Exit.DONE
    assert "size_bytes" in capsys.readouterr().out
    assert sum(request.path == RUNS for request in server.asked) == 2


def test_compare_before_a_verdict_says_so(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to compare while the search runs."""
    server.answers[f"GET {RUNS}"] = listed()
    assert call("compare", "digits") == Exit.USAGE
    assert "no verdict with numbers yet" in capsys.readouterr().err


def test_report_says_where_it_lies_and_how_to_get_it(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is started for that."""
    assert call("report", "digits") == Exit.DONE
    text = capsys.readouterr().out
    assert "pvc://retune-artifacts/digits/runs/digits-r1/report.html" in text
    assert "--save report.html" in text
    assert {request.method for request in server.asked} == {"GET"}


def test_report_is_fetched_through_a_restricted_pod_that_goes_away(server: Server, tmp_path: Path) -> None:
    """The pod reads one file, has no token and no rights, and is deleted."""
    file = tmp_path / "new" / "report.html"
    assert call("report", "digits", "--save", str(file)) == Exit.DONE
    assert file.read_bytes() == PAGE
    pod = next(request.body for request in server.asked if request.method == "POST")
    assert pod is not None
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["nodeSelector"] == {"a": "b"}
    assert container["image"] == "retune/optimizer:1"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["command"][-1] == "/mnt/pvc/retune-artifacts/digits/runs/digits-r1/report.html"
    assert container["volumeMounts"][0]["readOnly"] is True
    assert server.asked[-1].method == "DELETE"


def test_a_report_in_a_bucket_is_fetched_without_a_pod(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the caller's own credentials, as a file or as a link; nothing is started in the cluster."""
    uri = "s3://artifacts/retune/ml/digits/runs/digits-r1-0a1b/report.html"
    recorded = shelf.raw("run")
    recorded["status"]["reportURI"] = uri
    server.answers[f"GET {RUNS}"] = listed(recorded)
    monkeypatch.setattr(buckets, "read", {uri: PAGE}.__getitem__)
    monkeypatch.setattr(buckets, "link", {uri: "https://signed.example/report"}.__getitem__)
    file = tmp_path / "report.html"
    assert call("report", "digits") == Exit.DONE
    text = capsys.readouterr().out
    assert uri in text
    assert "--save report.html" in text
    assert "--run digits-r1 --link" in text
    assert call("report", "digits", "--link") == Exit.DONE
    assert capsys.readouterr().out == "https://signed.example/report\n"
    assert call("report", "digits", "--save", str(file)) == Exit.DONE
    assert file.read_bytes() == PAGE
    assert {request.method for request in server.asked} == {"GET"}


def test_no_link_leads_to_a_claim(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence says what does."""
    assert call("report", "digits", "--link") == Exit.USAGE
    assert "is on a volume claim, to which no link leads: fetch it with --save FILE" in capsys.readouterr().err
    assert {request.method for request in server.asked} == {"GET"}


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("file:///etc/passwd", "which is no address in a store"),
        ("s3://bucket/../x", "which is no address in a store"),
        ("simplecache::s3://bucket/x", "which is no address in a store"),
        ("https://bucket.example/x", "which is in no claim and no bucket"),
    ],
)
def test_only_addresses_in_stores_are_opened(uri: str, words: str) -> None:
    """A Job says where its report lies, and a Job may have been taken over."""
    for ask in (buckets.read, buckets.link):
        with pytest.raises(AccessError, match=words):
            ask(uri)


def test_the_report_of_a_window_is_fetched_the_same_way(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The pod reads that file alone, and goes away with the resource at the latest."""
    server.answers[f"GET {MO}/biopsies"] = shelf.raw("watched")
    assert call("report", "biopsies", "--window") == Exit.DONE
    assert "--window --save report.html" in capsys.readouterr().out
    file = tmp_path / "window.html"
    assert call("report", "biopsies", "--window", "--save", str(file)) == Exit.DONE
    assert file.read_bytes() == PAGE
    pod = next(request.body for request in server.asked if request.method == "POST")
    assert pod is not None
    path = "/mnt/pvc/retune-artifacts/biopsies/monitoring/w498771/report.html"
    assert pod["spec"]["containers"][0]["command"][-1] == path
    (owner,) = pod["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("ModelOptimization", "biopsies")


def test_a_window_without_a_report_says_why(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Unwatched and unremarkable are different things."""
    assert call("report", "digits", "--window") == Exit.USAGE
    assert "no judged window yet" in capsys.readouterr().err
    quiet = shelf.raw("watched")
    del quiet["status"]["monitoring"]["reportURI"]
    server.answers[f"GET {MO}/biopsies"] = quiet
    assert call("report", "biopsies", "--window") == Exit.USAGE
    assert "window 498771 has no report" in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer,words",
    [
        ({"status": {"phase": "Failed", "message": "gone"}}, "gone"),
        (
            {
                "status": {
                    "phase": "Pending",
                    "containerStatuses": [
                        {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
                    ],
                }
            },
            "ErrImagePull: no such image",
        ),
        (
            {
                "status": {
                    "phase": "Failed",
                    "containerStatuses": [
                        {"state": {"terminated": {"reason": "Error", "message": "Traceback\nFileNotFoundError: x"}}}
                    ],
                }
            },
            "FileNotFoundError: x",
        ),
    ],
)
def test_a_report_pod_that_fails_says_why_and_goes_away(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path, answer: dict[str, Any], words: str
) -> None:
    """No pod is left behind, and no file is written."""
    server.answers["GET pod"] = answer
    file = tmp_path / "report.html"
    assert call("report", "digits", "--save", str(file)) == Exit.USAGE
    assert words in capsys.readouterr().err
    assert server.asked[-1].method == "DELETE"
    assert not file.exists()


def test_a_damaged_report_is_not_written(server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Half a log is no report."""
    server.answers["GET log"] = base64.b64encode(gzip.compress(PAGE))[:-8]
    assert call("report", "digits", "--save", str(tmp_path / "report.html")) == Exit.USAGE
    assert "arrived damaged" in capsys.readouterr().err


def test_an_unknown_run_names_the_known_ones() -> None:
    """A typing error is answered with the names that exist."""
    resource = parsed(shelf.raw("promoted"))
    with pytest.raises(AccessError, match="its runs: digits-r1"):
        reports.locate(resource, [shelf.run()], run="digits-r9")
