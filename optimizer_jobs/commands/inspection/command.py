"""The command `inspect`: it describes a model and data files for `retune init`, before there is a spec.

It reports only what the files show, and guesses with a reason. What it accepts, the baseline accepts: both read the
same splits and rehearse the same stages. It measures nothing, and writes nothing but the splits of one dated table,
where it is asked to.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx

from optimizer_jobs.commands.inspection.dividing import divided
from optimizer_jobs.commands.inspection.guesses import (
    Guess,
    Label,
    from_labels,
    inputs_in,
    label_by_inputs,
    label_by_name,
    labels_by_number,
    labels_by_width,
    labels_together,
    of_outputs,
    values_of,
)
from optimizer_jobs.data.cells import listed
from optimizer_jobs.data.datasets import Array, Rows, open_dataset
from optimizer_jobs.data.fetch import Fetched
from optimizer_jobs.data.label_columns import together
from optimizer_jobs.data.readers import Columns, UnreadableDataError
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.base import task_named
from optimizer_jobs.machinery.formats.columns import labels_left
from optimizer_jobs.machinery.formats.delivery import Opened, fetch_model, open_delivered
from optimizer_jobs.measure.unfit import NotUnderstoodError
from optimizer_jobs.preflight.reading import check_chance, with_reading
from optimizer_jobs.preflight.rehearsal import rehearse, techniques
from optimizer_jobs.preflight.rows_first import check_rows, with_fills
from optimizer_jobs.preflight.splits import common_names, read_splits
from optimizer_jobs.signature import Signature, TensorSpec
from optimizer_jobs.study.protection import limits_in_words
from retune.api.model import Dataset, ModelFormat, Outputs, Task
from retune.contract.machines import InspectedFile, InspectResult
from retune.contract.requests import InspectRequest
from retune.contract.results import Reason

_WORD_LIMIT = 64
_NAME_LABELS = "Name the columns with the labels with --label, once for each."
_SHOWN = 200
"""Characters of a reason that are passed on."""


@dataclass(frozen=True)
class _Known:
    """What is known of the data before and after the model is open."""

    tables: Mapping[str, Columns]
    label: Label

    @classmethod
    def of(cls, request: InspectRequest, tables: Mapping[str, Columns], label: Label) -> "_Known":
        """Return tables in which several label columns are one; raises JobError where they cannot be."""
        parts, name = label.parts, label.column or ""
        with _faults_of(request):
            return cls({split: together(columns, parts, name=name) for split, columns in tables.items()}, label)

    def specs(self, request: InspectRequest) -> dict[str, Dataset]:
        """Return the data sets with the label column."""
        parts = self.label.parts or None
        known = {"label_column": None if parts else self.label.column, "label_columns": parts}
        return {split: spec.model_copy(update=known) for split, spec in request.data.items()}

    def values(self, request: InspectRequest) -> Array | None:
        """Return the labels of the first table that has them; None where there are none."""
        with _faults_of(request):
            return values_of(self.label, self.tables)


@contextmanager
def _faults_of(request: InspectRequest) -> Iterator[None]:
    """Tell a fault of the label columns as one of the data."""
    try:
        yield
    except UnreadableDataError as error:
        uri = next(iter(request.data.values())).uri
        raise JobError(Reason.DATA_INVALID, uri, str(error), _NAME_LABELS) from error


def run(request: InspectRequest) -> InspectResult:
    """Return what the model and each file are, and which techniques can be used.

    Raises:
        JobError: The model or a file cannot be used; it is named, in the words of the baseline.
    """
    with tempfile.TemporaryDirectory(prefix="inspect-") as scratch:
        return _inspect(request, Path(scratch))


def _inspect(request: InspectRequest, scratch: Path) -> InspectResult:
    model = fetch_model(request.model, scratch / "model")
    tables = {split: open_dataset(spec, into=scratch / f"seen-{split}") for split, spec in request.data.items()}
    opened, known, guess = _opened(request, model, tables, scratch)
    request, known, divided_because = (
        _divided(request, known, guess, scratch) if request.divide else (request, known, None)
    )
    asked = _asked_output(request, opened)
    try:
        opened, splits = _rehearsed(request, opened, known, guess, scratch)
    except JobError as error:
        if request.task is not None or not isinstance(error.__cause__, NotUnderstoodError):
            raise
        guess = Guess(Task.GENERIC, f"as {guess.task}, {printable(str(error.__cause__), limit=_SHOWN)}")
        opened, splits = _rehearsed(request, opened, known, guess, scratch / "generic")
    return InspectResult(
        task=guess.task,
        task_because=guess.because,
        label_because=known.label.because,
        output_because=_answer(opened, guess.task, request.output),
        limits_because=limits_in_words(guess.task, opened.signature.reading),
        asked=asked,
        inputs=tuple(_words(tensor) for tensor in opened.signature.inputs[:8]),
        outputs=tuple(_words(tensor) for tensor in opened.signature.outputs[:8]),
        size_bytes=model.size,
        opset=_opset(opened.model),
        divided_because=divided_because,
        files=tuple(_file(split, request.data[split], splits[split], known) for split in request.data),
        techniques={kind.value: reason for kind, reason in techniques(opened, splits, task=guess.task).items()},
    )


def _divided(request: InspectRequest, known: _Known, guess: Guess, scratch: Path) -> tuple[InspectRequest, _Known, str]:
    """Return the request and what is known of the data after its one dated table became three; and how it did."""
    ((split, whole),) = request.data.items()
    numbers = known.values(request) if guess.task is Task.REGRESSION else None
    made = divided(whole, known.tables[split], numbers)
    request = request.model_copy(update={"data": dict(made.data)})
    tables = {name: open_dataset(spec, into=scratch / f"made-{name}") for name, spec in made.data.items()}
    return request, _Known.of(request, tables, known.label), made.words


def _rehearsed(
    request: InspectRequest, opened: Opened, known: _Known, guess: Guess, scratch: Path
) -> tuple[Opened, dict[str, Rows]]:
    """Return the model with how its outputs are read, and its rows, after all that a baseline asks of them."""
    splits = read_splits(known.specs(request), opened, task=guess.task, into=scratch / "data")
    if splits:
        spec = request.model.model_copy(update={"task": guess.task, "outputs": _asked_output(request, opened)})
        opened = with_reading(opened, spec, _rows(splits), batch=request.batch)
        check_chance(opened, spec, splits, batch=request.batch)
        rehearse(opened, splits, uri=request.model.uri, task=guess.task, sizes=(request.batch,))
    return opened, splits


def _opened(
    request: InspectRequest, model: Fetched, tables: Mapping[str, Columns], scratch: Path
) -> tuple[Opened, _Known, Guess]:
    """Open the model as what the labels suggest; where its converter or its outputs know better, as that."""
    known = _Known.of(request, tables, _label_before(request, tables))
    before = _asked(request) or from_labels(known.values(request), known.label)
    try:
        opened, guess = _converted(request, model, known, before, scratch)
    except JobError as error:
        known = _with_labels_left(error, request, known)
        before = _asked(request) or from_labels(known.values(request), known.label)
        opened, guess = _converted(request, model, known, before, scratch / "labelled")
    check_rows(opened.signature, uri=request.model.uri)
    is_input = bool(known.label.names & inputs_in(tables.values(), opened.signature))
    if tables and (known.label.column is None or (is_input and not request.labels)):
        known = _Known.of(request, tables, _label_after(opened.signature, request, tables))
    if request.task is None and guess is before:
        signature = _answering(opened.signature, request.output)
        guess = of_outputs(signature, known.values(request), known.label)
    _check_answers(known, opened.signature, request)
    _check_label(known, opened, guess, request)
    if request.model.format is not ModelFormat.ONNX and guess.task is not before.task and opened.native is not None:
        opened, guess = _converted(request, model, known, guess, scratch / "again")
    if tables:
        names = common_names([*tables.values()])
        opened = with_fills(opened, request.model.inputs, names, uri=request.model.uri)
    return opened, known, guess


def _with_labels_left(error: JobError, request: InspectRequest, known: _Known) -> _Known:
    """Return what is known with the labels that a refusal names; raises the refusal where it names none."""
    names = [name for columns in known.tables.values() for name in columns.names]
    left = labels_left(error, names)
    if request.labels or not left:
        raise error
    because = "because the model knows all others"
    label = labels_together(left, because) if len(left) > 1 else Label(left[0], f"column {left[0]!r}, {because}")
    return _Known.of(request, known.tables, label)


def _converted(
    request: InspectRequest, model: Fetched, known: _Known, guess: Guess, scratch: Path
) -> tuple[Opened, Guess]:
    """Open the model as a guess says, or as its converter says when it knows that the guess is wrong."""
    example = _example(request, known)
    try:
        return _open_as(request, model, guess.task, example, scratch / "first"), guess
    except JobError as error:
        task = task_named(error)
        if task is None or request.task is not None:
            raise
        does = Guess(task, error.message.partition(",")[0])
        if known.label.column is None and task.has_labels:
            does = Guess(Task.GENERIC, f"{does.because}, and no column holds labels")
            task = does.task
        return _open_as(request, model, task, example, scratch / "second"), does


def _open_as(request: InspectRequest, model: Fetched, task: Task, example: Dataset, scratch: Path) -> Opened:
    return open_delivered(request.model.model_copy(update={"task": task}), model, example, scratch=scratch)


def _label_before(request: InspectRequest, tables: Mapping[str, Columns]) -> Label:
    """Return the label column that was named, or that has a usual name; the model is not open yet."""
    if request.labels:
        return _label_asked(request, tables)
    if not tables:
        return Label(None, "none, because no data file was given")
    named, aside = list(tables.values()), _times(request)
    return label_by_name(named, aside=aside) or labels_by_number(named, aside=aside) or Label(None, "none yet")


def _label_asked(request: InspectRequest, tables: Mapping[str, Columns]) -> Label:
    """Return the label columns that were named; raises JobError where no file has one of them."""
    present = {name for columns in tables.values() for name in columns.names}
    absent = [name for name in request.labels if name not in present]
    if absent and tables:
        raise JobError(
            Reason.DATA_INVALID,
            next(iter(request.data.values())).uri,
            f"column {absent[0]!r}, as --label says, is missing; there are {listed(sorted(present))}.",
            "Correct --label.",
        )
    if len(request.labels) == 1:
        return Label(request.labels[0], f"column {request.labels[0]!r}, as --label says")
    return labels_together(request.labels, "as --label says")


def _label_after(signature: Signature, request: InspectRequest, tables: Mapping[str, Columns]) -> Label:
    """Return the label columns that the open model's inputs and outputs show."""
    named = list(tables.values())
    aside = _times(request) | inputs_in(named, signature)
    by_name = label_by_name(named, aside=aside) or labels_by_number(named, aside=aside)
    return by_name or labels_by_width(named, signature, aside=aside) or label_by_inputs(named, signature, aside=aside)


