"""Bundles pushed to an OCI registry: the same image each time, tags last, and every refusal told."""

import base64
import functools
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from optimizer_jobs.commands.register.command import run as run_register
from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.models.bundle import Bundle, open_bundle, publish
from optimizer_jobs.registries.oci import credentials, patience, signing
from optimizer_jobs.registries.oci.layers import LARGE_BYTES, write_layers
from optimizer_jobs.registries.oci.pushing import Pushed, digest_of, push, retag, verify
from optimizer_jobs.registries.oci.references import parse
from optimizer_jobs.registries.oci.roles import Accepted, Tags, assign, bundle_tag
from retune.api.registry import Aliases, Registry
from retune.contract.paths import CREDENTIALS_VARIABLE, PRIVATE_ADDRESSES_VARIABLE, bundles
from retune.contract.requests import RegisterRequest, RegistryEntry, Server
from retune.contract.results import Reason
from tests.unit.jobs.image_registry_for_tests import FakeRegistry, Fault, registry

VARIABLES = (
    credentials.DOCKER_CONFIG,
    credentials.HOST,
    credentials.USERNAME,
    credentials.PASSWORD,
    credentials.TOKEN,
    credentials.PLAIN_HTTP,
    signing.KEY,
    CREDENTIALS_VARIABLE,
)
BASIC = base64.b64encode(b"robot:secret").decode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    """A registry in the cluster that speaks no TLS and asks nobody who they are."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Allow")
    monkeypatch.setattr(patience, "FIRST_WAIT_SECONDS", 0.0)
    with registry() as found:
        monkeypatch.setenv(credentials.PLAIN_HTTP, found.host)
        yield found


@pytest.fixture
def pushed(server: FakeRegistry, make: Callable[..., Bundle]) -> Callable[..., Pushed]:
    """Push a bundle."""
    bundle = make()
    return lambda **more: push(bundle, server.reference, **more)


def refused(act: Callable[[], object], *, reason: Reason = Reason.REGISTRY_REFUSED) -> JobError:
    """Do what must be refused, and return why."""
    with pytest.raises(JobError) as caught:
        act()
    assert caught.value.reason is reason, caught.value
    return caught.value


def unpacked(server: FakeRegistry, tag: str, into: Path) -> list[tarfile.TarInfo]:
    """Unpack what a tag names, as a runtime does; return the entries."""
    manifest = json.loads(server.manifests[server.index(tag)["manifests"][0]["digest"]])
    entries = []
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(server.blobs[layer["digest"]]), mode="r:gz") as tar:
            tar.extractall(into, filter="data")
            entries += tar.getmembers()
    return entries


def test_an_image_holds_the_bundle_under_models(
    server: FakeRegistry, make: Callable[..., Bundle], tmp_path: Path
) -> None:
    """Files of root that all may read, of no time; the bundle opens from there with its digest."""
    bundle = make()
    done = push(bundle, server.reference, tags=["challenger", "v3"])
    entries = unpacked(server, "challenger", tmp_path)
    assert open_bundle(f"file://{tmp_path}/models", digest=bundle.digest).manifest == bundle.manifest
    assert {(each.mode, each.isdir()) for each in entries} == {(0o755, True), (0o644, False)}
    assert {(each.uid, each.gid, each.mtime) for each in entries} == {(0, 0, 0)}
    assert {each.name.partition("/")[0] for each in entries} == {"models"}
    assert done.reference == f"{server.reference}@{done.digest}"
    assert digest_of(server.reference, "v3") == digest_of(server.reference, "challenger") == done.digest
    assert digest_of(server.reference, "none") is None


def test_the_index_is_for_both_platforms_and_says_what_it_is(server: FakeRegistry, make: Callable[..., Bundle]) -> None:
    """Platforms share their layers; digests of tar files are those of the layers, unpacked."""
    bundle = make()
    push(bundle, server.reference, tags=["v1"], annotations={"org.opencontainers.image.source": "ml/digits"})
    index, layers = server.index("v1"), []
    for named in index["manifests"]:
        manifest = json.loads(server.manifests[named["digest"]])
        config = json.loads(server.blobs[manifest["config"]["digest"]])
        assert {"architecture": config["architecture"], "os": config["os"]} == named["platform"]
        tars = [gzip.decompress(server.blobs[layer["digest"]]) for layer in manifest["layers"]]
        assert [sha256(tar) for tar in tars] == config["rootfs"]["diff_ids"]
        assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
        layers.append(manifest["layers"])
    assert layers[0] == layers[1]
    assert [named["platform"]["architecture"] for named in index["manifests"]] == ["amd64", "arm64"]
    assert index["annotations"]["dev.retune.digest"] == bundle.digest
    assert index["annotations"]["dev.retune.resource"] == "ml/digits"
    assert index["annotations"]["org.opencontainers.image.source"] == "ml/digits"


def sha256(content: bytes) -> str:
    """Return the digest of bytes as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_the_same_bundle_is_the_same_image_and_is_not_sent_again(
    server: FakeRegistry, make: Callable[..., Bundle]
) -> None:
    """Made again in another folder, at another time; only what a tag needs is asked then."""
    first = push(make(), server.reference, tags=["v1"])
    server.asked.clear()
    os.utime(make("again").folder / "model.onnx", (1, 1))
    second = push(make("third"), server.reference, tags=["v1"])
    assert first == second
    assert {method for method, *_ in server.asked} == {"HEAD"}


