"""Bundles in a real registry: pushed by us, pulled by tools of others, and never half there."""

import base64
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.models.bundle import Bundle, open_bundle
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.version_numbers import number_of
from optimizer_jobs.registries.oci import patience
from optimizer_jobs.registries.oci.access import Access
from optimizer_jobs.registries.oci.pushing import digest_of, push, retag
from optimizer_jobs.registries.oci.signing import KEY
from retune.api.model import ModelFormat
from retune.contract.paths import CREDENTIALS_VARIABLE, PRIVATE_ADDRESSES_VARIABLE
from retune.contract.requests import Server
from retune.contract.results import Reason
from tests.neighbours import image_registry
from tests.neighbours.image_registry import PASSWORD, USER, ImageRegistry
from tests.storage.proxy import Cut, before

pytestmark = pytest.mark.timeout(600)
FETCHER = "RETUNE_KSERVE_STORAGE"
"""Environment variable with the environment that KServe's own fetcher is installed in."""
VARIABLES = (".dockerconfigjson", "REGISTRY_HOST", "REGISTRY_PLAIN_HTTP", "CA_CERTIFICATES", KEY, CREDENTIALS_VARIABLE)
_FETCH = "import sys; from kserve_storage import Storage; Storage.download(sys.argv[1], sys.argv[2])"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageRegistry]:
    """A registry with passwords, and the certificate of an authority of its own."""
    with image_registry.passwords(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[[ImageRegistry], None]:
    """Make this process a Job whose Secret is right for a registry."""
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Allow")
    monkeypatch.setattr(patience, "FIRST_WAIT_SECONDS", 0.0)

    def prepared(registry: ImageRegistry) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in registry.environment.items():
            monkeypatch.setenv(name, value)

    return prepared


@pytest.fixture
def registry(running: ImageRegistry, job: Callable[[ImageRegistry], None]) -> ImageRegistry:
    """That registry as a Job meets it whose Secret is right."""
    job(running)
    return running


def refused(act: Callable[[], object], *, reason: Reason) -> JobError:
    """Do what must be refused, and return why."""
    with pytest.raises(JobError) as caught:
        act()
    assert caught.value.reason is reason, caught.value
    return caught.value


def run(*words: str | Path, **environment: str) -> str:
    """Run a tool of others that has to succeed; return what it says."""
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, timeout=200, env=known | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def digest_for_skopeo(registry: ImageRegistry, name: str) -> str:
    """Return the digest of what a tag names, by skopeo."""
    shown = ("--cert-dir", registry.trusted, "--creds", f"{USER}:{PASSWORD}")
    content = run("skopeo", "inspect", "--raw", *shown, f"docker://{registry.host}/{name}")
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def test_the_same_bundle_is_the_same_image_for_others_too(registry: ImageRegistry, make: Callable[..., Bundle]) -> None:
    """By its digest, from another folder, and nothing is stored twice."""
    reference = f"oci://{registry.host}/team/same"
    first = push(make(), reference, tags=["v1"])
    assert digest_for_skopeo(registry, "team/same:v1") == first.digest == digest_of(reference, "v1")
    there = registry.blobs()
    assert push(make("again"), reference, tags=["v1", "champion"]) == first
    assert registry.blobs() == there
    assert digest_for_skopeo(registry, "team/same:champion") == first.digest
    other = push(make("other", techniques=("quantized",)), reference, tags=["challenger"])
    retag(reference, other.digest, "champion")
    assert digest_for_skopeo(registry, "team/same:champion") == other.digest
    assert digest_of(reference, "v2") is None
    assert digest_of(f"oci://{registry.host}/team/nothing", "v1") is None


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_an_image_store_of_others_has_the_files_under_models(
    registry: ImageRegistry, make: Callable[..., Bundle], tmp_path: Path, architecture: str
) -> None:
    """Pulled for each platform and mounted by buildah, the bundle opens: root's files that all may read."""
    bundle = make()
    push(bundle, f"oci://{registry.host}/team/built", tags=["v1"], servers=[Server.TRITON])
    buildah = ("buildah", "--storage-driver", "vfs", "--root", tmp_path / "store", "--runroot", tmp_path / "run")
    shown = ("--cert-dir", registry.trusted, "--creds", f"{USER}:{PASSWORD}", "--arch", architecture)
    container = run(*buildah, "from", "--pull-always", *shown, f"docker://{registry.host}/team/built:v1")
    mounted = Path(run(*buildah, "mount", container))
    opened = open_bundle(f"file://{mounted}/models", digest=bundle.digest, into=tmp_path / "copy")
    assert opened.manifest == bundle.manifest
    assert [path.name for path in mounted.iterdir()] == ["models"]
    found = [path.stat() for path in (mounted / "models").rglob("*")]
    assert {(each.st_uid, each.st_gid, each.st_mtime) for each in found} == {(0, 0, 0)}
    assert {each.st_mode & 0o777 for each in found} == {0o644, 0o755}
    assert (mounted / "models" / "serve" / "triton" / "model" / "config.pbtxt").is_file()


def test_kserves_own_fetcher_takes_it(
    job: Callable[[ImageRegistry], None], make: Callable[..., Bundle], tmp_path: Path
) -> None:
    """What `oci+fetch://` runs in a pod: index, platform, gzip layers, and what is under models/.

    Without passwords: KServe's fetcher knows tokens only, and takes the realm of a Basic challenge for an address.
    """
    if FETCHER not in os.environ:
        pytest.skip("`make test-neighbours-oci` installs KServe's fetcher and runs this")
    bundle = make()
    with image_registry.running(tmp_path / "registry") as registry:
        job(registry)
        done = push(bundle, f"oci://{registry.host}/team/fetched", tags=["champion"], servers=[Server.TRITON])
        (registry.trusted / "cabundle.crt").write_bytes((registry.pki / "ca.crt").read_bytes())
        python = Path(os.environ[FETCHER]) / "bin" / "python"
        trust = {"CA_BUNDLE_VOLUME_MOUNT_POINT": str(registry.trusted)}
        for number, uri in enumerate((done.reference, f"oci://{registry.host}/team/fetched:champion")):
            run(python, "-c", _FETCH, uri, tmp_path / str(number), **trust)
            assert open_bundle(f"file://{tmp_path}/{number}", digest=bundle.digest).manifest == bundle.manifest
            assert (
                tmp_path / str(number) / "serve" / "triton" / "model" / str(number_of(bundle.digest)) / "model.onnx"
            ).is_file()


def test_the_signature_is_one_for_others_too(
    registry: ImageRegistry, make: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the place where cosign looks; openssl verifies it of the bytes that skopeo pulls, and of no others."""
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    monkeypatch.setenv(KEY, text)
    done = push(make(), f"oci://{registry.host}/team/signed", tags=["v1"])
    place = f"docker://{registry.host}/team/signed:{done.digest.replace(':', '-')}.sig"
    shown = ("--src-cert-dir", registry.trusted, "--src-creds", f"{USER}:{PASSWORD}")
    run("skopeo", "copy", *shown, place, f"dir:{tmp_path}/signed")
    (layer,) = json.loads((tmp_path / "signed" / "manifest.json").read_text())["layers"]
    payload = tmp_path / "signed" / layer["digest"].removeprefix("sha256:")
    critical = json.loads(payload.read_text())["critical"]
    assert critical["image"]["docker-manifest-digest"] == done.digest
    assert critical["identity"]["docker-reference"] == f"{registry.host}/team/signed"
    assert critical["type"] == "cosign container image signature"
    (tmp_path / "key.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    signature = layer["annotations"]["dev.cosignproject.cosign/signature"]
    (tmp_path / "signature").write_bytes(base64.b64decode(signature))
    check = ("openssl", "dgst", "-sha256", "-verify", tmp_path / "key.pub", "-signature", tmp_path / "signature")
    assert run(*check, payload) == "Verified OK"
    payload.write_bytes(payload.read_bytes() + b" ")
    assert subprocess.run([*map(str, check), str(payload)], capture_output=True, check=False).returncode == 1


def test_who_may_not_push_is_told(
    registry: ImageRegistry, make: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong password, none, and an authority that nobody knows."""
    bundle, reference = make(), f"oci://{registry.host}/team/refused"
    monkeypatch.setenv(".dockerconfigjson", registry.docker_config("wrong"))
    error = refused(lambda: push(bundle, reference, tags=["v1"]), reason=Reason.REGISTRY_FORBIDDEN)
    assert "the credentials do not allow pushing there (status 401)." in error.message
    monkeypatch.delenv(".dockerconfigjson")
    error = refused(lambda: push(bundle, reference, tags=["v1"]), reason=Reason.REGISTRY_FORBIDDEN)
    assert f"there are none for {registry.host}" in error.message
    monkeypatch.delenv("CA_CERTIFICATES")
    error = refused(lambda: push(bundle, reference, tags=["v1"]), reason=Reason.REGISTRY_FORBIDDEN)
    assert error.message == "the registry's certificate is not trusted."


def test_a_registry_with_a_token_service(
    job: Callable[[ImageRegistry], None],
    make: Callable[..., Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tokens are fetched for what each request needs, first to read and then to push."""
    with image_registry.tokens(tmp_path / "registry") as registry:
        job(registry)
        reference = f"oci://{registry.host}/team/digits"
        refused(lambda: push(make("stranger"), reference), reason=Reason.REGISTRY_FORBIDDEN)
        monkeypatch.setenv("REGISTRY_HOST", registry.host)
        monkeypatch.setenv("REGISTRY_USERNAME", USER)
        monkeypatch.setenv("REGISTRY_PASSWORD", PASSWORD)
        done = push(make(), reference, tags=["v1"])
        assert digest_of(reference, "v1") == done.digest


def test_a_registry_that_can_only_be_read(
    job: Callable[[ImageRegistry], None], make: Callable[..., Bundle], tmp_path: Path
) -> None:
    """As during maintenance: the sentence says so, and nothing is there."""
    storage = {"maintenance": {"readonly": {"enabled": True}}}
    with image_registry.running(tmp_path / "registry", plain=True, storage=storage) as registry:
        job(registry)
        act = functools.partial(push, make(), f"oci://{registry.host}/team/digits", tags=["v1"])
        assert "can only be read" in refused(act, reason=Reason.REGISTRY_REFUSED).message
        assert not registry.blobs()


def die_at(number: int, bundle: Bundle, reference: str) -> None:
    """Push, and die before a request."""
    once, asked = Access._once, itertools.count()

    async def deadly(*arguments: Any) -> Any:
        if next(asked) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return await once(*arguments)

    with patch.object(Access, "_once", deadly):
        push(bundle, reference, tags=["champion"])


def test_killed_at_any_request_it_leaves_the_tag_where_it_was(
    registry: ImageRegistry, make: Callable[..., Bundle]
) -> None:
    """The champion's tag names the old image or the new one, whole; the next push brings what is missing."""
    old, new = make(), make("new", techniques=("quantized",))
    fork, ended = multiprocessing.get_context("fork"), dict[int, int | None]()
    while 0 not in ended.values():
        number = len(ended)
        reference = f"oci://{registry.host}/killed/at-{number}"
        was = push(old, reference, tags=["champion"]).digest
        process = fork.Process(target=die_at, args=(number, new, reference))
        process.start()
        process.join(60)
        ended[number] = process.exitcode
        assert process.exitcode in {0, -signal.SIGKILL}
        named = digest_of(reference, "champion")
        done = push(new, reference, tags=["champion"])
        assert named == (was if process.exitcode else done.digest)
        assert digest_for_skopeo(registry, f"killed/at-{number}:champion") == done.digest
    assert len(ended) > 10


def test_an_upload_that_is_cut_off_is_begun_anew(
    registry: ImageRegistry, make: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the middle of a file; and where it happens each time, the Job tries again later, and no tag is there."""
    native = tmp_path / "native.bin"
    native.write_bytes(os.urandom(3 << 20))
    bundle = make(native=Native(native, ModelFormat.ONNX))
    with before(registry.port, pki=registry.pki) as proxy:
        host = f"localhost:{proxy.port}"
        monkeypatch.setenv(".dockerconfigjson", registry.docker_config().replace(registry.host, host))
        cuts = [Cut(sent=1 << 20)] * 3
        proxy.plan = lambda head: cuts.pop() if cuts and head.startswith(b"PUT ") else None
        done = push(bundle, f"oci://{host}/team/cut", tags=["v1"])
        assert not cuts
        assert digest_for_skopeo(registry, "team/cut:v1") == done.digest
        proxy.plan = lambda head: Cut(sent=1000) if head.startswith(b"PUT ") else None
        act = functools.partial(push, bundle, f"oci://{host}/team/cut-always", tags=["v1"])
        error = refused(act, reason=Reason.REGISTRY_UNREACHABLE)
        assert error.exit == RETRY_EXIT
        assert digest_of(f"oci://{host}/team/cut-always", "v1") is None
