"""Build the network of a Hugging Face folder with transformers, and write it as ONNX.

Only classes of transformers itself are built, with attention in plain operations. A folder that lacks weights of the
network is refused: they would be random numbers. The file must answer like the network for rows of other lengths and
for other masks than those that it was traced with.
"""

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from optimizer_jobs.data.datasets import Array
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.base import Delivered
from optimizer_jobs.machinery.formats.hugging_face_folder import EXPORT, Folder, Kind, Pooling, Sentences, refused
from optimizer_jobs.machinery.formats.torch_inputs import narrowed
from optimizer_jobs.models.onnx_file import MODEL_LIMIT_BYTES
from optimizer_jobs.nets.conversion.exporter import ExportError, check, export
from optimizer_jobs.progress import say
from optimizer_jobs.signature import Signature, TensorSpec
from retune.contract.results import Reason

_MASK, _TOKENS, _IMAGES = "attention_mask", "input_ids", "pixel_values"
_INPUTS = {_TOKENS: (_TOKENS, _MASK, "token_type_ids"), _IMAGES: (_IMAGES,)}
"""Inputs that are taken from the data, by the network's main one."""
_TABLES = {
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": Kind.SCORES,
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES": Kind.SCORES,
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": Kind.TOKENS,
    "MODEL_MAPPING_NAMES": Kind.ENCODER,
}
"""Tables of transformers with the class of each model type, and what these classes answer."""
_ROWS, _LEAST_CUT = 4, 4
_SHOWN, _WEIGHTS_SHOWN = 300, 3
_POOLER = "pooler."