def test_a_large_file_that_stays_is_not_sent_again(tmp_path: Path) -> None:
    """It has a layer of its own, which has the same digest whatever lies beside it."""
    large = tmp_path / "model.onnx"
    large.write_bytes(os.urandom(LARGE_BYTES + 70_000))
    folders = [tmp_path / "one", tmp_path / "two"]
    made = []
    for number, folder in enumerate(folders):
        folder.mkdir()
        made.append(write_layers({"models/model.onnx": large, "models/bundle.json": bytes([number])}, folder))
    assert made[0][1].diff_id == made[1][1].diff_id
    assert made[0][1].blob.digest == made[1][1].blob.digest
    assert made[0][0].blob.digest != made[1][0].blob.digest
    assert gzip.decompress(Path(str(made[0][1].blob.content)).read_bytes()).count(large.read_bytes()) == 1


def test_layouts_of_servers_are_in_it(server: FakeRegistry, pushed: Callable[..., Pushed], tmp_path: Path) -> None:
    """Where they are asked for, each in a folder of its own."""
    pushed(tags=["v1"], servers=[Server.TRITON], name="digits")
    unpacked(server, "v1", tmp_path)
    layout = tmp_path / "models" / "serve" / "triton" / "digits"
    assert (layout / "config.pbtxt").is_file()
    (version,) = (entry for entry in layout.iterdir() if entry.name.isdigit())
    assert (version / "model.onnx").read_bytes() == (tmp_path / "models" / "model.onnx").read_bytes()


@pytest.mark.parametrize("path", ["POST blobs", "PUT blobs", "PUT manifests/sha256", "PUT manifests/v1"])
def test_what_ends_on_the_way_leaves_no_tag_and_goes_on_later(
    server: FakeRegistry, pushed: Callable[..., Pushed], path: str
) -> None:
    """Wherever a push is refused, no tag names half an image; the next one sends what is missing."""
    server.faults[path] = [Fault(403, code="DENIED")]
    refused(lambda: pushed(tags=["v1"]), reason=Reason.REGISTRY_FORBIDDEN)
    assert "v1" not in server.manifests
    there = set(server.blobs)
    server.asked.clear()
    done = pushed(tags=["v1"])
    assert sha256(server.manifests["v1"]) == done.digest
    sent = {each.partition("digest=")[2] for each in server.requests("PUT", "blobs")}
    assert not sent & there


