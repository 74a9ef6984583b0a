"""Versions are registered with a server that may refuse, lie, break off or be of another kind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from optimizer_jobs.commands.register.command import run
from optimizer_jobs.commands.register.mlmodel import described
from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.models.engine import EngineOptions
from retune.api.registry import Registry
from retune.contract.exits import Exit
from retune.contract.paths import CREDENTIALS_VARIABLE, PRIVATE_ADDRESSES_VARIABLE
from retune.contract.requests import BundleRef, RegisterRequest
from retune.contract.results import Reason
from tests.unit.jobs.registered_for_tests import REPORT, asked, entry, stored
from tests.unit.jobs.registry_for_tests import MemoryRegistry
from tests.unit.jobs.tracking_for_tests import API, Tracking, tracking

VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", CREDENTIALS_VARIABLE)
ROOT = "1/run1/artifacts"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Tracking]:
    """A server of the environment, and a claim for the store."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Allow")
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path / "claims"))
    (tmp_path / "claims" / "retune-artifacts").mkdir(parents=True)
    with tracking() as found:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", found.address)
        yield found


@pytest.fixture
def registry(server: Tracking) -> MemoryRegistry:
    """What the server holds: nothing yet."""
    return MemoryRegistry(server)


@pytest.fixture
def bundles(server: Tracking, tmp_path: Path) -> list[BundleRef]:
    """Two bundles in the store."""
    assert server.address
    return [stored(tmp_path / f"made-{weight}", weight=weight) for weight in (2.0, 3.0)]


def refused(request: RegisterRequest, reason: Reason) -> JobError:
    """Register what must be refused, and return why."""
    with pytest.raises(JobError) as caught:
        run(request)
    assert caught.value.reason is reason, caught.value
    assert caught.value.next_step
    return caught.value


def test_files_come_before_the_version_and_the_version_before_its_alias(
    server: Tracking, registry: MemoryRegistry, bundles: list[BundleRef]
) -> None:
    """So that nothing half-published has a name that people load."""
    run(asked(None, entry(bundles[0], 2)))
    paths = [path.removeprefix(API) for path in server.paths()]
    puts = [index for index, path in enumerate(paths) if f"artifacts/{ROOT}/model/" in path]
    made, named = paths.index("model-versions/create"), len(paths) - 1
    assert max(puts) < made < named
    assert paths[named].startswith("registered-models/alias")
    assert registry.aliases == {"challenger": "1"}
    assert {"bundle.json", "model.onnx", "golden.json", "MLmodel"} <= {
        path.rpartition("/")[2] for path in server.files if path.startswith(f"{ROOT}/model/")
    }


def test_a_second_start_makes_nothing_anew(registry: MemoryRegistry, bundles: list[BundleRef]) -> None:
    """Neither a version nor a run; and a version is found behind many pages of others."""
    request = asked(entry(bundles[0], 2), entry(bundles[1], 3))
    first = run(request)
    others = [{"name": "digits", "version": str(number), "status": "READY", "tags": []} for number in range(3, 20)]
    registry.versions, registry.page = [*others, *registry.versions], 2
    assert run(request) == first
    assert (len(registry.versions), len(registry.runs)) == (2 + len(others), 2)


@pytest.mark.parametrize(
    "name", ["model-versions/create", "runs/log-batch", "runs/update", "registered-models/alias", "runs/search"]
)
def test_a_start_that_breaks_off_anywhere_is_gone_on_with(
    registry: MemoryRegistry, bundles: list[BundleRef], name: str
) -> None:
    """No alias has moved before everything is there, and the next start makes one version of one run."""
    broken = {name: (503, b"busy")}
    registry.refused = broken if name != "registered-models/alias" else {}
    ask = registry.answer
    if name == "registered-models/alias":
        registry.tracking.writes = lambda method, what, fields: (
            (503, b"busy") if (method, what) == ("POST", name) else ask(method, what, fields)
        )
    error = refused(asked(None, entry(bundles[0], 2)), Reason.REGISTRY_UNREACHABLE)
    assert (error.exit, registry.aliases) == (RETRY_EXIT, {})
    registry.refused, registry.tracking.writes = {}, ask
    run(asked(None, entry(bundles[0], 2)))
    assert (len(registry.versions), len(registry.runs), registry.aliases) == (1, 1, {"challenger": "1"})


