"""The files of a folder of Hugging Face that are read: which they are, a copy of each, and one digest of all.

Such a folder is what `save_pretrained` writes. JSON files in it name other files, so these names are hostile input:
only plain names are followed, none leads out of the folder or its claim, and number and size of the files are bounded.
Nothing else in the folder is opened or copied, so that no library finds code, pickles or adapters beside the weights.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optimizer_jobs.data.delivered import Source, source_of
from optimizer_jobs.data.fetch import Fetched, bring, check_digest, digest_of, is_there
from optimizer_jobs.data.uris import Location
from optimizer_jobs.errors import JobError, printable
from retune.api.model import ModelFormat
from retune.contract.results import Reason

CONFIG, MODULES = "config.json", "modules.json"
"""What the network is, and what a sentence encoder does behind it."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""All weights in one file, or the list of the files that each hold a part of them."""
TEXT_LIMIT_BYTES = 16 << 20
WEIGHTS_LIMIT_BYTES = (2 << 30) - 1
"""Bytes that all files may have together: what an ONNX file holds."""
SHARDS_LIMIT = 128
"""Files that weights may be spread over."""

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\.safetensors")
_STAGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_MOST_STAGES = 16
_ARCHITECTURE = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_SAVE = "Write it again with save_pretrained of transformers."


def fetch_folder(uri: str, *, into: Path, digest: str | None = None) -> Fetched:
    """Copy the files of a folder that are read into the folder `into`, under their own names.

    Args:
        uri: URI of the folder on a volume or a server, with or without a slash at its end, or of a model in a registry.
        into: Folder for the copies; made if absent.
        digest: `sha256:` and 64 hexadecimal digits that the folder must have; None accepts any.

    Returns:
        The folder `into` with the digest of the files, see `digest_of_files`, and their size together in bytes.

    Raises:
        JobError: ModelNotFound, ModelForbidden, ModelTooLarge, ModelInvalid, SourceUnreachable, or DigestMismatch.
    """
    return _read(_folder(uri, into), digest, copied=True)


def digest_of_folder(uri: str, *, scratch: Path) -> str:
    """Return the digest that a folder has now; only its JSON files are copied, into the folder `scratch`.

    Raises:
        JobError: As `fetch_folder`.
    """
    return _read(_folder(uri, scratch), None, copied=False).digest


