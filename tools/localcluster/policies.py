"""What kube-router's policy controller leaves in the kernel: chains of the filter table, and sets of addresses.

It leaves them there when it ends, so that policies count while it is away. `remove` takes them out again; it must never
touch a rule, chain or set of anybody else.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from tools.localcluster.shell import run

CHAINS = ("KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-")
SETS = ("KUBE-SRC-", "KUBE-DST-")
FORWARDED = "KUBE-ROUTER-FORWARD"
ACCEPTED = "--mark 0x20000/0x20000 -j ACCEPT"
"""End of the rule that the controller's first whole pass adds: what policies let through."""
TABLE = "table ip filter"


def enforced() -> bool:
    """Whether the controller has written the rules of all pods at least once."""
    return ACCEPTED in run(["iptables", "--list-rules", FORWARDED], check=False)


def remove() -> None:
    """Take out everything of the controller, if there is anything; then all pods reach each other again."""
    if not all(map(shutil.which, ("iptables-save", "iptables-restore", "ipset"))):
        return  # without these programs it cannot have run
    script = removal(saved())
    if script:
        run(["iptables-restore", "--noflush"], stdin=script)
        remove_empty_table()
    for name in run(["ipset", "list", "-name"]).split():
        if name.startswith(SETS):
            run(["ipset", "destroy", name])


def saved() -> list[str]:
    """The filter table as lines of iptables-save."""
    return run(["iptables-save", "--table", "filter"]).splitlines()


def removal(lines: Sequence[str]) -> str:
    """Lines for iptables-restore that remove the controller's chains and the jumps to them; empty where it has none.

    Args:
        lines: The filter table as iptables-save prints it.
    """
    chains = [line[1:].split(" ", 1)[0] for line in lines if line.startswith(tuple(f":{name}" for name in CHAINS))]
    if not chains:
        return ""
    rules = [line for line in lines if line.startswith("-A ") and line.split(" ")[1] not in chains]
    jumps = [f"-D {rule[3:]}" for rule in rules if rule.rpartition(" -j ")[2] in chains]
    emptied, deleted = [f":{chain} - [0:0]" for chain in chains], [f"-X {chain}" for chain in chains]
    return "\n".join(("*filter", *emptied, *jumps, *deleted, "COMMIT", ""))


def remove_empty_table() -> None:
    """Remove the table that iptables made for the controller, unless somebody else uses it."""
    if is_empty(saved()) and TABLE in run(["nft", "list", "tables"]).splitlines():
        run(["nft", "delete", *TABLE.split()])


def is_empty(lines: Sequence[str]) -> bool:
    """Whether a table, as iptables-save prints it, lets everything pass and holds nothing of anybody."""
    chains = [line for line in lines if line.startswith(":")]
    return all(" ACCEPT " in chain for chain in chains) and not any(line.startswith("-A ") for line in lines)
