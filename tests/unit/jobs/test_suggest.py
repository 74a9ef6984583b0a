"""`suggest` on files that the project's own writer has made of real requests, and on files that nobody should write."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from optimizer_jobs.commands.suggest.answered import Known, answered
from optimizer_jobs.commands.suggest.command import run
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle, publish
from optimizer_jobs.production.stored import store_reference
from optimizer_jobs.production.told import signature_of
from retune.api.model import Task
from retune.api.production import CaptureFormat
from retune.contract.machines import SuggestResult
from retune.contract.requests import SuggestRequest
from retune.contract.results import Reason
from tests.unit.jobs.captured_for_tests import DIGEST, NOW, REQUEST_ROWS, Shop
from tests.unit.jobs.test_production_foreign import as_json, call, put, trace

OTHER = "sha256:" + "cd" * 32


@dataclass(frozen=True)
class Desk:
    """Where one asks which rows to label."""

    shop: Shop
    file: Path

    def ask(self, **changes: Any) -> SuggestResult:
        """Ask for twenty rows unless said otherwise."""
        labels = self.shop.root / "labels"
        request = {
            "resource": "ml/digits",
            "production": self.shop.production,
            "captured": f"file://{self.shop.captured}",
            "labels": f"file://{labels}" if labels.is_dir() else None,
            "rows": 20,
            "span": 3600,
            "into": f"file://{self.file}",
        }
        return run(SuggestRequest(**(request | changes)))

    @property
    def asked(self) -> list[tuple[str, int]]:
        """Request and row of what was asked about, in the file's order."""
        table = parquet.read_table(self.file).to_pydict()
        return list(zip(table["request_id"], table["row"], strict=True))


@pytest.fixture
def desk(shop: Shop, tmp_path: Path) -> Desk:
    """A desk beside a server that was asked forty requests of four digits."""
    shop.captured.mkdir(parents=True)
    shop.serve(range(40), since=NOW)
    return Desk(shop, tmp_path / "ask.parquet")


def test_rows_without_a_label_are_asked_about(desk: Desk) -> None:
    """The file has what a person needs to find them, and labels put beside it leave them out the next time."""
    desk.shop.label(range(10))
    result = desk.ask()
    assert (result.rows, result.labelled, result.unlabelled, result.judged, result.seen) == (20, 40, 120, 40, 160)
    assert {part.why: part.rows for part in result.why}["Chance"] == 5
    assert parquet.read_schema(desk.file).names == ["request_id", "row", "time", "why", "score"]
    assert not {request for request, _ in desk.asked} & {f"r{number}" for number in range(10)}
    first, before = desk.asked, result
    requests = [int(request[1:]) for request, _ in first]
    desk.shop.label(requests, "b")
    after = desk.ask()
    assert not set(first) & set(desk.asked)
    assert after.labelled > before.labelled


def test_labels_that_are_asked_for_are_read_from_the_same_file(desk: Desk) -> None:
    """A column more, and it is a file of labels."""
    desk.ask()
    table = parquet.read_table(desk.file)
    (desk.shop.root / "labels").mkdir()
    parquet.write_table(table.append_column("label", pa.array([7] * len(table))), desk.shop.root / "labels/a.parquet")
    assert desk.ask().labelled == 20


def test_the_least_sure_answers_come_first(desk: Desk) -> None:
    """Without labels nothing is known but how sure the model was."""
    result = desk.ask(chance=0.0, rows=4)
    assert {part.why for part in result.why} == {"Uncertain"}
    captured = desk.shop.read(desk.file.parent / "read")
    (shares,) = (values for values in captured.outputs.values() if values.ndim == 2)
    ordered = np.sort(shares, axis=1)
    margins = dict(
        zip(zip(captured.request_ids, captured.rows, strict=True), ordered[:, -1] - ordered[:, -2], strict=True)
    )
    asked = [margins[key] for key in desk.asked]
    assert max(asked) <= sorted(margins.values())[40], "ten times as many rows as are wanted are chosen from"
    assert any("no row has a label" in note for note in result.notes)


def test_the_same_files_give_the_same_rows(desk: Desk) -> None:
    """Whoever asks, whenever."""
    desk.ask()
    first = desk.file.read_bytes()
    desk.ask()
    assert desk.file.read_bytes() == first


def test_nothing_is_asked_where_every_row_has_a_label(desk: Desk) -> None:
    """No file is written, which nobody could tell from one of questions."""
    desk.shop.label(range(40))
    result = desk.ask()
    assert (result.rows, result.labelled, result.why) == (0, 160, ())
    assert not desk.file.exists()


