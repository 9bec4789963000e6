"""The standard gRPC health service: SERVING while the server may send work to this device."""

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fedpress.client.edge.status import Status
from fedpress.common.address import parse_address
from fedpress.common.errors import SettingError

SERVICE = "fedpress.client"
_WATCHERS = 4  # that may wait for changes at once


def serve_health(address: str, status: Status) -> grpc.Server:
    """Answer at `address`, HOST:PORT; raise SettingError if it cannot be had."""
    parse_address(address)
    servicer = health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(_WATCHERS, "health"), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    def show(connected: bool) -> None:
        states = health_pb2.HealthCheckResponse
        for service in ("", SERVICE):
            servicer.set(service, states.SERVING if connected else states.NOT_SERVING)

    show(status.connected)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise SettingError(f"--health cannot have {address}: another program may listen there") from error
    status.watchers.append(show)
    server.start()
    return server
