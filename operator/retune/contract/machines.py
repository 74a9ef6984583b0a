"""What a Job answers to the command line on a person's own machine: what files hold, and what there is to work with."""

from typing import Literal

from pydantic import Field

from retune.api.bounds import Word
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
