"""System tools from Debian packages: installed only where missing, and without starting any service."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tools.localcluster.settings import Settings
from tools.localcluster.shell import ClusterError, locked, run_logged, say

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
# And for the enforcer of network policies.
POLICY_PACKAGES = {
    "ipset": "/usr/sbin/ipset",
    "iptables": "/usr/sbin/iptables",
}
POLICY = Path("/usr/sbin/policy-rc.d")
FORBID = "#!/bin/sh\nexit 101\n"


def missing(packages: Mapping[str, str]) -> list[str]:
    """Packages whose files are not there."""
    return sorted(name for name, file in packages.items() if not Path(file).exists())


def ensure(settings: Settings, packages: Mapping[str, str] = PACKAGES) -> None:
    """Install what is missing; raises ClusterError where that cannot be done."""
    wanted = missing(packages)
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


def unpacked(settings: Settings, name: str) -> Path:
    """Return the folder of a package's files, fetched once into the cache and installed nowhere.

    Raises ClusterError where there is no Debian to fetch it from.
    """
    target = settings.cache / "packages" / name
    with locked(settings.cache / "packages.lock"):
        if not target.exists():
            _unpack(settings, name, target)
    return target


def _unpack(settings: Settings, name: str, target: Path) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise ClusterError(f"Debian's package {name} cannot be fetched: there is no apt-get here")
    say(f"fetching Debian's package {name}: about 10 s")
    partial, log = target.with_name(f"{name}.partial"), settings.cache / "logs" / f"package-{name}.log"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    own = ("-o", "APT::Sandbox::User=root")  # it may not enter this folder
    run_logged(["apt-get", *own, "download", name], log=log, cwd=partial)
    (archive,) = partial.glob("*.deb")
    run_logged(["dpkg-deb", "--extract", archive, partial / "files"], log=log)
    (partial / "files").rename(target)
    shutil.rmtree(partial)


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
