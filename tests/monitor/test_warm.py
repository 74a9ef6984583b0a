"""Checks through a real check host, on real rows: the same results as without it, to the last byte."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from optimizer_jobs.data.volumes import CLAIM_ROOT_VARIABLE
from optimizer_jobs.run import main as alone
from optimizer_jobs.warm.ask import main
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.monitoring import Drift, DriftMethod, Quality
from retune.contract.requests import CheckRequest, encode_request
from tests.monitor.shop import FIRST, Array, Shop
from tests.unit.jobs.warm_host_for_tests import Running, host, until

BROKEN = FIRST + 4


def moved(inputs: Array) -> Array:
    """Thirty columns by one standard deviation."""
    return np.asarray(inputs + inputs.std(axis=0))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop with a clear window, a moved one, one without labels, one with few rows and one with a broken file."""
    folder = tmp_path_factory.mktemp("claims")
    (folder / "shop").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CLAIM_ROOT_VARIABLE, str(folder))
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # as Jobs and the example's host have them
            patch.setenv(name, "1")
        made = Shop(folder / "shop", Task.CLASSIFICATION)
        made.refer(measured=True)
        made.serve(FIRST)
        made.serve(FIRST + 1, change=moved)
        made.serve(FIRST + 2, labels=None)
        made.serve(FIRST + 3, rows=60)
        made.serve(BROKEN)
        hour = next(path for path in (made.root / "captured").rglob("*.parquet") if _hour(path) == BROKEN % 24)
        (hour.parent / "bomb.parquet").write_bytes(b"PAR1" + b"\xff" * 4096 + b"PAR1")
        yield made


def _hour(path: Path) -> int:
    return int(re.sub(r"\D", "", path.parent.name)[-2:])


@pytest.fixture(scope="module")
def running(shop: Shop) -> Iterator[Running]:
    """A host as the image starts it."""
    with host(shop.root.parent, module="optimizer_jobs.warm") as found:
        yield found


def requests(shop: Shop) -> dict[str, CheckRequest]:
    """Return checks that differ in what they have to say, by name."""
    own = {"resource": "ml/store"}
    return {
        "clear": shop.request(FIRST, **own),
        "moved": shop.request(FIRST + 1, **own),
        "unlabelled": shop.request(FIRST + 2, labelled=None, **own),
        "few": shop.request(FIRST + 3, **own),
        "broken": shop.request(BROKEN, **own),
        "sampled": shop.request(FIRST, max_samples=500, seed=7, **own),
        "psi": shop.request(FIRST + 1, drift=Drift(method=DriftMethod.PSI), quality=None, **own),
        "chi": shop.request(FIRST, drift=Drift(method=DriftMethod.CHI_SQUARE), **own),
        "ranked": shop.request(FIRST, quality=Quality(metric=Metric.ROC_AUC), **own),
    }


NAMES = ("clear", "moved", "unlabelled", "few", "broken", "sampled", "psi", "chi", "ranked")


@pytest.mark.parametrize("name", NAMES)
def test_a_host_changes_no_byte_of_a_result(
    shop: Shop, running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Whatever the window is like, the result is that of the Job alone, and what it says meanwhile is the same, too."""
    file, warm, own = (tmp_path / kind for kind in ("request.json", "warm.json", "own.json"))
    file.write_text(encode_request(requests(shop)[name]))
    assert alone(["--request", str(file), "--result", str(own)]) == 0
    said = capsys.readouterr().out
    assert (
        main(["--host", "127.0.0.1", "--port", str(running.port), "--request", str(file), "--result", str(warm)]) == 0
    )
    assert warm.read_bytes() == own.read_bytes()
    assert capsys.readouterr().out == said


@pytest.mark.timeout(600)
def test_a_host_that_is_killed_in_a_check_costs_no_verdict(shop: Shop, tmp_path: Path) -> None:
    """The Job does the check itself, and says why."""
    file, warm, own = (tmp_path / kind for kind in ("request.json", "warm.json", "own.json"))
    file.write_text(encode_request(requests(shop)["moved"]))
    assert alone(["--request", str(file), "--result", str(own)]) == 0
    with host(tmp_path, module="optimizer_jobs.warm", **{CLAIM_ROOT_VARIABLE: str(shop.root.parent)}) as found:
        files = ["--request", str(file), "--result", str(warm)]
        command = ["-m", "optimizer_jobs.warm.ask", "--host", "127.0.0.1", "--port", str(found.port), *files]
        with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as job:
            until(found.children)
            found.process.send_signal(signal.SIGKILL)
            said = job.communicate()[0]
    assert job.returncode == 0
    assert said.startswith("checked here, not by host 127.0.0.1: "), said
    assert warm.read_bytes() == own.read_bytes()
