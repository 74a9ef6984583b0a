"""Folders of Hugging Face become ONNX files that answer as transformers does, or one sentence says why not."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from optimizer_jobs.data.readers import Columns
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.base import Converted, Delivered, task_named
from optimizer_jobs.machinery.formats.registry import convert
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.nets.conversion.importer import not_importable
from retune.api.model import ModelFormat, Task

pytestmark = pytest.mark.torch

Array = NDArray[Any]
Arrays = dict[str, Array]

WORDS, LENGTH = 60, 12
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": WORDS,
    "max_position_embeddings": 40,
}
"""Sizes of networks of the family of BERT."""


def tokens(rows: int = 8, length: int = LENGTH, *, padding: int = 0) -> Arrays:
    """Return token numbers with ragged masks; padding has the number that the network knows it by."""
    random = np.random.default_rng(0)
    mask = (np.arange(length) < random.integers(1, length + 1, size=(rows, 1))).astype(np.int64)
    mask[0] = 1
    numbers = random.integers(2, WORDS, size=(rows, length))
    return {"input_ids": np.where(mask == 1, numbers, padding), "attention_mask": mask}


def with_types(inputs: Arrays) -> Arrays:
    """Return the same with the second half of each row as a second text."""
    types = np.zeros_like(inputs["input_ids"])
    types[:, types.shape[1] // 2 :] = 1
    return {**inputs, "token_type_ids": types}


def pixels(rows: int = 6) -> Arrays:
    """Return small images."""
    return {"pixel_values": np.random.default_rng(0).normal(size=(rows, 3, 16, 16)).astype(np.float32)}


def random_network(name: str, **settings: Any) -> PreTrainedModel:
    """Return a network of transformers with random weights, from one seed."""
    torch.manual_seed(0)
    network = getattr(transformers, name)
    return network(network.config_class(**settings)).eval()


def bert(name: str = "BertForSequenceClassification", **settings: Any) -> PreTrainedModel:
    """Return a random network of the family of BERT."""
    return random_network(name, **{**SIZES, **settings})


def roberta() -> PreTrainedModel:
    """Return a random RoBERTa, whose positions follow from where the padding is."""
    return bert("RobertaForSequenceClassification", type_vocab_size=1, pad_token_id=1, num_labels=3)


def distilbert() -> PreTrainedModel:
    """Return a random DistilBERT."""
    sizes = {"n_layers": 2, "n_heads": 2, "dim": 32, "hidden_dim": 48, "max_position_embeddings": 40}
    return random_network("DistilBertForSequenceClassification", **sizes, vocab_size=WORDS, num_labels=3)


def vit(name: str = "ViTForImageClassification") -> PreTrainedModel:
    """Return a random vision transformer."""
    sizes = {key: SIZES[key] for key in list(SIZES)[:4]}
    return random_network(name, **sizes, image_size=16, patch_size=8, num_labels=4)


@pytest.fixture
def deliver(tmp_path: Path) -> Callable[..., Delivered]:
    """Save a network as its owner does, and return the delivery with these rows as validation data."""

    def delivery(
        network: PreTrainedModel,
        inputs: Arrays,
        labels: Array | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Delivered:
        folder = tmp_path / "net"
        network.save_pretrained(folder, **fields.pop("saving", {}))
        settings = json.loads((folder / "config.json").read_text()) | dict(config or {})
        (folder / "config.json").write_text(json.dumps(settings))
        data = inputs if labels is None else {**inputs, "label": labels}
        columns = Columns(tuple(data), data.__getitem__, tabular=False)
        known: dict[str, Any] = {"task": Task.CLASSIFICATION, "uri": "pvc://m/net", "label": "label", **fields}
        return Delivered(native=Native(folder, ModelFormat.HUGGING_FACE), columns=columns, **known)

    return delivery


def converted(delivered: Delivered) -> Converted:
    """Convert a delivery into the folder beside it."""
    return convert(delivered, into=delivered.native.path.parent)


def refusal(delivered: Delivered) -> JobError:
    """Convert what must be refused, and return why."""
    with pytest.raises(JobError) as caught:
        converted(delivered)
    return caught.value


def told(network: nn.Module, inputs: Arrays) -> Mapping[str, Array]:
    """Return the answers of transformers itself, by name."""
    with torch.no_grad():
        answer = network(**{name: torch.from_numpy(values) for name, values in inputs.items()})
    return {name: values.numpy() for name, values in answer.items()}


def asked(model: Path, inputs: Arrays) -> Mapping[str, Array]:
    """Return the answers of an ONNX file, by name."""
    return open_model(model, EngineOptions(spinning=False)).run(inputs)


def probabilities(logits: Array) -> Array:
    """Return the softmax of logits."""
    softmax: Array = torch.from_numpy(logits).softmax(-1).numpy()
    return softmax


def variants(inputs: Arrays) -> list[Arrays]:
    """Return the rows, one row alone, and where they are tokens, shorter and longer rows."""
    one = {name: values[:1] for name, values in inputs.items()}
    if "input_ids" not in inputs:
        return [inputs, one]
    shorter = {name: values[:3, :5] for name, values in inputs.items()}
    return [inputs, one, shorter, {name: np.concatenate([values] * 3, axis=1) for name, values in inputs.items()}]


@pytest.mark.parametrize(
    ("network", "inputs"),
    [
        pytest.param(bert, with_types(tokens()), id="bert"),
        pytest.param(distilbert, tokens(), id="distilbert"),
        pytest.param(roberta, tokens(padding=1), id="roberta"),
        pytest.param(vit, pixels(), id="vit"),
    ],
)
def test_version_one_answers_as_transformers_does(
    deliver: Callable[..., Delivered], network: Callable[[], PreTrainedModel], inputs: Arrays
) -> None:
    """Probabilities are equal within 1e-4 for any number of rows, other lengths and ragged masks; it can be trained."""
    labels = np.arange(len(next(iter(inputs.values())))) % 2
    made = converted(deliver(network(), inputs, labels))
    for rows in variants(inputs):
        logits = asked(made.model, rows)["logits"]
        np.testing.assert_allclose(probabilities(logits), probabilities(told(network(), rows)["logits"]), atol=1e-4)
    assert (made.native, made.classes) == (None, ())
    assert not_importable(onnx.load(made.model)) is None


@pytest.mark.parametrize("saving", [{"max_shard_size": "20KB"}, {}], ids=["shards", "halves"])
def test_shards_and_16_bit_weights_are_read(deliver: Callable[..., Delivered], saving: Mapping[str, str]) -> None:
    """A large network is saved in parts, and most are saved as 16-bit floats; they are computed in 32 bits."""
    network = bert() if saving else bert().half()
    delivered = deliver(network, tokens(), np.arange(8) % 2, saving=saving)
    parts = [path.name for path in delivered.native.path.glob("model-*.safetensors")]
    assert (len(parts) > 1) == bool(saving)
    answers = asked(converted(delivered).model, tokens())["logits"]
    np.testing.assert_allclose(answers, told(network.float(), tokens())["logits"], atol=1e-4)


def test_a_mask_that_the_data_shows_as_ones_is_not_left_out(deliver: Callable[..., Delivered]) -> None:
    """Rows without padding in the validation data do not make a file that reads the padding of others."""
    whole = {name: np.maximum(values, 1) for name, values in tokens().items()}
    made = converted(deliver(bert(), whole, np.arange(8) % 2))
    np.testing.assert_allclose(asked(made.model, tokens())["logits"], told(bert(), tokens())["logits"], atol=1e-4)


def test_the_same_folder_gives_the_same_bytes(deliver: Callable[..., Delivered]) -> None:
    """A Job that is repeated finds its own bundle."""
    delivered = deliver(distilbert(), tokens(), np.arange(8) % 2)
    first = converted(delivered).model.read_bytes()
    assert converted(delivered).model.read_bytes() == first


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("BertModel", tokens(), {"last_hidden_state": (-1, -1, 32), "pooler_output": (-1, 32)}),
        ("ViTModel", pixels(), {"last_hidden_state": (-1, 5, 32), "pooler_output": (-1, 32)}),
        ("BertForTokenClassification", tokens(), {"logits": (-1, -1, 2)}),
    ],
)
def test_encoders_and_taggers_answer_everything(
    deliver: Callable[..., Delivered], name: str, inputs: Arrays, outputs: Mapping[str, tuple[int, ...]]
) -> None:
    """Hidden states with their pooled vector, or scores of each token, as a model that is held against itself."""
    network = vit(name) if name.startswith("ViT") else bert(name)
    made = converted(deliver(network, inputs, task=Task.GENERIC))
    assert {spec.name: spec.shape for spec in made.signature.outputs} == outputs
    for rows in variants(inputs):
        answers, expected = asked(made.model, rows), told(network, rows)
        for output in outputs:
            np.testing.assert_allclose(answers[output], expected[output], atol=1e-4)


@pytest.mark.parametrize("mode", ["cls_token", "mean_tokens", "max_tokens"])
def test_sentence_encoders_answer_their_sentence_vectors(deliver: Callable[..., Delivered], mode: str) -> None:
    """Pooling and length are those of modules.json; padding is left out; a pooler that nobody reads may be missing."""
    network, inputs = bert("BertModel", add_pooling_layer=False), tokens()
    delivered = deliver(network, inputs, task=Task.EMBEDDING)
    folder = delivered.native.path
    stages = [
        {"path": path, "type": f"models.{kind}"}
        for path, kind in (("", "Transformer"), ("1_P", "Pooling"), ("2_N", "Normalize"))
    ]
    (folder / "modules.json").write_text(json.dumps(stages))
    (folder / "1_P").mkdir()
    (folder / "1_P" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True, "pooling_mode_other": False}))
    vectors = asked(converted(delivered).model, inputs)["sentence_embedding"]
    hidden, mask = told(network, inputs)["last_hidden_state"], inputs["attention_mask"][..., np.newaxis]
    pooled = {
        "cls_token": hidden[:, 0],
        "mean_tokens": (hidden * mask).sum(1) / mask.sum(1),
        "max_tokens": np.where(mask == 1, hidden, -np.inf).max(1),
    }[mode]
    np.testing.assert_allclose(vectors, pooled / np.linalg.norm(pooled, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "names", "classes"),
    [
        (["bad", "good"], ["good", "bad"], ("good", "bad")),
        ([0, 1], ["good", "bad"], ()),
        ([1, 2], ["1", "2"], ("1", "2")),
        ([0, 1], ["0", "1"], ()),
    ],
)
def test_labels_are_names_of_the_configuration_or_numbers_of_columns(
    deliver: Callable[..., Delivered], labels: list[object], names: list[str], classes: tuple[str, ...]
) -> None:
    """`id2label` says which column a label belongs to, where the data has its names."""
    table = {"id2label": {str(place): name for place, name in enumerate(names)}}
    assert converted(deliver(bert(), tokens(), np.asarray(labels * 4), config=table)).classes == classes


@pytest.mark.parametrize(
    ("labels", "names", "says"),
    [
        (["a", "b"], ["LABEL_0", "LABEL_1"], "the network calls them LABEL_0, LABEL_1"),
        ([1, 0], ["1", "0"], "labels of column 'label' could be the numbers of the score columns, or what the network"),
    ],
)
def test_labels_that_could_mean_another_column_need_a_word(
    deliver: Callable[..., Delivered], labels: list[object], names: list[str], says: str
) -> None:
    """They are refused with the field that decides, and taken where the spec names the classes."""
    table = {"id2label": {str(place): name for place, name in enumerate(names)}}
    error = refusal(deliver(bert(), tokens(), np.asarray(labels * 4), config=table))
    assert says in error.message
    assert "model.classes" in error.next_step
    assert converted(deliver(bert(), tokens(), np.asarray(labels * 4), config=table, classes=("x", "y"))).classes == ()


@pytest.mark.parametrize(
    ("name", "config", "does"),
    [
        ("BertForSequenceClassification", {"problem_type": "regression"}, Task.REGRESSION),
        ("BertForSequenceClassification", {"problem_type": "multi_label_classification"}, Task.MULTI_LABEL),
        ("BertForTokenClassification", {}, Task.GENERIC),
        ("BertModel", {}, Task.EMBEDDING),
    ],
)
def test_a_folder_of_another_task_says_which(
    deliver: Callable[..., Delivered], name: str, config: Mapping[str, str], does: Task
) -> None:
    """The configuration knows; `retune init` asks again with that task."""
    assert task_named(refusal(deliver(bert(name), tokens(), np.arange(8) % 2, config=config))) is does
    assert converted(deliver(bert(name), tokens(), np.arange(8) % 2, config=config, task=does)).classes == ()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"auto_map": {"AutoModel": "modeling.Evil"}}, "names code beside it (auto_map)"),
        ({"text_config": {"auto_map": {"AutoModel": "modeling.Evil"}}}, "names code beside it (auto_map)"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized already"),
        ({"is_encoder_decoder": True}, "it has a decoder"),
        (
            {"architectures": ["BertForMaskedLM"]},
            "architecture BertForMaskedLM of model type bert is none that is read",
        ),
        ({"architectures": ["AutoModel"]}, "architecture AutoModel of model type bert is none that is read"),
        ({"model_type": "mine"}, "of model type mine is none that is read"),
        ({"architectures": ["../evil"]}, "does not say in model_type and architectures"),
        ({"architectures": None}, "does not say in model_type and architectures"),
        ({"architectures": ["BertForTokenClassification"]}, "BertForTokenClassification does something else"),
        ({"hidden_size": 31}, "transformers cannot build BertForSequenceClassification of it"),
        ({"hidden_size": "wide"}, "transformers cannot build BertForSequenceClassification of it"),
        ({"num_hidden_layers": 3}, "it lacks weights of BertForSequenceClassification: bert.encoder.layer.2"),
        ({"vocab_size": 61}, "transformers cannot build BertForSequenceClassification of it"),
    ],
)
def test_what_is_not_read_is_refused_in_words(
    deliver: Callable[..., Delivered], config: Mapping[str, Any], says: str
) -> None:
    """Each with what to do instead, and before any code beside the weights could run."""
    error = refusal(deliver(bert(), tokens(), np.arange(8) % 2, config=config))
    assert says in error.message
    assert error.next_step


def test_settings_that_would_load_something_else_change_nothing(deliver: Callable[..., Delivered]) -> None:
    """Names of other files, kernels and types are left out, and so are settings that answer more tensors."""
    hostile = {
        "transformers_weights": "../other.safetensors",
        "attn_implementation": "someone/kernel",
        "_attn_implementation": "someone/kernel",
        "dtype": "float16",
        "output_hidden_states": True,
        "return_dict": False,
    }
    made = converted(deliver(bert(), tokens(), np.arange(8) % 2, config=hostile))
    assert [spec.name for spec in made.signature.outputs] == ["logits"]
    np.testing.assert_allclose(asked(made.model, tokens())["logits"], told(bert(), tokens())["logits"], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: {"input_ids": rows["input_ids"]}, "rows are padded (token 0) and the data has no attention_mask"),
        (lambda rows: {**rows, "input_ids": rows["input_ids"] + 40}, "and the model knows 0 to 59"),
        (lambda rows: {**rows, "attention_mask": rows["attention_mask"][:, :3]}, "attention_mask has shape (8, 3)"),
        (lambda rows: {**rows, "input_ids": rows["input_ids"] * 0.5}, "the model takes whole numbers (rows, tokens)"),
        (lambda rows: {"text": rows["input_ids"]}, "the model takes input_ids, and the data has text"),
        (lambda rows: {name: np.tile(values, 4) for name, values in rows.items()}, "cannot be run on the validation"),
    ],
)
def test_rows_that_its_tokenizer_would_not_make_are_refused(
    deliver: Callable[..., Delivered], change: Callable[[Arrays], Arrays], says: str
) -> None:
    """Above all padding without a mask: the answers would be those of other texts."""
    error = refusal(deliver(bert(), change(tokens()), np.arange(8) % 2))
    assert says in error.message
    assert error.next_step
