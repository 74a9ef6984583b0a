"""A model in MLflow is read by its REST API: one version, its own file, and nothing that it names elsewhere."""

import base64
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from optimizer_jobs.commands.check.delivered_file import current_digest
from optimizer_jobs.data.delivered import source_of
from optimizer_jobs.data.fetch import Fetched
from optimizer_jobs.data.mlflow import server as tracking_server
from optimizer_jobs.data.mlflow.registry import find
from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.machinery.formats.delivery import fetch_model
from retune.api.model import Model, ModelFormat
from retune.contract.paths import CREDENTIALS_VARIABLE, PRIVATE_ADDRESSES_VARIABLE
from retune.contract.requests import Followed
from retune.contract.results import Reason
from tests.unit.jobs.tracking_for_tests import API, FILES, Tracking, mlmodel, tracking

ALIAS, VERSION = "mlflow://digits@champion", "mlflow://digits/3"
ONNX = {"MLmodel": mlmodel(onnx={"data": "model.onnx"}, python_function={"loader_module": "mlflow.onnx"})}
BODY = os.urandom(1_000_000)
BOOSTER = {"MLmodel": mlmodel(xgboost={"data": "model.ubj"}), "model.ubj": BODY}
BODY_PATH = "1/models/m-3/artifacts/model.ubj"
VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", CREDENTIALS_VARIABLE)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    """A server with version 3 of `digits`, a file of XGBoost, under alias `champion`."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Allow")
    with tracking() as found:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", found.address)
        found.register("3", BOOSTER)
        found.name("champion", "3")
        yield found


@pytest.fixture
def get(server: Tracking, tmp_path: Path) -> Callable[..., Fetched]:
    """Fetch the delivered model."""
    assert server.files

    def got(uri: str = ALIAS, format_: ModelFormat = ModelFormat.XGBOOST, **fields: Any) -> Fetched:
        return fetch_model(Model(uri=uri, format=format_, **fields), tmp_path / "in")

    return got


def refused(act: Callable[[], object], *, reason: Reason = Reason.MODEL_INVALID) -> JobError:
    """Do what must be refused, and return why."""
    with pytest.raises(JobError) as caught:
        act()
    assert caught.value.reason is reason, caught.value
    return caught.value


def digest_of(content: bytes) -> str:
    """Return the digest of bytes as a spec names it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("uri", [ALIAS, VERSION])
def test_an_alias_or_a_version_is_read(get: Callable[..., Fetched], uri: str) -> None:
    """The file arrives under its own name, with its own digest, which is held to the spec's."""
    fetched = get(uri, digest=digest_of(BODY))
    assert (fetched.path.name, fetched.path.read_bytes()) == ("model.ubj", BODY)
    error = refused(lambda: get(uri, digest=digest_of(b"")), reason=Reason.DIGEST_MISMATCH)
    assert error.object == "mlflow://digits/3/model.ubj"


def test_a_prefix_and_a_name_with_a_space_are_asked_as_they_are(
    server: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may lie behind a prefix, and a name may have what a query must not."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{server.address}/team/")
    for uri, query in (("mlflow://my%20net@best", "name=my+net&alias=best"), ("mlflow://a+b=c/7", "name=a%2Bb%3Dc")):
        refused(functools.partial(find, uri), reason=Reason.MODEL_NOT_FOUND)
        assert server.asked[0][0].startswith("/team/api/2.0/mlflow/")
        assert query in server.asked[0][0].replace("=c", "%3Dc")
        server.asked.clear()