def test_tags_move_to_what_is_there(server: FakeRegistry, make: Callable[..., Bundle]) -> None:
    """A tag is moved by its manifest's bytes alone; what is not there cannot be tagged, and nothing moves."""
    first = push(make(), server.reference, tags=["champion"])
    second = push(make("other", techniques=("quantized",)), server.reference, tags=["challenger"])
    assert first.digest != second.digest
    server.asked.clear()
    retag(server.reference, second.digest, "champion")
    assert digest_of(server.reference, "champion") == second.digest
    assert server.requests("PUT") == ["manifests/champion"]
    retag(server.reference, second.digest, "champion")
    assert server.requests("PUT") == ["manifests/champion"]
    error = refused(lambda: retag(server.reference, f"sha256:{'0' * 64}", "champion"))
    assert "there is no such image" in str(error)
    assert digest_of(server.reference, "champion") == second.digest


def test_roles_are_told_by_tags(server: FakeRegistry, make: Callable[..., Bundle], store: str) -> None:
    """A challenger waits, becomes champion, and is taken back; every image keeps a tag of its own."""
    first, second = (
        Accepted(publish(make(str(number), techniques=("quantized",) * number), uri=bundles(store)))
        for number in range(2)
    )
    say = functools.partial(assign, server.reference, tags=Tags())
    waiting = say(champion=first, challenger=second)
    assert (waiting.champion, waiting.challenger) == tagged(server, "champion", "challenger")
    assert waiting.champion != waiting.challenger
    live = say(champion=second, challenger=None)
    assert (live.champion, live.challenger) == (waiting.challenger, None)
    assert tagged(server, "champion", "challenger") == (live.champion, live.champion)
    server.asked.clear()
    assert say(champion=first, challenger=None).champion == waiting.champion
    assert not server.requests("PUT", "blobs")
    own = [bundle_tag(each.bundle.digest) for each in (first, second)]
    assert tagged(server, *own) == (waiting.champion, waiting.challenger)


def test_a_challenger_alone_leaves_the_champions_tag(
    server: FakeRegistry, make: Callable[..., Bundle], store: str
) -> None:
    """Where nothing is to be said of what serves, nothing is said."""
    accepted = Accepted(publish(make(), uri=bundles(store)), {"dev.retune.verdict": "smaller"})
    done = assign(server.reference, champion=None, challenger=accepted, tags=Tags("next", "now"))
    assert tagged(server, "next", "now") == (done.challenger, None)
    assert server.index("next")["annotations"]["dev.retune.verdict"] == "smaller"


def test_a_job_has_the_tags_of_a_spec_say_what_serves_and_what_waits(
    server: FakeRegistry, make: Callable[..., Bundle], store: str
) -> None:
    """Its result has the digests by which KServe takes both; a second start of it sends nothing."""
    champion, challenger = (
        RegistryEntry(
            bundle=publish(make(str(number), techniques=("quantized",) * number), uri=bundles(store)), version=number
        )
        for number in (1, 2)
    )
    registry_of_spec = Registry(uri=server.reference, aliases=Aliases(challenger="next", champion="live"))
    asked = RegisterRequest(
        resource="ml/digits",
        state="state",
        store=store,
        registry=registry_of_spec,
        champion=champion,
        challenger=challenger,
    )
    done = run_register(asked)
    assert (done.champion, done.challenger) == tagged(server, "live", "next")
    assert None not in {done.champion, done.challenger}
    assert done.message == f"{server.reference}: live is {done.champion} and next is {done.challenger}"
    server.asked.clear()
    assert run_register(asked) == done
    assert not server.requests("PUT", "blobs")


def tagged(server: FakeRegistry, *tags: str) -> tuple[str | None, ...]:
    """Return the digests that tags name."""
    return tuple(sha256(server.manifests[tag]) if tag in server.manifests else None for tag in tags)


