"""A journal in a store: all workers see one sequence, whatever happens between and inside their requests."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from optimizer_jobs.stores import base, batches
from optimizer_jobs.stores.base import Kind, Stat, Store, StoreError
from optimizer_jobs.stores.batches import SEGMENT, Batch
from optimizer_jobs.stores.folder import FolderStore
from optimizer_jobs.stores.journal import ConflictError, StoreJournal
from optimizer_jobs.stores.studies import StorePulse, StoreStorage

WORKERS = 3
STUDY = "runs/r1/study"


class Flaky:
    """A store whose connection breaks as it is told, before a write reaches it or before its answer comes back."""

    def __init__(self, store: Store) -> None:
        self._store, self.uri = store, store.uri
        self.breaks: list[str] = []
        """What befalls the next writes, one after the other: `before`, `after` or anything else for nothing."""
        self.reads = 0

    def _befalls(self) -> str:
        return self.breaks.pop(0) if self.breaks else ""

    def create(self, key: str, content: bytes | Path) -> bool:
        """Create, or break."""
        fate = self._befalls()
        made = fate != "before" and self._store.create(key, content)
        if fate in {"before", "after"}:
            raise StoreError(Kind.NETWORK, key, "it broke.", "Try again.")
        return made

    def read(self, key: str, *, limit: int) -> bytes:
        """Read, and count."""
        self.reads += 1
        return self._store.read(key, limit=limit)

    def fetch(self, key: str, path: Path, *, limit: int) -> int:
        """Fetch."""
        return self._store.fetch(key, path, limit=limit)

    def replace(self, key: str, content: bytes | Path) -> None:
        """Replace."""
        self._store.replace(key, content)

    def stats(self, prefix: str, *, after: str | None = None) -> Iterator[Stat]:
        """List."""
        return self._store.stats(prefix, after=after)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete."""
        self._store.delete(keys)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr(base, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """An empty store."""
    return FolderStore(tmp_path / "store")


def log(*names: object) -> list[dict[str, Any]]:
    """Return logs as Optuna writes them, as far as a journal looks into them."""
    return [{"op_code": 2, "worker_id": "w", "name": name} for name in names]


def names(logs: Iterable[dict[str, Any]]) -> list[object]:
    """Return what `log` was given."""
    return [one["name"] for one in logs]


worker = st.integers(0, WORKERS - 1)
fates = st.lists(st.sampled_from(["", "before", "after"]), max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), worker, st.integers(1, 3), fates),
        st.tuples(st.just("read"), worker, st.just(0), st.just([])),
        st.tuples(st.just("batch"), worker, st.integers(1, 3), fates),
        st.tuples(st.just("beaten"), worker, st.integers(1, 3), st.just([])),
    ),
    max_size=40,
)


class World:
    """Workers over one store, and what each was promised."""

    def __init__(self, folder: Path) -> None:
        self.store = FolderStore(folder)
        self.flaky = [Flaky(self.store) for _ in range(WORKERS)]
        self.workers = [StoreJournal(store, STUDY) for store in self.flaky]
        self.seen: list[list[object]] = [[] for _ in range(WORKERS)]
        self.promised: list[object] = []
        self.refused: list[object] = []

    def step(self, number: int, kind: str, who: int, count: int, breaks: list[str]) -> None:
        """Let a worker do one thing; `beaten` is a batch inside which another worker appends first."""
        new: list[object] = [f"{number}.{part}" for part in range(count)]
        self.flaky[who].breaks = list(breaks)
        journal = self.workers[who]
        if kind == "append":
            journal.append_logs(log(*new))
            self.promised += new
        elif kind in {"batch", "beaten"}:
            self._batch(journal, new, beaten_by=self.workers[who - 1] if kind == "beaten" else None)
        self.seen[who] += names(journal.read_logs(len(self.seen[who])))

    def _batch(self, journal: StoreJournal, new: list[object], beaten_by: StoreJournal | None) -> None:
        try:
            with journal.batch():
                for name in new:
                    journal.append_logs(log(name))
                if beaten_by is not None:
                    beaten_by.append_logs(log(f"before {new[0]}"))
                    beaten_by.read_logs(0)  # as Optuna does after each append
                    self.promised.append(f"before {new[0]}")
            self.promised += new
        except ConflictError:
            self.refused += new
            assert beaten_by is not None


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(steps)
def test_any_interleaving_gives_every_worker_the_same_sequence(what: list[tuple[str, int, int, list[str]]]) -> None:
    """Nothing lost, nothing doubled, batches together, and no worker's past changes, with broken connections too."""
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        for number, (kind, who, count, breaks) in enumerate(what):
            world.step(number, kind, who, count, breaks)
        whole = names(StoreJournal(world.store, STUDY).read_logs(0))
        for who, journal in enumerate(world.workers):
            assert whole[: len(world.seen[who])] == world.seen[who]
            assert names(journal.read_logs(0)) == whole
    assert sorted(map(str, whole)) == sorted(map(str, world.promised))
    assert not set(whole) & set(world.refused)