def test_an_alias_that_moves_meanwhile_mixes_no_versions(
    server: Tracking, get: Callable[..., Fetched], delivered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alias is asked for once; all that is read after it is of the version that it named then."""
    model = (delivered / "mlp.onnx").read_bytes()
    server.register("4", ONNX | {"model.onnx": model})
    server.register("5", ONNX | {"model.onnx": b"other"})
    server.name("champion", "4")
    ask = tracking_server.Server.ask

    def moves(self: tracking_server.Server, name: str, /, **parameters: str) -> dict[str, Any]:
        answer = ask(self, name, **parameters)
        server.name("champion", "5")
        return answer

    monkeypatch.setattr(tracking_server.Server, "ask", moves)
    assert get(ALIAS, ModelFormat.ONNX).path.read_bytes() == model
    assert server.paths().count(f"{API}registered-models/alias") == 1
    assert not any("m-5" in path for path, _ in server.asked)


def test_follow_sees_that_an_alias_moved(server: Tracking, capsys: pytest.CaptureFixture[str]) -> None:
    """Another version has another digest; a server that is gone says nothing about the file."""
    followed = Followed(uri=ALIAS, digest=digest_of(BODY), format=ModelFormat.XGBOOST)
    assert current_digest(followed) == digest_of(BODY)
    server.register("4", BOOSTER | {"model.ubj": b"newer"})
    server.name("champion", "4")
    assert current_digest(followed) == digest_of(b"newer")
    server.refuse("registered-models/alias", 404, "RESOURCE_DOES_NOT_EXIST", name="digits", alias="champion")
    assert current_digest(followed) is None
    assert "the server has no model digits" in capsys.readouterr().out


def test_a_folder_of_hugging_face_is_read_from_its_flavour(server: Tracking, get: Callable[..., Fetched]) -> None:
    """What is beside the model, tokenizer and code, stays where it is."""
    described = mlmodel(transformers={"model_binary": "model"}, python_function={})
    net = {"model/config.json": b"{}", "model/model.safetensors": BODY, "components/tokenizer/tokenizer.json": b"{}"}
    server.register("4", {"MLmodel": described, **net})
    fetched = get("mlflow://digits/4", ModelFormat.HUGGING_FACE)
    assert {path.name for path in fetched.path.iterdir()} == {"config.json", "model.safetensors"}
    followed = Followed(uri="mlflow://digits/4", digest="", folder=True, format=ModelFormat.HUGGING_FACE)
    assert current_digest(followed) == fetched.digest


@pytest.mark.parametrize("ranges", [False, True])
def test_a_transfer_that_breaks_off_goes_on(server: Tracking, get: Callable[..., Fetched], *, ranges: bool) -> None:
    """With ranges from there on, and without them by reading again what had come."""
    server.ranges, server.cuts[BODY_PATH] = ranges, [400_000, 300_000]
    assert get().path.read_bytes() == BODY
    assert server.paths().count(f"{FILES}/{BODY_PATH}") == 3


def test_a_transfer_that_always_breaks_off_is_given_up(server: Tracking, get: Callable[..., Fetched]) -> None:
    """The Job tries again later."""
    server.cuts[BODY_PATH] = [1000] * 5
    error = refused(get, reason=Reason.SOURCE_UNREACHABLE)
    assert error.exit == RETRY_EXIT
    assert server.paths().count(f"{FILES}/{BODY_PATH}") == 3


def test_a_file_that_changes_within_a_transfer_is_refused(
    server: Tracking, get: Callable[..., Fetched], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two halves of two files never become one."""
    read, got = tracking_server.Download.read, list[bytes]()

    def breaks(self: tracking_server.Download, size: int) -> bytes:
        if len(got) == 1:
            got.append(b"")
            server.files[BODY_PATH] = bytes(len(BODY))
            raise ConnectionResetError
        content = read(self, min(size, 1000))
        got.extend([content] if content.startswith(BODY[:1000]) else [])
        return content

    monkeypatch.setattr(tracking_server.Download, "read", breaks)
    assert "the file was changed while it was read" in refused(get, reason=Reason.SOURCE_UNREACHABLE).message


BOMB = b"a0: &a0 {x: 1}\n" + b"".join(
    b"a%d: &a%d {<<: [%s]}\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 200_000, "it is no YAML"),
        (b"\0\xff\xfe", "it is no YAML"),
        (b"flavors: {onnx: [", "it is no YAML"),
        (b"flavors: &a [*a]", "it is no YAML"),
        (b"just text", "it describes no flavours"),
        (b"flavors: {xgboost: model.ubj}", "it describes no flavours"),
        (BOMB, "it describes no flavours"),
        (b"!!python/object/apply:os.system [exit]", "it describes no flavours"),
        (b"", "it describes no flavours"),
    ],
)
def test_an_mlmodel_that_is_none_is_refused(
    server: Tracking, get: Callable[..., Fetched], content: bytes, words: str
) -> None:
    """Whatever it holds, it is data, and small."""
    server.register("3", BOOSTER | {"MLmodel": content})
    error = refused(get)
    assert error.message.startswith(words)
    assert error.object == "mlflow://digits/3/MLmodel"