def test_an_upload_that_breaks_off_or_arrives_cut_makes_no_version(
    server: Tracking, registry: MemoryRegistry, bundles: list[BundleRef]
) -> None:
    """A connection that ends is tried again by another pod; a file that is shorter than what was sent is told."""

    def ends(path: str, content: bytes) -> bytes:
        if path.endswith("model.onnx"):
            raise ConnectionError
        return content

    server.keep = ends
    assert refused(asked(None, entry(bundles[0], 2)), Reason.REGISTRY_UNREACHABLE).exit == RETRY_EXIT
    server.keep = lambda path, content: content[:10] if path.endswith("model.onnx") else content
    error = refused(asked(None, entry(bundles[0], 2)), Reason.REGISTRY_REFUSED)
    assert "10 of the" in error.message
    assert (registry.versions, registry.aliases) == ([], {})


def test_a_server_without_aliases_gets_tags(registry: MemoryRegistry, bundles: list[BundleRef]) -> None:
    """One version has each at a time, also after a rollback; the message says so."""
    registry.has_aliases = False
    first, second = entry(bundles[0], 2), entry(bundles[1], 3)
    result = run(asked(None, first))
    assert "the server has no aliases, and tags retune.alias stand for them" in result.message
    seen = []
    for champion, challenger in ((first, None), (first, second), (second, None), (first, None)):
        run(asked(champion, challenger))
        seen.append((registry.tagged("champion"), registry.tagged("challenger")))
    assert seen == [(["1"], []), (["1"], ["2"]), (["2"], []), (["1"], [])]


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("wasbs://box@account.example", "start it with --artifacts-destination"),
        ("/mlruns/1", "start it with --artifacts-destination"),
        ("gs://bucket/mlruns", "the Secret has no GOOGLE_CREDENTIALS"),
    ],
)
def test_a_server_that_takes_no_files_gets_the_place_of_the_bundle(
    server: Tracking, registry: MemoryRegistry, bundles: list[BundleRef], root: str, words: str
) -> None:
    """With a sentence, and with numbers and origin all the same."""
    registry.root = root
    result = run(asked(None, entry(bundles[0], 2)))
    assert registry.versions[0]["source"] == bundles[0].uri
    assert words in result.message
    assert server.files == {}
    assert registry.tags("1")["retune.digest"] == bundles[0].digest
    assert registry.logged[0]["metrics"]


def test_a_report_that_is_gone_is_told_and_keeps_no_version_away(
    server: Tracking, registry: MemoryRegistry, bundles: list[BundleRef], tmp_path: Path
) -> None:
    """One that is there is a file of the run."""
    result = run(asked(None, entry(bundles[0], 2, report=REPORT)))
    assert "its report is not in the store any more" in result.message
    page = tmp_path / "claims" / REPORT.removeprefix("pvc://")
    page.parent.mkdir(parents=True)
    page.write_text("<html>")
    result = run(asked(None, entry(bundles[1], 3, report=REPORT)))
    assert "report" not in result.message
    assert server.files["1/run2/artifacts/report.html"] == b"<html>"
    assert len(registry.versions) == 2


def test_the_challenger_of_a_person_is_left_alone(registry: MemoryRegistry, bundles: list[BundleRef]) -> None:
    """An alias is taken away only from a version of this resource."""
    run(asked(entry(bundles[0], 2)))
    registry.versions.append({"name": "digits", "version": "2", "status": "READY", "tags": []})
    registry.aliases["challenger"] = "2"
    run(asked(entry(bundles[0], 2)))
    assert registry.aliases == {"champion": "1", "challenger": "2"}


def test_what_belongs_to_others_is_not_overwritten(registry: MemoryRegistry, bundles: list[BundleRef]) -> None:
    """A prompt of that name, and an alias that names another resource's version: nothing is made."""
    run(asked(entry(bundles[0], 2), resource="ml/others"))
    error = refused(asked(None, entry(bundles[1], 2)), Reason.REGISTRY_CONFLICT)
    assert "alias champion names version 1, which belongs to resource ml/others" in error.message
    registry.models["digits"]["tags"] = [{"key": "mlflow.prompt.is_prompt", "value": "True"}]
    error = refused(asked(entry(bundles[0], 2), resource="ml/others"), Reason.REGISTRY_CONFLICT)
    assert error.message == "digits is a prompt, and no model can be registered under its name."
    assert len(registry.versions) == 1


