"""An end within two seconds at SIGTERM or Ctrl-C, whatever the main thread is at: one call of torch may last longer."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

_GOODBYE = 1.0  # seconds that a last word to the server may take
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_stop(goodbye: Callable[[], None], code: int = 0) -> None:
    """Have the process end with `code` at the next signal to stop, after `goodbye`.

    Python calls handlers in the main thread, between two bytecodes: not before a long call returns. Its wake-up socket
    is written to at once, and a thread waits there. The process ends without taking anything down: files are written
    whole or not at all, and the lock goes with the process.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)

    def watch() -> None:
        with reader, writer:
            while not set(reader.recv(16)) & set(_SIGNALS):
                pass
            last = threading.Thread(target=goodbye, daemon=True)
            last.start()
            last.join(_GOODBYE)
            sys.stderr.flush()
            os._exit(code)

    threading.Thread(target=watch, name="stop", daemon=True).start()
