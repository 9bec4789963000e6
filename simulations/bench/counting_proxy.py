"""A TCP proxy between processes on this machine that counts the bytes of a connection."""

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
_CHUNK = 1 << 14  # bytes per read


class CountingProxy:
    """Listens on a port on loopback, forwards all bytes to `target`, and counts them; it runs in a thread.

    Parameters
    ----------
    target : tuple[str, int]
        Host and port.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.up = self.down = 0  # bytes towards the target, and from it
        self.turns = 0  # changes of direction to up: HTTP requests and handshakes
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="counting-proxy", daemon=True)
        self._thread.start()
        listening = asyncio.start_server(self._accept, HOST, 0)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()

    @property
    def address(self) -> str:
        """The address that it listens on, HOST:PORT."""
        return f"{HOST}:{self._server.sockets[0].getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop every connection and release the port."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        connection = _Connection()
        up, down = self._forward(reader, target[1], connection, up=True), self._forward(target[0], writer, connection)
        with suppress(OSError, asyncio.CancelledError):  # one end is gone, or the proxy is closed
            await asyncio.gather(up, down)
        writer.close()
        target[1].close()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: "_Connection", *, up: bool = False
    ) -> None:
        """Forward bytes from `reader` to `writer` until the end of the stream."""
        while data := await reader.read(_CHUNK):
            if up:
                self.turns += not connection.goes_up
                self.up += len(data)
            else:
                self.down += len(data)
            connection.goes_up = up
            writer.write(data)
            await writer.drain()
        writer.write_eof()


class _Connection:
    """The direction of a connection's last bytes."""

    goes_up = False
