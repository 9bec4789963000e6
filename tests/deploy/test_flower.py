"""What the deployment takes for granted of flwr beyond its interfaces: if this fails, flwr has moved it since 1.41."""

import inspect
from importlib.metadata import version

from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, HEARTBEAT_PATIENCE
from flwr.proto.control_pb2 import ListNodesResponse
from flwr.supercore.control import ControlHttpClient
from flwr.superlink.grid import HttpGrid

from fedpress.flower.control_api import EARLIEST, LATEST, PUBLIC_KEY, SIGNATURE, TIMESTAMP
from fedpress.settings.deployment import MIN_BODY


def test_it_is_the_version_that_was_read() -> None:
    assert version("flwr").startswith("1.41."), "read flwr's fleet router, node authentication and grid again"


def test_what_the_gate_knows_of_signed_requests() -> None:
    assert (PUBLIC_KEY, TIMESTAMP, SIGNATURE) == ("flwr-public-key", "flwr-timestamp", "flwr-signature")
    assert (EARLIEST, LATEST) == (-5, 305)
    assert 1.5 * FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE < MIN_BODY


def test_what_the_control_client_has() -> None:
    for name in ("StartRun", "StopRun", "ListRuns", "ListNodes", "RegisterNode", "UnregisterNode"):
        assert callable(getattr(ControlHttpClient, name))
    fields = set(ListNodesResponse.DESCRIPTOR.fields_by_name["nodes_info"].message_type.fields_by_name)
    assert {"node_id", "public_key", "status", "online_until", "heartbeat_interval", "last_activated_at"} <= fields
    assert HEARTBEAT_PATIENCE == 2  # by which `Node.seen` is reckoned


def test_what_the_grid_is_reached_into_for() -> None:
    assert isinstance(inspect.getattr_static(HttpGrid, "_runtime_client"), property)
    assert "self.node = Node(" in inspect.getsource(HttpGrid.__init__)
