"""A data set becomes rows that fit the model, or a sentence that names what is wrong with it."""

import csv
import gzip
import os
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.datasets import load_breast_cancer, load_wine

from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError
from optimizer_jobs.signature import TEXT, Signature, TensorSpec
from retune.api.model import Dataset
from retune.contract.results import Reason
from tests.unit.jobs.conftest import Claims
from tests.unit.jobs.models_for_tests import digits


def signature(*inputs: tuple[str, str, tuple[int, ...]], classes: int = 10, label: str | None = None) -> Signature:
    """Return a classifier's signature with these inputs, and a label output of type `label` if given."""
    outputs = [TensorSpec(name="scores", dtype="float32", shape=(-1, classes))]
    if label is not None:
        outputs.insert(0, TensorSpec(name="label", dtype=label, shape=(-1,)))
    tensors = tuple(TensorSpec(name=name, dtype=dtype, shape=shape) for name, dtype, shape in inputs)
    return Signature(inputs=tensors, outputs=tuple(outputs))


DIGITS = signature(("x", "float32", (-1, 64)))
WINE = signature(("features", "float32", (-1, 13)), classes=3)

Read = Callable[..., Rows]


@pytest.fixture
def read(claims: Claims, tmp_path: Path) -> Read:
    """Read the file NAME of claim digits against a signature, with further fields of the spec."""
    assert claims.root.is_dir()

    def read_it(name: str, wanted: Signature = DIGITS, *, limit_bytes: int = 64 << 20, **fields: object) -> Rows:
        spec = Dataset.model_validate({"uri": f"pvc://digits/{name}", **fields})
        return read_dataset(spec, wanted, into=tmp_path / "in", limit_bytes=limit_bytes)

    return read_it


@pytest.fixture
def refused(read: Read) -> Callable[..., str]:
    """Read a file that must be refused as DataInvalid, and return the sentence."""

    def sentence(*arguments: object, **fields: object) -> str:
        with pytest.raises(JobError) as caught:
            read(*arguments, **fields)
        assert caught.value.reason is Reason.DATA_INVALID
        return str(caught.value)

    return sentence


def test_npz_arrays_become_rows(claims: Claims, read: Read) -> None:
    """Array `x` feeds the model's one input whatever its name, and the digest is the file's."""
    X, y = digits("test")
    for name in ("x", "pixels"):
        rows = read("test.npz", signature((name, "float32", (-1, 64))))
        np.testing.assert_array_equal(rows.inputs[name], X)
        np.testing.assert_array_equal(rows.answers, y)
        assert len(rows) == len(y)
        assert rows.digest == file_digest(claims.root / "digits" / "test.npz")


def test_rows_are_taken_by_number_mask_and_slice(read: Read) -> None:
    """`take` keeps inputs and labels together, in the order asked for."""
    rows = read("test.npz")
    order = np.array([5, 3, 3])
    assert rows.take(order).answers.tolist() == [rows.answers[5], rows.answers[3], rows.answers[3]]
    np.testing.assert_array_equal(rows.take(order).inputs["x"], rows.inputs["x"][order])
    assert set(rows.take(rows.answers == 4).answers) == {4}
    assert len(rows.take(slice(0, 7))) == 7


def test_several_inputs_take_the_arrays_of_their_names(claims: Claims, read: Read) -> None:
    """A model with two inputs gets each from the array of its name, converted to its element type."""
    X, y = digits("test")
    half = (X * 16).astype(np.int64)
    np.savez(claims.root / "digits" / "two.npz", left=X[:, :32].astype(np.float64), right=half[:, 32:], label=y)
    rows = read("two.npz", signature(("left", "float32", (-1, 32)), ("right", "int32", (-1, 32))))
    assert rows.inputs["left"].dtype == np.float32
    assert rows.inputs["right"].dtype == np.int32
    np.testing.assert_array_equal(rows.inputs["right"], half[:, 32:])


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_tables_give_their_columns_in_file_order(claims: Claims, read: Read, extension: str) -> None:
    """All columns but the label are features, in the order of the file, wherever the label stands."""
    wine = load_wine(as_frame=True)
    table = wine.data.copy()
    table.insert(4, "cultivar", wine.target)
    path = claims.root / "digits" / f"wine.{extension}"
    table.to_csv(path, index=False) if extension == "csv" else table.to_parquet(path)
    rows = read(path.name, WINE, labelColumn="cultivar")
    np.testing.assert_allclose(rows.inputs["features"], wine.data.to_numpy(), rtol=1e-6)
    np.testing.assert_array_equal(rows.answers, wine.target)


