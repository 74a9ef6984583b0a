"""Whatever happens to a command, the operator gets a result document and an exit code."""

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from optimizer_jobs.errors import JobError, printable, store_error
from optimizer_jobs.run import COMMANDS, execute
from retune.contract.exits import Exit
from retune.contract.paths import RESULT_LIMIT
from retune.contract.results import BaselineResult, Failure, Reason, encode_result, parse_result
from tests.unit.jobs.conftest import Claims
from tests.unit.jobs.faults import make_read_only, mounted_tmpfs

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")


@pytest.fixture
def request_file(claims: Claims, tmp_path: Path, store: str) -> Path:
    """A baseline request in a file."""
    assert claims.root.is_dir()
    document: dict[str, Any] = {
        "command": "baseline",
        "resource": "ml/digits",
        "specHash": "abc",
        "store": store,
        "threads": 1,
        "model": {"uri": "pvc://digits/mlp.onnx"},
        "data": {split: {"uri": f"pvc://digits/{split}.npz"} for split in ("training", "validation", "test")},
    }
    path = tmp_path / "request.json"
    path.write_text(json.dumps(document))
    return path


def change(path: Path, **fields: object) -> Path:
    """Change fields of a request file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return path


def command(request: Path, result: Path) -> list[str]:
    """Return the command line a Job runs."""
    return [sys.executable, "-m", "optimizer_jobs", "--request", str(request), "--result", str(result)]


def test_a_person_runs_what_a_job_runs(request_file: Path, tmp_path: Path) -> None:
    """The result is in its file and the last line of stdout, after one line a step; stderr stays empty."""
    result = tmp_path / "result.json"
    done = subprocess.run(command(request_file, result), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == result.read_text()
    assert isinstance(parse_result(lines[-1]), BaselineResult)
    assert [line for line in lines if line.startswith("[")] == [line for line in lines[1:-1] if "about" in line]
    assert any(line.startswith("[5/5]") for line in lines)


def test_a_failure_has_a_result_and_exit_code_64(request_file: Path, tmp_path: Path) -> None:
    """Bad input ends without retry, with reason, object, message and next step in the result."""
    change(request_file, model={"uri": "pvc://digits/absent.onnx"})
    result = tmp_path / "result.json"
    done = subprocess.run(command(request_file, result), capture_output=True, text=True, check=False)
    assert done.returncode == Exit.BAD_INPUT
    failure = parse_result(result.read_bytes())
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.MODEL_NOT_FOUND
    assert failure.object == "pvc://digits/absent.onnx"
    assert failure.message
    assert failure.next_step


def test_a_result_that_cannot_be_written_is_still_printed(request_file: Path) -> None:
    """By hand there is no termination log; the last line of stdout is enough."""
    change(request_file, model={"uri": "pvc://digits/absent.onnx"})
    done = subprocess.run(
        command(request_file, Path("/proc/no/such/file")), capture_output=True, text=True, check=False
    )
    assert done.returncode == Exit.BAD_INPUT
    assert isinstance(parse_result(done.stdout.splitlines()[-1]), Failure)
    assert "result not written" in done.stderr


@pytest.mark.parametrize("content", ["", "{", "[]", '{"command": "reboot"}', '{"command": "baseline"}', "\0"])
def test_a_request_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    """Garbage, unknown commands and missing fields are RequestInvalid, with the fields named."""
    path = tmp_path / "request.json"
    path.write_text(content)
    result, code = execute(path)
    assert isinstance(result, Failure)
    assert (result.reason, code) == (Reason.REQUEST_INVALID, Exit.BAD_INPUT)


def test_an_absent_request_is_refused(tmp_path: Path) -> None:
    """The path that was looked at is in the sentence."""
    result, code = execute(tmp_path / "absent.json")
    assert isinstance(result, Failure)
    assert (result.reason, code) == (Reason.REQUEST_INVALID, Exit.BAD_INPUT)
    assert "absent.json" in result.object


def test_a_hostile_uri_in_a_request_is_refused(request_file: Path) -> None:
    """Paths upwards and other schemes do not get past the request."""
    for uri in ("pvc://digits/../../etc/passwd", "file:///etc/passwd", "http://169.254.169.254/"):
        result, code = execute(change(request_file, model={"uri": uri}))
        assert isinstance(result, Failure)
        assert (result.reason, code) == (Reason.REQUEST_INVALID, Exit.BAD_INPUT)


@needs_root
def test_a_full_and_a_read_only_store_are_told_apart(request_file: Path, claims: Claims) -> None:
    """Both name the store and what to do, and neither leaves half a bundle."""
    with mounted_tmpfs(claims.root / "small", size="48k") as volume:
        full, _ = execute(change(request_file, store="pvc://small/digits"))
        make_read_only(volume)
        frozen, code = execute(request_file)
        assert not list(volume.rglob("*.onnx"))
    assert isinstance(full, Failure)
    assert isinstance(frozen, Failure)
    assert (full.reason, frozen.reason) == (Reason.STORE_FULL, Reason.STORE_NOT_WRITABLE)
    assert full.object.startswith("pvc://small/digits")
    assert code == Exit.BAD_INPUT


def test_an_unexpected_error_is_a_result_that_may_be_retried(
    request_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug of ours gives exit code 1, its kind in the result and its trace in the log."""
    monkeypatch.setitem(COMMANDS, "baseline", "optimizer_jobs.run:no_such_function")
    result, code = execute(request_file)
    assert isinstance(result, Failure)
    assert (result.reason, code) == (Reason.UNEXPECTED, 1)
    assert result.object == "AttributeError"
    assert "Traceback" in capsys.readouterr().err


