"""What fedpress uses of flwr beyond its documented API: named in one folder, and still where that folder expects it."""

import ast
import importlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from .house import ROOMS, ROOT, sources

# flwr's documented API, to the names in `__all__`; anything else in it may change without notice.
PUBLIC = ("flwr", "flwr.app", "flwr.clientapp", "flwr.clientapp.mod", "flwr.serverapp", "flwr.serverapp.strategy")
INSIDE = "fedpress/flower"
SEEN_IN = "1.41.0"  # the version of flwr that INSIDE was written for


def private_names(path: Path) -> Iterator[tuple[str, str]]:
    """The private names of flwr in a file, as (module, name); of modules that are named in strings, too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += [(str(node.module), alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("flwr."):
            found.append((node.value.partition(":")[0], ""))
    for module, name in dict.fromkeys(found):
        if module.partition(".")[0] == "flwr" and not is_public(module, name):
            yield module, name


def is_public(module: str, name: str) -> bool:
    return module in PUBLIC and (
        not name or f"{module}.{name}" in PUBLIC or name in importlib.import_module(module).__all__
    )


def private_attributes(path: Path) -> Iterator[str]:
    """Attributes with a leading underscore of objects that the file did not make, in files that import flwr."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    if not any(module.partition(".")[0] == "flwr" for module in modules):
        return
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    standard = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    defined |= {
        node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    }
    for node in attributes:
        if isinstance(node.value, ast.Name) and node.value.id in standard:
            continue
        if node.attr == "__dict__" or (node.attr[0] == "_" and node.attr[1] != "_" and node.attr not in defined):
            yield ast.unparse(node)


def test_private_names_of_flwr_stay_in_one_folder() -> None:
    outside = [
        f"{path.relative_to(ROOT)}: {'.'.join(filter(None, name)) if isinstance(name, tuple) else name}"
        for room in ("fedpress", *ROOMS)
        for path in sources(room)
        if path.parent.relative_to(ROOT).as_posix() != INSIDE
        for name in (*private_names(path), *private_attributes(path))
    ]
    assert not outside


@pytest.mark.parametrize(
    ("file", "module", "name"),
    [(path.name, *names) for path in sources(INSIDE) for names in private_names(path)],
)
def test_a_private_name_is_where_it_was(file: str, module: str, name: str) -> None:
    moved = f"flwr {version('flwr')} has moved {module}.{name}, which flwr {SEEN_IN} had and {INSIDE}/{file} uses"
    try:
        found: ModuleType = importlib.import_module(module)
    except ImportError:
        pytest.fail(moved)
    assert not name or hasattr(found, name), moved
