"""System tools from Debian packages: installed only where missing, and without starting any service."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.localcluster.settings import Settings
from tests.localcluster.shell import ClusterError, run_logged, say

# Package and the files that show that it is there.
PACKAGES = {
    "buildah": "/usr/bin/buildah",
    "busybox-static": "/bin/busybox",
    "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
    "containerd": "/usr/bin/containerd",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "debootstrap": "/usr/sbin/debootstrap",
    "iproute2": "/sbin/ip",
    "nftables": "/usr/sbin/nft",
    "openssl": "/usr/bin/openssl",
    "runc": "/usr/sbin/runc",
    "skopeo": "/usr/bin/skopeo",
    "util-linux": "/usr/bin/setpriv",
}
POLICY = Path("/usr/sbin/policy-rc.d")
FORBID = "#!/bin/sh\nexit 101\n"


def missing() -> list[str]:
    """Packages whose files are not there."""
    return sorted(name for name, file in PACKAGES.items() if not Path(file).exists())


def ensure(settings: Settings) -> None:
    """Install what is missing; raises ClusterError where that cannot be done."""
    wanted = missing()
    if not wanted:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ClusterError(f"these Debian packages are missing: {', '.join(wanted)}; install them, then try again")
    say(f"installing {', '.join(wanted)}: about 1 min")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    log = settings.cache / "logs" / "apt.log"
    wait = ("-o", "DPkg::Lock::Timeout=300")
    run_logged(["apt-get", *wait, "update"], log=log, env=env)
    with no_service_starts():
        install = ["apt-get", *wait, "install", "-y", "--no-install-recommends", *wanted]
        run_logged(install, log=log, env=env)


@contextmanager
def no_service_starts() -> Iterator[None]:
    """Keep packages from starting their services, unless the machine has a policy of its own."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text(FORBID)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