def test_named_columns_feed_inputs_of_their_names(claims: Claims, read: Read) -> None:
    """A converted pipeline with one input a column gets each column as (N, 1)."""
    cancer = load_breast_cancer(as_frame=True)
    table = cancer.data[["mean radius", "mean texture"]].assign(label=cancer.target)
    table.to_csv(claims.root / "digits" / "cancer.csv", index=False)
    columns = signature(("mean texture", "float32", (-1, 1)), ("mean radius", "float32", (-1, 1)), classes=2)
    rows = read("cancer.csv", columns)
    np.testing.assert_allclose(rows.inputs["mean texture"][:, 0], cancer.data["mean texture"], rtol=1e-6)


def test_labels_may_be_text(claims: Claims, read: Read) -> None:
    """A model that answers names is compared with names."""
    wine = load_wine(as_frame=True)
    table = wine.data.assign(label=wine.target_names[wine.target])
    table.to_csv(claims.root / "digits" / "names.csv", index=False)
    rows = read("names.csv", signature(("f", "float32", (-1, 13)), classes=3, label="str"))
    assert set(rows.answers) == {"class_0", "class_1", "class_2"}


def test_whole_floats_are_labels(claims: Claims, read: Read) -> None:
    """Labels saved as 3.0 are class 3, and a column of shape (N, 1) is one label a row."""
    X, y = digits("test")
    np.savez(claims.root / "digits" / "float.npz", x=X, label=y.astype(np.float64)[:, np.newaxis])
    assert read("float.npz").answers.dtype == np.int64


def save(claims: Claims, **arrays: object) -> str:
    """Save arrays over the test split's and return the file's name."""
    X, y = digits("test")
    np.savez(claims.root / "digits" / "bad.npz", **{"x": X, "label": y, **arrays})  # type: ignore[arg-type]
    return "bad.npz"


def test_a_missing_label_column_is_named_with_what_was_found(refused: Callable[..., str]) -> None:
    """The sentence names the column that was looked for and those that are there."""
    sentence = refused("test.npz", labelColumn="target")
    assert "'target' is missing; found: x, label" in sentence
    assert "pvc://digits/test.npz" in sentence


def test_a_missing_input_is_named(claims: Claims, refused: Callable[..., str]) -> None:
    """With several inputs there is no default array."""
    assert "'right' is missing" in refused(
        save(claims, left=digits("test")[0]), signature(("left", "float32", (-1, 64)), ("right", "float32", (-1, 64)))
    )


def test_faulty_labels_are_refused(claims: Claims, refused: Callable[..., str]) -> None:
    """Missing, fractional, foreign and one-class labels are named with how many rows they concern."""
    X, y = digits("test")
    holes = y.astype(np.float64)
    holes[[3, 8]] = np.nan
    assert "'label' is missing (empty or NaN) in 2 of 497 rows" in refused(save(claims, label=holes))
    assert "not a whole number in 497 of 497 rows" in refused(save(claims, label=y + 0.5))
    assert "one class only (7) in all 497 rows" in refused(save(claims, label=np.full_like(y, 7)))
    mixed = y + np.arange(len(y)) % 2
    assert "has 11 classes from 0 to 10, but the model scores 0 to 9" in refused(save(claims, label=mixed))
    assert "one label a row" in refused(save(claims, label=X))
    assert "has no rows" in refused(save(claims, x=X[:0], label=y[:0]))
    assert "text" in refused(save(claims), signature(("x", "float32", (-1, 64)), label="str"))


