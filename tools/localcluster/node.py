"""What the node leaves in the kernel and outside the state folder: network pieces, mounts, links; making and removing.

`prepare` and `sweep` are safe to repeat and finish what an interrupted run began. Only pieces that carry the
cluster's names are touched.
"""

from __future__ import annotations

import re
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from tools.localcluster import cgroups, policies
from tools.localcluster.settings import BRIDGE, NODE_IP, POD_CIDR, SERVICE_CIDR, Settings
from tools.localcluster.shell import ClusterError, run

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
CNI_RESULTS = Path("/var/lib/cni/results")
SHIM_SOCKETS = Path("/run/containerd/s")
CONTAINER_LOGS = Path("/var/log/containers")
TABLE = "retune-egress"
RULES = f"""
table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {POD_CIDR} ip daddr != {{ {POD_CIDR}, {SERVICE_CIDR}, {NODE_IP} }} masquerade
  }}
}}
"""


def prepare(settings: Settings) -> None:
    """Make the node's address, forwarding, the way out for pods, and the group of the cluster's processes."""
    settings.run.mkdir(parents=True, exist_ok=True)
    if not Path("/sys/class/net", BRIDGE).exists():
        run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "address", "replace", f"{NODE_IP}/32", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    if FORWARDING.read_text().strip() != "1":
        FORWARDING.write_text("1\n")
    run(["nft", "-f", "-"], stdin=RULES)
    cgroups.create(settings)


def traces(settings: Settings) -> bool:
    """Whether anything of this cluster may be left: only then is anything swept."""
    return settings.run.exists() or settings.records.exists() or any(cgroups.existing(settings))


def prepared(settings: Settings) -> bool:
    """Whether the node's pieces are all there."""
    tables = run(["nft", "list", "tables"])
    bridge = Path("/sys/class/net", BRIDGE).exists()
    return bridge and f"table ip {TABLE}" in tables and settings.run.exists() and address_here()


def address_here() -> bool:
    """Whether this machine has the node's address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((NODE_IP, 0))
        except OSError:
            return False
    return True


def sweep(settings: Settings) -> None:
    """Remove everything the node made outside its state folder; all processes of the cluster end here."""
    if not traces(settings):
        return
    cgroups.remove(settings)
    for task in settings.run.glob("containerd/io.containerd.runtime.v2.task/*/*"):
        forget_task(task)
    unmount(settings)
    remove_network()
    remove_links(settings)
    shutil.rmtree(settings.records, ignore_errors=True)
    shutil.rmtree(settings.run, ignore_errors=True)


def mounts(settings: Settings) -> list[str]:
    """Mount points below the state and run folders, the deepest and latest first."""
    roots = (f"{settings.state}/", f"{settings.run}/")
    points = [line.split(" ")[4] for line in cgroups.MOUNTS.read_text().splitlines()]
    plain = [re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), point) for point in points]
    return [point for point in reversed(plain) if point.startswith(roots)]


def unmount(settings: Settings) -> None:
    """Unmount all that is mounted below the cluster's folders: volumes, root file systems, network namespaces."""
    for point in mounts(settings):
        run(["umount", "--lazy", point], check=False)
    left = mounts(settings)
    if left:
        raise ClusterError(f"cannot unmount {left[0]} and {len(left) - 1} more; nothing was deleted")


def remove_network() -> None:
    """Remove the bridge, the nftables tables of the cluster and of its kube-proxy, and what enforces policies."""
    policies.remove()
    if Path("/sys/class/net", BRIDGE).exists():
        run(["ip", "link", "delete", BRIDGE])
    tables = run(["nft", "list", "tables"]).splitlines()
    for table in (f"table ip {TABLE}", "table ip kube-proxy", "table ip6 kube-proxy"):
        if table in tables:
            run(["nft", "delete", *table.split()])


def remove_links(settings: Settings) -> None:
    """Remove the kubelet's links to our pods' logs, which it keeps at a fixed place."""
    if not CONTAINER_LOGS.exists():
        return
    for link in CONTAINER_LOGS.iterdir():
        if link.is_symlink() and str(link.readlink()).startswith(f"{settings.state}/"):
            link.unlink(missing_ok=True)


def forget_task(task: Path) -> None:
    """Remove what a container left at places that containerd and CNI do not let us choose: its socket, its results."""
    with suppress(OSError):
        address = Path((task / "address").read_text().strip().removeprefix("unix://"))
        if address.parent == SHIM_SOCKETS:
            address.unlink()
    for result in CNI_RESULTS.glob(f"*-{task.name}-*"):
        result.unlink(missing_ok=True)


def purge(settings: Settings) -> None:
    """Delete the state folder; refuses while anything is mounted below it, since that would delete someone's data."""
    if mounts(settings):
        raise ClusterError(f"{mounts(settings)[0]} is still mounted; run `down` first")
    shutil.rmtree(settings.state, ignore_errors=True)