@pytest.mark.parametrize(
    ("status", "body", "reason", "words"),
    [
        (403, {"error_code": "PERMISSION_DENIED", "message": "Permission denied"}, "FORBIDDEN", "(Permission denied)"),
        (401, b"who?", "FORBIDDEN", "there are no credentials (who?)"),
        (403, b"Invalid Host header", "FORBIDDEN", "does not answer under the name"),
        (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "bad name"}, "REFUSED", "bad name"),
        (404, b"<html>nginx</html>", "REFUSED", "does not know a request"),
        (200, b"<html>a portal</html>", "REFUSED", "this is no MLflow tracking server"),
        (302, b"", "REFUSED", "it sends what is written on to"),
        (429, b"slow down", "UNREACHABLE", "status 429"),
        (500, b"<html>oops</html>", "UNREACHABLE", "status 500"),
    ],
)
def test_each_refusal_has_its_sentence(
    registry: MemoryRegistry, bundles: list[BundleRef], status: int, body: Any, reason: str, words: str
) -> None:
    """Of a request in the middle; only what may pass by itself is tried again by the same Job."""
    registry.refused = {"runs/create": (status, body)}
    error = refused(asked(None, entry(bundles[0], 2)), Reason[f"REGISTRY_{reason}"])
    assert words in error.message
    assert error.exit == (RETRY_EXIT if reason == "UNREACHABLE" else Exit.BAD_INPUT)
    assert (registry.versions, registry.aliases) == ([], {})


