"""What a resource's folder of the store may hold."""

from pathlib import Path

import pytest

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError
from optimizer_jobs.quota import require_room
from retune.contract.paths import QUOTA_VARIABLE
from retune.contract.results import Reason


@pytest.fixture
def filled(store: str) -> Path:
    """The folder of a resource, with 3 MiB in two files and a link to all that lies elsewhere."""
    folder = resolve(store).local
    (folder / "runs" / "r1").mkdir(parents=True)
    (folder / "one").write_bytes(bytes(2 << 20))
    (folder / "runs" / "r1" / "two").write_bytes(bytes(1 << 20))
    (folder / "link").symlink_to("/")
    return folder


@pytest.mark.parametrize("quota", [None, "", "4Mi", "3145729"])
@pytest.mark.usefixtures("filled")
def test_below_its_quota_or_without_one_a_resource_may_write(
    store: str, quota: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a link leads to is not the resource's."""
    if quota is not None:
        monkeypatch.setenv(QUOTA_VARIABLE, quota)
    require_room(store)


@pytest.mark.usefixtures("filled")
def test_a_resource_at_its_quota_is_told_what_it_holds(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a full store, with what lies there, what may, and what to do."""
    monkeypatch.setenv(QUOTA_VARIABLE, "3Mi")
    with pytest.raises(JobError) as caught:
        require_room(store)
    assert (caught.value.reason, caught.value.object) == (Reason.STORE_FULL, store)
    assert "it holds 3.0Mi of files, and the administrator's quota for one resource is 3Mi." in str(caught.value)
    assert "storeQuota" in caught.value.next_step


def test_a_store_that_does_not_exist_yet_holds_nothing(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first Job of a resource makes the folder."""
    monkeypatch.setenv(QUOTA_VARIABLE, "1")
    require_room(store)
