"""The examples in docstrings run."""

import doctest
import importlib

import pytest

from .house import ROOMS, ROOT, sources

MODULES = [
    ".".join(("fedpress", *path.relative_to(ROOT).with_suffix("").parts)).replace("fedpress.fedpress", "fedpress")
    for room in ("fedpress", *ROOMS)
    for path in sources(room)
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_run(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module.removesuffix(".__init__")))
    assert found.attempted
    assert not found.failed