@pytest.mark.parametrize("theirs", [b'{"mediaType": "", "annotations": {"dev.retune.resource": "other/net"}}', b"{}"])
def test_a_tag_of_somebody_else_stays(server: FakeRegistry, pushed: Callable[..., Pushed], theirs: bytes) -> None:
    """Of another resource, or of an image that Retune has not made."""
    server.manifests["champion"] = theirs
    error = refused(lambda: pushed(tags=["champion"]), reason=Reason.REGISTRY_CONFLICT)
    assert "names an image of" in error.message
    done = pushed(tags=["v1"])
    refused(lambda: retag(server.reference, done.digest, "champion"), reason=Reason.REGISTRY_CONFLICT)
    assert server.manifests["champion"] == theirs


def test_a_registry_that_lost_a_file_gets_all_of_them(server: FakeRegistry, pushed: Callable[..., Pushed]) -> None:
    """It says that a blob is there, and that its manifest names what is not: garbage collection between the two."""
    done = pushed(tags=["v1"])
    lost = dict(server.blobs)
    server.manifests.clear()
    server.faults["PUT manifests/sha256"] = [Fault(400, code="MANIFEST_BLOB_UNKNOWN")]
    server.blobs = dict(lost)
    server.asked.clear()
    assert pushed(tags=["v1"]) == done
    assert len(server.requests("PUT", "blobs")) == len(lost)


def test_a_blob_that_lies_elsewhere_is_there(server: FakeRegistry, pushed: Callable[..., Pushed]) -> None:
    """A registry that would send on to its bucket has the file; nobody goes there."""
    server.faults["HEAD blobs"] = [Fault(307, {"Location": "https://bucket.example.org/x"})] * 9
    pushed(tags=["v1"])
    assert not server.requests("PUT", "blobs")


REFUSALS = [
    (Fault(403, code="DENIED", message="robot may not push"), "RegistryForbidden", "DENIED: robot may not push"),
    (Fault(405, code="UNSUPPORTED"), "RegistryRefused", "can only be read"),
    (Fault(404, code="NAME_UNKNOWN"), "RegistryRefused", "there is no such repository"),
    (Fault(413, body=b"<html>too large</html>"), "RegistryRefused", "no file of this size (status 413)"),
    (Fault(412, code="PRECONDITION", message="quota"), "RegistryRefused", "refuses it (status 412, PRECONDITION"),
    (Fault(302, {"Location": "http://127.0.0.1:1/"}), "RegistryRefused", "status 302 where an upload is to begin"),
    (Fault(200, body=b"<html>a login page</html>"), "RegistryRefused", "status 200 where an upload is to begin"),
    (Fault(400, body=b"\x00\xff[" * 1000), "RegistryRefused", "refuses it (status 400"),
]


@pytest.mark.parametrize(("fault", "reason", "words"), REFUSALS)
def test_each_refusal_is_told(
    server: FakeRegistry, pushed: Callable[..., Pushed], fault: Fault, reason: str, words: str
) -> None:
    """With the registry's own words, what to do, and no tag."""
    server.faults["POST blobs"] = [fault]
    error = refused(lambda: pushed(tags=["v1"]), reason=Reason(reason))
    assert words in error.message
    assert (error.object, server.manifests) == (server.reference, {})


