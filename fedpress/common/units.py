"""Formatting of bytes and seconds in suitable units."""

from collections.abc import Sequence

_AMOUNTS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_TIMES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))


def amount(value: float) -> str:
    """Return a number of bytes as text in a suitable unit."""
    return _in_units(value, _AMOUNTS)


def duration(seconds: float) -> str:
    """Return seconds as text in a suitable unit."""
    return _in_units(seconds, _TIMES)


def _in_units(value: float, units: Sequence[tuple[float, str]]) -> str:
    size, unit = next(((size, unit) for size, unit in units if abs(value) >= size), units[-1])
    return f"{value / size:.3g} {unit}"
