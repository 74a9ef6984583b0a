"""Networks as their owners wrote them: whatever they take and answer, the file takes and answers the same, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from optimizer_jobs.data.readers import Columns  # noqa: E402
from optimizer_jobs.errors import JobError  # noqa: E402
from optimizer_jobs.machinery.formats.base import Converted, Delivered  # noqa: E402
from optimizer_jobs.machinery.formats.scripted import convert as convert_program  # noqa: E402
from optimizer_jobs.machinery.formats.torch_export import export_network  # noqa: E402
from optimizer_jobs.models.native import Native  # noqa: E402
from retune.api.model import ModelFormat, Task  # noqa: E402
from retune.contract.results import Reason  # noqa: E402

pytestmark = pytest.mark.torch

ROWS = 40
NUMBERS = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
CLASSES = np.arange(ROWS) % 3
TOKENS = np.random.default_rng(1).integers(1, 20, (ROWS, 8))


def delivered(columns: dict[str, Any], *, tabular: bool = False, **fields: Any) -> Delivered:
    """A network delivered with these columns."""
    given = {"native": Native(Path("net.pt"), ModelFormat.SAFETENSORS), "task": Task.CLASSIFICATION, "label": "label"}
    columns_ = Columns(tuple(columns), columns.__getitem__, tabular=tabular)
    return Delivered(uri="pvc://models/net", columns=columns_, **{**given, **fields})


def answers(model: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the file answers, by output name."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def refused(module: nn.Module, given: Delivered, into: Path) -> JobError:
    """Why the network is not converted."""
    with pytest.raises(JobError) as caught:
        export_network(module, given, into=into)
    return caught.value


def shapes(converted: Converted) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Element type and shape of each input."""
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in converted.signature.inputs}


class Named(NamedTuple):
    """An answer with named fields."""

    hidden: Tensor
    logits: Tensor


@dataclass
class Data:
    """An answer as libraries of transformers have it."""

    loss: Tensor | None
    logits: Tensor
    states: tuple[Tensor, ...]


class Net(nn.Module):  # type: ignore[misc] # the library has no types
    """Answers scores and features in a form of its own."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body, self.head, self.form = nn.Linear(6, 5), nn.Linear(5, 3), form

    def forward(self, x: Tensor) -> Any:
        """Return scores (N, 3) and features (N, 5)."""
        hidden = self.body(x)
        return self.form(self.head(hidden), hidden)


@pytest.mark.parametrize(
    "form,names",
    [
        (lambda scores, hidden: {"hidden": hidden, "logits": scores}, ["logits", "hidden"]),
        (lambda scores, hidden: (hidden, scores), ["output_1", "output_0"]),
        (lambda scores, hidden: [scores, hidden], ["output_0", "output_1"]),
        (lambda scores, _: (None, scores), ["scores"]),
        (lambda scores, hidden: Named(hidden, scores), ["logits", "hidden"]),
        (lambda scores, hidden: Data(None, scores, (hidden, hidden)), ["logits", "states.0", "states.1"]),
        (lambda scores, hidden: {"x": scores, "deep": {"er": hidden}}, ["x_output", "deep.er"]),
        (lambda scores, hidden: {"best": scores.argmax(1), "logits": scores, "n": 3}, ["logits", "best"]),
        (lambda scores, hidden: {"mean": hidden.mean(), "logits": scores}, ["logits"]),
    ],
    ids=["dict", "features first", "list", "none first", "named", "dataclass", "nested", "whole numbers", "no row"],
)
def test_every_answer_is_an_output_of_its_own_name(tmp_path: Path, form: Any, names: list[str]) -> None:
    """The likely scores come first; what has no row for each row of the inputs is left out."""
    torch.manual_seed(0)
    module = Net(form).eval()
    converted = export_network(module, delivered({"x": NUMBERS, "label": CLASSES}), into=tmp_path)
    assert [tensor.name for tensor in converted.signature.outputs] == names
    outputs = answers(converted.model, {"x": NUMBERS})
    with torch.no_grad():
        scores = module.head(module.body(torch.from_numpy(NUMBERS))).numpy()
    np.testing.assert_allclose(outputs[names[0]], scores, rtol=1e-4, atol=1e-5)
    assert not module._forward_hooks, "the network itself stays as it was"


class Encoder(nn.Module):  # type: ignore[misc] # the library has no types
    """torch's own encoder with a padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 8, padding_idx=0), nn.Linear(8, 3)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return scores (N, 3); mask is true where a token is."""
        hidden = self.encoder(self.words(tokens), src_key_padding_mask=~mask)
        return torch.as_tensor(self.head((hidden * mask.unsqueeze(-1)).sum(1)))


