"""A run's data from production: true, new, split by time without a leak; or the original data, and why."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.commands.gather.command import run
from optimizer_jobs.commands.gather.splits import fingerprints
from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.models.bundle import Bundle, publish
from optimizer_jobs.seal import Seal
from optimizer_jobs.signature import Reading, Scale
from retune.api.model import Data, Dataset, Task
from retune.api.production import Labels
from retune.api.watched import StoredData
from retune.contract.paths import bundles
from retune.contract.requests import GatherRequest
from retune.contract.results import encode_result, parse_result
from tests.unit.jobs.captured_for_tests import HOUR, NOW, REQUEST_ROWS, Shop
from tests.unit.jobs.conftest import Claims
from tests.unit.jobs.models_for_tests import digits

Ask = Callable[..., GatherRequest]
Array = NDArray[Any]
SPAN = 3 * HOUR
REQUESTS = 120
"""Requests of real digits within the span: 480 rows."""


@pytest.fixture
def ask(make: Callable[..., Bundle], data: Data, store: str, shop: Shop) -> Ask:
    """Return a request for the three hours before NOW, mixed with the original data, with any part replaced."""
    champion = publish(make(), uri=bundles(store))

    def request(*, refresh: dict[str, Any] | None = None, **parts: Any) -> GatherRequest:
        fields = {
            "resource": "ml/digits",
            "run": "digits-r7",
            "spec_hash": "abc",
            "data": data,
            "production": shop.production,
            "refresh": {"span": "3h", "minRows": 100, "policy": "Mixed", **(refresh or {})},
            "until": NOW,
            "champion": champion,
            "store": store,
            "seed": 3,
        }
        return GatherRequest.model_validate(fields | parts)

    return request


@pytest.fixture
def busy(shop: Shop) -> Shop:
    """A shop that was asked all the time, and knows the truth by now."""
    shop.serve(range(REQUESTS), since=NOW - SPAN, every=SPAN / REQUESTS)
    shop.label(range(REQUESTS))
    return shop


def rows_of(stored: StoredData, shop: Shop, into: Path, **spec: Any) -> Rows:
    """Read a data set that was built, held to its digest, as the search does."""
    dataset = Dataset(uri=stored.uri, digest=stored.digest, **spec)
    return read_dataset(dataset, shop.signature, into=into / stored.digest[7:15])


def kept(request: GatherRequest) -> str:
    """Run a request that brings no fresh data, and return why."""
    result = run(request)
    assert result.fresh is None
    assert (result.run, result.spec_hash) == (request.run, request.spec_hash)
    return result.message


def blocks(first: int) -> Array:
    """Return the block of time, of 25, of each row from the request `first` on."""
    numbers = np.arange(REQUESTS - first)
    return np.repeat(((numbers + 1) * 25 - 1) // len(numbers), REQUEST_ROWS)


def taught(first: int = 0) -> Array:
    """Return the places of the rows that teach, where rows from the request `first` on count."""
    return first * REQUEST_ROWS + np.flatnonzero((blocks(first) < 20) & (blocks(first) % 4 != 1))


def compared(first: int = 0) -> Array:
    """Return the places of the rows for validation."""
    return first * REQUEST_ROWS + np.flatnonzero((blocks(first) < 20) & (blocks(first) % 4 == 1))


def test_the_newest_rows_decide_and_blocks_of_time_among_the_others_compare(
    ask: Ask, busy: Shop, tmp_path: Path
) -> None:
    """60, 20 and 20 of a hundred labelled rows, requests whole; what is learned reaches up to the test."""
    result = run(ask(refresh={"policy": "RecentOnly"}))
    assert result.fresh is not None
    assert parse_result(encode_result(result)) == result
    training, validation, test = (
        rows_of(each, busy, tmp_path) for each in (result.fresh.training, result.fresh.validation, result.fresh.test)
    )
    assert (len(training), len(validation), len(test)) == (288, 96, 96)
    served = busy.pixels[: REQUESTS * REQUEST_ROWS], busy.digits[: REQUESTS * REQUEST_ROWS]
    for split, places in ((training, taught()), (validation, compared()), (test, np.arange(384, 480))):
        np.testing.assert_array_equal(split.inputs["x"], served[0][places])
        np.testing.assert_array_equal(split.answers, served[1][places])
    assert (taught().min(), taught().max()) == (0, 383)
    assert "288 for training, 96 for validation, 96 for test" in result.message


def test_no_row_is_on_both_sides_of_a_border(ask: Ask, busy: Shop, tmp_path: Path) -> None:
    """A row that comes again later is left out where it is older, and counted."""
    again = range(REQUESTS - 10, REQUESTS)
    busy.pixels[busy.places(2)] = busy.pixels[busy.places(REQUESTS - 2)]
    busy.digits[busy.places(2)] = busy.digits[busy.places(REQUESTS - 2)]
    for path in busy.captured.rglob("*.parquet"):
        path.unlink()
    busy.serve(range(REQUESTS), since=NOW - SPAN, every=SPAN / REQUESTS)
    result = run(ask(refresh={"policy": "RecentOnly"}))
    assert result.fresh is not None
    prints = [
        set(fingerprints(rows_of(each, busy, tmp_path).inputs))
        for each in (result.fresh.training, result.fresh.validation, result.fresh.test)
    ]
    assert not prints[0] & prints[1]
    assert not prints[0] & prints[2]
    assert not prints[1] & prints[2]
    assert result.fresh.training.rows == 288 - REQUEST_ROWS
    assert f"{REQUEST_ROWS} rows that another part has, too" in result.message
    assert set(fingerprints({"x": busy.pixels[busy.places(again[-2])]})) <= prints[2]


@pytest.mark.parametrize(("share", "recent", "original"), [("0.5", 900, 900), ("0.8", 2304, 576), ("0.25", 300, 900)])
def test_training_is_mixed_with_the_original_data(
    ask: Ask, busy: Shop, tmp_path: Path, share: str, recent: int, original: int
) -> None:
    """Recent rows have the share asked for; the part that is too small is repeated, up to eight times."""
    result = run(ask(refresh={"recentShare": share}))
    assert result.fresh is not None
    found = fingerprints(rows_of(result.fresh.training, busy, tmp_path).inputs)
    old = set(fingerprints({"x": digits("training")[0]}))
    counts = sum(each not in old for each in found), sum(each in old for each in found)
    assert counts == (recent, original)
    assert "training mixed with" in result.message


@pytest.mark.parametrize("policy", ["Auto", "Weighted"])
def test_no_policy_learns_from_rows_that_judge(
    ask: Ask, busy: Shop, claims: Claims, tmp_path: Path, policy: str
) -> None:
    """Where production saw rows of the original data, what resembles the newest rows is not those rows themselves."""
    X, y = digits("training")
    newest = slice((REQUESTS - 40) * REQUEST_ROWS, REQUESTS * REQUEST_ROWS)
    X[:160], y[:160] = busy.pixels[newest], busy.digits[newest]
    np.savez(claims.path("pvc://digits/training.npz"), x=X, label=y)
    fresh = run(ask(refresh={"policy": policy})).fresh
    assert fresh is not None
    taught = set(fingerprints(rows_of(fresh.training, busy, tmp_path).inputs))
    for judged in (fresh.validation, fresh.test):
        assert not taught & set(fingerprints(rows_of(judged, busy, tmp_path).inputs))


@pytest.mark.usefixtures("busy")
def test_what_to_learn_from_is_chosen_by_newer_rows_and_told(ask: Ask) -> None:
    """The sentence has the one that was taken with its loss, and the others beside it; it is chosen again."""
    results = [run(ask(run=f"digits-r{number}", refresh={"policy": "Auto"})) for number in (7, 8)]
    first, again = (result.fresh for result in results)
    assert first is not None
    assert again is not None
    assert first.training.digest == again.training.digest
    told = re.search(r"Chosen to learn from: (\w+): log-loss \d\.\d+ of boosted trees on 96 newer rows", first.words)
    assert told is not None, first.words
    assert told.group(1) == first.policy
    assert {"Mixed", "RecentOnly", "Weighted"} <= set(re.findall(r"\w+", first.words))


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("policy", ["Mixed", "RecentOnly", "Weighted"])
def test_a_policy_that_the_spec_names_is_kept(ask: Ask, policy: str) -> None:
    """Nothing is compared then."""
    fresh = run(ask(refresh={"policy": policy})).fresh
    assert fresh is not None
    assert fresh.policy == policy
    assert "Chosen" not in fresh.words


@pytest.mark.usefixtures("busy")
def test_where_there_is_no_original_data_recent_rows_teach(ask: Ask) -> None:
    """Whatever policy is asked for; the record says what was done."""
    data = ask().data.model_copy(update={"training": None})
    for number, policy in enumerate(("Auto", "Mixed", "Weighted")):
        fresh = run(ask(run=f"digits-r{number}", data=data, refresh={"policy": policy})).fresh
        assert fresh is not None
        assert (fresh.policy, fresh.training.rows) == ("RecentOnly", 288)


@pytest.mark.usefixtures("busy")
def test_a_training_set_is_bounded(ask: Ask) -> None:
    """The limit holds for the mixture, with its share."""
    result = run(ask(refresh={"maxRows": 200, "recentShare": "0.5"}))
    assert result.fresh is not None
    assert result.fresh.training.rows == 200


def test_original_rows_that_judge_do_not_teach(ask: Ask, busy: Shop, claims: Claims, tmp_path: Path) -> None:
    """Where production saw rows of the original training data, they are not in both training and test."""
    X, y = digits("training")
    newest = slice((REQUESTS - 10) * REQUEST_ROWS, REQUESTS * REQUEST_ROWS)
    X[: 10 * REQUEST_ROWS], y[: 10 * REQUEST_ROWS] = busy.pixels[newest], busy.digits[newest]
    np.savez(claims.path("pvc://digits/training.npz"), x=X, label=y)
    result = run(ask())
    assert result.fresh is not None
    taught = set(fingerprints(rows_of(result.fresh.training, busy, tmp_path).inputs))
    asked = set(fingerprints(rows_of(result.fresh.test, busy, tmp_path).inputs))
    assert not taught & asked


def test_fresh_data_is_judged_by_the_weights_of_the_labels(ask: Ask, busy: Shop, tmp_path: Path) -> None:
    """Data that is judged by weights is replaced only by data that has them, and learning takes none."""
    data = ask().data
    assert data.test is not None
    weighed = data.model_copy(update={"test": data.test.model_copy(update={"weight_column": "w"})})
    assert "name their column in production.labels.weightColumn" in kept(ask(data=weighed))
    (path,) = (busy.root / "labels").rglob("*.parquet")
    table = parquet.read_table(path)
    parquet.write_table(table.append_column("w", pa.array(np.arange(1.0, len(table) + 1))), path)
    labels = Labels(uri="pvc://shop/labels", weight_column="w")
    production = busy.production.model_copy(update={"labels": labels})
    fresh = run(ask(data=weighed, production=production, refresh={"policy": "RecentOnly"})).fresh

    assert fresh is not None
    test = rows_of(fresh.test, busy, tmp_path, weight_column="w")
    assert test.weights is not None
    assert test.weights.tolist() == list(np.arange(385.0, 481.0))
    assert rows_of(fresh.training, busy, tmp_path).weights is None


def test_names_of_label_columns_are_kept(ask: Ask, busy: Shop, claims: Claims, tmp_path: Path) -> None:
    """Data is read by the same description, whatever production calls its labels."""
    renamed = {}
    for split in ("training", "validation", "test"):
        X, y = digits(split)
        np.savez(claims.path(f"pvc://digits/{split}.npz"), x=X, digit=y)
        renamed[split] = {"uri": f"pvc://digits/{split}.npz", "labelColumn": "digit"}
    result = run(ask(data=renamed))
    assert result.fresh is not None
    assert len(rows_of(result.fresh.test, busy, tmp_path, label_column="digit")) == 96


@pytest.mark.usefixtures("busy")
def test_fewer_labels_a_row_than_label_columns_keep_the_original_data(ask: Ask) -> None:
    """One label is not made of several in silence."""
    data = ask().data
    several = data.validation.model_copy(update={"label_column": None, "label_columns": ("h1", "h2")})
    words = "its labels are 2 columns (data.*.labelColumns), and a row of production.labels has 1"
    assert words in kept(ask(data=data.model_copy(update={"validation": several})))


def test_a_job_started_again_repeats_its_answer(ask: Ask, busy: Shop, claims: Claims) -> None:
    """What was built is not built again from newer rows; the digests stay those of the files."""
    first = run(ask())
    busy.serve(range(REQUESTS, REQUESTS + 4), since=NOW - 100)
    busy.label(range(REQUESTS + 4), "b")
    assert run(ask()) == first
    assert first.fresh is not None
    for stored in (first.fresh.training, first.fresh.validation, first.fresh.test):
        assert file_digest(claims.path(stored.uri)) == stored.digest
    other = run(ask(spec_hash="def"))
    assert other.spec_hash == "def"
    assert other.fresh is not None
    assert other.fresh.validation.digest != first.fresh.validation.digest
    folder = claims.path(first.fresh.test.uri).parent
    assert sorted(path.name for path in folder.parent.iterdir()) == ["data"]


def test_labels_are_truth_whichever_model_answered(ask: Ask, busy: Shop) -> None:
    """Rows of an earlier champion teach as well; what it answered does not matter."""
    for path in busy.captured.rglob("*.parquet"):
        path.unlink()
    busy.serve(range(60), since=NOW - SPAN, every=60, model="sha256:" + "cd" * 32)
    busy.serve(range(60, REQUESTS), since=NOW - HOUR, every=30)
    result = run(ask(refresh={"policy": "RecentOnly"}))
    assert result.fresh is not None
    assert result.fresh.test.rows == 96


@pytest.mark.usefixtures("busy")
def test_too_few_labels_leave_the_original_data(ask: Ask) -> None:
    """The sentence has the count and the limit."""
    assert "480 labelled production rows" in kept(ask(refresh={"minRows": 481}))


@pytest.mark.usefixtures("busy")
def test_rows_before_the_span_do_not_count(ask: Ask) -> None:
    """Of three hours, one is asked for."""
    assert "160 labelled production rows in the last 1h" in kept(ask(refresh={"span": "1h", "minRows": 200}))


def test_after_a_sudden_change_what_came_since_teaches_and_judges(ask: Ask, busy: Shop, tmp_path: Path) -> None:
    """Split by time alone, rows of before would be all to learn from; they count where new ones are too few."""
    changed = NOW - 80 * 60
    result = run(ask(changed=changed, refresh={"policy": "RecentOnly"}))
    assert result.fresh is not None
    training = rows_of(result.fresh.training, busy, tmp_path)
    np.testing.assert_array_equal(training.inputs["x"], busy.pixels[taught(67)])
    assert result.fresh.validation.rows == len(compared(67))
    assert "when the live data changed" in result.message
    few = run(ask(run="digits-r8", changed=changed, refresh={"policy": "RecentOnly", "minRows": 250}))
    assert few.fresh is not None
    assert few.fresh.training.rows == 288
    assert "of the last 3h" in few.message


def test_all_rows_since_a_change_count_where_it_lies_before_the_span(ask: Ask, busy: Shop, tmp_path: Path) -> None:
    """Windows of days raise a signal after more than the span: not its last part alone is learned."""
    result = run(ask(changed=NOW - 2 * HOUR, refresh={"policy": "RecentOnly", "span": "30m"}))
    assert result.fresh is not None
    training = rows_of(result.fresh.training, busy, tmp_path)
    np.testing.assert_array_equal(training.inputs["x"], busy.pixels[taught(40)])
    assert "when the live data changed" in result.message


def test_without_labels_there_is_no_truth(ask: Ask, shop: Shop) -> None:
    """Unlabelled rows never teach; neither does a policy that wants none."""
    shop.serve(range(REQUESTS), since=NOW - SPAN, every=60)
    assert "no labels" in kept(ask(production={"uri": shop.production.uri}))
    assert "0 labelled production rows" in kept(ask())
    assert "policy is Never" in kept(ask(refresh={"policy": "Never"}))


def test_a_class_that_nobody_asked_for_lately_is_noticed(ask: Ask, shop: Shop) -> None:
    """A test without a class could not see that it is forgotten."""
    order = np.argsort(shop.digits[: REQUESTS * REQUEST_ROWS], kind="stable")
    shop.pixels[: len(order)], shop.digits[: len(order)] = shop.pixels[order], shop.digits[order]
    shop.serve(range(REQUESTS), since=NOW - SPAN, every=60)
    shop.label(range(REQUESTS))
    assert "no row of class" in kept(ask())


def test_labels_that_the_model_cannot_answer_are_no_truth_for_it(ask: Ask, busy: Shop) -> None:
    """Classes beyond its scores mean that these are labels of something else."""
    busy.label(range(REQUESTS), change=lambda labels: labels + 5)
    assert "has 15 classes from 0 to 14, but the model scores 0 to 9" in kept(ask())


@pytest.fixture
def ask_of_sets(ask: Ask, make: Callable[..., Bundle], data: Data, store: str, shop: Shop) -> Ask:
    """Return the same request for a model whose ten scores are of ten labels, any number of which a row may have."""
    reading = Reading(scores="scores", scale=Scale.PROBABILITIES)
    signature = shop.signature.model_copy(update={"reading": reading})
    champion = publish(make("sets", task=Task.MULTI_LABEL, signature=signature), uri=bundles(store))
    recent = {"champion": champion, "data": data.model_copy(update={"training": None})}
    return lambda **parts: ask(**recent, **parts)


def test_several_labels_a_row_are_split_as_one(ask_of_sets: Ask, busy: Shop, tmp_path: Path) -> None:
    """Lists of zeros and ones become arrays (rows, labels) that the search reads."""
    busy.label(range(REQUESTS), change=lambda digits: np.eye(10, dtype=np.int64)[digits].tolist())
    result = run(ask_of_sets())
    assert result.fresh is not None
    for stored, place in ((result.fresh.training, taught()), (result.fresh.test, np.arange(384, 480))):
        dataset = Dataset(uri=stored.uri, digest=stored.digest)
        rows = read_dataset(dataset, busy.signature, into=tmp_path / stored.digest[7:15], task=Task.MULTI_LABEL)
        np.testing.assert_array_equal(rows.answers.argmax(axis=1), busy.digits[place])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda digits: np.eye(12)[digits].tolist(), "a row has 12 labels, and the model answers 10"),
        (lambda digits: [[digit] * 10 for digit in digits], "labels of .* rows are not all 0 or 1"),
        (lambda digits: [[0] * (1 + digit % 2) for digit in digits], "labels have another form than most"),
        (lambda digits: (np.eye(10)[digits] * (np.arange(10) != 3) + _until(384, 3)).tolist(), "no row of label 3"),
    ],
    ids=["too many", "numbers of labels", "of any length", "missing in the test"],
)
def test_labels_that_are_no_sets_leave_the_original_data(
    ask_of_sets: Ask, busy: Shop, change: Callable[[Any], Any], says: str
) -> None:
    """Each with its reason; a label that a split lacks is named."""
    busy.label(range(REQUESTS), change=change)
    assert re.search(says, kept(ask_of_sets()))


def _until(row: int, label: int) -> Any:
    """Return zeros, with ones for a label until a row."""
    return (np.arange(REQUESTS * REQUEST_ROWS) < row)[:, None] * np.eye(10)[label]


@pytest.mark.usefixtures("busy")
def test_a_result_that_is_no_record_is_built_anew(ask: Ask, claims: Claims) -> None:
    """A folder left half-written by another version is replaced."""
    request = ask()
    folder = claims.path(f"{request.store}/runs/{request.run}/data")
    folder.mkdir(parents=True)
    (folder / "gathered.json").write_text("{}")
    result = run(request)
    assert result.fresh is not None
    assert file_digest(claims.path(result.fresh.test.uri)) == result.fresh.test.digest


@pytest.mark.usefixtures("busy")
def test_a_forged_record_is_no_data(ask: Ask, claims: Claims) -> None:
    """Test rows that somebody else put there, with a record that fits them, are replaced by those that are gathered."""
    request = ask()
    first = run(request)
    assert first.fresh is not None
    test = claims.path(first.fresh.test.uri)
    test.write_bytes(claims.path(first.fresh.validation.uri).read_bytes())
    planted = first.fresh.test.model_copy(update={"digest": file_digest(test)})
    record = first.model_copy(update={"fresh": first.fresh.model_copy(update={"test": planted})})
    (test.parent / "gathered.json").write_bytes(Seal("somebody else's").sealed(record.to_dict()))
    assert run(request) == first
    result = run(request)
    assert result.fresh is not None
    assert file_digest(claims.path(result.fresh.test.uri)) == result.fresh.test.digest