def test_an_mlmodel_without_end_is_not_begun(server: Tracking, get: Callable[..., Fetched]) -> None:
    """Its size in the server's list is enough."""
    server.register("3", {"MLmodel": bytes((1 << 20) + 1)})
    refused(get, reason=Reason.MODEL_TOO_LARGE)
    assert not any(path.endswith("/MLmodel") for path in server.paths())


@pytest.mark.parametrize(
    "path",
    [
        "../other/model.ubj",
        "a/../../model.ubj",
        "/etc/passwd",
        "file:///etc/passwd",
        "https://example.org/model.ubj",
        "s3://bucket/model.ubj",
        "a//b",
        ".hidden",
        "a\\b",
        "a%2f..%2fb",
        "a?b",
        "a/b/c/d/e/f",
        "",
        ["model.ubj"],
    ],
)
def test_a_path_out_of_the_folder_is_never_followed(
    server: Tracking, get: Callable[..., Fetched], path: object
) -> None:
    """MLmodel names files beside it, and nothing else."""
    server.register("3", BOOSTER | {"MLmodel": mlmodel(xgboost={"data": path})})
    assert "which is no file in the folder of the model" in refused(get).message
    assert server.paths()[-1].endswith("/MLmodel")


def test_a_file_that_is_missing_is_named(server: Tracking, get: Callable[..., Fetched]) -> None:
    """The description is there, and its file is not; or nothing is there any more."""
    del server.files[BODY_PATH]
    assert "it names model.ubj, and there is no such file" in refused(get, reason=Reason.MODEL_NOT_FOUND).message
    server.files.clear()
    assert "are gone: there is no MLmodel" in refused(get, reason=Reason.MODEL_NOT_FOUND).message


SKLEARN = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
FLAVOURS = [
    ({"sklearn": SKLEARN}, "ONNX", "Set model.format: Pickle, and model.trust: RunsCodeFromFile"),
    ({"sklearn": SKLEARN}, "Skops", "Set model.format: Pickle"),
    ({"sklearn": SKLEARN | {"serialization_format": "skops"}}, "Pickle", "Set model.format: Skops."),
    ({"lightgbm": {"data": "model.lgb"}}, "XGBoost", "Set model.format: LightGBM."),
    ({"lightgbm": {"data": "model.pkl"}}, "LightGBM", "Set model.format: Pickle, and model.trust"),
    ({"lightgbm": {"data": "model.skops"}}, "LightGBM", "Set model.format: Skops."),
    ({"catboost": {"data": "model.cb"}}, "ONNX", "Set model.format: CatBoost."),
    ({"transformers": {"model_binary": "model"}}, "ONNX", "Set model.format: HuggingFace."),
    ({"pytorch": {"model_data": "data"}, "python_function": {}}, "ONNX", "serialization_format='pt2'"),
    ({"pytorch": {"model_data": "data"}}, "TorchExport", "serialization_format='pt2'"),
    ({"pytorch": {"model_data": "data"}}, "StateDict", "serialization_format='pt2'"),
    ({"tensorflow": {}, "python_function": {}}, "ONNX", "tf2onnx"),
    ({"keras": {}}, "ONNX", "model.export"),
    ({"spark": {}}, "ONNX", "onnxmltools"),
    ({"python_function": {}}, "Pickle", "It is code of its own"),
    ({"prophet": {}}, "Joblib", "Write it as ONNX"),
    ({}, "ONNX", "Write it as ONNX"),
]


@pytest.mark.parametrize(("flavours", "format_", "step"), FLAVOURS)
def test_a_model_of_another_format_says_what_to_set(
    server: Tracking, flavours: dict[str, Any], format_: str, step: str
) -> None:
    """Its flavours are named, and the format that reads one of them, or what to log instead."""
    server.register("3", {"MLmodel": mlmodel(**flavours)})
    error = refused(lambda: source_of(VERSION, ModelFormat(format_)))
    assert step in error.next_step
    assert all(flavour in error.message for flavour in flavours) or format_ == "TorchExport"


