"""What checks of many models cost with a check host and without: `python -m tests.bench.check_host [MODELS [SECONDS]]`.

Runs in the monitor image. Windows of 600 rows with 30 columns are captured from a real model, most of them clear and
one in twenty moved, which has a page. Each model's check starts at a moment of its own, spread over as many seconds as
the operator spreads those of hourly windows, in a process of its own as its Job would; all of them, and the host, share
one core. Lateness is the time from that moment until the result is written. Checks without a host are measured one
after another, because a core that is too small for them says nothing of how late they are.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from optimizer_jobs.data.volumes import CLAIM_ROOT_VARIABLE
from retune.contract.requests import encode_request
from tests.monitor.shop import FIRST, Shop

MODELS, ALONE = 100, 6
SPREAD_SECONDS = 300.0
"""Over which the operator spreads the checks of windows of an hour."""
MOVED_EVERY = 20
WINDOWS = 4
"""Clear windows that are captured; models take turns."""
PORT = 9191
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass
class Cost:
    """What checks took."""

    name: str
    checks: int = 0
    jobs_cpu: float = 0.0
    """CPU seconds of the Jobs' own processes, all together."""
    host_cpu: float = 0.0
    """CPU seconds of the host and its children meanwhile, without its start."""
    job_peak: float = 0.0
    """Most memory of a Job's process, in MB; Linux counts in what this one had when it started the Job."""
    host_peak: float = 0.0
    """Most memory of the host's process, in MB; its children share most of it."""
    late: list[float] = field(default_factory=list)
    alone: int = 0
    """Checks that the Job did itself although a host was named."""

    @property
    def a_window(self) -> float:
        """CPU seconds a window."""
        return (self.jobs_cpu + self.host_cpu) / self.checks


def main() -> None:
    """Measure both ways and print the table."""
    models = int(sys.argv[1]) if len(sys.argv) > 1 else MODELS
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else SPREAD_SECONDS
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ |= dict.fromkeys(_THREADS, "1")
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CLAIM_ROOT_VARIABLE] = folder
        place = Path(folder)
        clear, moved = _captured(place)
        rows = [_one_by_one(clear[:1], ALONE, "clear, no host"), _one_by_one(moved, 2, "moved, no host")]
        with _host(place) as pid:
            rows.append(_one_by_one(clear[:1], 20, "clear, host", pid=pid))
            rows.append(_one_by_one(moved, 5, "moved, host", pid=pid))
            rows.append(_spread(clear, moved, models, seconds, pid))
    Console(width=120).print(_table(rows))


def _captured(place: Path) -> tuple[list[Path], list[Path]]:
    """Return files with requests for clear windows and for a moved one."""
    (place / "shop").mkdir()
    shop = Shop(place / "shop")
    shop.refer(measured=True)
    for number in range(WINDOWS):
        shop.serve(FIRST + number)
    shop.serve(FIRST + WINDOWS, change=lambda inputs: inputs + inputs.std(axis=0))
    files = []
    for number in range(WINDOWS + 1):
        files.append(place / f"request-{number}.json")
        files[-1].write_text(encode_request(shop.request(FIRST + number, resource="ml/store")))
    return files[:WINDOWS], files[WINDOWS:]


@contextmanager
def _host(place: Path) -> Iterator[int]:
    log = place / "host.log"
    command = [sys.executable, "-m", "optimizer_jobs.warm", "--namespace", "ml", "--port", str(PORT)]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        while "ready on port" not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.2)
        try:
            yield process.pid
        finally:
            process.terminate()


def _job(request: Path, *, hosted: bool) -> subprocess.Popen[bytes]:
    program = ["optimizer_jobs.warm.ask", "--host", "127.0.0.1", "--port", str(PORT)] if hosted else ["optimizer_jobs"]
    result = str(request) + f".{time.monotonic_ns()}"
    command = [sys.executable, "-m", *program, "--request", str(request), "--result", result]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def _one_by_one(requests: list[Path], times: int, name: str, *, pid: int | None = None) -> Cost:
    """Run checks one after another."""
    cost, before = Cost(name), _host_cpu(pid)
    for number in range(times):
        began = time.monotonic()
        _ended(cost, _job(requests[number % len(requests)], hosted=pid is not None), began)
    return _with_host(cost, pid, before)


def _spread(clear: list[Path], moved: list[Path], models: int, seconds: float, pid: int) -> Cost:
    """Start the check of each model at its own moment."""
    cost, before = Cost(f"{models} models, host"), _host_cpu(pid)
    due = np.sort(np.random.default_rng(0).uniform(0, seconds, models))
    began = time.monotonic()
    running: dict[subprocess.Popen[bytes], float] = {}
    for number, moment in enumerate(due):
        while time.monotonic() - began < moment:
            _collect(cost, running)
            time.sleep(0.01)
        request = moved[0] if number % MOVED_EVERY == MOVED_EVERY - 1 else clear[number % len(clear)]
        running[_job(request, hosted=True)] = began + moment
    while running:
        _collect(cost, running)
        time.sleep(0.01)
    return _with_host(cost, pid, before)


def _collect(cost: Cost, running: dict[subprocess.Popen[bytes], float]) -> None:
    """Take note of the Jobs that have ended."""
    for job, due in list(running.items()):
        if os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            del running[job]
            _ended(cost, job, due)


def _ended(cost: Cost, job: subprocess.Popen[bytes], due: float) -> None:
    if job.stdout is None:
        raise ValueError("the Job's output was not asked for")
    said = job.stdout.read()
    _, status, usage = os.wait4(job.pid, 0)
    job.returncode = os.waitstatus_to_exitcode(status)
    if job.returncode:
        raise SystemExit(said.decode())
    cost.checks += 1
    cost.alone += b"checked here" in said
    cost.jobs_cpu += usage.ru_utime + usage.ru_stime
    cost.job_peak = max(cost.job_peak, usage.ru_maxrss / 1024)
    cost.late.append(time.monotonic() - due)


def _host_cpu(pid: int | None) -> float:
    """Return the CPU seconds of a host with those of its children that have ended."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _with_host(cost: Cost, pid: int | None, before: float) -> Cost:
    if pid is not None:
        cost.host_cpu = _host_cpu(pid) - before
        cost.host_peak = int(_status(pid)["VmHWM"].split()[0]) / 1024
    return cost


def _peak(megabytes: float) -> str:
    """Return the peak of a Job's process, which cannot be seen below that of this one."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{megabytes:.0f}" if megabytes > own else f"at most {own:.0f}"


def _status(pid: int) -> Mapping[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _table(rows: list[Cost]) -> Table:
    table = Table("", title="Checks of windows of 600 rows, 30 columns, on one core")
    for row in rows:
        table.add_column(row.name, justify="right")
    lines = {
        "checks": [str(row.checks) for row in rows],
        "of them done by the Job itself": [str(row.alone) for row in rows],
        "CPU s a window, all together": [f"{row.a_window:.2f}" for row in rows],
        "CPU s a window, the Job's process": [f"{row.jobs_cpu / row.checks:.2f}" for row in rows],
        "most memory of a Job's process, MB": [_peak(row.job_peak) for row in rows],
        "most memory of the host's process, MB": [f"{row.host_peak:.0f}" for row in rows],
        "seconds until the result, p50": [f"{statistics.median(row.late):.2f}" for row in rows],
        "p99": [f"{np.percentile(row.late, 99):.2f}" for row in rows],
    }
    for name, values in lines.items():
        table.add_row(name, *values)
    return table


if __name__ == "__main__":
    main()
