"""`spec.techniques`: what may be done to a model, each with the settings of its kind.

Left out, settings mean what a careful engineer would try. Only what the Jobs honour is here.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from retune.api.base import ATOMIC, SET, ApiModel, Decimal, Duration, Text, if_decimal, map_list, rules
from retune.api.own_code import Factory
from retune.api.resources import Command, Resources


class TechniqueType(StrEnum):
    """What can be done to a model: first it is trained, then rewritten, and last its probabilities are corrected."""

    CUSTOM_TRAINING = "CustomTraining"
    HYPERPARAMETER_TUNING = "HyperparameterTuning"
    ARCHITECTURE = "Architecture"
    DATA_PREPARATION = "DataPreparation"
    AUGMENTATION = "Augmentation"
    ADVERSARIAL_TRAINING = "AdversarialTraining"
    DISTILLATION = "Distillation"
    FACTORIZATION = "Factorization"
    PRUNING = "Pruning"
    GRAPH_OPTIMIZATION = "GraphOptimization"
    QUANTIZATION = "Quantization"
    RECALIBRATION = "Recalibration"

    @property
    def learns(self) -> bool:
        """Whether it learns what labels say; a student of Distillation learns what the model answers already."""
        return self not in _OF_ANSWERS


_OF_ANSWERS = frozenset(
    {
        TechniqueType.DISTILLATION,
        TechniqueType.FACTORIZATION,
        TechniqueType.PRUNING,
        TechniqueType.GRAPH_OPTIMIZATION,
        TechniqueType.QUANTIZATION,
    }
)
"""Techniques that make a model smaller or faster, and its answers no better."""


class Parameter(ApiModel):
    """A parameter whose value the search chooses: one of `values`, or a number between `min` and `max`."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.values) != (has(self.min) && has(self.max))", "a parameter has either values, or min and max"),
            (
                "!has(self.min) || !has(self.max) || "
                + if_decimal("self.min", if_decimal("self.max", "double(self.min) <= double(self.max)")),
                "min must not exceed max",
            ),
            (
                "!self.log || !has(self.min) || " + if_decimal("self.min", "double(self.min) > 0.0"),
                "a logarithmic scale needs a min above 0",
            ),
        )
    )

    name: Annotated[
        str,
        Text(
            pattern=r"[A-Za-z_][A-Za-z0-9_]*",
            max_length=96,
            message="a parameter's name has letters, digits and _, and does not start with a digit",
        ),
    ]
    """Name of the hyperparameter or argument, such as learning_rate or classifier__max_depth."""
    values: tuple[Annotated[str, Field(max_length=128)], ...] | None = Field(
        default=None, min_length=1, max_length=32, json_schema_extra=SET
    )
    """Values to choose from, each as JSON, such as 64, 0.5, true or "relu"; anything else is taken as text."""
    min: Decimal | None = None
    """Smallest number."""
    max: Decimal | None = None
    """Largest number."""
    integer: bool = False
    """Whether only whole numbers are tried."""
    log: bool = False
    """Whether numbers are drawn from a logarithmic scale."""


Parameters = tuple[Parameter, ...]


class TrainingContainer(ApiModel):
    """A container of your own that trains the model, one trial at a time."""

    image: str = Field(min_length=1, max_length=512)
    """Image of the container. It needs /bin/sh with mv, rm, sleep and cat. It runs as another user than root, without
    credentials, on a read-only root file system with /tmp to write to."""
    command: Command = Field(min_length=1, max_length=64, json_schema_extra=ATOMIC)
    """Command that trains the model. It reads the files that RETUNE_TRAINING_DATA, RETUNE_VALIDATION_DATA (NPZ) and
    RETUNE_MODEL name, each parameter from RETUNE_PARAM_<NAME> or all from the JSON file RETUNE_PARAMETERS, and
    RETUNE_SEED. It may append a line of JSON with epoch and quality to the file RETUNE_METRICS. It writes model.onnx,
    or model with the extension of the delivered format, into the folder RETUNE_OUTPUT. The model's inputs and outputs
    must stay as they are."""
    parameters: Parameters | None = Field(default=None, min_length=1, max_length=32, json_schema_extra=map_list("name"))
    """Parameters to search. Left out: the command is run once."""
    timeout: Duration = "1h"
    """Longest that one trial may train."""
    resources: Resources = Resources()
    """Resources of the container. RETUNE_THREADS and OMP_NUM_THREADS tell it its CPU limit."""


class Tuning(ApiModel):
    """Training anew with other hyperparameters."""

    parameters: Parameters | None = Field(default=None, min_length=1, max_length=32, json_schema_extra=map_list("name"))
    """Hyperparameters to search. Left out: those that matter for the estimator, or for training a network."""
    gradient: Literal["Auto", "Never"] = "Auto"
    """Auto also lets continuous hyperparameters of a network follow the gradient of the validation loss, where
    parameters is left out."""