def test_a_busy_registry_is_waited_for(
    server: FakeRegistry, pushed: Callable[..., Pushed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it says, within bounds; and one that never has time is told so."""
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("optimizer_jobs.registries.oci.patience.asyncio.sleep", wait)
    busy = [
        Fault(429, {"Retry-After": text}, "TOOMANYREQUESTS") for text in ("7", "86400", "Wed, 21 Oct 2015 07:28:00 GMT")
    ]
    server.faults["PUT blobs"] = [*busy, Fault(503)]
    pushed(tags=["v1"])
    assert waits == [7.0, patience.LONGEST_WAIT_SECONDS, 0.0, 0.0]
    server.faults["PUT manifests/v2"] = [Fault(429, code="TOOMANYREQUESTS")] * patience.ATTEMPTS
    error = refused(lambda: pushed(tags=["v2"]), reason=Reason.REGISTRY_UNREACHABLE)
    assert "fewer requests" in error.message
    assert error.exit == RETRY_EXIT


@pytest.mark.parametrize(
    "faults",
    [[Fault()] * 2, [Fault(404, code="BLOB_UPLOAD_UNKNOWN")], [Fault(400, code="DIGEST_INVALID")], [Fault(416)]],
)
def test_an_upload_that_breaks_off_is_begun_anew(
    server: FakeRegistry, pushed: Callable[..., Pushed], faults: list[Fault]
) -> None:
    """The connection breaks, the registry forgets the upload, what arrived is not what was sent, or a part is there.

    The HTTP library sends once more by itself where a kept connection breaks.
    """
    server.faults["PUT blobs"] = faults
    pushed(tags=["v1"])
    assert len(server.requests("POST")) == len(server.blobs) + 1
    server.faults["PUT manifests/v2"] = [Fault()] * 2 * patience.ATTEMPTS
    error = refused(lambda: pushed(tags=["v2"]), reason=Reason.REGISTRY_UNREACHABLE)
    assert error.exit == RETRY_EXIT


def test_a_wrong_digest_ends_it(server: FakeRegistry, pushed: Callable[..., Pushed]) -> None:
    """What the registry says it has taken is not what it was given, or what it hands out not what was asked for."""
    server.told = f"sha256:{'0' * 64}"
    assert "something on the way has changed it" in refused(lambda: pushed(tags=["v1"])).message
    assert "v1" not in server.manifests
    server.told = None
    done = pushed()
    server.manifests[done.digest] = b"{}"
    assert "it answers with digest" in refused(lambda: retag(server.reference, done.digest, "v1")).message


def test_uploads_stay_with_the_registry(server: FakeRegistry, pushed: Callable[..., Pushed]) -> None:
    """No other host gets a file or a credential; a scheme that a proxy has changed is put right."""
    for location in ("http://evil.example.org/upload", f"http://127.0.0.1:{server.port + 1}/u", "//[", "http://h:x/"):
        server.location = location
        reason = Reason.REGISTRY_REFUSED if location in {"//[", "http://h:x/"} else Reason.REGISTRY_FORBIDDEN
        refused(pushed, reason=reason)
    assert not server.blobs
    server.location = f"https://{server.host}/v2/team/digits/blobs/uploads/1?state=a%3D"
    pushed(tags=["v1"])


def test_an_answer_without_end_is_not_read(server: FakeRegistry, pushed: Callable[..., Pushed]) -> None:
    """Of what is no manifest, four megabytes are enough."""
    done = pushed()
    server.manifests[done.digest] = b'{"mediaType": ""}' + b" " * (5 << 20)
    assert "has more than" in refused(lambda: retag(server.reference, done.digest, "v1")).message


def docker_config(**auths: Any) -> str:
    """Return what `docker login` writes, by host."""
    return json.dumps({"auths": auths})


@pytest.mark.parametrize("key", ["{host}", "http://{host}/v2/", "{host}/team", "{host}/team/digits"])
def test_a_token_is_fetched_with_dockers_credentials(
    server: FakeRegistry, pushed: Callable[..., Pushed], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """From the service that the registry names, for the scope that it names; the registry sees the token only."""
    server.token = "t0ken"
    other = {"auth": base64.b64encode(b"a:b").decode()}
    config = docker_config(**{key.format(host=server.host): {"auth": BASIC}, "other.example.org": other})
    monkeypatch.setenv(credentials.DOCKER_CONFIG, config)
    pushed(tags=["v1"])
    ((_, path, headers),) = [each for each in server.asked if each[1].startswith("/token")]
    assert headers["Authorization"] == f"Basic {BASIC}"
    assert path == "/token?service=fake&scope=repository:team/digits:pull,push"
    shown = {headers.get("Authorization") for _, path, headers in server.asked if path.startswith("/v2")}
    assert shown == {None, "Bearer t0ken"}


def test_tokens_are_taken_as_they_are(
    server: FakeRegistry, pushed: Callable[..., Pushed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of the registry is shown at once, and one for others is changed for it first."""
    server.token = "t0ken"
    monkeypatch.setenv(credentials.HOST, server.host)
    monkeypatch.setenv(credentials.TOKEN, "t0ken")
    pushed(tags=["v1"])
    assert {headers.get("Authorization") for *_, headers in server.asked} == {"Bearer t0ken"}
    monkeypatch.delenv(credentials.HOST)
    server.asked.clear()
    monkeypatch.setenv(credentials.DOCKER_CONFIG, docker_config(**{server.host: {"identitytoken": "long"}}))
    pushed(tags=["v2"])
    (path,) = [path for method, path, _ in server.asked if method == "POST"]
    assert "grant_type=refresh_token&refresh_token=long" in path


def test_a_token_that_has_run_out_is_fetched_again(
    server: FakeRegistry, pushed: Callable[..., Pushed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of an upload, whose file is sent once more from its beginning."""
    server.token = "t0ken"
    monkeypatch.setenv(credentials.DOCKER_CONFIG, docker_config(**{server.host: {"auth": BASIC}}))
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'}
    server.faults["PUT blobs"] = [Fault(401, challenge)]
    pushed(tags=["v1"])
    assert len([path for _, path, _ in server.asked if path.startswith("/token")]) == 2


def test_user_and_password_are_shown_where_they_are_asked_for(
    server: FakeRegistry, pushed: Callable[..., Pushed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a challenge, to the host that the Secret names, and to no other."""
    for name, value in (
        (credentials.HOST, server.host),
        (credentials.USERNAME, "robot"),
        (credentials.PASSWORD, "secret"),
    ):
        monkeypatch.setenv(name, value)
    server.faults["HEAD manifests"] = [Fault(401, {"WWW-Authenticate": 'Basic realm="x"'})]
    pushed(tags=["v1"])
    assert {headers.get("Authorization") for *_, headers in server.asked} == {None, f"Basic {BASIC}"}
    monkeypatch.setenv(credentials.HOST, "registry.example.org")
    server.asked.clear()
    server.faults["HEAD manifests"] = [Fault(401, {"WWW-Authenticate": 'Basic realm="x"'})]
    error = refused(lambda: pushed(tags=["v2"]), reason=Reason.REGISTRY_FORBIDDEN)
    assert f"there are none for {server.host}" in error.message
    assert {headers.get("Authorization") for *_, headers in server.asked} == {None}


@pytest.mark.parametrize(
    ("realm", "words"),
    [
        ("http://169.254.169.254/token", "an address of the machine's own network"),
        ("http://8.8.8.8/token", "over the internet without TLS"),
        ("ftp://127.0.0.1/token", "has no address of https://"),
        ("http://a:b@127.0.0.1/token", "has no address of https://"),
        ("", "has no address of https://"),
        ("http://2130706433/token", "neither a name nor an address"),
    ],
)
def test_a_token_service_is_held_to_the_rules_for_addresses(
    server: FakeRegistry, pushed: Callable[..., Pushed], monkeypatch: pytest.MonkeyPatch, realm: str, words: str
) -> None:
    """A registry that names another one gets no credentials sent there."""
    server.token = "t0ken"
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}
    server.faults["HEAD manifests"] = [Fault(401, challenge)]
    monkeypatch.setenv(credentials.DOCKER_CONFIG, docker_config(**{server.host: {"auth": BASIC}}))
    assert words in refused(pushed, reason=Reason.REGISTRY_FORBIDDEN).message


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"token": 3}', b'{"token": "a b"}', b'{"token": "a\\nb"}', b"[" * 99999]
)
def test_a_token_service_that_gives_none_is_told(
    server: FakeRegistry, pushed: Callable[..., Pushed], body: bytes
) -> None:
    """What it answers is no token."""
    server.token = "t0ken"
    server.faults["GET /token"] = [Fault(200, body=body)]
    assert "answers with no token" in refused(pushed).message


def test_what_the_token_service_refuses_is_told(server: FakeRegistry, pushed: Callable[..., Pushed]) -> None:
    """It is the credentials that are wrong, or missing."""
    server.token = "t0ken"
    server.faults["GET /token"] = [Fault(401, code="UNAUTHORIZED")]
    assert "without credentials" in refused(pushed, reason=Reason.REGISTRY_FORBIDDEN).message


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({credentials.DOCKER_CONFIG: "{"}, "no JSON with auths"),
        ({credentials.DOCKER_CONFIG: '{"auths": []}'}, "no JSON with auths"),
        ({credentials.DOCKER_CONFIG: '{"auths": {"HOST": []}}'}, "no object of texts"),
        ({credentials.DOCKER_CONFIG: '{"auths": {"HOST": {}}}'}, "neither auth nor username"),
        ({credentials.DOCKER_CONFIG: '{"auths": {"HOST": {"auth": "%"}}}'}, "in base64"),
        ({credentials.DOCKER_CONFIG: '{"auths": {"HOST": {"identitytoken": "a\\nb"}}}'}, "line break"),
        ({credentials.HOST: "HOST", credentials.USERNAME: "u"}, "are needed both"),
        ({credentials.HOST: "HOST", credentials.TOKEN: "a b"}, "a space"),
        ({credentials.HOST: "HOST", credentials.USERNAME: "u:v", credentials.PASSWORD: "p"}, "with a colon"),
        ({CREDENTIALS_VARIABLE: "registry", credentials.PLAIN_HTTP: ""}, "Secret registry does not exist"),
    ],
)
def test_credentials_that_cannot_be_used_are_told_before_anything_is_asked(
    server: FakeRegistry,
    pushed: Callable[..., Pushed],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    words: str,
) -> None:
    """The key is named, and never its value."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("HOST", server.host))
    assert words in refused(pushed, reason=Reason.REGISTRY_FORBIDDEN).message
    assert not server.asked


def test_clear_text_stays_in_ones_own_network(
    server: FakeRegistry, pushed: Callable[..., Pushed], make: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS is the rule; without it only where the Secret says so, and never over the internet."""
    monkeypatch.setenv(credentials.PLAIN_HTTP, "other:5000")
    assert "the registry speaks no TLS" in refused(pushed, reason=Reason.REGISTRY_FORBIDDEN).message
    monkeypatch.setenv(credentials.PLAIN_HTTP, "8.8.8.8:5000")
    act = functools.partial(push, make("public"), "oci://8.8.8.8:5000/team/digits")
    assert "without TLS" in refused(act, reason=Reason.REGISTRY_FORBIDDEN).message
    monkeypatch.setenv(credentials.PLAIN_HTTP, server.host)
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Refuse")
    assert "private address 127.0.0.1" in refused(pushed, reason=Reason.REGISTRY_FORBIDDEN).message
    assert not server.asked


