"""What a Job answers to the command line on a person's own machine: what files hold, and what there is to work with."""

from typing import Literal

from pydantic import Field

from retune.api.bounds import Sentence, Word
from retune.api.model import Outputs, Task
from retune.contract.requests import Document, Server


class InspectedFile(Document):
    """What a data file holds."""

    split: str
    """training, validation, test or calibration."""
    uri: str
    rows: int = Field(ge=0)
    label_column: str | None = None
    """Column with the labels; None when there is none, or several."""
    label_columns: tuple[str, ...] | None = None
    """Columns that are together the labels of a row; None when there is one, or none."""


class InspectResult(Document):
    """What a model and its data look like, and what was guessed of them and why."""

    kind: Literal["Inspect"] = "Inspect"
    task: Task
    task_because: str
    """Why the task is this one, as words without a full stop."""
    label_because: str
    """Why the labels are in that column, or in none, as words without a full stop."""
    output_because: str
    """Which outputs are the answer, and why where that was told, as words without a full stop."""
    limits_because: str
    """What a spec without objectives holds the model by, and why, as words without a full stop."""
    asked: Outputs = Outputs()
    """The output that was asked for, as a spec names it."""
    inputs: tuple[Word, ...]
    """Name, type and shape of each input, such as `x float32 (N, 64)`."""
    outputs: tuple[Word, ...]
    size_bytes: int = Field(ge=0)
    """Bytes of the delivered file."""
    opset: int | None = None
    """Version of ONNX's own operators in the model, as delivered or converted; None where it uses none of them."""
    files: tuple[InspectedFile, ...] = ()
    divided_because: str | None = None
    """How one dated table became these files, as words without a full stop; None where it was not divided."""
    techniques: dict[str, str | None]
    """Every technique by type: None where it can be used, else why it cannot."""


Kind = Literal["Format", "Technique", "Engine"]


State = Literal["ready", "partly", "missing"]


class Part(Document):
    """Something that may be missing in this environment."""

    name: str
    kind: Kind
    state: State
    """Whether all, some or none of it can be used."""
    words: str
    """What can be used, and what cannot; or what it needs."""


class Package(Document):
    """A distribution that something here uses."""

    name: str
    brings: str
    """What it is for, such as `networks of torch`."""
    version: str | None = None
    """None: it is not installed."""
    wanted: str
    """Versions that fit, as pip takes them, such as `>=2.9,<3`."""
    fits: bool


class Machine(Document):
    """What this machine offers to this process."""

    cpu: str
    architecture: str
    cores: int
    """CPUs that this process may run on."""
    cpu_limit: float | None = None
    """Cores that a container may use; None without a limit."""
    features: tuple[str, ...]
    """Instruction sets that decide the speed of kernels, the best first."""
    memory_bytes: int
    """Memory of the machine, or of the container where that has less."""
    available_bytes: int
    gpu: str | None = None


class SurveyResult(Document):
    """What this Python environment and this machine can do."""

    kind: Literal["Survey"] = "Survey"
    python: str
    packages: tuple[Package, ...]
    parts: tuple[Part, ...]
    machine: Machine


class RenderResult(Document):
    """A bundle was written for a model server of others."""

    kind: Literal["Render"] = "Render"
    server: Server
    digest: str
    """The bundle's digest."""
    files: tuple[str, ...]
    """What was written, as paths in the folder that was asked for."""
    lost: tuple[str, ...] = ()
    """What the bundle asks and the server cannot express, each as a sentence."""
    tried: str
    """What was tried of it here, or why nothing was, as a sentence."""


class AskedRows(Document):
    """Rows that are asked about for the same reason."""

    why: str
    rows: int = Field(ge=0)


class SuggestResult(Document):
    """Which captured rows are worth a label; they stand in the file that was asked for, unless there is none."""

    kind: Literal["Suggest"] = "Suggest"
    rows: int = Field(ge=0)
    """Rows in the file; 0 where there is none to ask about, and then no file."""
    unlabelled: int = Field(ge=0)
    """Rows without a label that they were chosen from."""
    labelled: int = Field(ge=0)
    """Rows that have a label already."""
    judged: int = Field(ge=0)
    """Rows with a label, of the captured ones and of the reference, beside which others were called unseen."""
    seen: int = Field(ge=0)
    """All rows of the span and the version; more than with and without a label where a random part of them was read."""
    since: int = Field(ge=0)
    """When the first row that was looked at was captured, in seconds since 1970."""
    until: int = Field(ge=0)
    """When the last one was."""
    why: tuple[AskedRows, ...] = ()
    notes: tuple[Sentence, ...] = Field(default=(), max_length=16)
    """What else there is to know, as sentences."""