def test_fewer_rows_than_asked_for_are_all_asked_about(desk: Desk) -> None:
    """And the sentence says that there are no more."""
    desk.shop.label(range(38))
    result = desk.ask()
    assert result.rows == 2 * REQUEST_ROWS
    assert any("no more than 8 rows without a label" in note for note in result.notes)


def test_only_rows_of_the_span_before_the_newest_one_count(desk: Desk) -> None:
    """The clock of whoever asks does not: a copy may be weeks old."""
    desk.shop.serve(range(40, 50), since=NOW + 30 * 86400)
    result = desk.ask(span=3600)
    assert result.unlabelled == 10 * REQUEST_ROWS
    assert desk.ask(span=31 * 86400).unlabelled == 50 * REQUEST_ROWS


def test_rows_of_another_version_are_left_out(desk: Desk) -> None:
    """Labels of its answers do not judge the version that serves; told nothing, that is the one asked last."""
    desk.shop.serve(range(40, 50), since=NOW + 600, model=OTHER)
    for serves, rows in ((("sha256:" + "ef" * 32,), 40), ((DIGEST,), 160), ((), 40)):
        assert desk.ask(serves=serves).unlabelled == rows
    assert any("asked last" in note for note in desk.ask(serves=("sha256:" + "ef" * 32,)).notes)
    assert any("120" in note or "160" in note for note in desk.ask().notes)


def test_the_store_adds_the_manifest_and_the_reference(
    desk: Desk, make: Callable[..., Bundle], store: str, splits: dict[str, Any], claims: Any
) -> None:
    """Rows of the reference count as judged, and the bundle says how answers are read."""
    bundle = make()
    publish(bundle, uri=f"{store}/bundles")
    store_reference(store, bundle, desk.shop.session, splits["validation"])
    desk.shop.serve(range(40, 60), since=NOW + 600, model=bundle.digest)
    result = desk.ask(artifacts=f"file://{claims.path(store)}", serves=(bundle.digest,))
    assert result.judged == len(splits["validation"])
    assert not result.notes[1:], "nothing but the rows of another version are worth a sentence"
    missing = desk.ask(artifacts=f"file://{claims.path(store)}", serves=(DIGEST,))
    assert any("no bundle abababababab" in note for note in missing.notes)
    assert any("reference is left out" in note for note in missing.notes)


def test_a_manifest_that_was_changed_is_not_believed(
    desk: Desk, make: Callable[..., Bundle], store: str, claims: Any
) -> None:
    """The digest is the bundle's name."""
    bundle = make()
    ref = publish(bundle, uri=f"{store}/bundles")
    path = claims.path(ref.uri) / "bundle.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("Classification", "Regression").replace('"size_bytes":', '"size_bytes":1'))
    path.write_bytes(path.read_bytes().replace(b"sizeBytes", b"sizebytes"))
    result = desk.ask(artifacts=f"file://{claims.path(store)}", serves=(bundle.digest,))
    assert any("manifest cannot be read" in note for note in result.notes)
    assert result.rows == 20


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"no Parquet at all"])
def test_a_folder_without_captured_rows_says_what_it_should_have(desk: Desk, content: bytes | None) -> None:
    """Nothing there, or nothing that can be read."""
    for path in list(desk.shop.captured.rglob("*.parquet")):
        path.unlink()
    if content is not None:
        desk.shop.file("a-1.parquet").write_bytes(content)
    with pytest.raises(JobError, match="date=YYYY-MM-DD/hour=HH") as caught:
        desk.ask()
    assert caught.value.reason is Reason.DATA_NOT_FOUND


def test_broken_files_beside_good_ones_cost_themselves(desk: Desk) -> None:
    """They are counted in a note."""
    desk.shop.file("zzz-1.parquet").write_bytes(b"no Parquet")
    parquet.write_table(pa.table({"x": [1]}), desk.shop.file("zzz-2.parquet"))
    (desk.shop.captured / "date=2026-13-99" / "hour=77").mkdir(parents=True)
    result = desk.ask()
    assert result.unlabelled == 160
    assert any("1 files of another layout" in note for note in result.notes)


def test_rows_that_come_twice_are_one_question(desk: Desk) -> None:
    """A writer that repeats itself costs nobody a second answer."""
    (path,) = desk.shop.captured.rglob("*.parquet")
    (path.parent / "again-1.parquet").write_bytes(path.read_bytes())
    assert desk.ask(rows=200).rows == 160
    assert len(set(desk.asked)) == 160


