"""A client of Flower's Fleet API, the connection of a device to a SuperLink.

flwr's own loop (flwr/supernode) starts processes and installs the server's bundle. This client implements the same
protocol without that, with as few requests as possible, and only those of its methods' callers. It reimplements flwr's
interceptors: importing them takes 16 MB, and they end the process if versions differ. tests/edge/test_flower.py checks
that the headers are the same.
"""

import base64
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, cast

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message, RecordDict
from flwr.app.message.message import make_message, remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto, run_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    FLWR_COMPONENT_NAME_METADATA_KEY,
    FLWR_PACKAGE_NAME_METADATA_KEY,
    FLWR_PACKAGE_VERSION_METADATA_KEY,
)
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.version import package_name, package_version
from flwr.supernode.fleet_http_client import FleetHttpClient

from fedpress.common.address import parse_address
from fedpress.common.errors import RefusedError, RunFinishedError, ServerError, ServerUnavailableError, VersionError
from fedpress.common.proxy import Proxy, find_proxy
from fedpress.common.settings import Value
from fedpress.flower.byte_counter import ByteCounter
from fedpress.flower.connection import use_connection
from fedpress.flower.mail import IncomingMessage, OutgoingReply
from fedpress.flower.metadata import set_metadata

__all__ = ["FleetApi", "RunInfo", "failure", "letter_of", "message_of"]

# Values of flwr's ApiErrorCode, whose import would import a web server. A test compares them.
VERSION_INCOMPATIBLE = 1001
ACTIVATION_FAILED = 2004
RUN_NOT_RUNNING, NO_SUCH_RUN = 2007, 2008

_TIMEOUT = 30.0  # seconds to wait for a response, in addition to the time of sending
_MIN_RATE = 2000  # bytes per second: the slowest link, whose buffers may delay what was sent
_MAX_TEMPLATES = 256  # greatest number of templates of objects
_UNUSED_HEADERS = ("accept", "accept-encoding", "connection", "user-agent")  # headers that httpx adds to each request
_MAX_REASON = 500  # greatest length of an error's reason, characters


@dataclass(frozen=True)
class RunInfo:
    """The properties of a run that a device needs."""

    series: int  # runs of the same series share the states of nodes
    config: dict[str, Value]


