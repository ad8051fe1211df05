"""Which HTTP proxy leads to a server, as Go programs find it."""

import contextlib
import ipaddress
import urllib.request
from urllib.parse import urlsplit


def proxy_for(server: str, configured: str | None) -> str | None:
    """Return the proxy that is configured for a server, else that of the environment; None for none.

    Raises:
        ValueError: It is of a kind that we cannot speak to.
    """
    proxy = configured or _from_environment(server)
    if proxy and not proxy.startswith(("http://", "https://")):
        raise ValueError(f"proxy {proxy} is not supported: use an http:// or https:// proxy")
    return proxy or None


def _from_environment(server: str) -> str | None:
    """``HTTPS_PROXY`` and ``NO_PROXY`` as Go reads them: the latter may hold address ranges as well."""
    url = urlsplit(server)
    host = url.hostname or ""
    if urllib.request.proxy_bypass(host) or _in_ranges(host, urllib.request.getproxies().get("no", "")):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _in_ranges(host: str, ranges: str) -> bool:
    for entry in ranges.split(","):
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip(), strict=False):
                return True
    return False
