"""The reference is complete: each public definition has its sections, and its examples run."""

import doctest
import inspect
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from typing import Any

import pytest

from .house import ROOMS, ROOT, sources

# Packages and modules whose public definitions are complete; those of a package are the ones in its `__all__`.
COMPLETE = (
    "fedpress.client",
    "fedpress.server",
    "fedpress.client.mod",
    "fedpress.compression.layout",
    "fedpress.compression.spec",
)


def modules() -> Iterator[str]:
    """Every module with examples."""
    for file in (file for room in ("fedpress", *ROOMS) for file in sources(room)):
        if ">>> " in file.read_text(encoding="utf-8"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts if parts[0] == "fedpress" else ("fedpress", *parts)).removesuffix(".__init__")


def definitions(name: str) -> Iterator[tuple[str, Any]]:
    """Public classes and functions of a package or module, and the methods that override none."""
    module = import_module(name)
    for each in getattr(module, "__all__", None) or vars(module):
        value = getattr(module, each)
        if each.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(inspect.unwrap(value))):
            continue
        if hasattr(module, "__all__") or value.__module__ == name:
            yield f"{name}.{each}", value
            if inspect.isclass(value):
                yield from ((f"{name}.{each}.{key}", method) for key, method in methods(value))


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    for key, value in vars(cls).items():
        inherited = any(hasattr(base, key) for base in cls.__mro__[1:])
        if not (key.startswith("_") or inherited or isinstance(value, property | cached_property)):
            method = inspect.unwrap(getattr(cls, key))
            if inspect.isfunction(method) or inspect.ismethod(method):
                yield key, method


def lacking(value: Any) -> list[str]:
    """Return the sections that the docstring must have and does not."""
    text = inspect.getdoc(value) or ""
    signature = inspect.signature(inspect.unwrap(value))
    wanted = []
    if [parameter for parameter in signature.parameters if parameter not in ("self", "cls")]:
        wanted.append("Parameters\n----------\n")
    if not inspect.isclass(value) and signature.return_annotation not in (None, "None"):
        wanted.append("Returns\n-------\n")
    wanted.append(">>> ")
    return [section.split("\n")[0] for section in wanted if section not in text]


@pytest.mark.parametrize("name", COMPLETE)
def test_public_definitions_have_parameters_returns_and_an_example(name: str) -> None:
    assert {definition: sections for definition, value in definitions(name) if (sections := lacking(value))} == {}


@pytest.mark.parametrize("name", list(modules()))
def test_examples_run(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0
