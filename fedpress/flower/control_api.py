"""SuperLink's control API, used as by `flwr run`, `flwr supernode` and `flwr stop`, through flwr's client."""

import hashlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self, TypeVar

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import TIMESTAMP_HEADER as TIMESTAMP
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER as PUBLIC_KEY
from flwr.supercore.constant import FLEET_HTTP_SIGNATURE_HEADER as SIGNATURE
from flwr.supercore.constant import MAX_TIMESTAMP_DIFF_SECONDS as LATEST
from flwr.supercore.constant import MIN_TIMESTAMP_DIFF_SECONDS as EARLIEST
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from fedpress.common.errors import FedpressError
from fedpress.common.settings import Value
from fedpress.flower.connection import use_connection

__all__ = [
    "EARLIEST",
    "LATEST",
    "PUBLIC_KEY",
    "SIGNATURE",
    "TIMESTAMP",
    "ControlApi",
    "RegisteredNode",
    "RunStatus",
    "SuperLinkUnavailableError",
]

T = TypeVar("T")
_TIMEOUT = 30.0  # seconds


class SuperLinkUnavailableError(FedpressError):
    """SuperLink does not answer."""


@dataclass(frozen=True)
class RegisteredNode:
    """A node that SuperLink has registered."""

    id: int
    public_key: bytes  # PEM
    status: str  # registered, online, offline
    seen: float  # time of its last heartbeat, seconds since 1970; 0 if there was no heartbeat


@dataclass(frozen=True)
class RunStatus:
    """The status of a run: pending, starting, running or finished; its outcome: completed, failed or stopped."""

    status: str
    outcome: str
    details: str

    @property
    def over(self) -> bool:
        """Whether the run has finished, successfully or not."""
        return self.status == "finished"


class ControlApi:
    """A connection to the control API at `address`, by TLS with the certificate authority `root` (PEM)."""

    def __init__(self, address: str, root: bytes) -> None:
        context = ssl.create_default_context(cadata=root.decode("ascii"))
        client = httpx.Client(verify=context, timeout=_TIMEOUT, trust_env=False)
        interceptor = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
        self._client = use_connection(ControlHttpClient, f"https://{address}", client, interceptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def start_run(self, bundle: Path, config: Mapping[str, Value]) -> int:
        """Start a run of `bundle`, a folder, with all of `config` as overrides; return its id.

        It joins the series of earlier runs: nodes keep their residuals by series, and a run that is resumed after a
        crash is a new run for SuperLink.
        """
        content = build_fab_from_disk(bundle)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(config)))
        before = self._call(lambda: self._client.ListRuns(ListRunsRequest()), "runs cannot be listed")
        for run in before.run_dict.values():
            request.series_id = run.series_id
        response = self._call(lambda: self._client.StartRun(request), "the run cannot be started")
        if not response.run_id:
            raise FedpressError("the run cannot be started: SuperLink gave it no id")
        return int(response.run_id)

    def stop_run(self, run: int) -> None:
        """Stop a run, unless it is over."""
        if not self.status(run).over:
            self._call(lambda: self._client.StopRun(StopRunRequest(run_id=run)), "the run cannot be stopped")

    def unfinished(self) -> list[int]:
        """Return the runs that have not finished, such as those of a server that was killed."""
        response = self._call(lambda: self._client.ListRuns(ListRunsRequest()), "runs cannot be listed")
        return [run for run, description in response.run_dict.items() if description.status.status != "finished"]

    def status(self, run: int) -> RunStatus:
        """Return the status of a run."""
        response = self._call(lambda: self._client.ListRuns(ListRunsRequest(run_id=run)), "the run has no status")
        status = response.run_dict[run].status
        return RunStatus(status.status, status.sub_status, status.details)

    def nodes(self) -> list[RegisteredNode]:
        """Return the registered nodes."""
        response = self._call(lambda: self._client.ListNodes(ListNodesRequest()), "nodes cannot be listed")
        return [
            RegisteredNode(info.node_id, info.public_key, info.status, _last_heartbeat(info))
            for info in response.nodes_info
            if info.status != "unregistered"
        ]

    def register(self, name: str, public_key: bytes) -> int:
        """Register a key (PEM) under a name; return the id of its node."""
        request = RegisterNodeRequest(public_key=public_key, name=name)
        return int(self._call(lambda: self._client.RegisterNode(request), f"{name} cannot be registered").node_id)

    def unregister(self, node: int) -> None:
        """Unregister a node: its requests are refused, and it gets no further messages."""
        request = UnregisterNodeRequest(node_id=node)
        self._call(lambda: self._client.UnregisterNode(request), f"node {node} cannot be unregistered")

    @staticmethod
    def _call(request: Callable[[], T], failure: str) -> T:
        try:
            return request()
        except httpx.HTTPStatusError as error:
            details = FlowerError.from_json(error.response.text)
            reason = (details.public_details or details.message) if details else str(error.response.status_code)
            raise FedpressError(f"{failure}: {reason}") from error
        except httpx.HTTPError as error:
            raise SuperLinkUnavailableError(f"{failure}: SuperLink does not answer: {error}") from error


def _last_heartbeat(info: object) -> float:
    """Return the time of a node's last heartbeat, from the time until which it counts as online."""
    until, interval = float(info.online_until), float(info.heartbeat_interval)  # type: ignore[attr-defined]
    activated = str(info.last_activated_at)  # type: ignore[attr-defined]
    if not activated:
        return 0.0
    deactivated = str(info.last_deactivated_at)  # type: ignore[attr-defined]
    if info.status != "online" and deactivated:  # type: ignore[attr-defined]
        return datetime.fromisoformat(deactivated).timestamp()
    return until - 2 * interval
