"""What the JSON files of a Hugging Face folder say: which network it is, and what a sentence encoder has behind it.

They are hostile input. What would need code, another library or a server is refused with what to do instead.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from optimizer_jobs.data.hugging_face import CONFIG, MODULES, parsed
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.base import Delivered
from retune.contract.results import Reason

Json = Mapping[str, Any]

EXPORT = "Export it to ONNX where it runs, such as with optimum-cli export onnx --model FOLDER OUT, and deliver that."

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_CODE = "auto_map"
"""Key under which a configuration names code beside it."""
_LEFT_OUT = frozenset(
    {
        "attn_implementation",
        "distributed_config",
        "dtype",
        "experts_implementation",
        "fusion_config",
        "kernel_config",
        "name_or_path",
        "torch_dtype",
        "transformers_weights",
    }
)
"""Keys that change how a network is loaded or computed, and not what it answers; so do keys that begin with _."""
_MOST_LABELS = 100_000


class Kind(StrEnum):
    """What a network has behind its encoder."""

    SCORES = "scores of classes"
    TOKENS = "scores of classes for each token"
    ENCODER = "hidden states"


class Pooling(StrEnum):
    """How a sentence encoder makes one vector of those of all tokens."""

    CLS = "cls"
    MEAN = "mean"
    MAX = "max"


@dataclass(frozen=True)
class Sentences:
    """What a sentence encoder does behind its network."""

    pooling: Pooling
    normalized: bool
    """Whether vectors are brought to length 1."""


@dataclass(frozen=True)
class Folder:
    """What the JSON files of a folder say."""

    path: Path
    config: Json
    model_type: str
    architecture: str
    sentences: Sentences | None
    """None where it is no sentence encoder."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the configuration calls the columns of the scores; () where it does not name all of them."""
        table = self.config.get("id2label")
        if not isinstance(table, Mapping) or len(table) > _MOST_LABELS:
            return ()
        named = (table.get(str(place)) for place in range(len(table)))
        names = tuple(name for name in named if isinstance(name, str))
        return names if len(names) == len(table) else ()


def read(delivered: Delivered) -> Folder:
    """Return what the JSON files of the folder say; raises JobError, ModelInvalid, for what is not read."""
    path = delivered.native.path
    config = parsed((path / CONFIG).read_bytes(), where=f"{delivered.uri}: {CONFIG}")
    if not isinstance(config, dict):
        raise refused(delivered, f"{CONFIG} holds no settings by name.", "Write it again with save_pretrained.")
    _check_config(config, delivered)
    named = config.get("architectures")
    words = (config.get("model_type"), named[0] if isinstance(named, list) and named else None)
    if not all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
        message = f"{CONFIG} does not say in model_type and architectures which network it is."
        raise refused(delivered, message, "Write it again with save_pretrained of the network's class.")
    model_type, architecture = map(str, words)
    return Folder(path, _plain(config), model_type, architecture, _sentences(path, delivered))


def _check_config(config: Json, delivered: Delivered) -> None:
    """Refuse a configuration that asks for code, or for libraries that are not here."""
    keys = set(_keys(config))
    if _CODE in keys:
        message = f"{CONFIG} names code beside it ({_CODE}), and no code of a delivered folder is run."
        raise refused(delivered, message, EXPORT)
    if "quantization_config" in keys or "compression_config" in keys:
        message = "its weights are quantized already, and only weights of 16 or 32 bits are read."
        raise refused(delivered, message, "Deliver the weights that it was quantized from.")
    if config.get("is_encoder_decoder"):
        raise refused(delivered, "it has a decoder, and only encoders and classifiers on them are read.", EXPORT)


def _keys(value: Any) -> Iterator[str]:
    """Yield every key of a JSON document, at any depth."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _plain(config: Json) -> Json:
    """Return the settings of the network itself."""
    return {key: value for key, value in config.items() if key not in _LEFT_OUT and not key.startswith("_")}


def _sentences(path: Path, delivered: Delivered) -> Sentences | None:
    """Return what sentence-transformers does behind the network, by modules.json."""
    if not (path / MODULES).exists():
        return None
    listed = parsed((path / MODULES).read_bytes(), where=f"{delivered.uri}: {MODULES}")
    stages = [(_stage(stage), stage) for stage in listed] if isinstance(listed, list) else []
    kinds = [kind for kind, _ in stages]
    known = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
    if kinds not in known or stages[0][1].get("path"):
        shown = printable(", ".join(kinds) or "nothing", limit=100)
        message = f"{MODULES} lists {shown}; what is read is Transformer, Pooling and Normalize, in this order."
        raise refused(delivered, message, EXPORT)
    return Sentences(_pooling(path / str(stages[1][1].get("path")) / CONFIG, delivered), len(kinds) == len(known[1]))


def _stage(stage: Any) -> str:
    """Return the last part of the name of a stage's class."""
    kind = stage.get("type") if isinstance(stage, dict) else None
    return str(kind).rpartition(".")[2]


def _pooling(path: Path, delivered: Delivered) -> Pooling:
    settings = parsed(path.read_bytes(), where=f"{delivered.uri}: {path.parent.name}/{CONFIG}") if path.exists() else {}
    settings = settings if isinstance(settings, dict) else {}
    asked = [key.removeprefix("pooling_mode_") for key, value in settings.items() if _is_mode(key) and value is True]
    asked = asked or [str(settings.get("pooling_mode"))]
    modes = {"cls_token": Pooling.CLS, "mean_tokens": Pooling.MEAN, "max_tokens": Pooling.MAX}
    modes |= {mode.value: mode for mode in Pooling}
    if len(asked) != 1 or asked[0] not in modes:
        shown = printable(", ".join(asked), limit=80)
        message = f"the pooling of its sentences is {shown}; cls, mean or max alone is read."
        raise refused(delivered, message, EXPORT)
    return modes[asked[0]]


def _is_mode(key: str) -> bool:
    return key.startswith("pooling_mode_")


def refused(delivered: Delivered, message: str, next_step: str) -> JobError:
    """Return the refusal of a folder."""
    return JobError(Reason.MODEL_INVALID, delivered.uri, message, next_step)
