"""A process that runs a SuperLink, and optionally one run on it, and stops both when its parent ends.

It is started as a script and imports nothing of fedpress, so that it starts at once. It prints the run's output, and
ends when the run does, when the SuperLink dies, or when its standard input closes, as when its parent is killed.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def command(log: Path, port: int, superlink: list[str], run: list[str] | None, folder: Path | None) -> list[str]:
    """Return the command that starts this script with the commands to run, a log, and a folder to remove at the end."""
    arguments = [str(log), port, superlink, run, str(folder) if folder else None]
    return [sys.executable, "-P", __file__, json.dumps(arguments)]


def free_port() -> int:
    """Return a free port on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether a process listens on this port of loopback."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def launch(log: Path, port: int, superlink: list[str], run: list[str] | None) -> None:
    """Start `superlink`; once it listens on `port`, start `run`; return when either ends or the parent does."""
    with log.open("ab") as output:
        link = subprocess.Popen(
            superlink,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  this process has no threads
        )
    while run and not listens(port):
        if link.poll() is not None:
            sys.stdout.write(log.read_text(errors="replace"))
            sys.stdout.flush()
            return
        if _parent_ended(0.05):
            return
    process = subprocess.Popen(run, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT) if run else link
    while process.poll() is None and link.poll() is None and not _parent_ended(0.1):
        pass


def stop_all() -> None:
    """Kill all descendants of this process, and wait until they have ended."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=1)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _parent_ended(seconds: float) -> bool:
    """Wait up to `seconds` for the end of standard input; return whether it was reached."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def main() -> None:
    """Launch as the arguments specify, and clean up."""
    log, port, superlink, run, folder = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if sys.platform == "linux":
        # Orphaned descendants become children of this process, not of init, so that `stop_all` finds them.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        launch(Path(log), port, superlink, run)
    finally:
        stop_all()
        os.close(1)  # sys.stdout.close() would leave it open
        if folder:
            sys.stdin.read()  # the parent may still read the folder
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
