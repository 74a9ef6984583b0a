"""`spec.model` and `spec.data`: the model as it was delivered, and the data it is judged by.

A format that runs code while it is loaded must be trusted explicitly, and is opened in a Job's sandbox only.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from retune.api.base import (
    ATOMIC,
    NOT_WRITTEN_OUT,
    ApiModel,
    Decimal,
    Digest,
    FileUri,
    ModelUri,
    Rule,
    cel_list,
    if_decimal,
    map_list,
    rules,
)
from retune.api.own_code import CustomMetric, Factory


class ModelFormat(StrEnum):
    """Formats a model can be delivered in."""

    ONNX = "ONNX"
    SAFETENSORS = "SafeTensors"
    SKOPS = "Skops"
    STATE_DICT = "StateDict"
    JOBLIB = "Joblib"
    PICKLE = "Pickle"
    TORCHSCRIPT = "TorchScript"
    TORCH_EXPORT = "TorchExport"
    XGBOOST = "XGBoost"
    LIGHTGBM = "LightGBM"
    CATBOOST = "CatBoost"
    HUGGING_FACE = "HuggingFace"

    @property
    def is_folder(self) -> bool:
        """Whether a model of this format is a folder of several files."""
        return self is ModelFormat.HUGGING_FACE

    @property
    def runs_code(self) -> bool:
        """Whether loading such a file can run whatever its author put into it."""
        return self in _RUN_CODE

    @property
    def weights_only(self) -> bool:
        """Whether such a file holds weights alone, so that a factory must build their network."""
        return self in _WEIGHTS_ONLY


_RUN_CODE = (ModelFormat.JOBLIB, ModelFormat.PICKLE, ModelFormat.TORCHSCRIPT, ModelFormat.TORCH_EXPORT)
_WEIGHTS_ONLY = (ModelFormat.SAFETENSORS, ModelFormat.STATE_DICT)


class Task(StrEnum):
    """What a model does; it decides how its quality is measured."""

    CLASSIFICATION = "Classification"
    REGRESSION = "Regression"
    EMBEDDING = "Embedding"
    MULTI_LABEL = "MultiLabel"
    """Any number of several labels a row, each of them yes or no."""
    GENERIC = "Generic"
    """Anything else, such as boxes, sequences or states: all outputs are held against those of the delivered model."""

    @property
    def has_labels(self) -> bool:
        """Whether a model of this task is measured by labels, which its data must have."""
        return self not in _LABEL_FREE


_LABEL_FREE = (Task.EMBEDDING, Task.GENERIC)


Label = Annotated[str, Field(min_length=1, max_length=128)]
OutputName = Annotated[str, Field(min_length=1, max_length=256)]


class InputValue(ApiModel):
    """One value of an input that the data does not have."""

    name: str = Field(min_length=1, max_length=256)
    """Name of the input."""
    value: Decimal
    """What every number of the input is, such as "16000" for a sample rate, or "0" for a first state."""


class Outputs(ApiModel):
    """Which of the model's outputs are its answer, where that is not found by itself."""

    label: OutputName | None = None
    """Output with one class a row; for task MultiLabel, with a zero or one for each label."""
    scores: OutputName | None = None
    """Output with scores of the classes or labels, one column each or one of the second of two classes; for other
    tasks, the numbers or the embedding."""
    scale: Literal["Probabilities", "Logits"] | None = None
    """What the scores are. Left out: probabilities where they are between 0 and 1, else logits."""


class Cost(ApiModel):
    """What one kind of answer costs."""

    actual: Label
    """Label of the row."""
    predicted: Label
    """What the model answers."""
    cost: Annotated[
        Decimal,
        Rule(
            if_decimal("self", "double(self) >= 0.0"),
            "a cost is at least 0: add the same amount to all costs of a label, right answers included",
        ),
    ]
    """What that costs, in whatever unit all costs share; at least 0."""


_IS_PROBABILITY = Rule(
    if_decimal("self", "double(self) > 0.0 && double(self) < 1.0"),
    'model.threshold is a probability above 0 and below 1, such as "0.3"',
)