def _check_answers(known: _Known, signature: Signature, request: InspectRequest) -> None:
    """Refuse to guess that several columns are labels where no output answers as many numbers or labels a row."""
    if request.labels or not known.label.parts:
        return
    count = len(known.label.parts)
    if any(count in {spec.shape[-1], spec.row_size} for spec in signature.outputs if len(spec.shape) > 1):
        return
    raise JobError(
        Reason.DATA_INVALID,
        next(iter(request.data.values())).uri,
        f"columns {listed(known.label.parts)} are named like labels, and no output has {count} values a row.",
        _NAME_LABELS,
    )


def _asked(request: InspectRequest) -> Guess | None:
    return None if request.task is None else Guess(request.task, "--task says so")


def _example(request: InspectRequest, known: _Known) -> Dataset:
    """Return a file with example rows, from which the inputs of a model that is not ONNX are recognized."""
    specs = known.specs(request)
    if specs:
        return specs.get("validation", next(iter(specs.values())))
    if request.model.format is ModelFormat.ONNX:
        return Dataset(uri=request.model.uri)
    raise JobError(
        Reason.DATA_NOT_FOUND,
        request.model.uri,
        f"a model of format {request.model.format} needs rows to look at.",
        "Name a data file with --data.",
    )


def _times(request: InspectRequest) -> set[str]:
    """Return the columns of times, which are no labels."""
    return {spec.time_column for spec in request.data.values() if spec.time_column}


