"""Whose request it is: the address that limits count, also behind proxies that are known.

What a header says about an address counts only if a proxy of ``server.trusted_proxies`` sent it: anybody can write one.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from tapewick.errors import ConfigError

__all__ = ["FORWARDED", "Addresses", "account", "loopback"]

FORWARDED = "x-forwarded-for"
PREFIX = 64  # bits: the smallest network an IPv6 customer gets, so its addresses share one account

Address = IPv4Address | IPv6Address


class Addresses:
    """Tells clients from proxies. ``trusted``: addresses and networks (``10.0.0.0/8``) of proxies whose
    ``X-Forwarded-For`` counts. Raises ``ConfigError`` for what is neither."""

    def __init__(self, trusted: Collection[str] = ()) -> None:
        try:
            self._trusted = tuple(ip_network(text, strict=False) for text in trusted)
        except ValueError as error:
            raise ConfigError(
                f"server.trusted_proxies: {error}; write addresses or networks such as 10.0.0.0/8"
            ) from None

    def trusts(self, peer: str) -> bool:
        """Whether ``peer`` is one of the proxies."""
        return bool(self._trusted) and self._is_proxy(_parsed(peer))

    def of(self, peer: str, forwarded: Collection[str]) -> str:
        """The account of who asked through ``peer``: the last address in the ``forwarded`` header lines that is no
        proxy of ours; ``peer`` itself unless it is one."""
        if not self.trusts(peer):
            return account(peer)
        found = peer
        for hop in reversed([part.strip() for line in forwarded for part in line.split(",")]):
            address = _parsed(_bare(hop))
            if address is None:
                break  # what is left of it nobody we trust has written
            found = str(address)
            if not self._is_proxy(address):
                break
        return account(found)

    def _is_proxy(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


@lru_cache(4096)
def account(address: str) -> str:
    """What requests of ``address`` count for: an IPv4 address itself, of IPv6 its network."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((int(parsed) >> (128 - PREFIX) << (128 - PREFIX), PREFIX)))
    return address if parsed is None else str(parsed)


def loopback(address: str) -> bool:
    """Whether ``address``, or an account of one, is of this machine."""
    parsed = _parsed(address.partition("/")[0] or "-")
    return (parsed is not None and parsed.is_loopback) or address == account("::1")


def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _bare(hop: str) -> str:
    """An address without the port that some proxies add."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