def _library() -> Any:
    """Return transformers, which is told to stay on this machine and to be quiet."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def kind_of(folder: Folder, delivered: Delivered) -> Kind:
    """Return what the network of a folder answers; raises JobError, ModelInvalid, for one of no known kind."""
    if folder.sentences is not None:
        return Kind.ENCODER
    for table, kind in _TABLES.items():
        if folder.architecture in _classes(table, folder.model_type):
            return kind
    message = (
        f"architecture {folder.architecture} of model type {folder.model_type} is none that is read: classifiers of "
        "texts, tokens or images, and encoders of transformers itself."
    )
    raise refused(delivered, message, EXPORT)


def _classes(table: str, model_type: str) -> tuple[str, ...]:
    """Return the names of the classes of a model type in a table of transformers."""
    _library()
    from transformers.models.auto import modeling_auto

    names = getattr(modeling_auto, table).get(model_type, ())
    return (names,) if isinstance(names, str) else tuple(names)


class Answering(nn.Module):  # type: ignore[misc] # the library has no types
    """A network that takes its inputs by position and answers tensors in a fixed order."""

    def __init__(self, network: Any, inputs: tuple[str, ...], kind: Kind, sentences: Sentences | None) -> None:
        super().__init__()
        self.network, self.inputs, self.kind, self.sentences = network, inputs, kind, sentences

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return scores, sentence vectors, or hidden states with the pooled vector where there is one."""
        named = dict(zip(self.inputs, inputs, strict=True))
        answer = self.network(**named, return_dict=True)
        if self.kind is not Kind.ENCODER:
            return answer.logits
        hidden, pooled = answer.last_hidden_state, answer.get("pooler_output")
        if self.sentences is not None:
            return _sentence(hidden, named.get(_MASK), self.sentences)
        return hidden if pooled is None else (hidden, pooled)

    def outputs(self, answer: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return the tensors of an answer by name."""
        if isinstance(answer, tuple):
            return dict(zip(("last_hidden_state", "pooler_output"), answer, strict=True))
        encoded = "last_hidden_state" if self.sentences is None else "sentence_embedding"
        return {encoded if self.kind is Kind.ENCODER else "logits": answer}


def _sentence(hidden: Tensor, mask: Tensor | None, sentences: Sentences) -> Tensor:
    """Return one vector (N, W) of those of the tokens (N, L, W), as sentence-transformers does."""
    if sentences.pooling is Pooling.CLS:
        vectors = hidden[:, 0]
    else:
        present = torch.ones_like(hidden) if mask is None else mask.unsqueeze(-1).to(hidden.dtype).expand_as(hidden)
        if sentences.pooling is Pooling.MEAN:
            vectors = (hidden * present).sum(1) / present.sum(1).clamp(min=1e-9)
        else:
            vectors = torch.where(present > 0, hidden, torch.full_like(hidden, -1e9)).amax(1)
    return functional.normalize(vectors, dim=1) if sentences.normalized else vectors


def export_folder(folder: Folder, kind: Kind, delivered: Delivered, *, into: Path) -> tuple[Path, Signature]:
    """Write the network of a folder as ONNX into the folder `into`.

    Raises:
        JobError: ModelInvalid when weights are missing or the network cannot be run or written, ModelTooLarge, or
            DataInvalid when the data lacks its inputs.
    """
    network = _loaded(folder, kind, delivered)
    rows = _rows(network, folder, delivered)
    module, target = Answering(network, tuple(rows), kind, folder.sentences).eval(), into / "model.onnx"
    traced = _ragged(_shorter(rows))
    try:
        signature = _signature(module, rows)
    except Exception as error:
        words = f"{type(error).__name__}: {printable(str(error), limit=_SHOWN)}".removesuffix(".")
        shapes = ", ".join(f"{name} {list(values.shape[1:])}" for name, values in rows.items())
        message = f"the network cannot be run on the validation rows ({shapes} a row): {words}."
        raise refused(delivered, message, "Give rows as its tokenizer or image processor makes them.") from error
    try:
        export(module, signature=signature, examples=traced, target=target)
        for examples in (rows, _whole(rows), _first(rows)):
            check(module, signature=signature, examples=examples, target=target)
    except ExportError as error:
        raise refused(delivered, f"{printable(str(error), limit=_SHOWN).removesuffix('.')}.", EXPORT) from error
    return target, signature


def _loaded(folder: Folder, kind: Kind, delivered: Delivered) -> Any:
    """Return the network with its weights as 32-bit floats, in evaluation mode."""
    name = _classes("MODEL_MAPPING_NAMES", folder.model_type)[:1] if folder.sentences else (folder.architecture,)
    network_class = getattr(_library(), name[0], None) if name else None
    if network_class is None:
        message = f"transformers has no encoder of model type {folder.model_type}."
        raise refused(delivered, message, EXPORT)
    pooled = kind is Kind.ENCODER and "add_pooling_layer" in inspect.signature(network_class.__init__).parameters
    network, lacking = _with_weights(network_class, folder, delivered, pooler=not (pooled and folder.sentences))
    if pooled and lacking and all(weight.startswith(_POOLER) for weight in lacking):
        say("  the folder has no weights of the pooler, so the network answers hidden states alone")
        network, lacking = _with_weights(network_class, folder, delivered, pooler=False)
    if lacking:
        more = f" and {len(lacking) - _WEIGHTS_SHOWN} more" if len(lacking) > _WEIGHTS_SHOWN else ""
        message = f"it lacks weights of {network_class.__name__}: {', '.join(lacking[:_WEIGHTS_SHOWN])}{more}."
        raise refused(delivered, message, "Write the trained network with save_pretrained, and deliver that folder.")
    return network.eval()


def _with_weights(network_class: Any, folder: Folder, delivered: Delivered, *, pooler: bool) -> tuple[Any, list[str]]:
    """Return the network, and the names of the weights that the folder lacks."""
    try:
        config = network_class.config_class.from_dict(dict(folder.config))
        for key, value in _SETTINGS.items():
            setattr(config, key, value)
        network, info = network_class.from_pretrained(
            str(folder.path),
            config=config,
            attn_implementation="eager",
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
            **({} if pooler else {"add_pooling_layer": False}),
        )
    except MemoryError:
        raise
    except Exception as error:
        words = f"{type(error).__name__}: {printable(str(error), limit=_SHOWN)}".removesuffix(".")
        message = f"transformers cannot build {network_class.__name__} of it ({words})."
        raise refused(delivered, message, "Write it again with save_pretrained, or deliver ONNX.") from error
    _check_size(network, delivered)
    if unused := sorted(map(str, info["unexpected_keys"])):
        say(f"  {len(unused)} weights of the folder are none of the network's, such as {unused[0][:_SHOWN]}")
    return network.float(), sorted(map(str, info["missing_keys"]))


_SETTINGS = {
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "use_cache": False,
}
"""Settings of a network that change which tensors it answers, and not what they hold."""


def _check_size(network: nn.Module, delivered: Delivered) -> None:
    size = 4 * sum(weight.numel() for weight in network.parameters())
    if size > MODEL_LIMIT_BYTES:
        message = f"its weights have {size} bytes as 32-bit floats, and an ONNX file has at most {MODEL_LIMIT_BYTES}."
        raise JobError(Reason.MODEL_TOO_LARGE, delivered.uri, message, "Deliver a smaller model.")


def _rows(network: Any, folder: Folder, delivered: Delivered) -> dict[str, Array]:
    """Return a few rows of the data by input name, in the element types that the network takes."""
    main, columns = network.main_input_name, delivered.columns
    if main not in _INPUTS:
        message = (
            f"{type(network).__name__} takes {printable(str(main), limit=40)}, and only tokens and images are read."
        )
        raise refused(delivered, message, EXPORT)
    parameters = inspect.signature(network.forward).parameters
    present = [name for name in columns.names if name != delivered.label]
    names = [name for name in _INPUTS[main] if name in parameters and name in present]
    if main not in names:
        message = f"the model takes {main}, and the data has {printable(', '.join(present) or 'nothing', limit=200)}."
        raise _data(
            delivered, message, f"Give the rows as arrays or columns of lists named {', '.join(_INPUTS[main])}."
        )
    rows = {name: _typed(name, columns.read(name), delivered) for name in names}
    if main == _TOKENS:
        _check_tokens(rows, folder, delivered, masked=_MASK in parameters)
    count = len(rows[main])
    if not count:
        raise _data(delivered, "the data set has no rows.", "Give rows.")
    return {name: np.ascontiguousarray(values[np.arange(_ROWS) % count]) for name, values in rows.items()}


def _typed(name: str, values: Array, delivered: Delivered) -> Array:
    """Return an input of the data as whole numbers (N, L), or as pixels (N, C, H, W)."""
    axes, kinds, kind = (4, "biuf", np.float32) if name == _IMAGES else (2, "biu", np.int64)
    if values.ndim != axes or values.dtype.kind not in kinds:
        form = "numbers (rows, channels, height, width)" if name == _IMAGES else "whole numbers (rows, tokens)"
        message = f"{name} holds {values.dtype} of shape {values.shape}, and the model takes {form}."
        raise _data(delivered, message, "Give what its tokenizer or image processor makes.")
    return values.astype(kind)


def _check_tokens(rows: Mapping[str, Array], folder: Folder, delivered: Delivered, *, masked: bool) -> None:
    """Refuse inputs of different shapes, unknown tokens, and padding that the network would read as text."""
    tokens, known, padding = rows[_TOKENS], folder.config.get("vocab_size"), folder.config.get("pad_token_id")
    other = next((name for name, values in rows.items() if values.shape != tokens.shape), None)
    if other is not None:
        message = f"{other} has shape {rows[other].shape}, and {_TOKENS} {tokens.shape}."
        raise _data(delivered, message, "Give all of them in one shape.")
    if isinstance(known, int) and tokens.size and not 0 <= tokens.min() <= tokens.max() < known:
        message = f"{_TOKENS} holds {tokens.min()} to {tokens.max()}, and the model knows 0 to {known - 1}."
        raise _data(delivered, message, "Give what its own tokenizer makes.")
    if masked and _MASK not in rows and isinstance(padding, int) and (tokens[:, [0, -1]] == padding).any():
        message = f"rows are padded (token {padding}) and the data has no {_MASK}, so the model would read the padding."
        raise _data(delivered, message, f"Add an array {_MASK} with 1 for tokens and 0 for padding.")


def _signature(module: Answering, rows: Mapping[str, Array]) -> Signature:
    """Return inputs and outputs with free axes for rows and tokens; the network shows which axes depend on them."""
    outputs, others = (_run(module, arrays) for arrays in (rows, narrowed(rows, _sequences(rows))))
    return Signature(
        inputs=tuple(
            TensorSpec(
                name=name, dtype=str(values.dtype), shape=(-1, *(values.shape[1:] if values.ndim > 2 else (-1,)))
            )
            for name, values in rows.items()
        ),
        outputs=tuple(_output(name, values, others[name]) for name, values in outputs.items()),
    )


def _output(name: str, values: Tensor, other: Tensor) -> TensorSpec:
    sizes = [size if size == less else -1 for size, less in zip(values.shape[1:], other.shape[1:], strict=True)]
    return TensorSpec(name=name, dtype="float32", shape=(-1, *sizes))


def _run(module: Answering, rows: Mapping[str, Array]) -> dict[str, Tensor]:
    with torch.no_grad():
        return module.outputs(module(*(torch.from_numpy(values) for values in rows.values())))


def _sequences(rows: Mapping[str, Array]) -> list[str]:
    """Return the inputs (N, L) whose L is free."""
    return [name for name, values in rows.items() if values.ndim == 2]


def _shorter(rows: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return half of the tokens, to trace with, so that the whole rows show whether longer ones are answered too."""
    long = [name for name in _sequences(rows) if rows[name].shape[1] >= _LEAST_CUT]
    return narrowed(rows, long)


def _ragged(rows: Mapping[str, Array]) -> dict[str, Array]:
    """Return the rows with a shorter mask in each row, down to one token, so that a trace leaves no mask out."""
    return _masked(rows, lambda row, length: length - row * (length - 1) // max(len(rows[_MASK]) - 1, 1))


def _whole(rows: Mapping[str, Array]) -> dict[str, Array]:
    """Return the rows without padding."""
    return _masked(rows, lambda _, length: length)


def _masked(rows: Mapping[str, Array], length_of: Any) -> dict[str, Array]:
    mask = rows.get(_MASK)
    if mask is None:
        return dict(rows)
    count, length = mask.shape
    lengths = np.asarray([length_of(row, length) for row in range(count)])
    return {**rows, _MASK: (np.arange(length) < lengths[:, np.newaxis]).astype(mask.dtype)}


def _first(rows: Mapping[str, Array]) -> dict[str, Array]:
    """Return the first row alone."""
    return {name: values[:1] for name, values in rows.items()}


def _data(delivered: Delivered, message: str, next_step: str) -> JobError:
    return JobError(Reason.DATA_INVALID, delivered.data, message, next_step)