@pytest.mark.parametrize(
    ("flavours", "format_", "path"),
    [
        ({"sklearn": SKLEARN}, "Pickle", "model.pkl"),
        ({"sklearn": {"pickled_model": "model.skops", "serialization_format": "skops"}}, "Skops", "model.skops"),
        ({"lightgbm": {"data": "model.lgb"}}, "LightGBM", "model.lgb"),
        ({"lightgbm": {"data": "model.pkl"}}, "Pickle", "model.pkl"),
        ({"lightgbm": {"data": "model.skops"}}, "Skops", "model.skops"),
        ({"catboost": {"data": "model.cb"}}, "CatBoost", "model.cb"),
        ({"pytorch": {"model_data": "data"}}, "TorchExport", "data/model.pt2"),
        ({"pytorch": {"model_data": "data"}}, "TorchScript", "data/model.pth"),
        ({"onnx": {"data": "model.onnx"}, "sklearn": SKLEARN}, "ONNX", "model.onnx"),
    ],
)
def test_the_format_decides_which_file_is_read(
    server: Tracking, flavours: dict[str, Any], format_: str, path: str
) -> None:
    """A model may have several flavours, and a flavour several forms."""
    server.register("3", {"MLmodel": mlmodel(**flavours), path: b"model"})
    source = source_of(VERSION, ModelFormat(format_))
    assert source.uri == f"{VERSION}/{path}"
    assert source.file.path == f"1/models/m-3/artifacts/{path}"


@pytest.mark.parametrize(
    "root",
    [
        "file:///mlruns/1/models/m-3/artifacts",
        "/mlruns/1/models/m-3/artifacts",
        "dbfs:/mlruns",
        "wasbs://container@account/mlruns",
        "http://example.org/mlruns",
        "runs:/abc/model",
        "",
    ],
)
def test_a_store_that_is_not_read_is_told(server: Tracking, root: str) -> None:
    """The sentence says where the files are said to lie, and what to do."""
    server.register("3", {}, root=root)
    error = refused(lambda: find(VERSION), reason=Reason.MODEL_FORBIDDEN)
    assert repr(root) in error.message
    assert "--artifacts-destination" in error.next_step


@pytest.mark.parametrize("root", ["mlflow-artifacts:/../../etc", "mlflow-artifacts:/", "mlflow-artifacts:/a/./b"])
def test_a_folder_that_is_not_plain_is_refused(server: Tracking, root: str) -> None:
    """No path of the server's leads out of its artifacts."""
    server.register("3", {}, root=root)
    assert "is not plain" in refused(lambda: find(VERSION)).message


def test_files_of_another_server_are_refused(server: Tracking) -> None:
    """Credentials for one server are not shown to the one that it names."""
    server.register("3", BOOSTER, root="mlflow-artifacts://[evil:1/models/m-3/artifacts")
    assert "another one hands the files out" in refused(lambda: find(VERSION), reason=Reason.MODEL_FORBIDDEN).message
    server.register("3", BOOSTER, root=f"mlflow-artifacts://127.0.0.1:{server.port}/1/models/m-3/artifacts")
    assert source_of(VERSION, ModelFormat.XGBOOST).name == "model.ubj"