class FleetApi:
    """A device's connection to a server. Requests raise ServerError and are not retried."""

    def __init__(
        self,
        server: str,
        key: ec.EllipticCurvePrivateKey,
        ca: bytes | None,
        *,
        heartbeat: float,
        traffic: ByteCounter | None = None,
    ) -> None:
        """Prepare a connection to `server`, HOST:PORT, by TLS with the authority `ca`, or by HTTP if it is None."""
        self.traffic = traffic or ByteCounter()
        self._public = public_key_to_bytes(key.public_key())
        self._interval = heartbeat
        self._self_registered = ca is None
        self._node = Node()
        self._templates: dict[bytes, bytes] = {}
        self.proxy = find_proxy(*parse_address(server), tls=ca is not None)
        context: ssl.SSLContext | bool = True
        if ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_verify_locations(cadata=ca.decode("ascii"))
        # FleetHttpClient's own httpx client closes connections that are idle for 5 s, and sends needless headers.
        client = httpx.Client(
            verify=context,
            timeout=_TIMEOUT,
            limits=httpx.Limits(max_keepalive_connections=1, keepalive_expiry=None),
            proxy=self.proxy.url if self.proxy else None,
            trust_env=False,
        )
        scheme = "http" if ca is None else "https"
        self._client = use_connection(
            FleetHttpClient, f"{scheme}://{server}", client, _Headers(key, self._public), _Meter(self)
        )

    @property
    def node(self) -> int:
        """The id of this device at the server; 0 before it is connected."""
        return self._node.node_id

    def connect(self, known: int = 0) -> int:
        """Activate this device, so that the server may send it messages; return its id.

        `known` is the id of an earlier connection: a device that was killed is still active at the server, cannot be
        activated again, and continues with a heartbeat.
        """
        if known:
            self._node = Node(node_id=known)
            try:
                self.heartbeat()
            except RefusedError:
                self._node = Node()
            else:
                return known
        with _translated_errors(self.proxy):
            if self._self_registered:
                try:
                    self._client.RegisterNode(RegisterNodeFleetRequest(public_key=self._public))
                except httpx.HTTPStatusError as error:
                    if error.response.is_server_error:
                        raise
                    # otherwise it is registered already
            request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=self._interval)
            self._node = Node(node_id=self._client.ActivateNode(request).node_id)
        return self.node

    def heartbeat(self) -> None:
        """Send a heartbeat, which alone keeps this device online at the server."""
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=self._interval)
        with _translated_errors(self.proxy):
            if not self._client.SendNodeHeartbeat(request).success:
                raise RefusedError("the server no longer has this device's key")

    def pull(self) -> IncomingMessage | None:
        """Return the next message, without its content; None if no message waits."""
        with _translated_errors(self.proxy):
            response = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not response.messages_list:
            return None
        metadata = response.messages_list[0].metadata
        return IncomingMessage(metadata.message_id, metadata.run_id, response.SerializeToString())

    def fetch(self, work: IncomingMessage) -> IncomingMessage:
        """Return `work` with the objects of its content.

        Objects are named by their hash: one that differs from an earlier object only in the names of its children is
        derived from that, and verified by its hash. The message itself was in the response to `pull`.
        """
        objects: dict[str, bytes] = {}
        (tree,) = PullMessagesResponse.FromString(work.head).message_object_trees
        content = list(tree.children)
        parts = [part for child in content for part in iterate_object_tree(child)]
        for part in parts:
            if part.object_id not in objects:
                objects[part.object_id] = self._derive(part) or self._pull(work.run, part.object_id)
                self._remember(part, objects[part.object_id])
        return replace(work, objects=objects)

    def confirm(self, work: IncomingMessage) -> None:
        """Confirm a message, so that the server deletes its objects."""
        request = ConfirmMessageReceivedRequest(node=self._node, run_id=work.run, message_object_id=work.id)
        with _translated_errors(self.proxy):
            self._client.ConfirmMessageReceived(request)

    def run(self, run: int) -> RunInfo:
        """Return the series of a run and the overrides of its configuration, without the bundle's own configuration."""
        with _translated_errors(self.proxy):
            found = run_from_proto(self._client.GetRun(GetRunRequest(node=self._node, run_id=run)).run)
        config = cast("dict[str, Value]", dict(found.override_config))
        return RunInfo(found.series_id or run, config)

    def push(self, letter: OutgoingReply) -> bool:
        """Send a reply; return whether the server requested its objects."""
        request = PushMessagesRequest.FromString(letter.head)
        request.node.CopyFrom(self._node)
        with _translated_errors(self.proxy):
            response = self._client.PushMessages(request)
            wanted = set(response.objects_to_push)
            for name, content in letter.objects.items():
                if name not in wanted:
                    continue
                part = PushObjectRequest(
                    node=self._node,
                    run_id=letter.run,
                    object_id=name,
                    object_content=content,
                    session_id=response.session_id,
                )
                if not self._client.PushObject(part).stored:
                    raise ServerUnavailableError("the server has given up the upload: it begins again")
        return bool(wanted)

    def leave(self) -> None:
        """Deactivate this device, so that the server sends it no messages."""
        if self.node:
            with _translated_errors(self.proxy):
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.node))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _pull(self, run: int, id: str) -> bytes:
        with _translated_errors(self.proxy):
            response = self._client.PullObject(PullObjectRequest(node=self._node, run_id=run, object_id=id))
        if not response.object_found:
            raise RunFinishedError(f"the server has no object {id[:12]} any more")
        if not response.object_available:
            raise ServerUnavailableError(f"the server waits for object {id[:12]} itself")
        if sha256(response.object_content).hexdigest() != id:
            raise ServerError(f"object {id[:12]} is not what the server sent under this name")
        return response.object_content

    def _derive(self, part: ObjectTree) -> bytes | None:
        if not part.children:
            return None
        children = [child.object_id.encode() for child in part.children]
        for template, old in self._templates_of(len(children)):
            content = template
            for old_child, new_child in zip(old, children, strict=True):
                content = content.replace(old_child, new_child)
            if sha256(content).hexdigest() == part.object_id:
                return content
        return None

    def _templates_of(self, count: int) -> Iterator[tuple[bytes, list[bytes]]]:
        for key, content in reversed(self._templates.items()):
            old = key.split(b",")
            if len(old) == count:
                yield content, old

    def _remember(self, part: ObjectTree, content: bytes) -> None:
        if not part.children or len(content) > 1 << 16:
            return
        # One template for each shape, the content without the names of its children.
        shape = content
        for child in part.children:
            shape = shape.replace(child.object_id.encode(), b"")
        for key, known in list(self._templates.items()):
            for child_id in key.split(b","):
                known = known.replace(child_id, b"")  # noqa: PLW2901
            if known == shape:
                del self._templates[key]
        self._templates[b",".join(child.object_id.encode() for child in part.children)] = content
        while len(self._templates) > _MAX_TEMPLATES:
            del self._templates[next(iter(self._templates))]


