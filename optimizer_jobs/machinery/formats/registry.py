"""The module that converts each format. A new format is a module and a line here."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import cast

from optimizer_jobs.machinery.formats.base import Converted, Delivered, Format
from retune.api.model import ModelFormat

FORMATS: Mapping[ModelFormat, str] = {
    ModelFormat.SAFETENSORS: "optimizer_jobs.machinery.formats.safetensors",
    ModelFormat.STATE_DICT: "optimizer_jobs.machinery.formats.state_dict",
    ModelFormat.SKOPS: "optimizer_jobs.machinery.formats.estimators",
    ModelFormat.JOBLIB: "optimizer_jobs.machinery.formats.estimators",
    ModelFormat.PICKLE: "optimizer_jobs.machinery.formats.estimators",
    ModelFormat.TORCHSCRIPT: "optimizer_jobs.machinery.formats.scripted",
    ModelFormat.TORCH_EXPORT: "optimizer_jobs.machinery.formats.scripted",
    ModelFormat.XGBOOST: "optimizer_jobs.machinery.formats.boosters",
    ModelFormat.LIGHTGBM: "optimizer_jobs.machinery.formats.boosters",
    ModelFormat.CATBOOST: "optimizer_jobs.machinery.formats.boosters",
    ModelFormat.HUGGING_FACE: "optimizer_jobs.machinery.formats.hugging_face",
}
"""Module by format of delivery; it is imported when first used. ONNX itself needs no conversion."""


def convert(delivered: Delivered, *, into: Path) -> Converted:
    """Convert a file of any of these formats; see `Format.convert`."""
    return cast("Format", import_module(FORMATS[delivered.native.format])).convert(delivered, into=into)
