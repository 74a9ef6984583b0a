"""Which quantization schemes a model, its data and this image allow, and the variants of them that a search tries.

A scheme that the spec lists is tried wherever it can work. When the spec lists none, a scheme is tried only where there
is something to gain.
"""

from collections.abc import Iterator
from importlib.util import find_spec

from optimizer_jobs.machinery.compress import layers
from optimizer_jobs.machinery.training.fit import unchangeable
from optimizer_jobs.technique import Subject
from retune.api.techniques import CalibrationMethod, Quantization, QuantizationScheme
from retune.api.techniques import Technique as TechniqueSpec

DYNAMIC_OPS = ("MatMul", "Gemm")
"""Operators that the schemes Dynamic and WeightOnly quantize."""
STATIC_OPS = layers.PRODUCTS
"""Operators that the schemes Static and Aware quantize."""
SMOOTH = "Smooth"
"""In place of a calibration method: outliers of activations are moved into the weights first, as transformers need it.
For the static scheme, NNCF does that, and quantizes products of activations too."""
SMOOTH_LAYERS = "SmoothLayers"
"""The same for the static scheme, with nothing but layers and embedding tables in 8 bits: fast in every engine."""
RANKED = frozenset({QuantizationScheme.STATIC, QuantizationScheme.DYNAMIC})
"""Schemes whose layers can be ranked by how much they hurt the answers, on calibration rows."""
BITS = (8, 4)
"""Bits of a weight, for the scheme WeightOnly."""
TABLES = "Tables"
"""In place of bits, for the scheme WeightOnly: embedding tables alone, all layers stay in float."""
BLOCK_SIZES = (32, 128)
"""Numbers of weights that share a scale, for the scheme WeightOnly."""
KEPT = (0, 1, 2, 4, 8)
"""How many of the most sensitive layers may stay in float; at most half of all layers do."""
FLOATS, CODES = "Floats", "Codes"
"""How weights of layers in float are stored: as they are, or as 8-bit codes that engines unpack when they open the
file."""
WORTH_BYTES = 1 << 20
"""Bytes of float weights from which a smaller file alone is worth a try."""


def settings_of(spec: TechniqueSpec) -> Quantization:
    """Return the quantization settings of a spec, or their defaults."""
    return spec.quantization or Quantization()


def impossible(scheme: QuantizationScheme, subject: Subject) -> str | None:
    """Return why a scheme cannot work on this model with this data, as words without a full stop, or None."""
    if scheme is QuantizationScheme.HALF:
        return None if layers.float_bytes(subject.graph) else "the model has no float32 weights"
    if scheme is QuantizationScheme.WEIGHT_ONLY and layers.tables(subject.graph):
        return None
    if scheme is QuantizationScheme.WEIGHT_ONLY and not any(map(subject.limits.runs_blocks, BITS)):
        return f"{subject.limits.engine_words} runs no weights in blocks"
    ops = layers_of(scheme)
    if scheme is QuantizationScheme.STATIC and not subject.calibration:
        return "static quantization needs data.training or data.calibration to observe value ranges on"
    if not layers.weighted(subject.graph, ops):
        return f"the model has no {' or '.join(sorted(ops))} with constant weights to quantize"
    return unchangeable(subject) if scheme is QuantizationScheme.AWARE else None


def layers_of(scheme: QuantizationScheme) -> tuple[str, ...]:
    """Return the operators that a scheme quantizes."""
    return STATIC_OPS if scheme in {QuantizationScheme.STATIC, QuantizationScheme.AWARE} else DYNAMIC_OPS


def unavailable(spec: TechniqueSpec, subject: Subject) -> str | None:
    """Return why none of the schemes that the spec allows can be used, or None."""
    if layers.is_quantized(subject.graph):
        return "the model is quantized already"
    if schemes(spec, subject):
        return None
    listed = settings_of(spec).schemes or (QuantizationScheme.STATIC, QuantizationScheme.DYNAMIC)
    reasons = dict.fromkeys(reason for scheme in listed if (reason := impossible(scheme, subject)) is not None)
    return "; ".join(reasons)


