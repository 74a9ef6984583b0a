"""Technique Quantization: smaller numbers in place of 32-bit floats.

`machinery.compress.schemes` says which schemes a model, its data and the image allow. A search chooses among them here,
and how many numbers share a scale, which layers stay in float, and how those are stored. What ONNX Runtime's quantizers
make of the file in one line is among them, so that a search never ends with less.
"""

from pathlib import Path

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.compress import one_line, schemes
from optimizer_jobs.machinery.compress.quantization import quantize
from optimizer_jobs.machinery.compress.schemes import BLOCK_SIZES, CODES, FLOATS, SMOOTH, SMOOTH_LAYERS
from optimizer_jobs.machinery.compress.static import LAYERS, WHOLE
from optimizer_jobs.machinery.compress.tables import TABLE_BITS
from optimizer_jobs.machinery.training.parameters import trial_params
from optimizer_jobs.technique import ONE_LINE, Applied, Context, Params, Skipped, Subject
from retune.api.techniques import Quantization, QuantizationScheme, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.QUANTIZATION
CHEAP = False
TRAINS = False

OFF = "Off"
_AS_ONE_LINE = "OneLine"
_WITH_TABLES = (str(QuantizationScheme.DYNAMIC), f"{QuantizationScheme.WEIGHT_ONLY} {schemes.TABLES}")
"""Variants whose main gain may be embedding tables."""
_METHOD_WORDS = {SMOOTH_LAYERS: "smooth layers"}


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why this model cannot be quantized with the schemes that spec and data allow, or None."""
    return schemes.unavailable(spec, subject)


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose scheme, calibration method or bits, how finely numbers share a scale, and how much stays in float."""
    variant = str(trial.suggest_categorical(f"{spec.name}.variant", (OFF, *_variants(spec, subject))))
    per_channel = bool(trial.suggest_categorical(f"{spec.name}.per_channel", (True, False)))
    scope = str(trial.suggest_categorical(f"{spec.name}.scope", (LAYERS, WHOLE)))
    block_size = BLOCK_SIZES[0]
    if QuantizationScheme.WEIGHT_ONLY in schemes.schemes(spec, subject):
        block_size = int(trial.suggest_categorical(f"{spec.name}.block_size", BLOCK_SIZES))
    kept, counts = 0, schemes.kept_choices(spec, subject)
    if len(counts) > 1:
        kept = int(trial.suggest_categorical(f"{spec.name}.kept", counts))
    table_bits = 0
    if bits := schemes.table_bits_choices(subject):
        table_bits = int(trial.suggest_categorical(f"{spec.name}.{TABLE_BITS}", bits))
    kept_as, storages = FLOATS, schemes.kept_as_choices(spec, subject)
    if len(storages) > 1:
        kept_as = str(trial.suggest_categorical(f"{spec.name}.kept_as", storages))
    if variant == OFF:
        return None
    settings = schemes.settings_of(spec)
    params = _that_matter(variant, settings, per_channel=per_channel, scope=scope, block_size=block_size)
    params = _with_kept(params, kept if subject.calibration else 0)
    return _with_tables(_with_storage(params, kept_as), table_bits)


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return every scheme with every calibration method and number of bits, per channel and in small blocks.

    What a user would try in one line comes first.
    Transformers lose most by few layers. So the variant for them that can leave layers in float is tried with a few
    layers in float, too.
    """
    counts = schemes.kept_choices(spec, subject)
    few = trial_params(spec.name, {"kept": counts[min(len(counts) // 2 + 1, len(counts) - 1)]})
    variants = list[Params]()
    for variant in _variants(spec, subject):
        variants.append(_trial_params(spec, subject, variant))
        if variant in _WITH_TABLES and schemes.table_bits_choices(subject):
            variants.append(variants[-1] | trial_params(spec.name, {TABLE_BITS: min(schemes.BITS)}))
        if variant.endswith(SMOOTH_LAYERS) and len(counts) > 1:
            variants.append(variants[-1] | few)
    return tuple(variants)


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return no quantization."""
    return _trial_params(spec, subject, OFF)


