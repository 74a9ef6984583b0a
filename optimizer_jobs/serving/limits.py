"""What the server of `spec.serving.runtime` can be told and can run.

A search draws nothing beyond these limits, and champion and candidates are measured as the server runs them. What
`retune render` says to be lost on the way to a server, as far as it changes speed, is what its limits leave out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineOptions, Precision
from optimizer_jobs.models.external import parse
from optimizer_jobs.serving.trial import ENGINES, version_here
from optimizer_jobs.serving.versions import Version, runs_blocks, too_new, version_of
from retune.api.base import one_of
from retune.api.search import Serving
from retune.api.servers import EngineName, ServerRuntime, written_for

_OPENVINO, _ORT = "openvino", "onnxruntime"
_QUIET, _ROWS = "idle threads that do not spin", "a fixed number of rows"
_SECOND_COPY = "a second copy of the model for a typical request"


@dataclass(frozen=True)
class Limits:
    """The limits of one server."""

    server: str = "Retune's runtime"
    """The server in sentences."""
    openvino_only: bool = False
    """Whether it computes in OpenVINO, whatever a bundle says."""
    quiet: bool = True
    """Whether idle threads of ONNX Runtime can be told not to spin."""
    rows: bool = True
    """Whether the number of rows of a call can be fixed, for which ONNX Runtime plans ahead."""
    planned: bool = True
    """Whether there can be a second copy of a model, which OpenVINO compiles for a typical request."""
    arm_bfloat16: bool = True
    """Whether ONNX Runtime can be told to multiply in bfloat16 on Arm processors that have it."""
    engine: str = _ORT
    """The engine that `version` is of."""
    version: Version | None = None
    """Version of the engine that the server has; None where that is not known."""

    @property
    def free(self) -> bool:
        """Whether nothing is limited."""
        return replace(self, engine=_ORT) == Limits()

    def as_run(self, options: EngineOptions) -> EngineOptions:
        """Return the options with which the server runs a bundle that asks for these."""
        if self.openvino_only and options.engine != _OPENVINO:
            return EngineOptions(engine=_OPENVINO, threads=options.threads)
        precision = options.precision
        if options.engine == _ORT and not self.arm_bfloat16:
            precision = "float32"
        return options.model_copy(
            update={
                "spinning": options.spinning or not self.quiet,
                "rows": options.rows if self.rows else None,
                "planned": options.planned if self.planned else None,
                "precision": precision,
            }
        )

    def beyond(
        self, options: EngineOptions, *, rows: int | None, planned: Mapping[str, tuple[int, ...]]
    ) -> dict[str, EngineOptions]:
        """Return options that the server lacks and that leave answers as they are, by what they are in a few words.

        Args:
            options: How the server runs a bundle.
            rows: Rows of a typical request that a call could be fixed to; None where a model has no such axis.
            planned: Shape of every input of a typical request, by name; empty where there is none.
        """
        if options.engine == _OPENVINO:
            found = self._beyond_openvino(planned)
        else:
            found = self._beyond_onnx_runtime(options.threads, rows)
        return {words: options.model_copy(update=change) for words, change in found.items()}

    def _beyond_openvino(self, planned: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, Any]]:
        return {_SECOND_COPY: {"planned": planned}} if planned and not self.planned else {}

    def _beyond_onnx_runtime(self, threads: int, rows: int | None) -> dict[str, dict[str, Any]]:
        quiet = {"spinning": False} if threads > 1 and not self.quiet else {}
        fixed = {"rows": rows} if rows and not self.rows else {}
        both = {f"{_QUIET} and {_ROWS}": {**quiet, **fixed}} if quiet and fixed else {}
        return {**({_QUIET: quiet} if quiet else {}), **({_ROWS: fixed} if fixed else {}), **both}

    def precisions(self, engine: str, offered: Sequence[Precision]) -> tuple[Precision, ...]:
        """Return those of the precisions that a machine offers for an engine that the server can be told."""
        if engine == _ORT and not self.arm_bfloat16:
            return tuple(precision for precision in offered if precision == "float32")
        return tuple(offered)

    def runs_blocks(self, bits: int) -> bool:
        """Return whether the server's engine runs weights of so many bits in blocks, as far as that is known."""
        return self.version is None or runs_blocks(bits, engine=self.engine, version=self.version)

    def fault(self, model: Path) -> str | None:
        """Return what in the ONNX file at `model` the server's engine cannot run, without a full stop, or None."""
        if self.version is None:
            return None
        return too_new(parse(model), engine=self.engine, version=self.version)

    def refusal(self, bundle: Bundle) -> str | None:
        """Return why a bundle can be no candidate, as words without a full stop, or None."""
        options = bundle.manifest.engine
        if self.as_run(options) != options:
            return f"{self.server} cannot express how it is run"
        fault = self.fault(bundle.model)
        return f"{self.engine_words} cannot run it: {fault}" if fault else None

    @property
    def lacks(self) -> tuple[str, ...]:
        """What the server cannot be told of its engine, each in a few words."""
        of_ort = {
            _QUIET: self.quiet,
            _ROWS: self.rows,
            "bfloat16 on Arm processors": self.arm_bfloat16,
        }
        of_openvino = {_SECOND_COPY: self.planned}
        told = of_openvino if self.engine == _OPENVINO else of_ort
        return tuple(words for words, can in told.items() if not can)

    @property
    def words(self) -> str:
        """The limits as sentences, for people who read of a search or a verdict."""
        lacking = f"{self.server} has no setting for {one_of(self.lacks)}." if self.lacks else ""
        version = f"Candidates are such as {self.engine_words} runs." if self.version else ""
        return f"{lacking} {version}".strip() or f"{self.server} can be told all that a search asks."

    @property
    def doubt(self) -> str | None:
        """Why times that are measured here are not those of the server, as a sentence, or None."""
        if self.version is None:
            return None
        here = version_here(self.engine)
        if version_of(here) == self.version:
            return None
        return f"Times are those of {ENGINES[self.engine]} {here}, and the server has {self.engine_words}."

    @property
    def engine_words(self) -> str:
        """The server's engine with its version where that is known, such as `ONNX Runtime 1.20`."""
        number = f" {'.'.join(map(str, self.version))}" if self.version else ""
        return f"{ENGINES[self.engine]}{number}"


def limits_of(serving: Serving) -> Limits:
    """Return the limits of the server that `spec.serving` names."""
    made = _BY_RUNTIME[written_for(serving.runtime, serving.engines)]
    if serving.runtime is ServerRuntime.KSERVE:
        made = replace(made, server="kserve-openvino" if made.openvino_only else "kserve-tritonserver")
    engine = _OPENVINO if serving.engines == (EngineName.OPENVINO,) else _ORT
    return replace(made, engine=engine, version=version_of(serving.engine_version) if serving.engine_version else None)


def as_served(bundle: Bundle, limits: Limits) -> Bundle:
    """Return a bundle as the server runs it: the same files and digest, with the options that it can express."""
    options = limits.as_run(bundle.manifest.engine)
    if options == bundle.manifest.engine:
        return bundle
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"engine": options}))


_BY_RUNTIME = {
    ServerRuntime.RETUNE: Limits(),
    ServerRuntime.CUSTOM: Limits("your server", rows=False, planned=False),
    ServerRuntime.TRITON: Limits("Triton", quiet=False, rows=False, planned=False, arm_bfloat16=False),
    ServerRuntime.OVMS: Limits("OpenVINO Model Server", openvino_only=True, rows=False, planned=False),
}
