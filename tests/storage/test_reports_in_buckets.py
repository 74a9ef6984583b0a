"""`retune report` opens a report in a bucket with the credentials of whoever asks, on real servers."""

import ssl
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from urllib.request import urlopen

import pytest

from retune.cli import buckets
from retune.cli.access import AccessError
from tests.storage import servers
from tests.storage.servers import Store

pytest.importorskip("s3fs")

PAGE = b"<html><p>Promote \xe2\x80\x93 proved</p></html>"
PATH = "retune/ml/digits/runs/digits-r1-0a1b/report.html"


@pytest.fixture
def authority(s3: Store) -> str:
    """File with the certificate of the S3 server's authority."""
    assert s3.pki is not None
    return str(s3.pki / "ca.crt")


@pytest.fixture
def s3_uri(s3: Store, authority: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A report on the S3 server, and a person who has logged in and trusts its authority."""
    s3.put(PATH, PAGE)
    monkeypatch.delenv("CA_CERTIFICATES")
    monkeypatch.setenv("AWS_CA_BUNDLE", authority)
    return f"s3://{servers.BUCKET}/{PATH}"


@pytest.fixture
def uri(bucket: str, server_of: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch) -> str:
    """A report on each server, and a person who has logged in and trusts its authority."""
    server = server_of(bucket.partition("://")[0])
    server.put(PATH, PAGE)
    monkeypatch.delenv("CA_CERTIFICATES")
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE") if server.pki else ():
        monkeypatch.setenv(name, str(server.pki and server.pki / "ca.crt"))
    return f"{bucket}/{PATH}"


def test_a_report_is_read_with_the_callers_own_credentials(uri: str) -> None:
    """By the variables that other tools for the same buckets read; nothing of the cluster is asked."""
    assert buckets.read(uri) == PAGE


def test_a_report_that_is_gone_is_told(uri: str) -> None:
    """Runs go beyond `spec.history`, and servers are mistaken for each other."""
    for ask in (buckets.read, buckets.link):
        with pytest.raises(AccessError, match=r"is not there: its run may be older than spec\.history keeps"):
            ask(f"{uri}.bak")


def test_a_link_shows_the_page_to_a_browser_without_credentials(s3_uri: str, authority: str) -> None:
    """It is signed here, names no secret, and says that it leads to a page."""
    link = buckets.link(s3_uri)
    assert servers.SECRET not in link
    trusted = ssl.create_default_context(cafile=authority)
    with urlopen(link, timeout=30, context=trusted) as answer:  # noqa: S310 - this machine's
        assert (answer.read(), answer.headers.get_content_type()) == (PAGE, "text/html")


def test_a_stranger_is_told_to_log_in(s3: Store, s3_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wrong keys and none at all: the sentence names the login of that kind of bucket, and no key."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-somebody-else")
    with pytest.raises(AccessError, match=r"you may not read .* AWS_ENDPOINT_URL") as caught:
        buckets.read(s3_uri)
    assert "of-somebody-else" not in str(caught.value)
    for name in s3.environment.keys() - {"AWS_ENDPOINT_URL", "AWS_REGION"}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AccessError, match=r"NoCredentialsError.*log in as for `aws s3`"):
        buckets.read(s3_uri)


def test_what_is_too_large_is_no_report(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status can name any object of the caller's; none fills this machine."""
    monkeypatch.setattr(buckets, "_LIMIT", len(PAGE) - 1)
    with pytest.raises(AccessError, match="has more than"):
        buckets.read(uri)


@pytest.mark.parametrize("library", ["s3fs", "gcsfs", "fsspec"])
def test_a_missing_library_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """The command line alone reads no buckets; whoever needs that learns how."""
    scheme = "gs" if library == "gcsfs" else "s3"
    monkeypatch.delitem(import_module("fsspec.registry")._registry, scheme, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(AccessError, match=r"is not installed here, which reads it: pip install 'retune\[remote\]'"):
        buckets.read(f"{scheme}://b/report.html")