@pytest.mark.parametrize(
    "reference",
    [
        "oci://registry",
        "oci://registry/",
        "oci://registry/Upper",
        "oci://registry/a:tag",
        "oci://registry/a@sha256:00",
        "oci://user@registry/a",
        "oci://registry:99999999/a",
        "oci://registry/a/../b",
        "oci://registry/a//b",
        "oci://registry/a?b",
        "https://registry/a",
        f"oci://registry/{'a' * 256}",
    ],
)
def test_a_reference_names_a_repository(reference: str) -> None:
    """Without tag, digest or user."""
    refused(lambda: parse(reference), reason=Reason.REQUEST_INVALID)


def test_docker_hub_is_asked_where_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name in references is not its host, and its entry in Docker's file is older than both."""
    repository = parse("oci://docker.io/team/digits")
    assert (repository.authority, repository.reference) == ("registry-1.docker.io", "oci://docker.io/team/digits")
    monkeypatch.setenv(credentials.DOCKER_CONFIG, docker_config(**{"https://index.docker.io/v1/": {"auth": BASIC}}))
    monkeypatch.delenv(credentials.HOST, raising=False)
    assert credentials.credentials_for(repository).basic == BASIC


@pytest.mark.parametrize("tag", ["", ".a", "a b", "a/b", "a:b", "x" * 129])
def test_a_tag_is_checked_before_anything_is_sent(
    server: FakeRegistry, pushed: Callable[..., Pushed], tag: str
) -> None:
    """Nothing is asked for what cannot be."""
    refused(lambda: pushed(tags=["v1", tag]), reason=Reason.REQUEST_INVALID)
    refused(lambda: retag(server.reference, "v1", "v2"), reason=Reason.REQUEST_INVALID)
    assert not server.asked