class Architecture(ApiModel):
    """Another shape of the same model: width and depth of a network, number and depth of trees."""

    parameters: Parameters | None = Field(default=None, min_length=1, max_length=32, json_schema_extra=map_list("name"))
    """Arguments of the factory, or parameters of the estimator. Left out: those whose names say that they are sizes."""


class PreparationKind(StrEnum):
    """Steps before the estimator. They become part of the model, so that it serves as it was trained."""

    IMPUTATION = "Imputation"
    SCALING = "Scaling"
    ENCODING = "Encoding"
    SELECTION = "Selection"
    INTERACTIONS = "Interactions"
    BINNING = "Binning"
    PCA = "PCA"


class Preparation(ApiModel):
    """Preprocessing and feature engineering."""

    kinds: tuple[PreparationKind, ...] = Field(
        default=tuple(PreparationKind), min_length=1, max_length=7, json_schema_extra=SET
    )
    """Preprocessing steps that the search may use. They become part of the model."""


class AugmentationKind(StrEnum):
    """Ways to change copies of training rows."""

    NOISE = "Noise"
    MIXUP = "Mixup"
    SHIFT = "Shift"
    ERASE = "Erase"
    CORRUPTION = "Corruption"


class Augmentation(ApiModel):
    """Training on changed copies of the rows, with a strength that is searched."""

    kinds: tuple[AugmentationKind, ...] | None = Field(default=None, min_length=1, max_length=5, json_schema_extra=SET)
    """Changes that the search may use. Left out: all that fit the inputs' shape. Shift and Erase are for images and
    sequences."""


class Adversarial(ApiModel):
    """Training against inputs that were changed to deceive."""

    methods: tuple[Literal["FGSM", "PGD"], ...] = Field(
        default=("FGSM", "PGD"), min_length=1, max_length=2, json_schema_extra=SET
    )
    """Attacks to train against."""
    epsilon: Decimal = "0.1"
    """Largest change of any input value, as a share of the value range of the training rows; also when the metric
    robust_accuracy is measured."""
    steps: int = Field(default=5, ge=1, le=50)
    """Steps of PGD; also when the metric robust_accuracy is measured."""


class Distillation(ApiModel):
    """A smaller model that learns from the answers of a larger one."""

    student: Factory | None = None
    """What builds the student. Left out: a network that fits the model's inputs and outputs; its width and depth are
    searched."""
    parameters: Parameters | None = Field(default=None, min_length=1, max_length=32, json_schema_extra=map_list("name"))
    """Arguments of `student` to search; without student they mean nothing."""
    features: Literal["Auto", "Never"] = "Auto"
    """Auto also lets the student learn how alike rows are in the model's last hidden layer, where the model is a
    network whose layers can be read."""


class Factorization(ApiModel):
    """Layers replaced by products of two lighter ones, which train on with the model before the change as a teacher."""

    forms: tuple[Literal["LowRank", "Separable", "Tables", "Hashed"], ...] = Field(
        default=("LowRank", "Separable", "Tables"), min_length=1, max_length=4, json_schema_extra=SET
    )
    """LowRank splits linear layers and convolutions into two of a lower rank; Separable replaces dense convolutions by
    a depthwise and a pointwise one; Tables splits embedding tables into a narrower table and a matrix; Hashed lets rows
    of embedding tables share rows by their number."""
    ranks: tuple[Decimal, ...] = Field(
        default=("0.25", "0.5", "0.75"), min_length=1, max_length=8, json_schema_extra=SET
    )
    """For LowRank and Tables: shares of the full rank to choose from; for Hashed: shares of the rows. Layers and tables
    that would not get smaller stay whole."""
    shares: tuple[Decimal, ...] = Field(default=("0.5", "1"), min_length=1, max_length=8, json_schema_extra=SET)
    """For Separable: shares of the dense convolutions to choose from; the heaviest are replaced first."""


class Pruning(ApiModel):
    """Fewer neurons, channels or attention heads, and training on; of ensembles, fewer trees; fewer rows of tables."""

    granularity: tuple[Literal["Structured", "Unstructured", "Rows"], ...] = Field(
        default=("Structured",), min_length=1, max_length=3, json_schema_extra=SET
    )
    """Structured removes whole units or trees and makes a model faster. Unstructured sets weights of a network to zero,
    which only makes a compressed file smaller. Rows lets the least used rows of each embedding table share one row,
    where training or calibration rows show that hardly any lookup will meet it."""
    max_ratio: Decimal = "0.75"
    """Largest share of units, trees, weights or rows that is removed."""
    iterations: int = Field(default=3, ge=1, le=10)
    """Rounds in which a network loses units and trains on."""


class GraphOptimization(ApiModel):
    """Rewriting the graph without changing what it computes."""

    transformer_fusions: Literal["Auto", "Never"] = "Auto"
    """Auto also tries a transformer whose attention, normalization and activation are single operators of ONNX Runtime.
    Whether that is faster depends on the length of the inputs and is measured."""