def describe(params: Params) -> str:
    """Return scheme, calibration and granularity in words, such as `int8 static minmax per tensor`."""
    if ONE_LINE in params:
        return f"quantize_{str(params['scheme']).lower()} as one line"
    match QuantizationScheme(str(params["scheme"])):
        case QuantizationScheme.HALF:
            return "float16"
        case QuantizationScheme.WEIGHT_ONLY if params.get("scope") == schemes.TABLES:
            return f"int{params[TABLE_BITS]} tables by row"
        case QuantizationScheme.WEIGHT_ONLY:
            return f"int{params['bits']} weights in blocks of {params['block_size']}"
        case QuantizationScheme.AWARE:
            words = ["int8 trained"]
        case scheme:
            words = ["int8", scheme.lower()]
    if "method" in params:
        words += [_METHOD_WORDS.get(str(params["method"]), str(params["method"]).lower())]
        words += ["layers only"] if params.get("scope") == LAYERS else []
    words += [] if params.get("per_channel", True) else ["per tensor"]
    words += [f"but {params['kept']} most sensitive"] if "kept" in params else []
    words += [f"with int{params[TABLE_BITS]} tables"] if params.get(TABLE_BITS, 8) != 8 else []
    words += ["stored in 8-bit codes"] if {"kept", "kept_as"} <= params.keys() else []
    return " ".join(words)


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Quantize; skipped when there is nothing to quantize, or the result does not run or gain."""
    return quantize(model, params, context, words=describe(params))


def _variants(spec: TechniqueSpec, subject: Subject) -> tuple[str, ...]:
    as_one_line = (f"{scheme} {_AS_ONE_LINE}" for scheme in schemes.one_lines(spec, subject))
    return (*as_one_line, *schemes.variants(spec, subject))


def _that_matter(variant: str, settings: Quantization, *, per_channel: bool, scope: str, block_size: int) -> Params:
    """Return the parameters that the result of a variant depends on."""
    scheme, _, detail = variant.partition(" ")
    if detail == _AS_ONE_LINE:
        static = scheme == QuantizationScheme.STATIC
        return {"scheme": scheme, ONE_LINE: True, **({"samples": one_line.ROWS} if static else {})}
    observed: Params = {"method": detail, "samples": settings.calibration.samples}
    match scheme:
        case QuantizationScheme.STATIC if detail == SMOOTH:
            return {"scheme": scheme, **observed}
        case QuantizationScheme.STATIC if detail == SMOOTH_LAYERS:
            return {"scheme": scheme, **observed, "per_channel": per_channel, "fallback": settings.fallback}
        case QuantizationScheme.STATIC:
            granularity: Params = {"per_channel": per_channel, "scope": scope}
            return {"scheme": scheme, **observed, **granularity, "fallback": settings.fallback}
        case QuantizationScheme.DYNAMIC:
            return {"scheme": scheme, "per_channel": per_channel, **(observed if detail == SMOOTH else {})}
        case QuantizationScheme.WEIGHT_ONLY:
            in_blocks: Params = {"bits": int(detail), "block_size": block_size} if detail != schemes.TABLES else {}
            return {"scheme": scheme, **(in_blocks or {"scope": detail})}
        case QuantizationScheme.AWARE:
            return {"scheme": scheme, "samples": settings.calibration.samples, "per_channel": per_channel}
    return {"scheme": scheme}


def _with_kept(params: Params, kept: int) -> Params:
    """Return parameters that leave `kept` layers in float, where the scheme can rank layers.

    No further layers are then returned to float. NNCF follows a graph of its own whose layers are not ranked, and 4-bit
    weights have no activations to rank by.
    """
    if ONE_LINE in params:
        return params
    by_nncf = (params["scheme"], params.get("method")) == (QuantizationScheme.STATIC, SMOOTH)
    if not kept or by_nncf or params["scheme"] not in schemes.RANKED:
        return params
    return params | {"kept": kept} | ({"fallback": "None"} if "fallback" in params else {})


def _with_storage(params: Params, kept_as: str) -> Params:
    """Return parameters that say how layers in float are stored, where there can be such layers."""
    floats = "kept" in params or params.get("fallback", "None") != "None"
    return params | {"kept_as": kept_as} if floats and kept_as != FLOATS else params


def _with_tables(params: Params, table_bits: int) -> Params:
    """Return parameters with the bits of table rows, where there are tables and the scheme stores them by row.

    NNCF has a way of its own with tables, and weights in blocks come with tables in blocks.
    """
    by_nncf = (params["scheme"], params.get("method")) == (QuantizationScheme.STATIC, SMOOTH)
    otherwise = ONE_LINE in params or "bits" in params or params["scheme"] == QuantizationScheme.HALF
    return params if by_nncf or otherwise or not table_bits else params | {TABLE_BITS: table_bits}


def _trial_params(spec: TechniqueSpec, subject: Subject, variant: str) -> Params:
    """Return all parameters of the trial of a variant, everything else as it is tried first."""
    params: Params = {"variant": variant, "per_channel": True, "scope": WHOLE}
    if len(schemes.kept_choices(spec, subject)) > 1:
        params["kept"] = 0
    if len(schemes.kept_as_choices(spec, subject)) > 1:
        params["kept_as"] = CODES
    if QuantizationScheme.WEIGHT_ONLY in schemes.schemes(spec, subject):
        params["block_size"] = BLOCK_SIZES[0]
    if bits := schemes.table_bits_choices(subject):
        params[TABLE_BITS] = bits[0]
    return trial_params(spec.name, params)