def schemes(spec: TechniqueSpec, subject: Subject) -> tuple[QuantizationScheme, ...]:
    """Return the schemes to try, in the order of the API."""
    listed = settings_of(spec).schemes
    return tuple(
        scheme
        for scheme in QuantizationScheme
        if impossible(scheme, subject) is None and (scheme in listed if listed else _worth(scheme, subject))
    )


def variants(spec: TechniqueSpec, subject: Subject) -> tuple[str, ...]:
    """Return `Static MinMax`, `Static Smooth`, `Dynamic`, `WeightOnly 8` and so on."""
    return tuple(variant for scheme in schemes(spec, subject) for variant in _variants(scheme, spec, subject))


def one_lines(spec: TechniqueSpec, subject: Subject) -> tuple[QuantizationScheme, ...]:
    """Return the schemes to try as one line of ONNX Runtime's quantizers: those that spec and data allow."""
    settings = settings_of(spec)
    listed = settings.schemes or (QuantizationScheme.STATIC, QuantizationScheme.DYNAMIC)
    static = subject.calibration and CalibrationMethod.MIN_MAX in settings.calibration.methods
    usual = (QuantizationScheme.DYNAMIC, *((QuantizationScheme.STATIC,) if static else ()))
    return tuple(scheme for scheme in usual if scheme in listed)


def kept_choices(spec: TechniqueSpec, subject: Subject) -> tuple[int, ...]:
    """Return how many of the most sensitive layers the search may leave in float; only 0 where no scheme ranks them."""
    ranked = [scheme for scheme in schemes(spec, subject) if scheme in RANKED]
    ops = STATIC_OPS if QuantizationScheme.STATIC in ranked else DYNAMIC_OPS
    total = len(layers.weighted(subject.graph, ops)) if ranked else 0
    return tuple(count for count in KEPT if 2 * count <= total)


def table_bits_choices(subject: Subject) -> tuple[int, ...]:
    """Return in how many bits the search may store rows of embedding tables; none where there are no tables."""
    return BITS if layers.tables(subject.graph) else ()


def kept_as_choices(spec: TechniqueSpec, subject: Subject) -> tuple[str, ...]:
    """Return how the search may store layers that stay in float; a small file is always stored as it is."""
    ranked = RANKED & set(schemes(spec, subject))
    return (FLOATS, CODES) if ranked and layers.float_bytes(subject.graph) >= WORTH_BYTES else (FLOATS,)


def _variants(scheme: QuantizationScheme, spec: TechniqueSpec, subject: Subject) -> Iterator[str]:
    if scheme is QuantizationScheme.STATIC:
        yield from (f"{scheme} {method}" for method in _methods(spec, subject))
    elif scheme is QuantizationScheme.WEIGHT_ONLY:
        if layers.weighted(subject.graph, DYNAMIC_OPS):
            yield from (f"{scheme} {bits}" for bits in BITS if subject.limits.runs_blocks(bits))
        if layers.tables(subject.graph):
            yield f"{scheme} {TABLES}"
    else:
        yield scheme
        if scheme is QuantizationScheme.DYNAMIC and subject.calibration and layers.has_attention(subject.graph):
            yield f"{scheme} {SMOOTH}"


def _methods(spec: TechniqueSpec, subject: Subject) -> tuple[str, ...]:
    """Return how the static scheme finds ranges; without smoothing, a transformer loses all that it has learned."""
    if not layers.has_attention(subject.graph):
        return settings_of(spec).calibration.methods
    return (SMOOTH_LAYERS,) if find_spec("nncf") is None else (SMOOTH, SMOOTH_LAYERS)


def _worth(scheme: QuantizationScheme, subject: Subject) -> bool:
    """Return whether a scheme that the spec does not list is worth a try.

    Schemes that make only the file smaller are worth it for a large file.
    """
    weights_alone = scheme in {QuantizationScheme.WEIGHT_ONLY, QuantizationScheme.HALF}
    return not weights_alone or layers.float_bytes(subject.graph) >= WORTH_BYTES
