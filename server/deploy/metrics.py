"""Prometheus metrics of a server, in a registry of their own."""

from collections.abc import Iterator, Mapping
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedpress.common.address import parse_address
from fedpress.common.errors import SettingError
from fedpress.server.deploy.state import State


class Metrics(Collector):
    """Serves at HOST:PORT what the state is when it is asked."""

    def __init__(self, address: str, state: State) -> None:
        self._state = state
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        host, port = parse_address(address)
        self._server: WSGIServer
        self._thread: Thread
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise SettingError(f"{address} cannot be listened on, for metrics: {error.strerror}") from error

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as the library asks for them."""
        result = self._state.result
        rounds = result.get("rounds", [])
        yield CounterMetricFamily("fedpress_rounds", "Rounds that are done.", len(rounds))
        frames = {way: sum(row[f"{way}link_bytes"] for row in rounds) for way in ("up", "down")}
        yield _by("fedpress_frame_bytes", "Bytes of frames.", "direction", frames)
        seconds = sum(row["seconds"] for row in rounds)
        yield CounterMetricFamily("fedpress_round_seconds", "Seconds that the rounds took.", seconds)
        failures = sum(row["failures"] for row in rounds)
        yield CounterMetricFamily("fedpress_failures", "Nodes asked whose reply did not count.", failures)
        if rounds and "accuracy" in rounds[-1]:
            yield GaugeMetricFamily("fedpress_accuracy", "On the test set, in [0, 1].", rounds[-1]["accuracy"])
        online = sum(node.online for node in self._state.nodes)
        yield GaugeMetricFamily("fedpress_nodes_online", "Nodes that are online.", online)
        yield GaugeMetricFamily("fedpress_nodes_enrolled", "Nodes that may take part.", len(self._state.nodes))
        bodies = {"up": sum(n.up for n in self._state.nodes), "down": sum(n.down for n in self._state.nodes)}
        yield _by("fedpress_body_bytes", "Bytes of requests and of answers at the gate.", "direction", bodies)
        yield _by("fedpress_refusals", "Requests that were refused at the gate.", "cause", self._state.refusals)
        yield CounterMetricFamily("fedpress_restarts", "Restarts of SuperLink or the ServerApp.", self._state.restarts)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in dict(values).items():
        family.add_metric([key], value)
    return family