def test_an_append_that_never_got_through_is_told_and_is_not_there(store: FolderStore) -> None:
    """And the next one has the number."""
    flaky = Flaky(store)
    journal = StoreJournal(flaky, STUDY)
    flaky.breaks = ["before"] * 20
    with pytest.raises(StoreError):
        journal.append_logs(log("lost"))
    flaky.breaks = []
    journal.append_logs(log("there"))
    assert names(journal.read_logs(0)) == ["there"]


def test_a_late_worker_reads_segments(store: FolderStore) -> None:
    """Not a thousand objects: those of whole segments in one read each, and the rest."""
    early = StoreJournal(store, STUDY)
    for number in range(10 * SEGMENT + 3):
        early.append_logs(log(number))
    counted = Flaky(store)
    late = StoreJournal(counted, STUDY)
    assert names(late.read_logs(0)) == list(range(10 * SEGMENT + 3))
    assert counted.reads <= 10 + 1 + 1 + 2 + 4  # segments, the absent one, and then one, two and four at once


def test_a_segment_that_its_writer_did_not_live_to_write_is_written(store: FolderStore) -> None:
    """By the next late worker, from the objects."""
    early = StoreJournal(store, STUDY)
    for number in range(2 * SEGMENT):
        early.append_logs(log(number))
    store.delete([f"{STUDY}/segments/0000000000"])
    assert names(StoreJournal(store, STUDY).read_logs(0)) == list(range(2 * SEGMENT))
    assert [stat.key for stat in store.stats(f"{STUDY}/segments/")] == [
        f"{STUDY}/segments/{number:010d}" for number in range(2)
    ]