def test_running_out_of_memory_is_a_result(request_file: Path, tmp_path: Path) -> None:
    """With too little address space for the data, the Job says that memory was the limit."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 40)); bytes(1 << 30)"
    module = tmp_path / "hungry.py"
    module.write_text(f"def run(request):\n    {limited}\n")
    script = (
        "import sys; from pathlib import Path; from optimizer_jobs import run\n"
        "sys.path.insert(0, sys.argv[2]); run.COMMANDS['baseline'] = 'hungry:run'\n"
        "import hungry; result, code = run.execute(Path(sys.argv[1])); print(code, result.object)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(request_file), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "1 memory"


def test_sigterm_ends_a_command_and_tidies_up(request_file: Path, tmp_path: Path) -> None:
    """Python as process 1 ignores SIGTERM unless told otherwise; the scratch folder goes with the process."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(
        command(request_file, tmp_path / "result.json"), stdout=subprocess.PIPE, text=True, env=environment
    ) as job:
        assert job.stdout is not None
        while "[2/5]" not in job.stdout.readline():
            pass
        assert list(scratch.iterdir())
        job.send_signal(signal.SIGTERM)
        assert job.wait() == 128 + signal.SIGTERM
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("name", [name for name in COMMANDS if name in {"baseline", "verify"}])
def test_every_command_is_importable(name: str) -> None:
    """The registry names functions that exist."""
    module, _, function = COMMANDS[name].partition(":")
    assert callable(getattr(import_module(module), function))


def test_hostile_text_cannot_break_a_result() -> None:
    """Control characters and endless names from a file are cleaned and cut before they reach a terminal."""
    error = JobError(Reason.DATA_INVALID, "c\x1b[2J" * 10_000, "m\n" * 10_000, "n" * 10_000)
    payload = encode_result(error.failure())
    assert len(payload) <= RESULT_LIMIT
    assert b"\x1b" not in payload
    assert b"\\u001b" not in payload
    assert len(printable("é" * 900, limit=400)) == 400


def test_other_errors_are_not_taken_for_the_store() -> None:
    """Only space and permission speak of the store."""
    assert store_error(OSError(5, "Input/output error"), uri="pvc://a/b") is None