def test_files_in_a_bucket_are_the_buckets(server: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are known by their own URI, and a path that leads out of the folder is refused."""
    monkeypatch.setenv("HOME", "/nowhere")
    server.register("3", {}, root="s3://models/1/m-3/artifacts/")
    place = find(VERSION).place
    assert place("MLmodel").uri == "s3://models/1/m-3/artifacts/MLmodel"
    refused(lambda: place("../other"), reason=Reason.MODEL_FORBIDDEN)


def test_a_logged_model_says_where_its_files_are(server: Tracking) -> None:
    """A version of MLflow 3 may be registered from one."""
    server.register("3", BOOSTER, root="models:/m-abc")
    server.answer(
        "logged-models/m-abc", {"model": {"info": {"artifact_uri": "mlflow-artifacts:/1/models/m-3/artifacts"}}}
    )
    assert source_of(VERSION, ModelFormat.XGBOOST).file.path == BODY_PATH
    server.answer("logged-models/m-abc", {"model": []})
    refused(lambda: find(VERSION), reason=Reason.MODEL_FORBIDDEN)


REFUSALS = [
    (ALIAS, 404, "RESOURCE_DOES_NOT_EXIST", "Registered Model not found", "the server has no model digits."),
    (ALIAS, 400, "INVALID_PARAMETER_VALUE", "alias none not found", "digits has no alias champion."),
    (ALIAS, 404, "RESOURCE_DOES_NOT_EXIST", "Registered model alias champion not found.", "digits has no alias"),
    (VERSION, 404, "RESOURCE_DOES_NOT_EXIST", "Model Version not found", "the server has no version 3 of digits."),
]


@pytest.mark.parametrize(("uri", "status", "code", "message", "words"), REFUSALS)
def test_what_is_not_there_is_named(
    server: Tracking, uri: str, status: int, code: str, message: str, words: str
) -> None:
    """Model, alias and version are told from each other."""
    query = {"alias": "champion"} if uri == ALIAS else {"version": "3"}
    name = "registered-models/alias" if uri == ALIAS else "model-versions/get"
    server.refuse(name, status, code, message, name="digits", **query)
    error = refused(lambda: find(uri), reason=Reason.MODEL_NOT_FOUND)
    assert words in error.message
    assert error.object == uri


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_aliases_is_searched_for_a_tag(
    server: Tracking, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    """The newest version with the tag is taken, and where there is none, both ways out are told."""
    server.answer("registered-models/alias", b"<html>", status=status, name="digits", alias="champion")
    search = {
        "filter": "name='digits' and tags.`retune.alias`='champion'",
        "max_results": "1",
        "order_by": "version_number DESC",
    }
    name = "model-versions/search"
    found = {"model_versions": [{"name": "digits", "version": "3", "status": "READY"}]}
    server.answer(name, found, status=200, **search)
    assert find(ALIAS).own_uri == VERSION
    assert "the server has no aliases" in capsys.readouterr().out
    server.answer(name, {}, status=200, **search)
    error = refused(lambda: find(ALIAS), reason=Reason.MODEL_NOT_FOUND)
    assert "tag retune.alias=champion" in error.message
    assert "mlflow://digits/1" in error.next_step


def test_a_version_that_is_not_ready_waits_or_is_refused(server: Tracking) -> None:
    """One that is being registered may be ready soon; one that failed never is."""
    server.register("3", BOOSTER, status="PENDING_REGISTRATION")
    assert refused(lambda: find(VERSION), reason=Reason.SOURCE_UNREACHABLE).exit == RETRY_EXIT
    server.register("3", BOOSTER, status="FAILED_REGISTRATION", status_message="disk full")
    assert "was not registered (disk full)" in refused(lambda: find(VERSION)).message


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"model_version": {"version": "../1"}}',
        b'{"model_version": {"version": 9}}',
        bytes(5 << 20),
    ],
)
def test_an_answer_that_no_tracking_server_gives_is_refused(server: Tracking, answer: bytes) -> None:
    """The address is of something else, or somebody else answers."""
    server.answer("model-versions/get", answer, name="digits", version="3")
    assert "MLFLOW_TRACKING_URI" in refused(lambda: find(VERSION)).next_step


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_credentials_are_told_from_none(server: Tracking, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """The next step names the keys; what they hold is nowhere."""
    server.answer("model-versions/get", b"<html>", status=status, name="digits", version="3")
    error = refused(lambda: find(VERSION), reason=Reason.MODEL_FORBIDDEN)
    assert error.next_step.startswith("Name a Secret")
    assert "MLFLOW_TRACKING_TOKEN" in error.next_step
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret")
    error = refused(lambda: find(VERSION), reason=Reason.MODEL_FORBIDDEN)
    assert error.next_step.startswith("Correct the Secret")
    assert "s3cret" not in str(error)


def test_a_server_that_does_not_know_its_name_says_what_to_start_it_with(server: Tracking) -> None:
    """MLflow refuses requests under the name of a Service unless it is told of it."""
    words = b"Invalid Host header - possible DNS rebinding attack detected"
    server.answer("model-versions/get", words, status=403, name="digits", version="3")
    assert "--allowed-hosts" in refused(lambda: find(VERSION), reason=Reason.MODEL_FORBIDDEN).next_step


def test_a_server_that_fails_or_is_down_is_tried_again(server: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is a fault of the spec's."""
    server.answer("model-versions/get", b"", status=503, name="digits", version="3")
    error = refused(lambda: find(VERSION), reason=Reason.SOURCE_UNREACHABLE)
    assert (error.exit, "503" in error.message) == (RETRY_EXIT, True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert refused(lambda: find(VERSION), reason=Reason.SOURCE_UNREACHABLE).exit == RETRY_EXIT


@pytest.mark.parametrize("path", ["MLmodel", "model.ubj"])
def test_a_file_that_may_not_be_read_asks_for_credentials(
    get: Callable[..., Fetched], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Some servers let everybody see the registry, and not the files."""
    opened = tracking_server.Server.open

    def closed(self: tracking_server.Server, asked: str, *, start: int) -> tracking_server.Download:
        if asked.endswith(path):
            raise tracking_server.AnswerError(403, "PERMISSION_DENIED", "")
        return opened(self, asked, start=start)

    monkeypatch.setattr(tracking_server.Server, "open", closed)
    error = refused(get, reason=Reason.MODEL_FORBIDDEN)
    assert (error.object, "MLFLOW_TRACKING" in error.next_step) == (f"{VERSION}/{path}", True)


def test_a_redirect_to_another_host_is_refused(server: Tracking) -> None:
    """Nobody else is asked, whatever the server says."""
    server.redirect = "http://169.254.169.254/latest"
    assert "redirect" in refused(lambda: find(VERSION), reason=Reason.MODEL_FORBIDDEN).message


CREDENTIALS = [
    ({"MLFLOW_TRACKING_TOKEN": "abc"}, "Bearer abc"),
    (
        {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "p:ä"},
        base64.b64encode("me:p:ä".encode()).decode(),
    ),
    ({"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "x", "MLFLOW_TRACKING_TOKEN": "abc"}, "Basic"),
    ({}, None),
]


@pytest.mark.parametrize(("variables", "shown"), CREDENTIALS)
def test_credentials_are_shown_with_every_request(
    server: Tracking,
    get: Callable[..., Fetched],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    shown: str | None,
) -> None:
    """In the order of MLflow's own clients, for the registry and for files alike."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    get()
    headers = {sent.get("Authorization") for _, sent in server.asked}
    assert len(headers) == 1
    header = headers.pop()
    assert (header is None) if shown is None else (header is not None and shown in header)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"MLFLOW_TRACKING_URI": ""}, "needs the address of the tracking server"),
        ({"MLFLOW_TRACKING_URI": "databricks"}, "is no address of a server"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}, "is no address of a server"),
        ({"MLFLOW_TRACKING_URI": "http://host/?a=b"}, "is no address of a server"),
        ({"MLFLOW_TRACKING_URI": "http://[::1"}, "is no address of a server"),
        ({"MLFLOW_TRACKING_URI": "http://host:port"}, "is no address of a server"),
        ({"MLFLOW_TRACKING_URI": "http://ho\nst"}, "is no address of a server"),
        ({"MLFLOW_TRACKING_URI": "http://me:s3cret@host"}, "has a user in it"),
        ({"MLFLOW_TRACKING_URI": "http://169.254.169.254"}, "the machine's own network"),
        ({"MLFLOW_TRACKING_URI": "http://0xa9fea9fe"}, "neither a name nor an address"),
        ({PRIVATE_ADDRESSES_VARIABLE: "Refuse"}, "private address"),
        ({"MLFLOW_TRACKING_USERNAME": "me"}, "are needed both"),
        ({"MLFLOW_TRACKING_PASSWORD": "s3cret"}, "are needed both"),
        ({"MLFLOW_TRACKING_USERNAME": "m:e", "MLFLOW_TRACKING_PASSWORD": "s3cret"}, "has a colon"),
        ({"MLFLOW_TRACKING_TOKEN": "s3cret\nX-Other: 1"}, "is no token"),
        ({"MLFLOW_TRACKING_URI": "http://93.184.216.34", "MLFLOW_TRACKING_TOKEN": "s3cret"}, "in clear text"),
        ({"MLFLOW_TRACKING_URI": "", CREDENTIALS_VARIABLE: "mlflow"}, "Secret mlflow does not exist"),
    ],
)
def test_a_secret_that_cannot_be_used_is_told_before_anybody_is_asked(
    server: Tracking, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    """The sentence names the key, and never what is secret in it."""
    for name in ("AWS_REGION", "AWS_ENDPOINT_URL", "CA_CERTIFICATES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    error = refused(lambda: find(VERSION), reason=Reason.MODEL_FORBIDDEN)
    assert words in error.message
    assert "s3cret" not in str(error)
    assert not server.asked


@pytest.mark.parametrize("uri", ["mlflow://", "mlflow://a@b@c", "mlflow://a/b/c", "mlflow://a/0", "mlflow://a%2fb@c"])
def test_a_name_that_is_none_is_refused(server: Tracking, uri: str) -> None:
    """A request of a Job reaches no API server, so it is checked once more."""
    assert server.answers
    assert "mlflow://NAME@ALIAS" in refused(lambda: find(uri), reason=Reason.MODEL_FORBIDDEN).message
    assert not server.asked
