"""Prometheus metrics of a client, read from its status when they are asked for."""

from collections.abc import Iterable
from wsgiref.simple_server import WSGIServer

from prometheus_client import start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from fedpress.client.edge.status import Status
from fedpress.common.address import parse_address
from fedpress.common.errors import SettingError
from fedpress.flower.byte_counter import ByteCounter


class _Client(Collector):
    def __init__(self, status: Status, traffic: ByteCounter) -> None:
        self._status = status
        self._traffic = traffic

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as they are now."""
        rounds = CounterMetricFamily("fedpress_client_messages", "Messages that were answered.", labels=["kind"])
        for kind in ("train", "evaluate", "query"):
            rounds.add_metric([kind], self._status.messages[kind])
        yield rounds
        failures = CounterMetricFamily("fedpress_client_failures", "What went wrong.", labels=["kind"])
        for kind in ("app", "disk", "server", "key", "version"):
            failures.add_metric([kind], self._status.failures[kind])
        yield failures
        nbytes = CounterMetricFamily("fedpress_client_bytes", "Bytes of HTTP.", labels=["direction"])
        nbytes.add_metric(["up"], self._traffic.up)
        nbytes.add_metric(["down"], self._traffic.down)
        yield nbytes
        requests = CounterMetricFamily("fedpress_client_requests", "Requests to the server.", labels=["name"])
        for name, count in sorted(self._traffic.requests.copy().items()):
            requests.add_metric([name], count)
        yield requests
        yield CounterMetricFamily("fedpress_client_app_seconds", "Seconds in the app.", value=self._status.seconds)
        yield GaugeMetricFamily(
            "fedpress_client_connected", "Whether the server may send work here.", value=self._status.connected
        )


def serve_metrics(address: str, status: Status, traffic: ByteCounter) -> WSGIServer:
    """Answer at `address`, HOST:PORT; raise SettingError if it cannot be had."""
    host, port = parse_address(address)
    registry = CollectorRegistry()
    registry.register(_Client(status, traffic))
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingError(f"--metrics cannot have {address}: {error.strerror}") from error
    return server
