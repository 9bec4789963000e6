import ctypes
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.common.errors import DataError, FedpressError, SettingError
from fedpress.server.run import launcher
from fedpress.server.run.bundle import check, write_bundle
from fedpress.simulations.engine.ray import run_ray

HERE = Path(__file__).parent
PATIENCE = 60.0  # seconds

# What a program can be told in a configuration: no lone halves of characters.
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.one_of(texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats())


@given(config=st.dictionaries(texts, values))
def test_a_run_configuration_reaches_flower_as_it_was(
    config: dict[str, str | int | float | bool], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(folder, "a:b", "c:d", num_clients=1, run_config=config, report=folder / "report")
    read = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    assert list(read) == list(config)
    for key, value in config.items():
        assert type(read[key]) is type(value)
        assert read[key] == value or (math.isnan(read[key]) and math.isnan(value))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, b"x"])
def test_what_flower_cannot_pass_on_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="key"):
        run_ray("a:b", "c:d", num_clients=1, workers=1, run_config={"key": value})  # type: ignore[dict-item]


@pytest.mark.parametrize("sizes", [{"num_clients": 0, "workers": 1}, {"num_clients": 1, "workers": 0}])
def test_there_is_someone_to_simulate_and_someone_to_do_it(sizes: dict[str, int]) -> None:
    with pytest.raises(SettingError, match=r"must be at least 1, got 0"):
        run_ray("a:b", "c:d", **sizes, run_config={})


@pytest.mark.parametrize(
    ("kind", "raised", "text"),
    [
        ("DataError", DataError, "no file"),
        ("SettingError", SettingError, "no file"),
        ("OSError", FedpressError, "the ServerApp raised OSError: no file"),
        ("Path", FedpressError, "the ServerApp raised Path: no file"),
    ],
)
def test_our_errors_are_raised_as_themselves(kind: str, raised: type[Exception], text: str) -> None:
    with pytest.raises(FedpressError) as caught:
        check(json.dumps({"kind": kind, "text": "no file", "traceback": "line 1"}).encode())
    assert (type(caught.value), str(caught.value), caught.value.__notes__) == (raised, text, ["line 1"])


# A SuperLink's part: it listens, and has started a process in a separate session whose parent is gone.
LINK = """
import socket, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.run([sys.executable, "-c", f"import subprocess; subprocess.Popen({sleep}, start_new_session=True)"])
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(float(sys.argv[2]))
"""
RUN = "import sys, time; print('running', flush=True); time.sleep(float(sys.argv[1]))"


