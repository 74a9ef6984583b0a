"""Commands are run as typed, and a failed one says what to type to see more. A shell script stands for kubectl."""

import os
from pathlib import Path

import pytest

from tools.kubectl import CommandError, Kubectl, find_program, run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the front of PATH, apart from any cluster of this machine."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RETUNE_CLUSTER_DIR", str(tmp_path / "cluster"))
    monkeypatch.delenv("RETUNE_KUBECONTEXT", raising=False)
    return tmp_path


def program(path: Path, script: str) -> Path:
    """Write a shell script that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_command_has_the_context_and_the_namespace_it_is_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without either, the kubeconfig decides; what is typed comes last."""
    program(folder / "kubectl", 'echo "$@"')
    assert Kubectl.of_environment()("get", "pods") == "get pods\n"
    monkeypatch.setenv("RETUNE_KUBECONTEXT", "kind-retune")
    kubectl = Kubectl.of_environment().within("digits")
    assert kubectl("get", "pods") == "--context kind-retune --namespace digits get pods\n"


def test_a_failed_command_tells_the_programs_words_and_how_to_repeat_it(folder: Path) -> None:
    """Nothing that it printed is taken for an answer."""
    program(folder / "kubectl", 'echo "half an answer"; echo "error: no such pod" >&2; exit 1')
    with pytest.raises(CommandError, match="`kubectl get pod x` failed: error: no such pod") as failure:
        Kubectl()("get", "pod", "x")
    assert failure.value.hint == "kubectl get pod x"


def test_a_command_that_does_not_end_is_given_up(folder: Path) -> None:
    """A cluster that hangs cannot hang the tests."""
    slow = program(folder / "slow", "exec sleep 60")
    with pytest.raises(CommandError, match=r"`slow now` did not end within 0.1 s"):
        run([str(slow), "now"], seconds=0.1)


def test_an_object_that_is_not_there_is_none_and_an_empty_list_has_no_items(folder: Path) -> None:
    """Nothing is printed for both when kubectl is told to ignore what is missing."""
    program(folder / "kubectl", "true")
    assert Kubectl().find("pod", "x") is None
    assert Kubectl().items("pods") == []


def test_objects_are_read_as_json(folder: Path) -> None:
    """One object, or those of a list; standard input is passed on."""
    program(folder / "kubectl", """echo '{"items": [{"kind": "Pod"}]}'""")
    assert Kubectl().get("pods") == {"items": [{"kind": "Pod"}]}
    assert Kubectl().items("pods") == [{"kind": "Pod"}]
    program(folder / "kubectl", "cat")
    assert Kubectl()("apply", "--filename", "-", stdin="kind: Pod") == "kind: Pod"


def test_a_program_is_taken_from_path_and_else_from_the_local_cluster(folder: Path) -> None:
    """Where it is in neither place, the error says how to get it."""
    with pytest.raises(CommandError, match="retune-nowhere is neither on PATH nor built") as failure:
        find_program("retune-nowhere")
    assert failure.value.hint == "make cluster-up"
    built = program(folder / "cluster" / "bin" / "retune-nowhere", "true")
    assert find_program("retune-nowhere") == str(built)
    on_path = program(folder / "retune-nowhere", "true")
    assert find_program("retune-nowhere") == str(on_path)
