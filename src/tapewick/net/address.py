"""What a URL means for a connection: the name to show, whether it is local, which proxy to use."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

__all__ = ["is_loopback", "proxy_for", "shown"]


def shown(url: str) -> str:
    """``scheme://host:port`` of ``url``: safe to print, since paths and user parts may hold keys."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def is_loopback(url: str) -> bool:
    """Whether ``url`` names this machine by an address or as ``localhost``."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_for(url: str) -> str | None:
    """The proxy the environment prescribes for ``url``, None for a direct connection.

    A loopback address is never sent to a proxy, whatever ``NO_PROXY`` says: the simulated
    venue would become unreachable and its requests would leave the machine.
    """
    parts = urlsplit(url)
    if is_loopback(url) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return proxies.get(scheme) or proxies.get("all")