class Model(ApiModel):
    """The model as it was delivered; it becomes version 1."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"has(self.factory) == (self.format in {cel_list(_WEIGHTS_ONLY)})",
                "format SafeTensors holds weights only and needs model.factory, as StateDict does; "
                "the other formats have none",
            ),
            (
                f"!(self.format in {cel_list(_RUN_CODE)}) || has(self.trust)",
                "loading this format runs code from the file: deliver ONNX, SafeTensors, Skops, XGBoost, LightGBM or "
                "CatBoost instead, or set model.trust: RunsCodeFromFile",
            ),
            (
                f"!self.uri.endsWith('/') || self.format == '{ModelFormat.HUGGING_FACE}'",
                "a uri with / at its end names a folder, and only format HuggingFace is one",
            ),
            (
                "!has(self.digest) || self.updatePolicy != 'Follow'",
                "model.digest pins the file and cannot be combined with model.updatePolicy: Follow",
            ),
            (
                "self.updatePolicy != 'Follow' || !self.uri.startsWith('mlflow://') || self.uri.contains('@')",
                "a version in MLflow never changes: follow an alias, as mlflow://NAME@ALIAS, or leave "
                "model.updatePolicy out",
            ),
            (
                "self.task == 'Classification' || !(has(self.positiveLabel) || has(self.classes) || has(self.costs))",
                "positiveLabel, classes and costs belong to model.task Classification",
            ),
            (
                "!has(self.threshold) || self.task in ['Classification', 'MultiLabel']",
                "threshold belongs to model.task Classification or MultiLabel",
            ),
        )
    )

    uri: ModelUri
    """Where the model file lies, such as pvc://CLAIM/PATH/model.onnx or s3://BUCKET/model.onnx; of format HuggingFace,
    its folder, such as pvc://CLAIM/PATH/bert. A model in MLflow is mlflow://NAME@ALIAS or mlflow://NAME/VERSION, and
    the Secret of spec.execution.credentials has the server's address."""
    digest: Digest | None = None
    """SHA-256 that the file must have. Left out: the file that is there at the first look becomes version 1. That of a
    folder covers every file that is read: the SHA-256 of what sha256sum prints for them, sorted by name."""
    update_policy: Literal["Pinned", "Follow"] = "Pinned"
    """Pinned keeps the file of the first look. Follow looks once a monitoring window whether the file has changed, and
    then measures and optimizes the new one; it needs spec.monitoring."""
    format: ModelFormat = ModelFormat.ONNX
    """Format of the model file. HuggingFace is a folder as save_pretrained writes it, with model.safetensors."""
    factory: Factory | None = None
    """What builds the network, for formats SafeTensors and StateDict."""
    trust: Literal["RunsCodeFromFile"] | None = None
    """Needed for formats that run code from the file while it is loaded. The code runs in a Job without an API token,
    in a process that has no credentials."""
    task: Task = Task.CLASSIFICATION
    """What the model does; it decides which quality metrics apply."""
    inputs: tuple[InputValue, ...] = Field(
        default=(), max_length=32, json_schema_extra=map_list("name") | NOT_WRITTEN_OUT
    )
    """Values of inputs that the data lacks. Left out: states that the model answers again, such as h0 and hn, are
    zeros."""
    outputs: Outputs = Field(default=Outputs(), json_schema_extra=NOT_WRITTEN_OUT)
    """Which outputs are the answer, where that is not found by itself."""
    classes: tuple[Label, ...] | None = Field(default=None, min_length=2, max_length=1024, json_schema_extra=ATOMIC)
    """The labels of the score columns, in their order. Left out: 0, 1, 2 and so on, or the labels of the data in their
    sorted order."""
    threshold: Annotated[Decimal, _IS_PROBABILITY] | None = None
    """Probability from which on a row is answered with the second of two classes, or has a label of several. Left out:
    the model's own label, or what is more probable than not."""
    positive_label: Label | None = None
    """The class that precision, recall, f1 and average_precision are about. Left out: of two classes the one with less
    than a tenth of the rows, else the second."""
    costs: tuple[Cost, ...] | None = Field(
        default=None, min_length=1, max_length=256, json_schema_extra=map_list("actual", "predicted")
    )
    """What answers cost, for metric expected_cost. What is not listed costs 0 where it is right, and 1 where it is
    wrong. Costs only measure: the model's own answer decides, or model.threshold."""
    custom_metric: CustomMetric | None = None
    """Code of your own that measures quality, as metric custom or custom_loss. Labels of task Embedding may then have
    any shape, such as boxes or masks."""


class DatasetFormat(StrEnum):
    """Formats a data set can have."""

    NPZ = "NPZ"
    PARQUET = "Parquet"
    CSV = "CSV"


