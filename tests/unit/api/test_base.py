"""The small words of the API: durations, amounts, and strings that are held to a pattern here as in the cluster."""

from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from retune.api.base import Cpu, Decimal, Duration, FileUri, MlflowUri, ModelUri, StoreUri, Uri, VersionName, seconds

UNITS = {"h": 3600, "m": 60, "s": 1}


@given(parts=st.lists(st.tuples(st.integers(0, 99999), st.sampled_from(sorted(UNITS))), min_size=1, max_size=4))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    """Whatever the order of units, every part counts once."""
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert seconds(text) == pytest.approx(sum(number * UNITS[unit] for number, unit in parts))
    assert TypeAdapter(Duration).validate_python(text) == text


@pytest.mark.parametrize(
    ("text", "amount"), [("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("1m500ms", 60.5), ("0s", 0)]
)
def test_durations_read_as_people_write_them(text: str, amount: float) -> None:
    """Minutes are not taken for the start of milliseconds, nor the other way round."""
    assert seconds(text) == pytest.approx(amount)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Decimal, "1e3"),
        (Decimal, "01"),
        (Decimal, "1."),
        (Decimal, ".5"),
        (Decimal, "+1"),
        (Decimal, "1\n"),
        (Decimal, "NaN"),
        (Duration, "1d"),
        (Duration, "10"),
        (Duration, "-1s"),
        (Duration, "1.5h"),
        (Duration, ""),
        (Cpu, "two"),
        (Cpu, "1.5m"),
        (Cpu, "-1"),
        (Uri, "file:///etc/passwd"),
        (Uri, "pvc://claim/../x"),
        (Uri, "pvc://claim//x"),
        (Uri, "pvc://Claim/x"),
        (Uri, "pvc:///x"),
        (Uri, "pvc://claim/.hidden"),
        (Uri, "pvc://claim/a b"),
        (Uri, "pvc://claim/x\n"),
        (StoreUri, "s3://"),
        (StoreUri, "s3://Bucket/x"),
        (StoreUri, "s3://bucket:9000/x"),
        (StoreUri, "s3://bucket/../x"),
        (StoreUri, "s3://bucket//x"),
        (StoreUri, "s3://bucket/a=b"),
        (StoreUri, "gs://bucket/" + "a" * 64),
        (StoreUri, "gs://bucket" + "/a" * 7),
        (StoreUri, "gs://bucket/x\n"),
        (StoreUri, "az://account.blob.core.windows.net/container"),
        (StoreUri, "az://container@account.blob.core.windows.net/x"),
        (StoreUri, "az://ab"),
        (FileUri, "az://account.blob.core.windows.net/container/x"),
        (FileUri, "pvc://claim"),
        (FileUri, "pvc://claim/"),
        (FileUri, "pvc://claim/x/"),
        (FileUri, "mlflow://digits/1"),
        (ModelUri, "mlflow://digits"),
        (ModelUri, "mlflow://digits@"),
        (ModelUri, "mlflow://digits/latest"),
        (ModelUri, "mlflow://digits/0"),
        (ModelUri, "mlflow://a/b@c"),
        (ModelUri, "mlflow://a%2Fb@c"),
        (ModelUri, "mlflow://digits@champion/model.onnx"),
        (MlflowUri, "pvc://claim/x"),
    ],
)
def test_what_the_cluster_refuses_is_refused_here_too(kind: Any, text: str) -> None:
    """By hand, a Job reads its request without an API server in front; the same patterns hold."""
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(text)


@pytest.mark.parametrize(
    "uri",
    ["pvc://claim/x/", "s3://bucket/x", "mlflow://digits@champion", "mlflow://digits/12", "mlflow://my%20net.v2@b-1"],
)
def test_a_model_may_lie_in_a_store_or_in_a_registry(uri: str) -> None:
    """By an alias or a version there."""
    assert TypeAdapter(ModelUri).validate_python(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "pvc://claim",
        "pvc://claim/a=b/",
        "s3://bucket",
        "s3://my-bucket.eu/retune/",
        "gs://my_bucket" + "/a" * 6,
        "az://my-container/retune",
    ],
)
def test_a_store_may_be_a_claim_or_a_bucket(uri: str) -> None:
    """Whole or a folder of it."""
    assert TypeAdapter(StoreUri).validate_python(uri) == uri


@pytest.mark.parametrize("scheme", ["abfs", "wasbs", "oci", "https", "hf", "mlflow", "file", "S3", "s3a"])
def test_other_kinds_of_stores_are_refused_with_those_that_are_possible(scheme: str) -> None:
    """Conditional creates are not proven elsewhere."""
    with pytest.raises(
        ValidationError, match="is pvc://CLAIM/PATH, s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH;"
    ):
        TypeAdapter(StoreUri).validate_python(f"{scheme}://place/path")


@pytest.mark.parametrize(("written", "name"), [(3, "3"), ("3", "3"), ("sha256:" + "5a" * 32, "sha256:" + "5a" * 32)])
def test_a_version_is_named_by_number_or_digest(written: object, name: str) -> None:
    """People write the number without quotes, too."""
    assert TypeAdapter(Annotated[str, VersionName()]).validate_python(written) == name


@pytest.mark.parametrize("written", [0, -1, True, 1.5, "v3", "3 ", "03", "", None, "sha256:5a"])
def test_what_names_no_version_is_refused_in_words(written: object) -> None:
    """The same sentence as in a cluster."""
    with pytest.raises(ValidationError, match="a version is named by its number"):
        TypeAdapter(Annotated[str, VersionName()]).validate_python(written)
