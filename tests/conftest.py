"""What holds for all tests."""

import signal


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start: a shell's background jobs ignore it, and so would all that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