def _check_label(known: _Known, opened: Opened, guess: Guess, request: InspectRequest) -> None:
    """Say which option names the labels of a table that has more columns than the model takes."""
    inputs = opened.signature.inputs
    if known.label.column is not None or guess.task is not Task.EMBEDDING or len(inputs) != 1:
        return
    for split, columns in known.tables.items():
        width = inputs[0].shape[-1]
        names = [name for name in columns.names if name not in _times(request)]
        single = len(names) == width + 1
        if columns.tabular and len(inputs[0].shape) == 2 and 0 <= width < len(names):
            raise JobError(
                Reason.DATA_INVALID,
                request.data[split].uri,
                f"the table has {len(names)} columns, input {inputs[0].words} takes {width}, and no name tells "
                f"which {'column holds' if single else 'columns hold'} the labels: {listed(names)}.",
                "Name it with --label." if single else _NAME_LABELS,
            )


def _rows(splits: Mapping[str, Rows]) -> Rows:
    """Return the rows on which a baseline would find the outputs' meaning, else any."""
    best = next((name for name in ("validation", "test") if name in splits), next(iter(splits)))
    return splits[best]


def _file(split: str, spec: Dataset, rows: Rows, known: _Known) -> InspectedFile:
    known_as = known.label if known.label.column in known.tables[split].names else Label(None, "")
    parts = known_as.parts or None
    column = None if parts else known_as.column
    return InspectedFile(split=split, uri=spec.uri, rows=len(rows), label_column=column, label_columns=parts)


