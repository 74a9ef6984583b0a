"""Which addresses a Job may connect to when it follows a URI.

Addresses of the machine's own network are always refused; private addresses are refused unless the installation
allows them. The check is made on the resolved address, so a host name cannot get around it.
"""

import os
import re
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies

from retune.contract.paths import PRIVATE_ADDRESSES_VARIABLE, PROXIES_VARIABLE

_METADATA = frozenset({"169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"})
"""Metadata services of the cloud providers, which hand out the machine's credentials."""

_NAT64 = IPv6Network("64:ff9b::/96")


class RefusedError(OSError):
    """A URI leads to an address that a Job must not connect to; the message is a sentence."""


def check_address(address: str, *, name: str) -> None:
    """Raise RefusedError when a Job must not connect to `address`, to which the host `name` resolves."""
    target = _embedded(ip_address(address))
    never = target.is_link_local or target.is_multicast or target.is_unspecified or str(target) in _METADATA
    if never:
        raise RefusedError(f"{name} leads to {target}, an address of the machine's own network.")
    allowed = os.environ.get(PRIVATE_ADDRESSES_VARIABLE) == "Allow" or name in _proxy_hosts()
    if not target.is_global and not allowed:
        raise RefusedError(f"{name} leads to the private address {target}, which this installation does not allow.")


def check_host(host: str) -> None:
    """Raise RefusedError when `host` is a refused address, or a number that a resolver would read as an address."""
    try:
        ip_address(host)
    except ValueError:
        if re.fullmatch(r"(0x[0-9a-f]*|[0-9]+)", host.rpartition(".")[2]):
            raise RefusedError(f"{host} is neither a name nor an address of four numbers.") from None
        return
    check_address(host, name=host)


def check_endpoint(variable: str) -> None:
    """Hold the server that an environment variable names to the same rules as that of a URI.

    Raises RefusedError. A name that does not resolve is left to the connection, which says so.
    """
    url = os.environ.get(variable)
    if not url:
        return
    try:
        host = urlsplit(url if "://" in url else f"https://{url}").hostname or ""
        addresses = _addresses(host)
    except ValueError as error:  # also of a name that is no host's
        raise RefusedError(f"{variable} names no server: give https://host:port.") from error
    check_host(host)
    for address in addresses:
        check_address(address, name=host)


def is_public(host: str) -> bool:
    """Return whether any address of a host is on the internet; a name that does not resolve is not."""
    return any(_embedded(ip_address(address)).is_global for address in _addresses(host))


def _addresses(host: str) -> set[str]:
    """Return what a host's name stands for now; raises ValueError for what cannot be a host."""
    if not host:
        raise ValueError("there is no host")
    with suppress(socket.gaierror):
        return {str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    return set()


def trusts_proxies() -> bool:
    """Return whether the administrator has named proxies; those of a user's Secret would lead around every check."""
    return os.environ.get(PROXIES_VARIABLE) == "Trust"


def _proxy_hosts() -> set[str | None]:
    """Return the hosts of the administrator's proxies, which are usually private."""
    return {urlsplit(url).hostname for url in getproxies().values()} if trusts_proxies() else set()


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
