"""`retune init` tells the libraries of boosted trees apart, whose files have extensions that others have too."""

from pathlib import Path

import pytest

from retune.api.model import ModelFormat
from retune.cli.access import AccessError
from retune.cli.local.init import guess

_XGBOOST_JSON = b'{"learner":{"attributes":{},"feature_names":[]'
_XGBOOST_UBJSON = b"{L\0\0\0\0\0\0\0\7learner{L\0\0\0\0\0\0\0\nattributes{}"
_LIGHTGBM = b"tree\nversion=v4\nnum_class=1\n"
_OLD = b"\0\0\0?\4" + bytes(131) + b"\x10\0\0\0\0\0\0\0reg:squarederror\6\0\0\0\0\0\0\0gbtree"


@pytest.mark.parametrize(
    ("name", "content", "format_"),
    [
        ("m.ubj", _XGBOOST_UBJSON, ModelFormat.XGBOOST),
        ("m.json", _XGBOOST_JSON, ModelFormat.XGBOOST),
        ("m.json", b"{\n  " + _XGBOOST_JSON[1:], ModelFormat.XGBOOST),
        ("m.model", _XGBOOST_UBJSON, ModelFormat.XGBOOST),
        ("m.model", _LIGHTGBM, ModelFormat.LIGHTGBM),
        ("m.bin", _LIGHTGBM, ModelFormat.LIGHTGBM),
        ("m.txt", _LIGHTGBM, ModelFormat.LIGHTGBM),
        ("M.TXT", _LIGHTGBM.replace(b"\n", b"\r\n"), ModelFormat.LIGHTGBM),
        ("m.bin", b"CBM1" + bytes(40), ModelFormat.CATBOOST),
        ("m.cbm", b"CBM1" + bytes(40), ModelFormat.CATBOOST),
    ],
)
def test_the_library_is_seen_from_the_file(name: str, content: bytes, format_: ModelFormat, tmp_path: Path) -> None:
    """None of these formats runs code, so none has to be trusted."""
    (tmp_path / name).write_bytes(content)
    files = guess(tmp_path / name, [], claim="models", factory=None, trusted=False)
    assert files.model.format is format_
    assert files.model.trust is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.model", _OLD, "old binary format of XGBoost, which XGBoost 3 does not read: save with model.save_model"),
        ("m.json", b'{"name":"tree","version":"v4","feature_names":["a"]}', "cannot load again: save with"),
        ("m.json", b'{"features_info":{},"oblivious_trees":[]}', "cannot load again: save with"),
        ("m.json", b'{"model": "bert"}', "shows no format: it is no model that XGBoost, LightGBM or CatBoost saved"),
        ("m.txt", b"a letter", "shows no format"),
        ("m.bin", b"", "shows no format"),
    ],
)
def test_what_its_library_cannot_load_is_refused_with_how_to_save_it(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    """A description of trees is no model, and neither is any other JSON or text."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AccessError, match=words):
        guess(tmp_path / name, [], claim="models", factory=None, trusted=False)
