"""A process that runs a SuperLink and one run on it, and sees to it that both are gone when its parent is.

It is started as a script and imports nothing of ours, so that it is there at once. It prints what the run prints, and
ends when the run does, when the SuperLink dies, or when its standard input ends: also when its parent is killed.
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

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def launch(folder: Path, port: int, superlink: list[str], run: list[str]) -> None:
    """Start `superlink`; once it listens on `port`, start `run`; return when either ends or the parent wants it."""
    log = folder / "superlink.log"
    with log.open("wb") as output:
        link = subprocess.Popen(superlink, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    while not _listens(port):
        if link.poll() is not None:
            sys.stdout.write(log.read_text(errors="replace"))
            sys.stdout.flush()
            return
        if _dismissed(0.05):
            return
    process = subprocess.Popen(run, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    while process.poll() is None and link.poll() is None and not _dismissed(0.1):
        pass


def stop_all() -> None:
    """Kill every process that descends from this one, and wait until they are gone."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=1)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _dismissed(seconds: float) -> bool:
    """Wait so long for the end of standard input."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def main() -> None:
    """Read the arguments, do it, and tidy up."""
    folder, port, superlink, run = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if sys.platform == "linux":
        # Processes that their own parents leave behind become our children, not init's: none is missed.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        launch(Path(folder), port, superlink, run)
    finally:
        stop_all()
        os.close(1)  # sys.stdout.close() would leave it open
        sys.stdin.read()  # the parent may still want to read what is in the folder
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