def digest_of_files(files: Mapping[str, str]) -> str:
    """Return the digest of several files, by name: the SHA-256 of what `sha256sum` prints for them, sorted by name."""
    lines = "".join(f"{digest.removeprefix('sha256:')}  {name}\n" for name, digest in sorted(files.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def parsed(text: bytes, *, where: str) -> Any:
    """Return the content of a JSON file; raises JobError, ModelInvalid, where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(where, f"it is no JSON file ({printable(str(error), limit=100)}).", _SAVE) from error


@dataclass
class _Folder:
    """A folder, and what of it has been read."""

    source: Source
    into: Path
    digests: dict[str, str] = field(default_factory=dict)
    size: int = 0

    @property
    def uri(self) -> str:
        """URI of the folder as people know it."""
        return self.source.uri

    def place(self, name: str) -> Location:
        """Return where a file of the folder lies."""
        return self.source.beside(name)

    def has(self, name: str) -> bool:
        """Return whether the folder has a file of this name."""
        return is_there(self.place(name), what="Model")

    def json(self, name: str) -> Any:
        """Copy a JSON file and return its content."""
        self.copy(name, limit_bytes=TEXT_LIMIT_BYTES)
        return parsed((self.into / name).read_bytes(), where=f"{self.uri.rstrip('/')}/{name}")

    def copy(self, name: str, *, limit_bytes: int) -> None:
        """Copy a file, whatever a symbolic link inside the claim calls it."""
        target = self.into / name
        copy = bring(self.place(name), limit_bytes=limit_bytes, into=target.parent, what="Model", name=target.name)
        self._note(name, copy.digest, copy.size)

    def look(self, name: str, *, limit_bytes: int) -> None:
        """Read a file to its end without a copy."""
        self._note(name, *digest_of(self.place(name), limit_bytes=limit_bytes, what="Model"))

    def _note(self, name: str, digest: str, size: int) -> None:
        self.digests[name] = digest
        self.size += size


def _folder(uri: str, into: Path) -> _Folder:
    return _Folder(source_of(uri, ModelFormat.HUGGING_FACE), into)


def _read(folder: _Folder, digest: str | None, *, copied: bool) -> Fetched:
    config = _config(folder)
    for name in _stages(folder):
        folder.json(name)
    for name in _weights(folder, config):
        (folder.copy if copied else folder.look)(name, limit_bytes=WEIGHTS_LIMIT_BYTES)
        if folder.size > WEIGHTS_LIMIT_BYTES:
            message = f"its files have more than {WEIGHTS_LIMIT_BYTES} bytes together."
            raise JobError(Reason.MODEL_TOO_LARGE, folder.uri, message, "Give a smaller model.")
    actual = digest_of_files(folder.digests)
    check_digest(folder.uri, expected=digest, actual=actual)
    return Fetched(path=folder.into, digest=actual, size=folder.size)


def _config(folder: _Folder) -> Any:
    """Return the content of config.json, which every such folder has."""
    try:
        return folder.json(CONFIG)
    except JobError as error:
        if error.reason is not Reason.MODEL_NOT_FOUND:
            raise
        raise JobError(
            Reason.MODEL_NOT_FOUND,
            folder.uri,
            f"there is no folder with {CONFIG} there, as save_pretrained of transformers writes it.",
            "Name such a folder; merge an adapter into its model first (merge_and_unload of peft).",
        ) from error


def _stages(folder: _Folder) -> Iterator[str]:
    """Yield the settings of the stages that a sentence encoder has behind its network."""
    if not folder.has(MODULES):
        return
    stages = folder.json(MODULES)
    paths = [stage.get("path") for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else [None]
    for path in paths[:_MOST_STAGES]:
        if not isinstance(path, str) or (path and not _STAGE.fullmatch(path)):
            shown = printable(str(path), limit=60)
            raise _invalid(folder.uri, f"{MODULES} names {shown!r}, which is no folder beside it.", _SAVE)
        if path and folder.has(f"{path}/{CONFIG}"):
            yield f"{path}/{CONFIG}"


def _weights(folder: _Folder, config: Any) -> list[str]:
    """Return the names of the files of weights; where there are both forms, the one file, as transformers does."""
    if folder.has(WEIGHTS):
        return [WEIGHTS]
    if not folder.has(INDEX):
        raise _without_weights(folder, config)
    index = folder.json(INDEX)
    table = index.get("weight_map") if isinstance(index, dict) else None
    names = set(map(str, table.values())) if isinstance(table, dict) else set[str]()
    strange = next((name for name in sorted(names) if not _SHARD.fullmatch(name)), None)
    if strange is not None:
        shown = printable(strange, limit=60)
        raise _invalid(folder.uri, f"{INDEX} names {shown!r}, which is no safetensors file beside it.", _SAVE)
    if not 0 < len(names) <= SHARDS_LIMIT:
        raise _invalid(folder.uri, f"{INDEX} names {len(names)} files; 1 to {SHARDS_LIMIT} are read.", _SAVE)
    return sorted(names)


def _without_weights(folder: _Folder, config: Any) -> JobError:
    """Return the refusal of a folder without safetensors, with the line that writes them."""
    pickled = any(folder.has(name) for name in _PICKLES)
    more = f", and {_PICKLES[0]} is a pickle, which can run code" if pickled else ""
    named = config.get("architectures") if isinstance(config, dict) else None
    name = str(named[0]) if isinstance(named, list) and named else ""
    network = name if _ARCHITECTURE.fullmatch(name) else "AutoModel"
    return _invalid(
        folder.uri,
        f"the folder has no {WEIGHTS}{more}.",
        f"Where you trust it, write safetensors: transformers.{network}.from_pretrained(DIR).save_pretrained(DIR).",
    )


def _invalid(where: str, message: str, next_step: str) -> JobError:
    return JobError(Reason.MODEL_INVALID, where, message, next_step)
