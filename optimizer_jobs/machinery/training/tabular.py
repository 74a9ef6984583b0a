"""Which models are models of tables, whose students are trained with scikit-learn; and which of them cannot have one.

There is one way for each kind of model. Networks teach networks of torch; trees, estimators and everything else that
answers rows of a table teaches networks of scikit-learn, for which no torch is needed. The kind follows from the file
alone, so it is the same in every image.
"""

from onnx import ModelProto

from optimizer_jobs.models.native import Native
from optimizer_jobs.nets.learning.answerable import not_answerable
from optimizer_jobs.signature import TEXT, Signature
from optimizer_jobs.technique import Subject
from retune.api.model import ModelFormat, Task

_FORMATS = frozenset(
    {
        ModelFormat.SKOPS,
        ModelFormat.JOBLIB,
        ModelFormat.PICKLE,
        ModelFormat.XGBOOST,
        ModelFormat.LIGHTGBM,
        ModelFormat.CATBOOST,
    }
)
"""Formats of delivery that hold no networks of torch."""
_LEARNERS = frozenset(
    {
        "LinearClassifier",
        "LinearRegressor",
        "SVMClassifier",
        "SVMRegressor",
        "TreeEnsemble",
        "TreeEnsembleClassifier",
        "TreeEnsembleRegressor",
    }
)
"""Operators that are a whole model of tables."""
_OF_TEXTS = frozenset({"RegexFullMatch", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Tokenizer"})
"""Operators that read words of a text."""
_NUMBERS = ("float16", "float32", "float64", "int", "uint", "bool")
"""What the types of inputs that are numbers begin with."""
_TABLE_AXES = 2


def teaches_by_tables(graph: ModelProto, signature: Signature, *, native: Native | None, task: Task) -> bool:
    """Return whether a model is a classifier or a regression of rows of a table, and no network.

    Args:
        graph: The ONNX graph; weights are not read.
        signature: Its inputs and outputs.
        native: The file as delivered, if that is not the ONNX file.
        task: What the model does.
    """
    if task not in {Task.CLASSIFICATION, Task.REGRESSION}:
        return False
    if any(len(spec.shape) > _TABLE_AXES for spec in signature.inputs):
        return False
    if native is not None and native.format in _FORMATS:
        return True
    return any(node.op_type in _LEARNERS for node in graph.graph.node)


def reads_words(graph: ModelProto) -> bool:
    """Return whether a model reads words of a text."""
    return any(node.op_type in _OF_TEXTS for node in graph.graph.node)


def unteachable(subject: Subject) -> str | None:
    """Return why no student can learn the answers of this model of tables with this data, or None."""
    if not subject.training:
        return "there are no rows to learn on: set data.training"
    return _strange_rows(subject) or _strange_label(subject.signature) or not_answerable(subject.signature)


def _strange_rows(subject: Subject) -> str | None:
    """Return why the rows of the model cannot be a student's, or None."""
    signature = subject.signature
    if not signature.is_rows_first or (signature.reading is not None and signature.reading.singly):
        return "a student answers rows of a table, and states or settings of this model are none"
    if reads_words(subject.graph):
        return "the model reads words of texts, and a student of tables takes a text for the name of a category"
    for spec in signature.inputs:
        if spec.dtype != TEXT and not spec.dtype.startswith(_NUMBERS):
            return f"input {spec.name} holds {spec.dtype}, and a student of tables takes numbers and texts"
        if any(size < 0 for size in spec.shape[1:]):
            return f"input {spec.name} has no fixed size"
    return None


def _strange_label(signature: Signature) -> str | None:
    """Return why a student cannot make the label, or None: it follows from the largest of several scores."""
    label, score = signature.label_output, signature.score_output
    if label is None or score is None or score.row_size > 1:
        return None
    return f"output {score.name} has one score for two classes, from which a student does not know to tell the label"