def test_a_server_that_is_not_there_and_one_that_is_not_named(
    server: Tracking, bundles: list[BundleRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is tried again; the second says which key is missing, and of which Secret."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    error = refused(asked(None, entry(bundles[0], 2)), Reason.REGISTRY_UNREACHABLE)
    assert "cannot be asked" in error.message
    monkeypatch.setenv(CREDENTIALS_VARIABLE, "tracking")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-token")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    error = refused(asked(None, entry(bundles[0], 2)), Reason.REGISTRY_FORBIDDEN)
    assert "MLFLOW_TRACKING_URI" in error.message
    assert error.next_step == "Correct it in the Secret that is called tracking."
    assert server.asked == []


def test_credentials_that_may_not_write_are_told_without_being_shown(
    registry: MemoryRegistry, bundles: list[BundleRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the Secret's name and the rights that are needed."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-token")
    monkeypatch.setenv(CREDENTIALS_VARIABLE, "tracking")
    registry.refused = {"registered-models/create": (403, {"error_code": "PERMISSION_DENIED", "message": "no"})}
    error = refused(asked(None, entry(bundles[0], 2)), Reason.REGISTRY_FORBIDDEN)
    assert "Let that user edit the model" in error.next_step
    assert "the Secret that is called tracking" in error.next_step
    assert "secret-token" not in str(error)


@pytest.mark.parametrize(
    ("status", "reason"),
    [("PENDING_REGISTRATION", "UNREACHABLE"), ("FAILED_REGISTRATION", "REFUSED"), ("ODD", "REFUSED")],
)
def test_a_version_that_the_server_has_not_finished_gets_no_alias(
    registry: MemoryRegistry, bundles: list[BundleRef], status: str, reason: str
) -> None:
    """It is looked at again, and one that failed is made anew."""
    create = registry.answer

    def slow(method: str, name: str, fields: Any) -> Any:
        answer = create(method, name, fields)
        if name == "model-versions/create":
            registry.versions[-1]["status"] = status
        return answer

    registry.tracking.writes = slow
    refused(asked(None, entry(bundles[0], 2)), Reason[f"REGISTRY_{reason}"])
    assert registry.aliases == {}
    registry.tracking.writes = create
    if status == "PENDING_REGISTRATION":
        registry.versions[-1]["status"] = "READY"
    if status != "ODD":
        assert run(asked(None, entry(bundles[0], 2))).challenger == ("1" if status.startswith("PENDING") else "2")


def test_more_versions_than_can_be_looked_through_are_told(
    registry: MemoryRegistry, bundles: list[BundleRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never ends its list holds nobody up."""
    monkeypatch.setattr("optimizer_jobs.data.mlflow.versions._PAGES", 3)
    registry.refused = {"model-versions/search": (200, {"model_versions": [], "next_page_token": "again"})}
    assert "more than" in refused(asked(None, entry(bundles[0], 2)), Reason.REGISTRY_REFUSED).message


@pytest.mark.parametrize("uri", ["mlflow-artifacts://elsewhere:5000/1", "mlflow-artifacts:/../../etc"])
def test_files_go_nowhere_else(registry: MemoryRegistry, bundles: list[BundleRef], uri: str) -> None:
    """Not to the server that an answer names, and not out of the folder for files."""
    registry.root = uri
    refused(asked(None, entry(bundles[0], 2)), Reason.REGISTRY_REFUSED)
    assert (registry.tracking.files, registry.versions) == ({}, [])


def test_a_bundle_that_is_gone_keeps_its_own_reason(registry: MemoryRegistry, bundles: list[BundleRef]) -> None:
    """And one that is registered already needs no bundle for its alias to move."""
    run(asked(None, entry(bundles[0], 2)))
    gone = bundles[1].model_copy(update={"uri": f"{bundles[1].uri[:-1]}x"})
    refused(asked(entry(bundles[0], 2), entry(gone, 3)), Reason.BUNDLE_NOT_FOUND)
    assert registry.aliases == {"challenger": "1"}
    run(asked(entry(bundles[0].model_copy(update={"uri": "pvc://retune-artifacts/gone"}), 2)))
    assert registry.aliases == {"champion": "1"}


def test_other_aliases_and_another_experiment(registry: MemoryRegistry, bundles: list[BundleRef]) -> None:
    """As the spec names them."""
    named = Registry.model_validate(
        {"uri": "mlflow://my%20net", "aliases": {"champion": "live", "challenger": "next"}, "experiment": "/team/nets"}
    )
    run(asked(entry(bundles[0], 2), entry(bundles[1], 3), registry=named))
    assert registry.aliases == {"live": "1", "next": "2"}
    assert (list(registry.models), list(registry.experiments)) == (["my net"], ["/team/nets"])


def test_what_is_judged_is_what_mlflow_runs(bundles: list[BundleRef], tmp_path: Path) -> None:
    """Threads, graph level and spinning; of another engine, threads only."""
    options = EngineOptions(threads=2, spinning=False, graph_level="extended")
    ref = stored(tmp_path / "tuned", weight=4.0, engine=options)
    written = described(open_bundle(ref.uri))
    document = yaml.safe_load(written["MLmodel"])
    assert document["flavors"]["onnx"]["onnx_session_options"] == {
        "intra_op_num_threads": 2,
        "inter_op_num_threads": 1,
        "execution_mode": "sequential",
        "graph_optimization_level": 2,
        "extra_session_config": {"session.intra_op.allow_spinning": "0"},
    }
    assert document["signature"]["inputs"] == (
        '[{"name": "x", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}]'
    )
    assert written == described(open_bundle(ref.uri))
    assert "onnxruntime==" in written["requirements.txt"]
    assert bundles


def test_what_is_no_number_is_left_out(registry: MemoryRegistry, bundles: list[BundleRef]) -> None:
    """Numbers of MLflow are finite."""
    broken = entry(bundles[0], 2)
    metrics = tuple(broken.metrics[0].model_copy(update={"name": name, "value": name}) for name in ("nan", "inf", "x"))
    run(asked(None, broken.model_copy(update={"metrics": metrics})))
    assert {metric["key"] for metric in registry.logged[0]["metrics"]} == {
        "accuracy",
        "champion/accuracy",
        "change/accuracy",
    }


def test_credentials_are_sent_with_every_request(
    server: Tracking, registry: MemoryRegistry, bundles: list[BundleRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that read, those that write, and those with files."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-token")
    run(asked(None, entry(bundles[0], 2)))
    assert {headers.get("Authorization") for _, headers in server.asked} == {"Bearer secret-token"}
    assert registry.aliases