@pytest.mark.parametrize("ends", ["the run", "the SuperLink", "the parent"])
def test_whatever_ends_all_ends(ends: str, tmp_path: Path, free_port: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    link = [sys.executable, "-c", LINK, str(free_port), "3" if ends == "the SuperLink" else "600"]
    run = [sys.executable, "-c", RUN, "3" if ends == "the run" else "600"]
    with start(folder, free_port, link, run) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 3
        if ends == "the parent":
            process.stdin.close()
        assert process.stdout.read() == b""  # says nothing more, and comes to an end
        assert not any(child.is_running() for child in family)
        assert folder.exists() or ends == "the parent"  # while the parent may want to read in it
    assert not folder.exists()


def test_a_superlink_that_does_not_start_says_why(tmp_path: Path, free_port: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    link = [sys.executable, "-c", "raise SystemExit('that port is mine')"]
    with start(folder, free_port, link, ["never"]) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"that port is mine\n"
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("apps", "all_gone")
def test_any_apps_run_and_a_client_fails_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = {"out": str(tmp_path / "seen"), "text": 'a "quoted" line\n', "share": 1e-5, "count": 3, "yes": True}
    with caplog.at_level(logging.INFO, "fedpress"):
        run_ray("apps_on_ray:survey", "apps_on_ray:echo", num_clients=6, workers=2, run_config=config)
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["config"] == config
    assert seen["nodes"] == 6  # all were there when the ServerApp was called
    assert seen["rounds"] == [{"replies": 6, "whole": 5, "good": 5}] * 2
    assert seen["folder"] == str(Path.cwd())
    assert seen["threads"] == "1"
    assert not Path(seen["home"]).exists()
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert any("this client never works" in line for line in errors)


@pytest.mark.slow
@pytest.mark.usefixtures("apps", "all_gone")
@pytest.mark.parametrize(
    ("server", "client", "text"),
    [
        ("apps_on_ray:impatient", "apps_on_ray:echo", "^the ServerApp raised RuntimeError: nothing works today"),
        ("apps_on_ray:suicidal", "apps_on_ray:echo", "ended before the ServerApp did"),
        ("apps_on_ray:absent", "apps_on_ray:echo", "raised AttributeError: .*no attribute 'absent'"),
        ("apps_on_ray:survey", "no_such_module:app", "No module named 'no_such_module'"),
    ],
)
def test_a_failed_run_is_one_clear_error(server: str, client: str, text: str) -> None:
    with pytest.raises(FedpressError, match=text):
        run_ray(server, client, num_clients=2, workers=1, run_config={})


@pytest.mark.slow
@pytest.mark.usefixtures("apps", "all_gone")
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_a_run_that_is_stopped(blow: signal.Signals, tmp_path: Path) -> None:
    code = "import sys; from fedpress.simulations.engine.ray import run_ray; run_ray('apps_on_ray:endless', "
    code += "'apps_on_ray:echo', num_clients=2, workers=1, run_config={'out': sys.argv[1]})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "home")], env=environment)
    wait_for((tmp_path / "home").exists)
    launched = psutil.Process(process.pid).children()
    process.send_signal(blow)
    assert process.wait(PATIENCE) == -blow
    home = Path((tmp_path / "home").read_text())
    psutil.wait_procs(launched, PATIENCE)
    assert not home.exists()


DISTIL = {"distillation.enabled": True, "proxy-examples": 200, "guard-examples": 100, "distillation.steps": 20}


@pytest.mark.slow
@pytest.mark.usefixtures("all_gone")
@pytest.mark.parametrize(
    "more",
    [
        {},
        {**DISTIL, "teacher-weights": "classes", "criterion": "clients"},
        {**DISTIL, "groups": [{"share": 0.5}, {"width": 0.25, "share": 0.5}]},
        {"tensors": "head", "finetune-epochs": 1},
        {"sparsity.target": 0.5, "last-round": 2},
    ],
    ids=["plain", "distil", "fleet", "personal", "sparse"],
)
def test_our_apps_make_the_same_bits_as_in_process(more: dict[str, Any], tmp_path: Path) -> None:
    from fedpress.simulations.run import run
    from fedpress.simulations.settings import resolve

    given = {"clients": 20, "per-round": 5, "rounds": 3, "fraction-evaluate": 0.2, "holdout": 0.2, **more}
    for engine in ("inprocess", "ray"):
        run(resolve({**given, "engine": engine, "workers": 2, "out": str(tmp_path / engine)}))
    models = [(tmp_path / engine / "model.safetensors").read_bytes() for engine in ("inprocess", "ray")]
    assert models[0] == models[1]


def start(folder: Path, port: int, link: list[str], run: list[str]) -> subprocess.Popen[bytes]:
    command = launcher.command(folder / "superlink.log", port, link, run, folder)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def apps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
def all_gone() -> Iterator[None]:
    """No process that a test started, directly or not, is there at its end: what loses its parent becomes our child."""
    ctypes.CDLL(None).prctl(launcher._PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = set(psutil.Process().children(recursive=True))
    yield
    left = set(psutil.Process().children(recursive=True)) - before
    _, alive = psutil.wait_procs(left, timeout=0)  # takes note of the ends of those that are no more
    ctypes.CDLL(None).prctl(launcher._PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    assert not alive