class QuantizationScheme(StrEnum):
    """Which numbers are stored in fewer bits, and how their ranges are found."""

    STATIC = "Static"
    """8-bit weights and activations, ranges calibrated beforehand; transformers get their outliers smoothed first."""
    DYNAMIC = "Dynamic"
    """8-bit weights, activations and embedding tables, ranges found while running."""
    WEIGHT_ONLY = "WeightOnly"
    """4- or 8-bit weights in blocks and embedding tables, activations in float."""
    HALF = "Half"
    """16-bit floats inside; inputs and outputs keep their types."""
    AWARE = "Aware"
    """8-bit weights and activations of a network that trains on while they are rounded, ranges learned with it."""


class CalibrationMethod(StrEnum):
    """How the range of an activation is derived from calibration samples."""

    MIN_MAX = "MinMax"
    ENTROPY = "Entropy"
    PERCENTILE = "Percentile"


class Calibration(ApiModel):
    """How quantization observes activations."""

    methods: tuple[CalibrationMethod, ...] = Field(
        default=(CalibrationMethod.MIN_MAX, CalibrationMethod.PERCENTILE),
        min_length=1,
        max_length=3,
        json_schema_extra=SET,
    )
    """Methods of the static scheme that the search may choose from. Transformers are smoothed instead."""
    samples: int = Field(default=300, ge=16, le=10000)
    """Calibration rows that are observed."""


class Quantization(ApiModel):
    """Smaller numbers in place of 32-bit floats."""

    schemes: tuple[QuantizationScheme, ...] | None = Field(
        default=None, min_length=1, max_length=5, json_schema_extra=SET
    )
    """Schemes that the search may choose from. Left out: those that the model and the data allow and that can pay."""
    calibration: Calibration = Calibration()
    """How value ranges of activations are found, for schemes that observe them."""
    fallback: Literal["None", "RevertWorstLayers"] = "RevertWorstLayers"
    """RevertWorstLayers: where the static scheme misses a limit on quality, the layers that cost most quality stay in
    float, at most half of them."""


class Recalibration(ApiModel):
    """Corrected probabilities of a classifier, without training. The correction becomes part of the served file."""

    methods: tuple[Literal["Both", "Temperature", "PriorShift", "Isotonic"], ...] = Field(
        default=("Both", "Temperature", "PriorShift", "Isotonic"), min_length=1, max_length=4, json_schema_extra=SET
    )
    """Corrections that the search may choose from. Temperature divides log-odds by one number, PriorShift weighs each
    class by how much more or less frequent it has become, Both does the two together. Isotonic, of two classes, follows
    the share of rows that had the second one."""


_SETTINGS = {
    "container": TechniqueType.CUSTOM_TRAINING,
    "tuning": TechniqueType.HYPERPARAMETER_TUNING,
    "architecture": TechniqueType.ARCHITECTURE,
    "preparation": TechniqueType.DATA_PREPARATION,
    "augmentation": TechniqueType.AUGMENTATION,
    "adversarial": TechniqueType.ADVERSARIAL_TRAINING,
    "distillation": TechniqueType.DISTILLATION,
    "factorization": TechniqueType.FACTORIZATION,
    "pruning": TechniqueType.PRUNING,
    "graph": TechniqueType.GRAPH_OPTIMIZATION,
    "quantization": TechniqueType.QUANTIZATION,
    "recalibration": TechniqueType.RECALIBRATION,
}


class Technique(ApiModel):
    """One technique that the search may use, alone or with the others."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                (
                    f"self.type == '{kind}' || !has(self.{field})",
                    f"{field} may only be set where type is {kind}: remove it or correct type",
                )
                for field, kind in _SETTINGS.items()
            ),
            (
                "self.type != 'CustomTraining' || has(self.container)",
                "type CustomTraining needs container: the image and the command that train the model",
            ),
        )
    )

    name: Annotated[
        str,
        Text(
            pattern=r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
            max_length=40,
            message="a technique's name has lower-case letters, digits and '-'",
        ),
    ]
    """Name of the step, as the report shows it."""
    type: TechniqueType
    """What is done to the model."""
    container: TrainingContainer | None = None
    """Settings of type CustomTraining, which needs them. All other settings may be left out: their defaults count."""
    tuning: Tuning | None = None
    """Settings of type HyperparameterTuning."""
    architecture: Architecture | None = None
    """Settings of type Architecture."""
    preparation: Preparation | None = None
    """Settings of type DataPreparation."""
    augmentation: Augmentation | None = None
    """Settings of type Augmentation."""
    adversarial: Adversarial | None = None
    """Settings of type AdversarialTraining."""
    distillation: Distillation | None = None
    """Settings of type Distillation."""
    factorization: Factorization | None = None
    """Settings of type Factorization."""
    pruning: Pruning | None = None
    """Settings of type Pruning."""
    graph: GraphOptimization | None = None
    """Settings of type GraphOptimization."""
    quantization: Quantization | None = None
    """Settings of type Quantization."""
    recalibration: Recalibration | None = None
    """Settings of type Recalibration."""
