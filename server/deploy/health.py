"""gRPC's standard health service: whether SuperLink answers, and whether the run continues."""

from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fedpress.common.address import join_address, parse_address
from fedpress.common.errors import SettingError

SUPERLINK, RUN = "superlink", "run"  # services that may be asked for; without a name it is both together
_THREADS = 4


class Health:
    """Serves at HOST:PORT what `tell` was told last."""

    def __init__(self, address: str) -> None:
        address = join_address(*parse_address(address))
        self._servicer = health.HealthServicer()
        self._server = grpc.server(futures.ThreadPoolExecutor(_THREADS), options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        self.tell(superlink=False, run=False)
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise SettingError(f"{address} cannot be listened on, for health: {error}") from error
        self._server.start()

    def tell(self, *, superlink: bool, run: bool) -> None:
        """Take note of what serves."""
        for name, serves in ((SUPERLINK, superlink), (RUN, run), ("", superlink and run)):
            states = health_pb2.HealthCheckResponse
            self._servicer.set(name, states.SERVING if serves else states.NOT_SERVING)

    def close(self) -> None:
        """Say that nothing serves any more, and stop."""
        self._servicer.enter_graceful_shutdown()
        self._server.stop(0.5).wait()