def test_what_is_pushed_is_signed_where_there_is_a_key(
    server: FakeRegistry, pushed: Callable[..., Pushed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Index and manifests, before a tag names them, once; signatures of others stay, and no other key's is taken."""
    mine, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    done = pushed()
    assert not verify(server.reference, done.digest, public(mine))
    monkeypatch.setenv(signing.KEY, private(other))
    pushed()
    monkeypatch.setenv(signing.KEY, private(mine))
    pushed(tags=["v1"])
    signed = [done.digest, *(named["digest"] for named in server.index("v1")["manifests"])]
    assert all(verify(server.reference, digest, public(key)) for digest in signed for key in (mine, other))
    assert not verify(server.reference, done.digest, public(ec.generate_private_key(ec.SECP256R1())))
    assert server.requests("PUT", "manifests")[-1] == "manifests/v1"
    server.asked.clear()
    pushed()
    assert not server.requests("PUT")


def test_a_signature_of_another_image_counts_for_nothing(
    server: FakeRegistry, make: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes to the registry can copy a signature, and it still says what it is about."""
    mine = ec.generate_private_key(ec.SECP256R1())
    monkeypatch.setenv(signing.KEY, private(mine))
    signed = push(make(), server.reference)
    monkeypatch.delenv(signing.KEY)
    unsigned = push(make("other", techniques=("quantized",)), server.reference)
    places = [f"{each.digest.replace(':', '-')}.sig" for each in (signed, unsigned)]
    server.manifests[places[1]] = server.manifests[places[0]]
    assert verify(server.reference, signed.digest, public(mine))
    assert not verify(server.reference, unsigned.digest, public(mine))


@pytest.mark.parametrize("there", [b"{}", b'{"layers": null}', b'{"layers": [{"digest": "../x"}]}'])
def test_what_is_no_signature_is_left_and_told(
    server: FakeRegistry, pushed: Callable[..., Pushed], monkeypatch: pytest.MonkeyPatch, there: bytes
) -> None:
    """In the place of one."""
    done = pushed()
    place = f"{done.digest.replace(':', '-')}.sig"
    server.manifests[place] = there
    key = ec.generate_private_key(ec.SECP256R1())
    monkeypatch.setenv(signing.KEY, private(key))
    assert "none of cosign's" in refused(lambda: pushed(tags=["v1"])).message
    assert "none of cosign's" in refused(lambda: verify(server.reference, done.digest, public(key))).message
    assert "v1" not in server.manifests


@pytest.mark.parametrize("key", ["x", "P-384", "password"])
def test_a_key_that_is_none_is_told_before_anything_is_asked(
    server: FakeRegistry, pushed: Callable[..., Pushed], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Its variable is named, and never its value."""
    keys = {
        "x": "x",
        "P-384": private(ec.generate_private_key(ec.SECP384R1())),
        "password": private(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"x")),
    }
    monkeypatch.setenv(signing.KEY, keys[key])
    error = refused(pushed, reason=Reason.REGISTRY_FORBIDDEN)
    assert error.message.startswith(f"{signing.KEY} is no ")
    assert not server.asked


def private(key: ec.EllipticCurvePrivateKey, encryption: KeySerializationEncryption | None = None) -> str:
    """Return a private key as PEM text."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


def public(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public key of a private one as PEM text."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