def test_copies_of_one_row_are_one_question_and_a_share_by_chance(desk: Desk) -> None:
    """Forty requests for the same digit have little to ask about."""

    def alike(table: pa.Table) -> pa.Table:
        for name in table.column_names:
            if name.startswith(("input.", "output.")):
                column = table.column(name).combine_chunks()
                table = table.set_column(
                    table.schema.get_field_index(name),
                    table.schema.field(name),
                    column.take(pa.array([0] * len(table))),
                )
        return table

    desk.shop.rewrite(alike)
    result = desk.ask(rows=40)
    assert {part.why: part.rows for part in result.why} == {"Chance": 10}
    assert any("30 rows fewer than asked for" in note for note in result.notes)


def test_missing_answers_and_inputs_cost_no_row(desk: Desk) -> None:
    """NaN among inputs and scores: those rows count as sure ones, and a sentence says how many they are."""

    def holes(table: pa.Table) -> pa.Table:
        for name in table.column_names:
            kind = table.schema.field(name).type
            if (
                name.startswith(("input.", "output."))
                and pa.types.is_list(kind)
                and pa.types.is_floating(kind.value_type)
            ):
                rows = [
                    [float("nan")] * len(row) if place < 5 else row for place, row in enumerate(table[name].to_pylist())
                ]
                table = table.set_column(
                    table.schema.get_field_index(name), table.schema.field(name), pa.array(rows, kind)
                )
        return table

    desk.shop.rewrite(holes)
    result = desk.ask()
    assert (result.rows, result.unlabelled) == (20, 160)
    assert any("5 rows have answers without a number" in note for note in result.notes)


def test_files_without_answers_are_chosen_from_all_the_same(desk: Desk) -> None:
    """By where nothing has been judged."""
    desk.shop.rewrite(lambda table: table.drop_columns([name for name in table.column_names if "output." in name]))
    desk.shop.label(range(10))
    result = desk.ask()
    assert result.rows == 20
    assert {part.why for part in result.why} == {"Unseen", "Chance"}


@pytest.mark.parametrize(
    ("named", "then"),
    [
        ({}, "--store FOLDER"),
        ({"artifacts": "file:///nowhere"}, "kubectl get modeloptimization NAME -o yaml"),
        ({"artifacts": "file:///nowhere", "serves": (OTHER,)}, f"bundles/{OTHER[7:]}"),
    ],
    ids=["no store", "no version", "not in the store"],
)
def test_logs_of_other_servers_need_the_bundle(named: dict[str, Any], then: str, desk: Desk) -> None:
    """They say neither types nor shapes; what is told to do next is what is missing, and nothing that was done."""
    production = desk.shop.production.model_copy(update={"format": CaptureFormat.KSERVE})
    with pytest.raises(JobError) as refused:
        desk.ask(production=production, **named)
    assert then in refused.value.next_step


def in_traces(shop: Shop) -> bytes:
    """What a Triton writes of ten requests."""
    return f"[{','.join(trace(shop, number) for number in range(10))}]".encode()


def in_events(shop: Shop) -> bytes:
    """What KServe's logger writes of them."""
    return as_json([half for number in range(10) for half in call(shop, number, f"t{number}")])


@pytest.mark.parametrize(("format_", "written"), [(CaptureFormat.KSERVE, in_events), (CaptureFormat.TRITON, in_traces)])
def test_with_the_bundle_they_are_read(
    format_: CaptureFormat,
    written: Callable[[Shop], bytes],
    desk: Desk,
    make: Callable[..., Bundle],
    store: str,
    claims: Any,
) -> None:
    """The bundle says what they hold."""
    bundle = make()
    publish(bundle, uri=f"{store}/bundles")
    put(desk.shop, "a.json", written(desk.shop), at=time.time())
    result = desk.ask(
        production=desk.shop.production.model_copy(update={"format": format_}),
        captured=f"file://{desk.shop.root / 'logs'}",
        artifacts=f"file://{claims.path(store)}",
        serves=(bundle.digest,),
    )
    assert (result.rows, result.unlabelled) == (20, 40)
    assert {request for request, _ in desk.asked} <= {f"t{number}" for number in range(10)}