def test_what_was_just_read_passes_for_what_is_there(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads ask the store once in a while; what is decided is never appended to what has changed meanwhile."""
    now = [100.0]
    monkeypatch.setattr("optimizer_jobs.stores.journal.time.monotonic", lambda: now[0])
    counted, other = Flaky(store), StoreJournal(store, STUDY)
    journal = StoreJournal(counted, STUDY, fresh_seconds=5.0)
    journal.read_logs(0)
    asked = counted.reads
    other.append_logs(log("theirs"))
    assert names(journal.read_logs(0)) == []
    assert counted.reads == asked
    beaten = journal.batch()
    beaten.__enter__()
    assert names(journal.read_logs(0)) == []
    journal.append_logs(log("mine"))
    with pytest.raises(ConflictError):
        beaten.__exit__(None, None, None)
    assert names(journal.read_logs(0)) == ["theirs"]
    other.append_logs(log("and more"))
    now[0] += 0.2
    with journal.batch():
        assert names(journal.read_logs(0))[-1] == "and more"
    other.append_logs(log("last"))
    assert names(journal.read_logs(0))[-1] == "and more"
    now[0] += 5.0
    assert names(journal.read_logs(0))[-1] == "last"
    journal.append_logs(log("own"))
    assert names(journal.read_logs(0))[-1] == "own"


def damaged(call: Callable[[], object], where: str) -> None:
    """Call what must find the journal damaged there."""
    with pytest.raises(StoreError, match="Delete the run's folder") as caught:
        call()
    assert caught.value.kind is Kind.DAMAGED
    assert where in caught.value.object


def test_a_deleted_object_is_found_by_who_opens_the_journal(store: FolderStore) -> None:
    """What it said is unknown, so nothing after it can be believed."""
    journal = StoreJournal(store, STUDY)
    for number in range(5):
        journal.append_logs(log(number))
    store.delete([f"{STUDY}/log/0000000002"])
    damaged(lambda: StoreJournal(store, STUDY).read_logs(0), "log/0000000002")


def test_a_deleted_end_that_another_worker_wrote_anew_is_found(store: FolderStore) -> None:
    """A worker that has read the old end does not go on with the new one."""
    first, second = StoreJournal(store, STUDY), StoreJournal(store, STUDY)
    first.append_logs(log("old"))
    store.delete([f"{STUDY}/log/0000000000"])
    second.append_logs(log("new"))
    second.append_logs(log("newer"))
    damaged(lambda: first.append_logs(log("next")), "log/0000000001")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"[" * 100_000, b'{"token": 1}', json.dumps({"token": "t", "after": "", "logs": [{}]}).encode()],
)
def test_an_object_with_something_else_in_it_is_refused(store: FolderStore, content: bytes) -> None:
    """Whatever others put there, no worker fails in another way."""
    store.replace(f"{STUDY}/log/0000000000", content)
    damaged(lambda: StoreJournal(store, STUDY).read_logs(0), "log/0000000000")


def test_a_segment_that_unpacks_to_more_than_it_may_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes may stand for very many."""
    many = [Batch(f"t{n}", "", tuple(log("x" * 1000))) for n in range(SEGMENT)]
    segment = batches.written_segment(many)
    assert segment is not None
    assert len(batches.read_segment(segment, uri="u")) == SEGMENT
    monkeypatch.setattr(batches, "SEGMENT_LIMIT", 10_000)
    damaged(lambda: batches.read_segment(segment, uri="u"), "u")
    assert batches.written_segment(many) is None


def test_a_journal_knows_whether_it_was_begun(store: FolderStore) -> None:
    """So that a study that is not there is told from an empty one."""
    first, second = StoreJournal(store, STUDY), StoreJournal(store, STUDY)
    assert not first.exists
    second.append_logs(log(1))
    assert first.exists


def study_on(store: Store) -> tuple[optuna.Study, StoreStorage]:
    """Open the study of the tests."""
    storage = StoreStorage(StoreJournal(store, STUDY))
    return optuna.create_study(study_name="r1", storage=storage, load_if_exists=True), storage


def test_a_transaction_is_one_object_and_asks_once(store: FolderStore) -> None:
    """However much is read and written inside."""
    counted = Flaky(store)
    study, storage = study_on(counted)
    before, counted.reads = len(list(store.stats(f"{STUDY}/log/"))), 0

    def body() -> None:
        for number in range(3):
            study.enqueue_trial({"x": number})
        trial = study.ask()
        trial.suggest_float("x", 0, 9)
        assert len(study.get_trials()) == 3

    storage.alone(body)
    assert len(list(store.stats(f"{STUDY}/log/"))) == before + 1
    assert counted.reads == 1


def test_a_transaction_that_raises_leaves_no_trace(store: FolderStore) -> None:
    """Here and in the store."""
    study, storage = study_on(store)
    storage.alone(lambda: study.enqueue_trial({"x": 1}))

    def body() -> None:
        study.ask().suggest_float("x", 0, 9)
        study.set_user_attr("a", 1)
        raise KeyError

    with pytest.raises(KeyError):
        storage.alone(body)
    other, _ = study_on(store)
    for one in (study, other):
        assert [trial.state for trial in one.get_trials()] == [TrialState.WAITING]
        assert one.user_attrs == {}
        assert one.get_trials()[0].params == {}


def test_a_transaction_that_was_beaten_is_decided_anew(store: FolderStore) -> None:
    """On what the other one has written; two workers never take the same trial."""
    (mine, storage), (theirs, _) = study_on(store), study_on(store)
    for number in range(2):
        mine.enqueue_trial({"x": number})
    taken, runs = [], []

    def body() -> int:
        runs.append(1)
        number = mine.ask().number
        if len(runs) == 1:
            taken.append(theirs.ask().number)
        return number

    taken.append(storage.alone(body))
    assert len(runs) == 2
    assert sorted(taken) == [0, 1]
    assert [trial.state for trial in mine.get_trials()] == [TrialState.RUNNING] * 2


def test_signs_of_life_differ_from_one_to_the_next(store: FolderStore) -> None:
    """By size, even if the clock of the store stands still."""
    pulse = StorePulse(store, STUDY)
    seen = []
    for number in (1, 2, 996, 997):
        pulse.show("0/abc", number)
        pulse.show("1/def", 1)
        seen.append(pulse.seen())
    assert [set(one) for one in seen] == [{"0/abc", "1/def"}] * 4
    sizes = [one["0/abc"][0] for one in seen]  # type: ignore[index]
    assert len(set(sizes)) == len(sizes)


def test_signs_of_life_are_listed_once_in_a_while(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing is the dearest request of all."""
    now = [100.0]
    monkeypatch.setattr("optimizer_jobs.stores.studies.time.monotonic", lambda: now[0])
    pulse, other = StorePulse(store, STUDY, fresh_seconds=15.0), StorePulse(store, STUDY)
    pulse.show("0/abc", 1)
    other.show("1/def", 1)
    assert set(pulse.seen()) == {"0/abc"}
    pulse.show("0/abc", 2)
    first = pulse.seen()
    assert set(first) == {"0/abc", "1/def"}
    other.show("1/def", 2)
    assert pulse.seen() == first
    now[0] += 15.0
    assert pulse.seen() != first