def test_faulty_inputs_are_refused(claims: Claims, refused: Callable[..., str]) -> None:
    """Wrong shapes, types, counts and values that are missing, infinite or too large are named."""
    X, _ = digits("test")
    holes = X.copy()
    holes[[1, 4], 2] = np.nan
    holes[9] = np.inf
    assert "input 'x' is missing or infinite in 3 of 497 rows" in refused(save(claims, x=holes))
    assert "has shape (497, 8, 8), but the model takes (N, 64)" in refused(save(claims, x=X.reshape(-1, 8, 8)))
    assert "has 496 rows, but there are 497 labels" in refused(save(claims, x=X[1:]))
    assert "has type <U" in refused(save(claims, x=X.astype(str)))
    assert "do not fit the model's float32" in refused(save(claims, x=X.astype(np.float64) * 1e300))
    assert "do not fit the model's uint8" in refused(save(claims), signature(("x", "uint8", (-1, 64))))


def test_pickled_objects_are_never_loaded(claims: Claims, tmp_path: Path, refused: Callable[..., str]) -> None:
    """An array whose pickle would run a command is refused, and the command does not run."""
    witness = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {witness}",)

    bomb = np.array([Bomb()] * 497, dtype=object)
    assert "pickled objects" in refused(save(claims, x=bomb))
    assert "pickled objects" in refused(save(claims, label=bomb))
    assert not witness.exists()


def test_a_zip_bomb_is_refused_by_what_it_declares(claims: Claims, refused: Callable[..., str]) -> None:
    """64 MB of zeros in a 64 kB file is refused before memory is taken."""
    with zipfile.ZipFile(claims.root / "digits" / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(64 << 20))
    assert "expands to 67108864 bytes; the limit is 1048576" in refused("bomb.npz", limit_bytes=1 << 20)


def test_an_array_that_promises_more_than_it_has_is_refused(claims: Claims, refused: Callable[..., str]) -> None:
    """A header that declares a terabyte in a small entry is a lie that is seen before memory is taken."""
    path = claims.root / "digits" / "lie.npz"
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("x.npy", "w") as file:
            header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 31, 64)}
            np.lib.format.write_array_header_1_0(file, header)
        with archive.open("label.npy", "w") as file:
            np.lib.format.write_array(file, digits("test")[1])
    assert "promises 1099511627776 bytes" in refused("lie.npz")


def test_an_archive_with_foreign_entries_is_refused(claims: Claims, refused: Callable[..., str]) -> None:
    """Entries that are no plain arrays, such as paths upwards, are not looked at."""
    with zipfile.ZipFile(claims.root / "digits" / "up.npz", "w") as archive:
        archive.writestr("../../x.npy", b"")
    assert "not a plain .npy array" in refused("up.npz")


@pytest.mark.parametrize("name", ["bad.npz", "bad.parquet", "bad.csv"])
def test_a_file_of_another_format_is_refused(claims: Claims, refused: Callable[..., str], name: str) -> None:
    """An extension that promises what the content is not is said in a sentence."""
    (claims.root / "digits" / name).write_bytes(b"\x80\x04\x95\x00\xff\x00 not, at, all\n1,2\n")
    assert refused(name)