def test_without_a_bundle_that_can_be_believed_the_refusal_says_why(
    desk: Desk, make: Callable[..., Bundle], store: str, claims: Any
) -> None:
    """A damaged manifest is another fault than a folder that was not copied, and told as what it is."""
    bundle = make()
    path = claims.path(publish(bundle, uri=f"{store}/bundles").uri) / "bundle.json"
    put(desk.shop, "a.json", in_events(desk.shop), at=time.time())
    asked = {
        "production": desk.shop.production.model_copy(update={"format": CaptureFormat.KSERVE}),
        "captured": f"file://{desk.shop.root / 'logs'}",
        "artifacts": f"file://{claims.path(store)}",
        "serves": (bundle.digest,),
    }
    path.chmod(0o644)
    path.write_text("{}")
    with pytest.raises(JobError, match=r"and bundle \w+'s manifest cannot be read \(it is no bundle's manifest"):
        desk.ask(**asked)
    path.unlink()
    with pytest.raises(JobError, match=r"and the store has no bundle \w+\."):
        desk.ask(**asked)


PROBABILITIES = np.array([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8]])


@pytest.mark.parametrize(
    "outputs,known,order",
    [
        pytest.param({"p": PROBABILITIES}, Known(), [1, 2, 0], id="probabilities"),
        pytest.param({"l": np.log(PROBABILITIES)}, Known(Task.CLASSIFICATION), [1, 2, 0], id="logits"),
        pytest.param({"p": PROBABILITIES[:, 1]}, Known(), [1, 2, 0], id="one probability"),
        pytest.param({"p": PROBABILITIES[:, 1:]}, Known(threshold=0.1), [0, 1, 2], id="threshold"),
        pytest.param(
            {"y": np.array([0, 0, 1]), "p": PROBABILITIES, "hidden": np.zeros((3, 2, 2))}, Known(), [1, 2, 0], id="more"
        ),
        pytest.param(
            {"p": np.array([[0.9, 0.9], [0.1, 0.6], [0.3, 0.01]])}, Known(Task.MULTI_LABEL), [1, 2, 0], id="sets"
        ),
        pytest.param({"a": PROBABILITIES[::-1], "b": PROBABILITIES}, Known(scores="b"), [1, 2, 0], id="named"),
    ],
)
def test_how_unsure_answers_are_is_read_from_any_shape(outputs: dict[str, Any], known: Known, order: list[int]) -> None:
    """From the least sure answer to the surest."""
    found = answered(outputs, known, rows=3)
    assert found.unsure is not None
    assert np.argsort(-found.unsure).tolist() == order
    assert found.note == ""


@pytest.mark.parametrize(
    "outputs,known,words",
    [
        ({"y": np.array([20.0, 30.0, 40.0])}, Known(), "A regression does not say"),
        ({"y": np.zeros((3, 4))}, Known(Task.EMBEDDING), "task Embedding"),
        ({"y": np.array(["a", "b", "a"], dtype=object)}, Known(), "no scores"),
        ({"y": np.full((3, 2), np.nan)}, Known(Task.CLASSIFICATION), "No captured answer has numbers"),
        ({"y": np.zeros((3, 4, 2))}, Known(Task.CLASSIFICATION), "cannot be read"),
        ({}, Known(Task.CLASSIFICATION), "cannot be read"),
        ({"y": PROBABILITIES}, Known(scores="z"), "cannot be read"),
    ],
)
def test_answers_that_say_nothing_are_told(outputs: dict[str, Any], known: Known, words: str) -> None:
    """A sentence, and rows are chosen by what else is known."""
    found = answered(outputs, known, rows=3)
    assert found.unsure is None
    assert words in found.note


def test_types_and_shapes_are_those_of_the_columns() -> None:
    """Plain, lists with and without a shape, of a fixed size, texts; what no tensor has is left out."""
    shaped = pa.field("input.image", pa.list_(pa.float32()), metadata={"shape": "1,8,8"})
    odd = pa.field("input.odd", pa.list_(pa.int8()), metadata={"shape": "x,-3"})
    schema = pa.schema(
        [shaped, odd, pa.field("input.age", pa.float64()), pa.field("input.city", pa.string()),
         pa.field("input.when", pa.timestamp("s")), pa.field("output.y", pa.list_(pa.float16(), 3)),
         pa.field("input.", pa.int8()), pa.field("label", pa.int64())]
    )  # fmt: skip
    found = signature_of(schema)
    assert [(spec.name, spec.dtype, spec.shape) for spec in (*found.inputs, *found.outputs)] == [
        ("image", "float32", (-1, 1, 8, 8)),
        ("odd", "int8", (-1, -1)),
        ("age", "float64", (-1,)),
        ("city", "str", (-1,)),
        ("y", "float16", (-1, -1)),
    ]
