"""What single objects, bundles and appends to a study cost, in a folder and on a real S3 server."""

import random
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

import numpy as np
from onnx import helper
from optuna import Study
from rich.table import Table

from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.golden import Golden
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.stores.base import Store
from optimizer_jobs.stores.opening import open_store
from optimizer_jobs.stores.published import open_bundle, publish
from optimizer_jobs.study.trials import open_study
from retune.api.model import Task
from retune.api.objectives import default_objectives
from retune.contract.paths import bundle_uri, bundles
from tests.unit.jobs.models_for_tests import save_graph

LARGE = 64 << 20
SMALL = 4 << 10
REPEATS, REPEATS_LARGE = 100, 5
_HIDDEN = LARGE // (4 * (64 + 10))
"""Width of the layer that makes a network of LARGE bytes."""


def table_of_objects(addresses: Mapping[str, str], scratch: Path) -> Table:
    """Measure objects, bundles and appends in new folders of each store, and return the table.

    Args:
        addresses: Of the stores, by the names of their columns.
        scratch: An empty folder on this machine.
    """
    title = f"median ms: {REPEATS} small (4 KiB), {REPEATS_LARGE} large (64 MiB)"
    table = Table("what", *addresses, title=title)
    uris = {name: f"{uri}/{uuid4().hex}" for name, uri in addresses.items()}
    for name, (count, act) in (_objects(scratch) | _bundles(scratch) | _studies()).items():
        table.add_row(name, *(f"{_median_ms(uri, count, act):.1f}" for uri in uris.values()))
    return table


_Act = Callable[[str, Store, int], object]
"""Does the thing once, in the store at an address; the number is another one each time."""


def _objects(scratch: Path) -> dict[str, tuple[int, _Act]]:
    small, path = random.Random(0).randbytes(SMALL), scratch / "large"
    path.write_bytes(random.Random(1).randbytes(LARGE))
    copy = scratch / "copy"
    return {
        "create small": (REPEATS, lambda _, store, number: store.create(f"small/{number}", small)),
        "create small that exists": (REPEATS, lambda _, store, number: store.create(f"small/{number}", small)),
        "read small": (REPEATS, lambda _, store, number: store.read(f"small/{number}", limit=SMALL)),
        "list 100": (REPEATS, lambda _, store, number: list(store.stats("small/"))),
        "create large": (REPEATS_LARGE, lambda _, store, number: store.create(f"large/{number}", path)),
        "fetch large": (REPEATS_LARGE, lambda _, store, number: store.fetch(f"large/{number}", copy, limit=LARGE)),
    }


def _bundles(scratch: Path) -> dict[str, tuple[int, _Act]]:
    made = [_bundle(scratch / f"bundle{number}", seed=number) for number in range(REPEATS_LARGE)]

    def bring(uri: str, number: int) -> None:
        folder = scratch / f"opened-{uuid4().hex}"
        open_bundle(bundle_uri(uri, made[number].digest), into=folder)
        shutil.rmtree(folder)

    return {
        "publish a bundle of 64 MiB": (REPEATS_LARGE, lambda uri, _, number: publish(made[number], uri=bundles(uri))),
        "publish it again": (REPEATS_LARGE, lambda uri, _, number: publish(made[number], uri=bundles(uri))),
        "open it with a copy of one's own": (REPEATS_LARGE, lambda uri, _, number: bring(uri, number)),
    }


def _bundle(folder: Path, *, seed: int) -> Bundle:
    """Make a bundle around a network of LARGE bytes of noise."""
    noise = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["h"], name="hidden"),
        helper.make_node("Gemm", ["h", "w2"], ["scores"], name="head"),
    ]
    weights = {"w1": noise.normal(size=(64, _HIDDEN)), "w2": noise.normal(size=(_HIDDEN, 10))}
    model = save_graph(folder.with_suffix(".onnx"), nodes, weights)
    lineage = Lineage(resource="ml/bench", original_model=file_digest(model))
    return make_bundle(
        folder,
        model=model,
        engine=EngineOptions(),
        signature=check_onnx(model),
        techniques=(),
        lineage=lineage,
        golden=Golden(),
    )


def _studies() -> dict[str, tuple[int, _Act]]:
    """Append to a file where the store is a folder, and else to a journal of objects."""
    studies: dict[str, Study] = {}

    def append(uri: str, _: Store, number: int) -> None:
        if uri not in studies:
            studies[uri] = open_study(uri, "r1", create=default_objectives(Task.CLASSIFICATION))
        studies[uri].set_user_attr(f"name{number}", "x" * SMALL)

    return {"append 4 KiB to a study": (REPEATS, append)}


def _median_ms(uri: str, count: int, act: _Act) -> float:
    spent, store = [], open_store(uri)
    for number in range(count):
        began = time.perf_counter()
        act(uri, store, number)
        spent.append(time.perf_counter() - began)
    return 1000 * statistics.median(spent)
