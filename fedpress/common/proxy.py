"""The proxy that the environment names for a connection. Loopback is always reached directly."""

import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from fedpress.common.address import is_loopback, join_address
from fedpress.common.errors import SettingError

_BYPASS = ("no_proxy", "NO_PROXY")
_PROXIES = tuple(spelled for name in ("http_proxy", "https_proxy", "all_proxy") for spelled in (name, name.upper()))
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the environment variable that names it."""

    variable: str
    url: str

    def __str__(self) -> str:
        """Return the variable and its value, without a user's name and password."""
        return f"{self.variable}={self.url.rpartition('@')[2] if '@' in self.url else self.url}"


def named_proxy(*, tls: bool) -> Proxy | None:
    """Return the proxy that the environment names for connections with or without TLS, used or not.

    The variable is `https_proxy` with TLS and `http_proxy` without, else `all_proxy`; lower case precedes upper case.
    """
    for name in ("https_proxy" if tls else "http_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if value := os.environ.get(variable):
                return Proxy(variable, _complete(value))
    return None


def find_proxy(host: str, port: int, *, tls: bool) -> Proxy | None:
    """Return the proxy for a connection, or None if it is direct.

    Loopback and what `no_proxy` lists are reached directly: names with their subdomains, addresses, ranges of
    addresses, and `*` for everything.

    Raises
    ------
    SettingError
        If the variable's value is not the URL of an HTTP proxy.
    """
    proxy = named_proxy(tls=tls)
    if proxy is None or is_loopback(host) or _is_bypassed(host, port):
        return None
    if _scheme(proxy.url) != "http":
        raise SettingError(f"{proxy} must be http://HOST:PORT; with no_proxy={host} the server is reached directly")
    return proxy


def direct_to_loopback(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to change so that programs which use httpx reach loopback directly.

    httpx reads all variables when a client is made, and fails on values that it does not know: these become empty.
    """
    changes = {name: "" for name in _PROXIES if inherited.get(name) and not _is_usable(inherited[name])}
    listed = [entry.strip() for entry in (inherited.get(_BYPASS[0]) or inherited.get(_BYPASS[1], "")).split(",")]
    # Of a range of IPv6 addresses httpx makes a URL that is not valid.
    known = [entry for entry in listed if entry and not (":" in entry and "/" in entry)]
    return {**changes, **dict.fromkeys(_BYPASS, ",".join(dict.fromkeys([*known, *_LOOPBACK])))}


def _is_bypassed(host: str, port: int) -> bool:
    listed = next((os.environ[name] for name in _BYPASS if os.environ.get(name)), "")
    if urllib.request.proxy_bypass_environment(join_address(host, port), {"no": listed}):  # type: ignore[attr-defined]
        return True
    return any(_contains(entry.strip().strip("[]"), host) for entry in listed.split(","))


def _contains(entry: str, host: str) -> bool:
    """Return whether `entry` is a range of addresses, or an address, that contains the address `host`."""
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return False


def _complete(value: str) -> str:
    return value if "://" in value else f"http://{value}"


def _scheme(url: str) -> str:
    """Return the scheme of a URL, empty if the URL is not valid."""
    try:
        parts = urlsplit(url)
        return parts.scheme if parts.hostname and parts.port != 0 else ""
    except ValueError:
        return ""


def _is_usable(value: str) -> bool:
    scheme = _scheme(_complete(value))
    return scheme in ("http", "https") or (scheme in ("socks5", "socks5h") and find_spec("socksio") is not None)
