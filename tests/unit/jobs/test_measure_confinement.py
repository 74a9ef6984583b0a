"""Measuring on as much machine as the server has."""

import os
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.commands.search.priority import priority
from optimizer_jobs.measure import confinement as module
from optimizer_jobs.measure.confinement import Confinement, Profile, confined, confinement
from optimizer_jobs.measure.fingerprint import fingerprint
from retune.api.search import Serving
from retune.api.techniques import TechniqueType


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without a memory limit, whatever this machine has."""
    monkeypatch.setattr(module, "memory_limit", lambda: None)


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize(
    ("serving", "threads", "expected"),
    [
        ({}, 2, Confinement(Profile.EDGE_CPU, 2, None)),
        ({}, 3, Confinement(Profile.SERVER_CPU, 3, None)),
        ({"cores": 8}, 1, Confinement(Profile.SERVER_CPU, 8, None)),
        ({"memory": "512Mi"}, 8, Confinement(Profile.EDGE_CPU, 8, 512 << 20)),
        ({"memory": "1Gi"}, 8, Confinement(Profile.SERVER_CPU, 8, 1 << 30)),
        ({"profile": "GPU"}, 1, Confinement(Profile.GPU, 1, None)),
        ({"profile": "ServerCPU", "cores": 1}, 4, Confinement(Profile.SERVER_CPU, 1, None)),
    ],
)
def test_the_spec_decides_and_the_container_fills_in(
    serving: dict[str, object], threads: int, expected: Confinement
) -> None:
    """What the spec says wins; two cores or less than 1Gi are an edge device."""
    assert confinement(Serving.model_validate(serving), threads=threads) == expected


def test_a_small_container_is_an_edge_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The container's own memory limit counts where the spec says none, but refuses no candidate."""
    monkeypatch.setattr(module, "memory_limit", lambda: 256 << 20)
    assert confinement(Serving(), threads=16) == Confinement(Profile.EDGE_CPU, 16, None)


def test_threads_and_children_stay_on_the_chosen_cpus() -> None:
    """A thread that ran before, this one and a child process all see one CPU; afterwards all is as before."""
    before, go, done, seen = os.sched_getaffinity(0), threading.Event(), threading.Event(), []

    def wait() -> None:
        go.wait()
        seen.append(os.sched_getaffinity(0))
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    with confined(1) as cores:
        go.set()
        done.wait()
        child = subprocess.run(
            [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert (cores, len(os.sched_getaffinity(0)), len(seen[0]), int(child.stdout)) == (1, 1, 1, 1)
        assert fingerprint().threads == 1
    thread.join()
    assert os.sched_getaffinity(0) == before


def test_more_cores_than_there_are_changes_nothing() -> None:
    """Nobody is promised CPUs that this process may not use."""
    before = os.sched_getaffinity(0)
    with confined(len(before) + 5) as cores:
        assert cores == len(before)
        assert os.sched_getaffinity(0) == before


def test_the_idlest_cpus_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU that a neighbour keeps busy is left to the neighbour."""
    looks = [{0: 100, 1: 100, 2: 100}, {0: 105, 1: 100, 2: 102}]
    monkeypatch.setattr(module, "_busy", lambda: looks.pop(0))
    assert module._idlest({0, 1, 2}) == [1, 2, 0]


def test_the_kernel_counts_every_cpu() -> None:
    """Real ticks are read for each CPU of this process."""
    assert set(module._busy()) >= os.sched_getaffinity(0)


def test_confinement_is_part_of_the_fingerprint() -> None:
    """Numbers measured for another kind of machine are not compared."""
    assert fingerprint(profile=Profile.EDGE_CPU).short != fingerprint(profile=Profile.SERVER_CPU).short


@given(
    st.sampled_from(Profile), st.sampled_from(TechniqueType), st.sampled_from(["Static", "Half", "WeightOnly", None])
)
def test_priority_orders_all_steps(profile: Profile, kind: TechniqueType, scheme: str | None) -> None:
    """Every step has a place, and small machines want 8 bits before 16 while GPUs want the opposite."""
    assert priority(profile, kind, {"scheme": scheme} if scheme else {}) >= 0
    static, half = (priority(profile, TechniqueType.QUANTIZATION, {"scheme": one}) for one in ("Static", "Half"))
    assert (half < static) == (profile is Profile.GPU)
    pruned, augmented = (
        priority(Profile.EDGE_CPU, one, {}) for one in (TechniqueType.PRUNING, TechniqueType.AUGMENTATION)
    )
    assert pruned < augmented


_LOADING = """
import os, sys

class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            seen.append(len(os.sched_getaffinity(0)))

seen = []
os.sched_setaffinity(0, range(os.cpu_count()))  # whoever runs these tests may have bound them to some
every = len(os.sched_getaffinity(0))
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
sys.meta_path.insert(0, Spy())
import optimizer_jobs.measure.{module}
{use}
print(max(seen) == every, len(os.sched_getaffinity(0)))
"""


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("confinement", "with optimizer_jobs.measure.confinement.confined(1, engines=['onnxruntime']): pass"),
        ("subject_process", "optimizer_jobs.measure.subject_process.load('onnxruntime')"),
    ],
)
def test_an_engine_is_loaded_as_in_a_server(module: str, use: str) -> None:
    """It chooses its kernels by the CPUs that it sees then; a container with a limit of one core sees all of them."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADING.format(module=module, use=use)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.split() == ["True", "1"]
