"""The reference is complete: each public definition has its sections, and its examples run."""

import doctest
import inspect
import pkgutil
import re
import runpy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cached_property
from importlib import import_module
from typing import Any

import pytest

from .house import ROOMS, ROOT, sources

# Modules beyond the reference whose public definitions are complete; those of a package are the ones in its `__all__`.
COMPLETE = (
    "fedpress.common.errors",
    "fedpress.compression.codec",
    "fedpress.compression.layout",
    "fedpress.compression.pipeline",
    "fedpress.compression.registry",
    "fedpress.compression.spec",
    "fedpress.extensions",
    "fedpress.protocol.messages",
    "fedpress.protocol.typed_records",
    "fedpress.server.extension",
    "fedpress.server.messaging.extension_messages",
    "fedpress.server.messaging.ledger",
    "fedpress.server.rate_control.policies",
    "fedpress.simulations.completed_run",
    "fedpress.simulations.engine",
    "fedpress.simulations.engine.base",
)


def modules() -> Iterator[str]:
    """Every module with examples."""
    for file in (file for room in ("fedpress", *ROOMS) for file in sources(room)):
        if ">>> " in file.read_text(encoding="utf-8"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts if parts[0] == "fedpress" else ("fedpress", *parts)).removesuffix(".__init__")


def reference() -> Iterator[tuple[str, Any]]:
    """Classes and functions that the pages of the reference describe, and the methods that override none."""
    pages: dict[str, str] = runpy.run_path(str(ROOT / "scripts" / "reference.py"))["pages"]()
    paths = set(re.findall(r"^::: (\S+)$", "\n".join(pages.values()), re.MULTILINE))
    paths |= {
        f"fedpress.protocol.messages.{name}" for name in re.findall(r"(?m)^## `(\w+)`", pages["python/protocol.md"])
    }
    paths |= {f"fedpress.common.errors.{name}" for name in re.findall(r"\*\*`(\w+)`\*\*", pages["errors.md"])}
    values = {pkgutil.resolve_name(path): path for path in sorted(paths)}  # each once, whatever its names
    for value, path in values.items():
        yield from definition(path, value)


def definitions(name: str) -> Iterator[tuple[str, Any]]:
    """Public classes and functions of a package or module, and the methods that override none."""
    module = import_module(name)
    for each in getattr(module, "__all__", None) or vars(module):
        value = getattr(module, each)
        if not each.startswith("_") and (hasattr(module, "__all__") or getattr(value, "__module__", "") == name):
            yield from definition(f"{name}.{each}", value)


def definition(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if inspect.isclass(value):
        yield path, value
        yield from ((f"{path}.{key}", method) for key, method in methods(value))
    elif inspect.isfunction(inspect.unwrap(value)):
        yield path, value


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    for key, value in vars(cls).items():
        inherited = any(hasattr(base, key) for base in cls.__mro__[1:])
        if not (key.startswith("_") or inherited or isinstance(value, property | cached_property)):
            method = inspect.unwrap(getattr(cls, key))
            if inspect.isfunction(method) or inspect.ismethod(method):
                yield key, method


def parameters(value: Any) -> list[str]:
    """Return the names of the parameters that a docstring must describe.

    Fields of a dataclass may be described by comments: the reference prints them as a table.
    """
    if inspect.isclass(value) and issubclass(value, Exception | Enum):
        return []
    if is_dataclass(value):
        source = inspect.getsource(value)  # type: ignore[arg-type]
        commented = re.findall(r"^    (\w+): .*?  # ", source, re.MULTILINE)
        return [each.name for each in fields(value) if each.init and each.name not in commented]
    taken = inspect.signature(inspect.unwrap(value)).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD) if inspect.isclass(value) else ()
    return [each.name for each in taken if each.name not in ("self", "cls") and each.kind not in variadic]


def lacking(value: Any) -> list[str]:
    """Return the parameters and sections that the docstring must have and does not."""
    text = inspect.getdoc(value) or ""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL)
    described = re.findall(r"^(\S.*?)(?: : .*)?$", section[1] if section else "", re.MULTILINE)
    named = {name.strip("*") for line in described for name in line.split(", ")}
    missing = [name for name in parameters(value) if name not in named and not name.startswith("_")]
    if not inspect.isclass(value) and inspect.signature(inspect.unwrap(value)).return_annotation not in (None, "None"):
        missing += [] if re.search(r"^(Returns|Yields)\n-+\n", text, re.MULTILINE) else ["Returns"]
    return missing if ">>> " in text else [*missing, "an example"]


def uncovered(found: Iterator[tuple[str, Any]]) -> tuple[int, dict[str, list[str]]]:
    """Return the number of definitions, and those that lack something with what they lack.

    An example of a class covers its methods.
    """
    missing = {path: lacking(value) for path, value in found}
    for path, lacks in missing.items():
        if "an example" not in missing.get(path.rpartition(".")[0], ["an example"]) and "an example" in lacks:
            lacks.remove("an example")
    return len(missing), {path: lacks for path, lacks in missing.items() if lacks}


def test_the_reference_has_parameters_returns_and_examples() -> None:
    count, missing = uncovered(reference())
    print(f"{1 - len(missing) / count:.0%} of {count} definitions are documented in full")  # noqa: T201  for the log
    assert missing == {}


@pytest.mark.parametrize("name", COMPLETE)
def test_further_definitions_have_parameters_returns_and_examples(name: str) -> None:
    assert uncovered(definitions(name))[1] == {}


@pytest.mark.parametrize("name", list(modules()))
def test_examples_run(name: str) -> None:
    found = doctest.testmod(import_module(name))
    assert found.attempted
    assert not found.failed
