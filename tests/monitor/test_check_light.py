"""Evidently's tests are imported without the rest of it, and give the same numbers, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

from optimizer_jobs.data.volumes import CLAIM_ROOT_VARIABLE
from retune.contract.requests import encode_request
from tests.monitor.shop import FIRST, Shop

_NUMBERS = """
import sys
if sys.argv[1] == "whole":
    import evidently, evidently.presets
import numpy as np, pandas as pd
from sklearn.datasets import load_breast_cancer, load_wine
from optimizer_jobs.commands.check.column_statistics import Kind, effect, load, p_value
from retune.api.monitoring import DriftMethod
load()
for data in (load_breast_cancer(), load_wine()):
    half = len(data.data) // 2
    for column in range(data.data.shape[1]):
        for kind in Kind:
            values = pd.Series(data.data[:, column])
            if kind is Kind.CATEGORICAL:
                values = pd.Series(pd.qcut(values, 5).cat.codes.astype(str), dtype=object)
            before, now = values[::2], values[half:]
            for method in DriftMethod:
                name, size = effect(before, now, kind, method)
                print(column, kind, method, name, size.hex(), p_value(before, now, kind, method).hex())
print(len([name for name in sys.modules if name.startswith("evidently.")]), file=sys.stderr)
"""
_CHECK = """
import json, sys
from pathlib import Path
from optimizer_jobs.run import execute
from retune.contract.results import encode_result
result, code = execute(Path(sys.argv[1]))
heavy = ("evidently", "evidently.ui", "litestar", "nltk", "plotly", "statsmodels")
print(json.dumps([code, encode_result(result).decode(), [name for name in heavy if name in sys.modules]]))
"""


def _ran(program: str, *arguments: str, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    if root is not None:
        environment[CLAIM_ROOT_VARIABLE] = str(root)
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_the_tests_alone_give_the_numbers_of_the_whole_package() -> None:
    """Every measure and p-value on columns of two real data sets is the same to the last bit, with less imported."""
    alone, whole = _ran(_NUMBERS, "alone"), _ran(_NUMBERS, "whole")
    assert alone.stdout.count("\n") == 2 * 6 * (30 + 13)
    assert alone.stdout == whole.stdout
    assert int(alone.stderr.splitlines()[-1]) < int(whole.stderr.splitlines()[-1]) / 2


def test_a_window_without_a_page_brings_in_no_page(shop: Shop, tmp_path: Path) -> None:
    """A clear window is judged without Evidently's pages, server and language models; a page brings the whole of it."""
    shop.serve(FIRST)
    shop.serve(FIRST + 1, change=lambda inputs: inputs + inputs.std(axis=0))
    for window, brought in ((FIRST, []), (FIRST + 1, ["evidently", "plotly"])):
        request = tmp_path / "request.json"
        request.write_text(encode_request(shop.request(window)))
        code, result, heavy = json.loads(_ran(_CHECK, str(request), root=tmp_path).stdout.splitlines()[-1])
        assert code == 0
        assert ("report" in json.loads(result)) == bool(brought)
        assert set(brought) <= set(heavy)
        assert bool(brought) == bool(heavy)