def _asked_output(request: InspectRequest, opened: Opened) -> Outputs:
    """Return the output that was asked for: labels where it holds whole numbers or text, else scores or numbers."""
    if request.output is None:
        return Outputs()
    names = {tensor.name: tensor for tensor in opened.signature.outputs}
    whole = request.output in names and not names[request.output].is_float
    return Outputs(label=request.output) if whole else Outputs(scores=request.output)


def _answering(signature: Signature, output: str | None) -> Signature:
    """Return the signature with only the output that was asked for, where one was and there is one."""
    kept = tuple(tensor for tensor in signature.outputs if output in {None, tensor.name})
    return signature.model_copy(update={"outputs": kept or signature.outputs})


def _answer(opened: Opened, task: Task, output: str | None) -> str:
    reading = opened.signature.reading
    if reading is None:
        return "not looked for, because no data file was given"
    if task is Task.GENERIC:
        return f"all of {', '.join(tensor.name for tensor in opened.signature.outputs)}"
    label = [f"labels in {reading.label!r}"] if reading.label else []
    scale = f", read as {reading.scale.lower()}" if reading.scale else ""
    scores = [f"{'scores' if reading.scale else 'numbers'} in {reading.scores!r}{scale}"] if reading.scores else []
    return " and ".join([*label, *scores]) + (", as --output-name says" if output else "")


def _opset(model: Path) -> int | None:
    opsets = onnx.load(model, load_external_data=False).opset_import
    return next((opset.version for opset in opsets if opset.domain in {"", "ai.onnx"}), None)


def _words(tensor: TensorSpec) -> str:
    return tensor.model_copy(update={"name": tensor.name[:32]}).words[:_WORD_LIMIT]