def test_an_encoder_with_a_padding_mask_is_written(tmp_path: Path) -> None:
    """Attention's fast path has no form in ONNX: it is off while the network is written, and on again afterwards."""
    torch.manual_seed(0)
    module, mask = Encoder().eval(), np.arange(8) < np.arange(ROWS)[:, None] % 8 + 1
    tokens = TOKENS * mask
    given = delivered({"mask": mask, "tokens": tokens, "label": CLASSES})
    converted = export_network(module, given, into=tmp_path)
    assert shapes(converted)["mask"] == ("bool", (-1, 8))
    assert torch.backends.mha.get_fastpath_enabled()
    expected = module(torch.from_numpy(tokens), torch.from_numpy(mask)).detach().numpy()
    outputs = answers(converted.model, {"mask": mask, "tokens": tokens})
    np.testing.assert_allclose(outputs["scores"], expected, rtol=1e-3, atol=1e-4)


class Bags(nn.Module):  # type: ignore[misc] # the library has no types
    """A bag of words and what is said of it."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(20, 4, **options), nn.Linear(4, 3)

    def forward(self, words: Tensor) -> Tensor:
        """Return scores (N, 3)."""
        return torch.as_tensor(self.head(self.bag(words)))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 0])
def test_a_bag_of_embeddings_is_rows_of_a_table(tmp_path: Path, mode: str, padding: int | None) -> None:
    """It has no loops, so it is fast, and techniques can change what lies behind it."""
    from optimizer_jobs.nets.conversion.importer import not_importable

    torch.manual_seed(0)
    module = Bags(mode=mode, padding_idx=padding).eval()
    words = TOKENS * (np.arange(8) < np.arange(ROWS)[:, None] % 9)
    converted = export_network(module, delivered({"words": words, "label": CLASSES}), into=tmp_path)
    import onnx

    graph = onnx.load(converted.model)
    assert "Loop" not in {node.op_type for node in graph.graph.node}
    assert not_importable(graph) is None
    with torch.no_grad():
        expected = module(torch.from_numpy(words)).numpy()
    np.testing.assert_allclose(answers(converted.model, {"words": words})["scores"], expected, rtol=1e-3, atol=1e-5)


class Takes(nn.Module):  # type: ignore[misc] # the library has no types
    """Computes scores of one input in a way of its own."""

    def __init__(self, scores: Callable[["Takes", Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.table, self.scores = nn.Linear(6, 3), nn.Embedding(30, 3), scores

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (N, 3)."""
        return self.scores(self, x)


def linear(net: Takes, x: Tensor) -> Tensor:
    """Numbers times weights."""
    return torch.as_tensor(net.linear(x))


def cast(net: Takes, x: Tensor) -> Tensor:
    """Pixels, which the network makes floats of itself."""
    return torch.as_tensor(net.linear(x.float() / 255))


def columns(net: Takes, x: Tensor) -> Tensor:
    """A table of its own for each column."""
    return torch.as_tensor(sum(net.table(x[:, place]) for place in range(6)))


def sequence(net: Takes, x: Tensor) -> Tensor:
    """Tokens of any number."""
    return torch.as_tensor(net.table(x).mean(1))


def code(net: Takes, x: Tensor) -> Tensor:
    """One code a row."""
    return torch.as_tensor(net.table(x))


WHOLE = np.random.default_rng(2).integers(0, 20, (ROWS, 6))


@pytest.mark.parametrize(
    "scores,values,spec",
    [
        (linear, NUMBERS.astype(np.float64), ("float32", (-1, 6))),
        (linear, WHOLE, ("float32", (-1, 6))),
        (linear, WHOLE.astype(np.uint8), ("float32", (-1, 6))),
        (linear, WHOLE > 9, ("float32", (-1, 6))),
        (cast, WHOLE.astype(np.uint8), ("uint8", (-1, 6))),
        (columns, WHOLE, ("int64", (-1, 6))),
        (columns, WHOLE.astype(np.uint16), ("int64", (-1, 6))),
        (sequence, WHOLE.astype(np.int32), ("int32", (-1, -1))),
        (code, WHOLE[:, 0], ("int64", (-1,))),
    ],
    ids=[
        "doubles",
        "whole",
        "pixels to float",
        "truth values",
        "pixels",
        "columns",
        "unsigned",
        "tokens",
        "one code",
    ],
)
def test_inputs_keep_their_type_unless_the_network_refuses_it(
    tmp_path: Path, scores: Any, values: Any, spec: tuple[str, tuple[int, ...]]
) -> None:
    """And a row of whole numbers has a free length only where the network takes another one."""
    converted = export_network(Takes(scores), delivered({"x": values, "label": CLASSES}), into=tmp_path)
    assert shapes(converted) == {"x": spec}


