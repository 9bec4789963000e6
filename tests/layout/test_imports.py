"""Who imports whom: dependencies point one way, and what is imported is declared."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedpress.extensions import EXTENSIONS

from .house import FOLDERS, PROJECT, ROOMS, ROOT, imports, sources

_BELOW = {"common", "compression", "protocol", "flower"}
MAY = {
    "common": {"common"},
    "compression": {"common", "compression"},
    "settings": {"common", "compression", "settings", "extensions"},
    "protocol": {"common", "compression", "protocol"},
    "flower": _BELOW,
    "extensions": {*_BELOW, "settings", "client", "server", "extensions"},
    "client": {*_BELOW, "settings", "client", "extensions"},
    "server": {*_BELOW, "settings", "server", "extensions"},
    "simulations": {*_BELOW, "settings", "client", "server", "extensions", "simulations"},
}
# A distribution's module, where the two have different names.
MODULES = {
    "scikit-learn": "sklearn",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "prometheus-client": "prometheus_client",
    "torch-pruning": "torch_pruning",
}
TORCH = "compression/model"  # the one folder of compression that knows it
# Needed and never imported: their data are read as files.
NOT_IMPORTED = {"seglearn", "sklearn"}
FULL = 16  # modules of a folder at most, with `__init__.py`


def declared(requirements: list[str]) -> set[str]:
    names = {re.split(r"[<>=\[ ]", requirement)[0] for requirement in requirements}
    return {MODULES.get(name, name) for name in names}


BASE = declared(PROJECT["project"]["dependencies"])
SIM = declared(PROJECT["project"]["optional-dependencies"]["sim"])
SHRINK = declared(PROJECT["project"]["optional-dependencies"]["shrink"])
EXPORT = declared(PROJECT["project"]["optional-dependencies"]["export"])
BEHIND_UVICORN = {"h11"}  # of the base: uvicorn and httpx import it, and its older versions have a known hole
BEHIND_TORCH = {"onnx", "onnxscript"}  # of the extra: torch's exporter imports them


def others(room: str) -> set[str]:
    """The distributions, by module, that a room imports."""
    return set().union(*map(distributions, sources(room)))


def distributions(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"fedpress"}


@pytest.mark.parametrize("package", MAY)
def test_imports_point_one_way(package: str) -> None:
    for path in sources(FOLDERS[package]):
        for name in imports(path):
            first, *rest = name.split(".")
            assert first not in ROOMS, f"{path}: packages are imported as fedpress.{name}"
            if first == "fedpress" and rest:
                assert rest[0] in MAY[package], f"{path} imports {name}"
            assert name != "fedpress", f"{path}: what is imported is named by its package"


CORE = ["server/strategy", "server/messaging", "server/aggregation", "server/downlink", "server/run", "client/mod"]


@pytest.mark.parametrize("folder", CORE)
def test_the_core_knows_no_extension_by_name(folder: str) -> None:
    for path in sources(folder):
        known = [name for name in imports(path) if name.startswith("fedpress.extensions.")]
        assert {name.count(".") for name in known} <= {2}, f"{path} imports {known}"
        assert not {name.rpartition(".")[2] for name in known} & EXTENSIONS.keys(), f"{path} imports {known}"


def test_settings_know_the_registry_of_extensions_alone() -> None:
    for path in sources("fedpress/settings"):
        known = {name for name in imports(path) if name.startswith("fedpress.extensions")}
        assert known <= {"fedpress.extensions", "fedpress.extensions.EXTENSIONS", "fedpress.extensions.load"}, path


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_settings_of_an_extension_are_below_the_rest_of_it(extension: str) -> None:
    path = ROOT / "fedpress" / "extensions" / extension / "settings.py"
    packages = {name.split(".")[1] for name in imports(path) if name.startswith("fedpress.")}
    assert packages <= {"common", "settings"}, path


def test_the_two_ends_of_an_extension_do_not_import_each_other() -> None:
    for path in sources("fedpress/extensions"):
        rooms = {name.split(".")[1] for name in imports(path) if name.startswith("fedpress.")}
        assert not {"client", "server"} <= rooms, path
        ends = {name.rpartition(".")[2] for name in imports(path) if name.startswith("fedpress.extensions.")}
        assert not ends & {"client": {"server"}, "server": {"client"}}.get(path.stem, {"client", "server"}), path


def test_compression_imports_no_flwr_and_torch_in_one_folder_alone() -> None:
    for path in sources("compression"):
        inside = path.relative_to(ROOT).is_relative_to(TORCH)
        assert not distributions(path) & ({"flwr"} if inside else {"torch", "flwr", *SHRINK}), path
        assert inside or not any(name.startswith("fedpress.compression.model") for name in imports(path)), path
    assert "torch" in set().union(*map(distributions, sources(TORCH)))


def test_a_codec_needs_neither_torch_nor_flwr() -> None:
    code = """
import sys
import numpy as np
import fedpress
codec = fedpress.codec("ef | topk(0.5) | uniform(4) | ans")
update = {"x": np.arange(4, dtype=np.float32)}
layout = fedpress.Layout.of(update)
frame, _ = codec.encode(update, codec.init(layout), np.random.default_rng(0))
codec.decode(frame, layout)
print(sorted({"torch", "flwr"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_base_install_is_what_a_device_needs_and_no_more() -> None:
    assert (
        set().union(*map(others, ("fedpress", "compression", "client", "server"))) - SHRINK - EXPORT
        == BASE - BEHIND_UVICORN
    )


def test_what_prunes_is_an_extra_that_one_module_imports_when_it_is_called() -> None:
    users = {path for room in ROOMS for path in sources(room) if distributions(path) & SHRINK}
    assert {path.relative_to(ROOT).as_posix() for path in users} == {"compression/model/dependency_graph.py"}
    (path,) = users
    top = {name for node in ast.parse(path.read_text(encoding="utf-8")).body for name in at_the_top(node)}
    assert not top & SHRINK


def test_what_exports_is_an_extra_that_one_folder_imports_when_it_is_called() -> None:
    users = {path for room in ("fedpress", *ROOMS) for path in sources(room) if distributions(path) & EXPORT}
    assert set().union(*map(distributions, users)) & EXPORT == EXPORT - BEHIND_TORCH
    assert {path.parent.relative_to(ROOT).as_posix() for path in users} == {"compression/model/export"}
    for path in users:
        assert not {name for node in ast.parse(path.read_text("utf-8")).body for name in at_the_top(node)} & EXPORT


def at_the_top(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield str(node.module).split(".")[0]


def test_simulations_add_what_they_declare_and_no_more() -> None:
    assert others("simulations") - BASE == SIM - BASE - NOT_IMPORTED


def test_no_folder_has_too_many_modules() -> None:
    folders = Counter(path.parent for room in ("fedpress", *ROOMS) for path in sources(room))
    assert not {folder.relative_to(ROOT).as_posix(): count for folder, count in folders.items() if count > FULL}
