"""Addresses of servers, written as HOST:PORT."""

from ipaddress import ip_address

from fedpress.common.errors import SettingError


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; an IPv6 address is given in brackets, and returned without them."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    valid = colon and bare and (":" in bare) == bracketed and not set(bare) & set("[]/@ ")
    if not valid or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 2**16:
        raise SettingError(f"an address must be HOST:PORT, with a port of 1 to 65535, got {text!r}")
    return bare, int(port)


def join_address(host: str, port: int) -> str:
    """Return `HOST:PORT`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost` or an address of this machine alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
