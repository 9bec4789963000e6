"""A device uses the codecs of packages that are installed on it, and of those that its own configuration names."""

import os
import re
from pathlib import Path

import pytest

from .conftest import Place

PACKAGE = Path(__file__).parents[1] / "packages" / "acme"
UP = "grid(0.01) | ans"


def on_path(place: Place, folder: Path, before: str) -> None:
    """Let the processes that are started next find the modules in `folder`."""
    place.environment["PYTHONPATH"] = os.pathsep.join([str(folder), before])


@pytest.mark.slow
def test_an_entry_point_or_client_toml_lets_a_device_use_a_codec(place: Place, site: Path) -> None:
    before = place.environment["PYTHONPATH"]
    on_path(place, site, before)
    place.link()
    place.client("0")
    on_path(place, PACKAGE, before)  # importable, without entry points
    place.client("1", "--set", 'codecs=["acme.codecs:Grid"]')
    place.run(up=UP)
    place.wait((place.folder / "model.npz").exists)
    place.wait(lambda: all(place.log(f"client-{name}").count("the reply is sent") == 3 for name in "01"))
    assert not re.search("the app failed", place.log("client-0") + place.log("client-1"))


@pytest.mark.slow
def test_a_device_imports_no_codec_that_only_the_server_names(place: Place, site: Path) -> None:
    before = place.environment["PYTHONPATH"]
    on_path(place, site, before)
    place.link()
    place.client("0")
    on_path(place, PACKAGE, before)
    place.client("1")
    place.run(up=UP, replies=1)
    place.wait((place.folder / "model.npz").exists)
    refusals = [line for line in place.log("client-1").splitlines() if "the app failed" in line]
    assert len(refusals) >= 2
    assert all("acme.codecs" in line for line in refusals)
    assert "the app failed" not in place.log("client-0")