def message_of(work: IncomingMessage) -> Message:
    """Return the message in `work`."""
    response = PullMessagesResponse.FromString(work.head)
    (head,), (tree,) = response.messages_list, response.message_object_trees
    bare = message_from_proto(head)
    if bare.has_error() or not tree.children:
        return bare
    (child,) = tree.children
    content = inflate_object_from_contents(child.object_id, dict(work.objects or {}))
    return make_message(bare.metadata, cast("RecordDict", content))


def letter_of(work: IncomingMessage, reply: Message, seconds: float) -> OutgoingReply:
    """Return a reply in the form in which it is sent."""
    set_metadata(reply.metadata, message_id=reply.object_id)
    with no_object_id_recompute():
        head = PushMessagesRequest(
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[get_object_tree(reply)],
            clientapp_runtime_list=[seconds],
        )
        objects = {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
    return OutgoingReply(work.id, work.run, head.SerializeToString(), objects, seconds)


def failure(message: Message, reason: str) -> Message:
    """Return an error reply to `message` with a reason."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason[:_MAX_REASON]), reply_to=message)


@dataclass(frozen=True)
class _Headers:
    """Adds the headers of flwr's NodeAuthHttpInterceptor and RuntimeVersionHttpInterceptor."""

    key: ec.EllipticCurvePrivateKey
    public: bytes

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        for name in _UNUSED_HEADERS:
            context.request.headers.pop(name, None)
        timestamp = now().isoformat()
        context.request.headers.update(
            {
                FLWR_PACKAGE_NAME_METADATA_KEY: package_name,
                FLWR_PACKAGE_VERSION_METADATA_KEY: package_version,
                FLWR_COMPONENT_NAME_METADATA_KEY: "SuperNode",
                FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(self.public).decode("ascii"),
                TIMESTAMP_HEADER: timestamp,
                FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(sign_message(self.key, timestamp.encode("ascii"))).decode(
                    "ascii"
                ),
            }
        )
        return call_next(context)


class _Meter:
    """Counts bytes, and extends the timeout of a response by the time of sending the request."""

    def __init__(self, fleet: FleetApi) -> None:
        self._fleet = fleet

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        request = context.request
        size = len(request.content)
        request.extensions["timeout"]["read"] += size / _MIN_RATE
        self._fleet.traffic.sent(context.rpc_method.rpartition("/")[2], size + _size(request.headers))
        response = call_next(context)
        self._fleet.traffic.received(response.num_bytes_downloaded + _size(response.headers))
        return response


def _size(headers: httpx.Headers) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers.raw)


@contextmanager
def _translated_errors(proxy: Proxy | None) -> Iterator[None]:
    """Raise the ServerError that an HTTP failure means."""
    through = f" through the proxy {proxy}" if proxy else ""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise _error_of(error.response) from error
    except httpx.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error) or "Hostname" in str(error):
            raise RefusedError(f"the server's certificate is not one that this device trusts: {error}") from error
        raise ServerUnavailableError(f"the server cannot be reached{through}: {error}") from error
    except (httpx.TransportError, OSError) as error:  # a proxy's refusal among them
        raise ServerUnavailableError(
            f"the server does not answer{through}: {str(error) or type(error).__name__}"
        ) from error
    except ValueError as error:  # the body is not a protobuf message
        raise ServerUnavailableError(f"the server's response is not valid: {error}") from error


def _error_of(response: httpx.Response) -> ServerError:
    body = _json(response)
    code, detail = body.get("code"), str(body.get("detail") or response.reason_phrase)
    if code == VERSION_INCOMPATIBLE:
        reason = f"{detail} {body.get('extra') or ''}".strip()
        return VersionError(f"the server's Flower is of another version than this device's {package_version}: {reason}")
    if code in {RUN_NOT_RUNNING, NO_SUCH_RUN}:  # some have status 403 although the key is accepted
        return RunFinishedError(detail)
    if response.status_code in {401, 403} or code == ACTIVATION_FAILED:
        return RefusedError(f"the server does not take this device's key: {detail}")
    return ServerUnavailableError(f"the server answers {response.status_code}: {detail}")


def _json(response: httpx.Response) -> Mapping[str, Any]:
    try:
        body = json.loads(response.text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