def test_a_table_of_whole_numbers_is_what_the_network_takes(tmp_path: Path) -> None:
    """The columns of a table are floats for weights and whole numbers for embeddings, and their number is fixed."""
    table = {f"c{place}": WHOLE[:, place] for place in range(6)} | {"label": CLASSES}
    for scores, kind in ((linear, "float32"), (columns, "int64"), (sequence, "int64")):
        converted = export_network(Takes(scores), delivered(table, tabular=True), into=tmp_path)
        assert shapes(converted) == {"x": (kind, (-1, 6))}


class Both(nn.Module):  # type: ignore[misc] # the library has no types
    """Takes two inputs, and has a third that it can do without."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(30, 3), nn.Linear(1, 3)

    def forward(self, user: Tensor, unused: Tensor | None = None, price: Tensor | None = None) -> Tensor:
        """Return scores (N, 3)."""
        assert unused is None
        assert price is not None
        return torch.as_tensor(self.table(user) + self.linear(price.float().unsqueeze(-1)))


def test_columns_named_like_parameters_are_inputs_of_their_own(tmp_path: Path) -> None:
    """Each by its name, whatever lies between them, in a table too."""
    torch.manual_seed(0)
    module = Both().eval()
    table = {"price": NUMBERS[:, 0], "user": WHOLE[:, 0], "label": CLASSES}
    converted = export_network(module, delivered(table, tabular=True), into=tmp_path)
    assert shapes(converted) == {"user": ("int64", (-1,)), "price": ("float32", (-1,))}
    with torch.no_grad():
        expected = module(torch.from_numpy(table["user"]), price=torch.from_numpy(table["price"])).numpy()
    inputs = {"user": table["user"], "price": table["price"]}
    np.testing.assert_allclose(answers(converted.model, inputs)["scores"], expected, rtol=1e-4, atol=1e-5)


def test_labels_of_another_usual_name_are_no_input(tmp_path: Path) -> None:
    """Even where nobody has said yet which column the labels are in."""
    converted = export_network(Takes(linear), delivered({"y": CLASSES, "x": NUMBERS}), into=tmp_path)
    assert list(shapes(converted)) == ["x"]


def test_too_many_inputs_are_named(tmp_path: Path) -> None:
    """With what forward takes, so that the labels can be told apart."""
    error = refused(Takes(linear), delivered({"a": NUMBERS, "b": CLASSES, "label": CLASSES}), tmp_path)
    assert error.reason is Reason.DATA_INVALID
    assert "takes x, and the data holds a, b" in error.message


def test_text_labels_need_the_names_of_the_columns(tmp_path: Path) -> None:
    """Their order is asked for, and never guessed; a network may say it."""
    given = delivered({"x": NUMBERS, "label": np.array(["cat", "dog", "eel"])[CLASSES]})
    error = refused(Takes(linear), given, tmp_path)
    assert "'label' holds text" in error.message
    assert "classes" in error.next_step
    module = Takes(linear)
    module.classes = ("eel", "dog", "cat")
    assert export_network(module, given, into=tmp_path).classes == ("eel", "dog", "cat")


def test_packed_sequences_are_named(tmp_path: Path) -> None:
    """ONNX does not hold them, and the exporter's own message would not say so."""

    class Packed(nn.Module):  # type: ignore[misc] # the library has no types
        def __init__(self) -> None:
            super().__init__()
            self.words, self.gru, self.head = nn.Embedding(20, 4), nn.GRU(4, 3, batch_first=True), nn.Linear(3, 3)

        def forward(self, words: Tensor) -> Tensor:
            lengths = (words != 0).sum(1).cpu()
            packed = nn.utils.rnn.pack_padded_sequence(
                self.words(words), lengths, batch_first=True, enforce_sorted=False
            )
            return torch.as_tensor(self.head(self.gru(packed)[1][0]))

    assert "pack_padded_sequence" in refused(Packed(), delivered({"words": TOKENS, "label": CLASSES}), tmp_path).message


def test_two_numbers_to_predict_are_one_output(tmp_path: Path) -> None:
    """A regression of several targets answers (N, K)."""
    labels = NUMBERS[:, :2]
    given = delivered({"x": NUMBERS, "label": labels}, task=Task.REGRESSION)
    (output,) = export_network(nn.Linear(6, 2), given, into=tmp_path).signature.outputs
    assert (output.name, output.shape) == ("value", (-1, 2))


def test_a_program_for_one_batch_keeps_it(tmp_path: Path) -> None:
    """What was exported for 8 rows is asked with 8 rows, of the types that it declares."""
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Net(lambda scores, hidden: (hidden, scores)), (torch.zeros(8, 6),)), path)
    given = delivered({"x": NUMBERS, "label": CLASSES}, native=Native(path, ModelFormat.TORCH_EXPORT))
    converted = convert_program(given, into=tmp_path)
    assert shapes(converted) == {"x": ("float32", (8, 6))}
    assert answers(converted.model, {"x": NUMBERS[:8]})["output_1"].shape == (8, 3)