def test_a_truncated_archive_is_refused(claims: Claims, refused: Callable[..., str]) -> None:
    """Half an upload is not read as fewer rows."""
    whole = (claims.root / "digits" / "test.npz").read_bytes()
    (claims.root / "digits" / "half.npz").write_bytes(whole[: len(whole) // 2])
    assert "not a readable NPZ archive" in refused("half.npz")


def test_an_archive_with_a_flipped_bit_is_refused(claims: Claims, refused: Callable[..., str]) -> None:
    """The archive's own checksums are held."""
    damaged = bytearray((claims.root / "digits" / "test.npz").read_bytes())
    damaged[5000] ^= 1
    (claims.root / "digits" / "flip.npz").write_bytes(damaged)
    assert "cannot be read" in refused("flip.npz")


def test_an_unknown_extension_needs_a_format(claims: Claims, read: Read, refused: Callable[..., str]) -> None:
    """Without an extension that shows it, the spec must name the format."""
    (claims.root / "digits" / "test.npz").rename(claims.root / "digits" / "test.bin")
    assert "set format" in refused("test.bin")
    assert len(read("test.bin", format="NPZ")) == 497


def write_table(path: Path, rows: list[list[object]]) -> None:
    """Write a CSV file as it is given."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_a_model_of_one_column_finds_it_among_others_by_its_name(claims: Claims, read: Read) -> None:
    """A pipeline that drops the other columns is asked with the whole table; without that name, columns are counted."""
    table: list[list[object]] = [["price", "brand", "label"], [1, "acme", 0], [2, "zeta", 1]]
    write_table(claims.root / "digits" / "t.csv", table)
    rows = read("t.csv", signature(("brand", TEXT, (-1, 1)), classes=2))
    assert rows.inputs["brand"].tolist() == [["acme"], ["zeta"]]
    rows = read("t.csv", signature(("price", "float32", (-1, 1)), classes=2))
    assert rows.inputs["price"].tolist() == [[1.0], [2.0]]


def test_faulty_tables_are_refused(claims: Claims, refused: Callable[..., str]) -> None:
    """Holes, text among numbers, doubled names and the wrong number of features are named."""
    path = claims.root / "digits" / "t.csv"
    two = signature(("f", "float32", (-1, 2)), classes=2)
    write_table(path, [["a", "b", "label"], [1, "", 0], [2, 3, 1]])
    assert "column 'b' is missing or infinite in 1 of 2 rows, the first in line 2" in refused("t.csv", two)
    write_table(path, [["a", "b", "label"], [1, "red", 0], [2, 3, 1]])
    assert "column 'b' has type object, but the model takes float32; line 2 holds 'red'" in refused("t.csv", two)
    write_table(path, [["a", "b", "label"], [1, "2026-01-02", 0], [2, "2026-01-03", 1]])
    assert "line 2 holds '2026-01-02'" in refused("t.csv", two)
    write_table(path, [["id", "a", "b", "label"], ["u1", 1, 2, 0], ["u2", 1, 2, 1]])
    assert "has 3 feature columns, but input 'f' takes 2; id has another value in every row" in refused("t.csv", two)
    write_table(path, [["a", "a", "label"], [1, 2, 0], [2, 3, 1]])
    assert "column 'a' appears more than once" in refused("t.csv", two)
    write_table(path, [["a", "label"], [1, 0], [2, 1]])
    assert "has 1 feature columns, but input 'f' takes 2" in refused("t.csv", two)
    write_table(path, [["a", "b", "label"]])
    assert "no rows" in refused("t.csv", two)
    path.write_text("")
    assert "not a readable CSV" in refused("t.csv", two)


def test_truth_values_as_words_are_numbers_to_a_model_of_numbers(
    claims: Claims, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log says how a column was read."""
    write_table(claims.root / "digits" / "t.csv", [["a", "b", "label"], [1, "yes", 0], [2, "no", 1]])
    rows = read("t.csv", signature(("f", "float32", (-1, 2)), classes=2))
    np.testing.assert_array_equal(rows.inputs["f"], [[1, 1], [2, 0]])
    assert "column 'b' is read as 1 for yes" in capsys.readouterr().out


def test_missing_cells_of_text_are_empty_text(claims: Claims, read: Read) -> None:
    """A tensor of text has no other way to say it; numbers of a column that the model takes as text are text."""
    frame = pd.DataFrame({"plan": ["a", None, "b"], "zip": [7, 8, 9], "label": [0, 1, 1]})
    frame.to_parquet(claims.root / "digits" / "t.parquet")
    rows = read("t.parquet", signature(("plan", "str", (-1, 1)), ("zip", "str", (-1, 1)), classes=2))
    assert rows.inputs["plan"].ravel().tolist() == ["a", "", "b"]
    assert rows.inputs["zip"].ravel().tolist() == ["7", "8", "9"]


def test_truth_values_with_missing_cells_and_decimals_are_numbers(claims: Claims) -> None:
    """Parquet keeps types that NumPy has no missing value or no type for."""
    table = pa.table(
        {
            "a": pa.array([True, None, False]),
            "b": pa.array([Decimal("1.5"), None, Decimal("2.5")], pa.decimal128(5, 2)),
            "label": [0, 1, 1],
        }
    )
    parquet.write_table(table, claims.root / "digits" / "t.parquet")
    spec = Dataset.model_validate({"uri": "pvc://digits/t.parquet"})
    two = signature(("f", "float32", (-1, 2)), classes=2)
    rows = read_dataset(spec, two, into=claims.root / "in", missing=True)
    np.testing.assert_array_equal(rows.inputs["f"], [[1, 1.5], [np.nan, np.nan], [0, 2.5]])


def test_a_compressed_table_is_not_unpacked(claims: Claims, refused: Callable[..., str]) -> None:
    """A name that ends in .gz does not make the reader expand it past any bound; it is refused as the bytes it is."""
    packed = gzip.compress(b"a,b,label\n1,2,0\n3,4,1\n", mtime=0)
    (claims.root / "digits" / "t.csv.gz").write_bytes(packed)
    assert refused("t.csv.gz", signature(("f", "float32", (-1, 2))), format="CSV")


def test_names_that_are_no_text_are_refused(claims: Claims, refused: Callable[..., str]) -> None:
    """A header line of bytes that are no text is told as such, whatever the rest of the file looks like."""
    (claims.root / "digits" / "t.csv").write_bytes(b"\x1f\x8b\x08,b,label\n1,2,0\n3,4,1\n")
    assert "it holds control characters" in refused("t.csv", signature(("f", "float32", (-1, 2))))


def test_text_that_is_not_utf_8_is_refused(claims: Claims, refused: Callable[..., str]) -> None:
    """A Parquet column that is declared as text and holds other bytes is named."""
    broken = pa.array([b"\xff\xfe", b"ok"], pa.binary()).view(pa.string())
    table = pa.table({"a": pa.array([1.0, 2.0]), "b": broken, "label": pa.array([0, 1])})
    parquet.write_table(table, claims.root / "digits" / "t.parquet")
    two = signature(("f", "float32", (-1, 2)), classes=2)
    assert "column 'b' cannot be read; is its text UTF-8?" in refused("t.parquet", two)


def test_columns_of_lists_are_arrays(claims: Claims, read: Read) -> None:
    """Lists of one length are the rows of an array, and lists of lists one of more axes."""
    tokens, pixels = np.arange(6).reshape(2, 3), np.arange(16, dtype=np.float32).reshape(2, 2, 4) / 16
    table = pd.DataFrame({"tokens": list(tokens), "pixels": pixels.tolist(), "label": [0, 1]})
    table.to_parquet(claims.root / "digits" / "lists.parquet", row_group_size=1)
    rows = read("lists.parquet", signature(("tokens", "int64", (-1, -1)), ("pixels", "float32", (-1, 2, 4)), classes=2))
    np.testing.assert_array_equal(rows.inputs["tokens"], tokens)
    np.testing.assert_array_equal(rows.inputs["pixels"], pixels)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ([[1, 2], [3]], "has lists of 1 to 2 values: pad them to one length"),
        ([[1, 2], None], "has no list in 1 places"),
        ([[1, None], [3, 4]], "is missing or infinite in 1 of 2 rows"),
        ([{"a": 1}, {"a": 2}], "give lists of numbers, or arrays of an NPZ file"),
        ([["a", "b"], ["c", "d"]], "holds 'a'"),
    ],
)
def test_lists_that_are_no_array_are_refused(
    claims: Claims, refused: Callable[..., str], column: list[object], says: str
) -> None:
    """Rows of different lengths are padded by whoever knows how, and nothing else than numbers is read."""
    pd.DataFrame({"tokens": column, "label": [0, 1]}).to_parquet(claims.root / "digits" / "lists.parquet")
    assert says in refused("lists.parquet", signature(("tokens", "int64", (-1, -1)), classes=2))


def test_a_table_beyond_the_limit_is_refused(claims: Claims, refused: Callable[..., str]) -> None:
    """A Parquet file that packs many equal rows into few bytes is refused by its row count."""
    pd.DataFrame({"a": np.zeros(3_000_000), "label": np.zeros(3_000_000, dtype=int)}).to_parquet(
        claims.root / "digits" / "long.parquet"
    )
    assert "3000000 rows" in refused("long.parquet", limit_bytes=1 << 20)
