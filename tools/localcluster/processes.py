"""Starting, finding and stopping the cluster's daemons.

A record (pid, start time, boot, hash of the specification) is written by the child itself before it becomes the
daemon, so no crash of ours can leave a daemon unknown. A pid whose start time differs is somebody else's and never
touched.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tools.localcluster import cgroups
from tools.localcluster.settings import Settings
from tools.localcluster.shell import ClusterError, tail, wait_for

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
START_TIME_FIELD = 21
# The shell joins the group and tells who it is, then becomes the daemon; pid and start time stay the same.
LAUNCH = """
echo $$ > "$1" || exit 1
read -r stat < /proc/$$/stat || exit 1
echo "$$ $2 $3 $stat" > "$4.new" && mv "$4.new" "$4" || exit 1
shift 4
exec "$@"
"""


@dataclass(frozen=True)
class Daemon:
    """A daemon to run. inputs: files whose change asks for a restart. ready: whether it serves."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    inputs: tuple[Path, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Hash of all that decides how it runs."""
        digest = hashlib.sha256(repr((self.argv, sorted(self.env.items()))).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """What a daemon wrote about itself when it started."""

    pid: int
    boot: str
    fingerprint: str
    started: str

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.boot == boot() and start_time(self.pid) == self.started


def boot() -> str:
    """Identity of this boot of the machine."""
    return BOOT_ID.read_text().strip()


def start_time(pid: int) -> str | None:
    """Start time of a running process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else rest[START_TIME_FIELD - 3]


def read_record(settings: Settings, name: str) -> Record | None:
    """The record of a daemon; None when there is none that can be read."""
    try:
        pid, started_boot, fingerprint, stat = (settings.records / name).read_text().split(" ", 3)
        started = stat.rpartition(")")[2].split()[START_TIME_FIELD - 2]
        return Record(int(pid), started_boot, fingerprint, started)
    except (OSError, ValueError, IndexError):
        return None


def recorded(settings: Settings, name: str) -> bool:
    """Whether a daemon was started and not stopped since; it may have ended by itself."""
    return read_record(settings, name) is not None


def running(settings: Settings, name: str) -> Record | None:
    """The record of a daemon that runs."""
    record = read_record(settings, name)
    return record if record and record.alive() else None


def log_path(settings: Settings, name: str) -> Path:
    """Where a daemon's output goes."""
    return settings.logs / f"{name}.log"


def ensure(settings: Settings, daemon: Daemon) -> bool:
    """Start a daemon unless it runs as specified, stopping one that runs otherwise; returns whether it started."""
    record = running(settings, daemon.name)
    if record and record.fingerprint == daemon.fingerprint():
        return False
    stop(settings, daemon.name)
    start(settings, daemon)
    return True


def start(settings: Settings, daemon: Daemon) -> None:
    """Start a daemon in its group, detached from this process; the former log is kept as NAME.log.1."""
    for folder in (settings.records, settings.logs):
        folder.mkdir(parents=True, exist_ok=True)
    log = log_path(settings, daemon.name)
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    group = cgroups.leaf(settings, daemon.name) / "cgroup.procs"
    record = settings.records / daemon.name
    with log.open("wb") as sink:
        subprocess.Popen(
            ["/bin/sh", "-c", LAUNCH, "sh", group, boot(), daemon.fingerprint(), record, *daemon.argv],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**clean_environment(), **daemon.env},
            cwd="/",
            start_new_session=True,
        )


def clean_environment() -> dict[str, str]:
    """The little that daemons may know of the caller's environment: no proxies, no credentials."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/root"), "LANG": "C.UTF-8"}


def wait_ready(settings: Settings, daemon: Daemon, *, seconds: float = 60) -> None:
    """Wait until a daemon serves; raises ClusterError with its log's end when it ends or takes too long."""

    def check() -> bool:
        if (settings.records / daemon.name).exists() and not running(settings, daemon.name):
            raise ClusterError(f"{daemon.name} ended at once; {log_end(settings, daemon.name)}")
        return daemon.ready()

    wait_for(check, what=f"readiness of {daemon.name}", seconds=seconds, hint=lambda: log_end(settings, daemon.name))


def log_end(settings: Settings, name: str) -> str:
    """The end of a daemon's log, for an error message."""
    log = log_path(settings, name)
    text = log.read_text(errors="replace") if log.exists() else ""
    return f"the end of {log}:\n{tail(text)}"


def stop(settings: Settings, name: str, *, seconds: float = 10) -> None:
    """Stop a daemon, first by asking; then end whatever of it is left in its group."""
    record = running(settings, name)
    if record:
        signal_process(record, signal.SIGTERM)
        try:
            wait_for(lambda: not record.alive(), what=f"the end of {name}", seconds=seconds)
        except ClusterError:
            signal_process(record, signal.SIGKILL)
    cgroups.kill_strays(settings, name)
    (settings.records / name).unlink(missing_ok=True)


def signal_process(record: Record, number: signal.Signals) -> None:
    """Signal exactly the recorded process: through a handle that a recycled pid cannot take over."""
    try:
        handle = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if record.alive():
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)
