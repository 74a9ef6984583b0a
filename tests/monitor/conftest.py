"""What tests of the monitor start from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from optimizer_jobs.data.volumes import CLAIM_ROOT_VARIABLE
from retune.api.model import Task
from tests.monitor.shop import Shop


@pytest.fixture
def open_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Task], Shop]:
    """Return what opens a shop whose reference is stored and where nothing was captured yet."""
    monkeypatch.setenv(CLAIM_ROOT_VARIABLE, str(tmp_path))
    root = tmp_path / "shop"
    root.mkdir()

    def opened(task: Task) -> Shop:
        made = Shop(root, task)
        made.refer()
        return made

    return opened


@pytest.fixture
def shop(open_shop: Callable[[Task], Shop]) -> Shop:
    """A shop whose model is a classifier."""
    return open_shop(Task.CLASSIFICATION)