class CsvFormat(ApiModel):
    """How a CSV file is written, where that is not found by itself."""

    encoding: str | None = Field(default=None, min_length=1, max_length=32)
    """Encoding of the text, such as latin-1 or utf-16; when left out, a byte order mark decides, else UTF-8, else
    Windows-1252."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """What separates cells; when left out, whichever of comma, semicolon, tab and | splits the first lines evenly."""
    decimal: Literal[".", ","] | None = None
    """Decimal mark of numbers; when left out, a comma only where it stands in numbers and is no delimiter."""


USUAL_LABEL = "label"
"""Column with the labels where a data set names none."""


def called(labels: Sequence[str]) -> str:
    """Return what label columns are called together: one by its name, several by the first and the last."""
    return labels[0] if len(labels) == 1 else f"{labels[0]}, ..., {labels[-1]}"


_LABELS_ONLY = "give labelColumn or labelColumns, not both"


class Dataset(ApiModel):
    """One data set: a file with the model's inputs and, but for tasks Embedding and Generic, labels."""

    model_config = ConfigDict(
        json_schema_extra=rules(("!has(self.labelColumn) || !has(self.labelColumns)", _LABELS_ONLY))
    )

    uri: FileUri
    """Where the file lies, such as pvc://CLAIM/PATH/test.npz."""
    digest: Digest | None = None
    """SHA-256 that the file must have."""
    format: DatasetFormat | None = None
    """Format of the file; when left out, the extension decides (.npz, .parquet, .csv)."""
    csv: CsvFormat | None = None
    """How a CSV file is written, where that is not found by itself."""
    label_column: str | None = Field(default=None, min_length=1, max_length=128)
    """Column (of an NPZ file: array) with the label or the number to predict; `label` if labelColumns is not given
    either. Several labels or numbers a row are an array (rows, labels), or labelColumns. Embedding and Generic models
    need none. All other columns are inputs of the model."""
    label_columns: tuple[Label, ...] | None = Field(
        default=None, min_length=2, max_length=256, json_schema_extra=ATOMIC
    )
    """Columns that are together the labels of a row, in the order of the model's answers: numbers of a Regression with
    several outputs, such as the steps of a forecast, or zeros and ones of a MultiLabel model."""
    group_column: str | None = Field(default=None, min_length=1, max_length=128)
    """Column with what rows belong to, such as a user, session or query; no input of the model. Ranking metrics order
    the rows of a group, and intervals take whole groups for independent, not single rows."""
    weight_column: str | None = Field(default=None, min_length=1, max_length=128)
    """Column with how much a row counts, a number of at least 0; no input of the model. Every quality metric is
    weighted by it, as with scikit-learn's sample_weight, and rows count as evidence by their effective number."""

    time_column: str | None = Field(default=None, min_length=1, max_length=128)
    """Column with the time of each row, as ISO 8601, dates or numbers; no input of the model. Splits that overlap in
    time are named in the baseline's log."""

    @model_validator(mode="before")
    @classmethod
    def _one_way(cls, fields: Any) -> Any:
        """Refuse both forms. Column `label` is the same as nothing: stored objects have it as an earlier default."""
        if not isinstance(fields, dict):
            return fields
        column = fields.get("labelColumn", fields.get("label_column"))
        if column is not None and fields.get("labelColumns", fields.get("label_columns")) is not None:
            raise ValueError(_LABELS_ONLY)
        usual = {"labelColumn", "label_column"} if column == USUAL_LABEL else set()
        return {name: value for name, value in fields.items() if name not in usual}

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns with the labels."""
        return self.label_columns or (self.label_column or USUAL_LABEL,)

    @property
    def label(self) -> str:
        """What the labels are called, as one array of the file."""
        return called(self.labels)

    @property
    def asides(self) -> tuple[str, ...]:
        """Columns that are neither an input nor the label."""
        return tuple(name for name in (self.group_column, self.weight_column, self.time_column) if name is not None)


class Data(ApiModel):
    """The data that a model learns from and is judged by. The search never sees test."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.test) || self.test.uri != self.validation.uri",
                "data.test decides promotion and must not be the validation set that the search uses",
            ),
            (
                "!has(self.training) || self.training.uri != self.validation.uri",
                "data.training must not be the validation set",
            ),
            (
                "!has(self.training) || !has(self.test) || self.training.uri != self.test.uri",
                "data.training must not be the test set",
            ),
            (
                "!has(self.calibration) || !has(self.test) || self.calibration.uri != self.test.uri",
                "data.calibration must not be the test set",
            ),
        )
    )

    training: Dataset | None = None
    """Data that the model may learn from, and calibration rows where calibration is left out."""
    validation: Dataset
    """Data that the search compares candidates on."""
    test: Dataset | None = None
    """Data that decides promotion. The search never sees it: the baseline measures version 1 on it, and the judge opens
    it once a run. Needed unless mode is ObserveOnly."""
    calibration: Dataset | None = None
    """Rows that quantization observes value ranges on and that show which trees matter; defaults to training."""
