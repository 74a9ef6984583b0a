"""Which addresses a URI may lead a Job to: none of the machine's own, and private ones only where that is allowed.

Checked on the address that is connected to, after the name is resolved, so that no name can lead around it.
"""

import os
import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from retune.contract.paths import PRIVATE_ADDRESSES_VARIABLE

_METADATA = frozenset({"169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"})
"""Where clouds answer a machine about itself, credentials included."""

_NAT64 = IPv6Network("64:ff9b::/96")


class RefusedError(OSError):
    """A URI leads where a Job does not go; the message is a sentence."""


def check_address(address: str, *, name: str) -> None:
    """Raise RefusedError when the address of the host `name` is one that a Job is not sent to."""
    found = _embedded(ip_address(address))
    never = found.is_link_local or found.is_multicast or found.is_unspecified or str(found) in _METADATA
    if never:
        raise RefusedError(f"{name} leads to {found}, an address of the machine's own network.")
    if not found.is_global and os.environ.get(PRIVATE_ADDRESSES_VARIABLE) != "Allow":
        raise RefusedError(f"{name} leads to the private address {found}, which this installation does not allow.")


def check_host(host: str) -> None:
    """Raise RefusedError when a host is written as an address that is refused, or as a number that hides one."""
    try:
        ip_address(host)
    except ValueError:
        if re.fullmatch(r"(0x[0-9a-f]*|[0-9]+)", host.rpartition(".")[2]):
            raise RefusedError(f"{host} is neither a name nor an address of four numbers.") from None
        return
    check_address(host, name=host)


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
