"""Laws of the proxy: it changes no byte, counts every one, and does what its line says."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from .tcp_proxy import HOST, LineConditions, Proxy

BIG = bytes(range(256)) * 1000


class Echo:
    """A server that sends everything back."""

    def __init__(self) -> None:
        self._socket = socket.create_server((HOST, 0))
        self.address = self._socket.getsockname()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.address) as proxy:
        yield proxy


def dial(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=30)


def exchange(connection: socket.socket, data: bytes) -> bytes:
    def send() -> None:
        with suppress(OSError):  # the receiver notices it too
            connection.sendall(data)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    back = b""
    while len(back) < len(data):
        part = connection.recv(1 << 16)
        if not part:
            raise ConnectionResetError
        back += part
    sender.join()
    return back


def wait_until(holds, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.01)


def test_it_changes_nothing_and_counts_everything(proxy: Proxy) -> None:
    for _ in range(2):
        with dial(proxy) as connection:
            for _ in range(3):
                assert exchange(connection, b"question") == b"question"
            assert exchange(connection, BIG) == BIG
    wait_until(lambda: proxy.traffic.down == 2 * (24 + len(BIG)))
    assert proxy.traffic.up == 2 * (24 + len(BIG))
    assert proxy.traffic.connections == 2
    assert proxy.traffic.turns >= 8


def test_a_half_closed_connection_gets_the_rest(proxy: Proxy) -> None:
    with dial(proxy) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        back = b""
        while part := connection.recv(100):
            back += part
    assert back == b"last words"


@pytest.mark.parametrize("line", [LineConditions(delay=0.2), LineConditions(rate=50_000)])
def test_a_slow_line_is_slow_and_changes_nothing(line: LineConditions, proxy: Proxy) -> None:
    data = BIG[:20_000]  # 0.4 s at that rate, each way; the two overlap
    proxy.line = line
    with dial(proxy) as connection:
        began = time.monotonic()
        assert exchange(connection, data) == data
        assert time.monotonic() - began >= 0.38  # no line is quicker than it is made


def test_a_cut_line_refuses_and_drops_and_then_is_there_again(proxy: Proxy) -> None:
    with dial(proxy) as connection:
        assert exchange(connection, b"x") == b"x"
        proxy.line = LineConditions(cut=True)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)
    proxy.line = LineConditions()
    with dial(proxy) as connection:
        assert exchange(connection, b"x") == b"x"


def test_an_upload_is_reset_in_its_middle_and_small_questions_are_not(proxy: Proxy) -> None:
    proxy.line = LineConditions(reset=1000)
    with dial(proxy) as connection:
        for _ in range(5):
            assert exchange(connection, b"q" * 600) == b"q" * 600
        with pytest.raises(ConnectionResetError):
            exchange(connection, BIG)
    assert proxy.traffic.resets == 1
    assert proxy.traffic.up <= 5 * 600 + 1000


def test_an_upload_stands_still_until_the_line_is_well_again(proxy: Proxy) -> None:
    proxy.line = LineConditions(stall=1000)
    with dial(proxy) as connection:
        assert exchange(connection, b"q") == b"q"
        back: list[bytes] = []
        upload = threading.Thread(target=lambda: back.append(exchange(connection, BIG)), daemon=True)
        upload.start()
        wait_until(lambda: proxy.traffic.stalls == 1)
        assert not back
        proxy.line = LineConditions()
        upload.join(30)
    assert back == [BIG]


def test_a_schedule_is_played(proxy: Proxy) -> None:
    proxy.play([(0.0, LineConditions(cut=True)), (0.3, LineConditions())])
    wait_until(lambda: proxy.line.cut)
    wait_until(lambda: not proxy.line.cut)
    with dial(proxy) as connection:
        assert exchange(connection, b"x") == b"x"


def test_where_nobody_listens_the_connection_is_dropped() -> None:
    with socket.create_server((HOST, 0)) as nobody:
        address = nobody.getsockname()
    with Proxy(address) as proxy:
        with pytest.raises(ConnectionResetError), dial(proxy) as connection:
            connection.recv(1)
        assert proxy.traffic.refused == 1


def test_nothing_is_left(echo: Echo) -> None:
    before = threading.active_count()
    with Proxy(echo.address) as proxy:
        left = dial(proxy)
        assert exchange(left, b"x") == b"x"
        proxy.line = LineConditions(stall=0)
        left.sendall(b"stuck")
        wait_until(lambda: proxy.traffic.stalls == 1)
        port = proxy.port
    left.close()
    wait_until(lambda: threading.active_count() <= before + 1)  # the echo's thread may still be about to end
    with socket.create_server((HOST, port)):  # the port is free
        pass
