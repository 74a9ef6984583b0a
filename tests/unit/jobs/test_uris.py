"""A URI leads into its claim or nowhere."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer_jobs.data.uris import resolve, sibling
from optimizer_jobs.errors import JobError
from retune.contract.results import Reason
from tests.unit.jobs.conftest import Claims


def test_a_claim_uri_leads_into_the_folder_of_its_claim(claims: Claims) -> None:
    """`pvc://CLAIM/PATH` is PATH in the claim's folder, whether it exists yet or not."""
    assert resolve("pvc://digits/mlp.onnx").local == claims.root / "digits" / "mlp.onnx"
    assert resolve("pvc://digits/not/yet").local == claims.root / "digits" / "not" / "yet"
    assert resolve("pvc://digits").local == claims.root / "digits"


def test_a_file_uri_leads_to_its_absolute_path(tmp_path: Path) -> None:
    """`file://` is for a person's own machine."""
    assert resolve(f"file://{tmp_path}/model.onnx").local == tmp_path / "model.onnx"


@pytest.mark.parametrize(
    "uri",
    [
        "pvc://digits/../other/model.onnx",
        "pvc://digits/a/../../other",
        "pvc://../etc/passwd",
        "pvc://digits/.hidden",
        "pvc://digits//double",
        "pvc://digits/with space",
        "pvc://digits/nul\0byte",
        "pvc:///no/claim",
        "file://relative/path",
        "file:///tmp/../etc/passwd",
        "s3://bucket/model.onnx",
        "http://169.254.169.254/latest/meta-data",
        "/etc/passwd",
        "",
    ],
)
def test_a_path_that_is_not_plain_is_refused(claims: Claims, uri: str) -> None:
    """No `..`, hidden name, control character, or unknown scheme is ever followed."""
    assert (claims.root / "digits").is_dir()
    with pytest.raises(JobError) as caught:
        resolve(uri)
    assert caught.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize("target", ["/etc", "..", "../retune-artifacts"])
def test_a_link_out_of_the_claim_is_refused(claims: Claims, target: str) -> None:
    """A symbolic link that leaves the claim is refused, as last part of the path and in its middle."""
    (claims.root / "digits" / "link").symlink_to(target)
    for uri in ("pvc://digits/link", "pvc://digits/link/passwd"):
        with pytest.raises(JobError, match="out of the claim"):
            resolve(uri)


def test_a_link_inside_the_claim_is_followed(claims: Claims) -> None:
    """Kubernetes itself links within volumes, so a link that stays inside is fine."""
    (claims.root / "digits" / "latest.onnx").symlink_to("mlp.onnx")
    assert resolve("pvc://digits/latest.onnx").local == claims.root / "digits" / "mlp.onnx"


def test_a_claim_that_is_itself_a_link_is_refused(claims: Claims) -> None:
    """A claim's folder is a mount point; a link in its place leads somewhere nobody mounted."""
    (claims.root / "fake").symlink_to("/etc")
    with pytest.raises(JobError, match="out of the claim"):
        resolve("pvc://fake/passwd")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(alphabet="ab./\\ :%\0~é-_", max_size=20))
def test_no_text_leads_out_of_the_claim(claims: Claims, path: str) -> None:
    """Whatever follows the claim's name, the location is inside the claim or the URI is refused."""
    try:
        location = resolve(f"pvc://digits/{path}")
    except JobError:
        return
    assert location.local.is_relative_to(claims.root / "digits")


def test_a_sibling_lies_in_the_same_folder() -> None:
    """External data is looked for beside its model."""
    assert sibling("pvc://digits/v1/model.onnx", "weights.bin") == "pvc://digits/v1/weights.bin"
