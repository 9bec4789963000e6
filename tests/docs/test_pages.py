"""Every command of every page is run from the page itself, in a fresh checkout, in the order in which it stands."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from .pages import build_script, read_blocks

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "experiments/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("README.md")),
]
# Of a block without a fence, or at a prompt.
COMMAND = re.compile(
    r"^(?:    |\$ )(?:\S*/)?(?:fedpress|flwr|pip|python3?|scripts/\w+|sudo|podman|scp) .*", re.MULTILINE
)

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the pages are not part of the wheel")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def pages(*, slow: bool) -> list[Path]:
    """The pages with commands that are quick, or slow."""
    return [page for page in PAGES if any(block.runs and block.slow == slow for block in read_blocks(page))]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout; its `.venv` is the environment of this process."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folder = tmp_path / "checkout"
    for name in listed.split("\0"):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def run_page(page: Path, folder: Path, *, slow: bool) -> None:
    script = build_script(page, slow=slow)
    assert "-m venv .venv" not in script, "the environment of these tests would be changed"
    home = folder.parent / "home"
    home.mkdir()
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "XDG_STATE_HOME": str(home),
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    log = folder.parent / "log"
    with log.open("wb") as output:
        command = ["bash", "-c", script]
        shell = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            code = shell.wait()
        finally:
            stop_all(home)
    assert code == 0, log.read_text(errors="replace")[-4000:]


def stop_all(home: Path) -> None:
    """Stop what a page left behind: servers, devices, and what Flower started for it."""
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("XDG_STATE_HOME") == str(home):
                process.send_signal(signal.SIGTERM)
                left.append(process)
    for process in psutil.wait_procs(left, timeout=20)[1]:
        with suppress(psutil.Error):
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("page", pages(slow=False), ids=name_of)
def test_the_quick_commands_run(page: Path, checkout: Path) -> None:
    run_page(page, checkout, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(slow=True), ids=name_of)
def test_all_commands_run(page: Path, checkout: Path) -> None:
    run_page(page, checkout, slow=True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_stand_in_blocks_that_are_run_or_say_why_not(page: Path) -> None:
    rest = page.read_text(encoding="utf-8")
    for block in read_blocks(page):
        assert block.language != "sh" or block.runs or block.mark.startswith("not run: "), (block.line, block.mark)
        rest = rest.replace(block.text, "", 1)
    assert not COMMAND.findall(rest)
