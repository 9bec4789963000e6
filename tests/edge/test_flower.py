"""The private names of flwr that the device uses: a moved name fails here, with the version."""

import base64
import time
from collections.abc import Callable
from datetime import UTC, datetime

import flwr
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import (
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedpress.common.errors import RefusedError, RunFinishedError, ServerError, ServerUnavailableError, VersionError
from fedpress.flower import fleet_api
from fedpress.flower.fleet_api import FleetApi, failure, letter_of, message_of
from fedpress.flower.mail import IncomingMessage

KNOWN = "1.41.0"
MOVED = f"flwr {flwr.__version__} is not {KNOWN}: read flwr/supernode again, then fedpress/flower/fleet_api.py"
KEY = ec.generate_private_key(ec.SECP384R1())


def fleet_on(answer: Callable[[httpx.Request], httpx.Response]) -> FleetApi:
    """A Fleet whose requests a function answers."""
    fleet = FleetApi("127.0.0.1:1", KEY, None, heartbeat=30)
    fleet._client._client.close()
    fleet._client._client = httpx.Client(transport=httpx.MockTransport(answer))
    fleet._node.node_id = 5
    return fleet


def a_message(number: int = 0, size: int = 1000) -> Message:
    frame = Array("uint8", (size,), "fedpress.frame", bytes([number]) * size)
    content = {"arrays": ArrayRecord({"frame": frame}), "config": ConfigRecord({"round": number}), "m": MetricRecord()}
    metadata = Metadata(1, "", 1, 5, "", "", time.time(), 60.0, "train")
    message = make_message(metadata, RecordDict(content))
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def head_of(message: Message) -> bytes:
    bare = message_to_proto(remove_content_from_message(message))
    return PullMessagesResponse(
        messages_list=[bare], message_object_trees=[get_object_tree(message)]
    ).SerializeToString()


def test_the_headers_are_flwr_s_own() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    theirs = FleetHttpClient.from_server_address(
        "127.0.0.1:1",
        True,
        None,
        [RuntimeVersionHttpInterceptor("SuperNode"), NodeAuthHttpInterceptor(KEY, KEY.public_key())],
    )
    theirs._client.close()
    theirs._client = httpx.Client(transport=httpx.MockTransport(answer))
    ours = fleet_on(answer)
    assert ours.pull() is None
    theirs.PullMessages(fleet_api.PullMessagesRequest(node=ours._node))
    mine, other = ({k: v for k, v in request.headers.items() if k.startswith("flwr-")} for request in seen)
    assert mine.keys() == other.keys(), MOVED
    for name in mine.keys() - {"flwr-timestamp", "flwr-signature"}:
        assert mine[name] == other[name], MOVED
    public = bytes_to_public_key(base64.b64decode(mine["flwr-public-key"]))
    assert verify_signature(public, mine["flwr-timestamp"].encode(), base64.b64decode(mine["flwr-signature"]))
    assert abs((datetime.fromisoformat(mine["flwr-timestamp"]) - datetime.now(UTC)).total_seconds()) < 60
    assert [request.content for request in seen] == [seen[0].content] * 2
    assert seen[0].url.path == seen[1].url.path
    assert len(seen[0].headers.raw) < len(seen[1].headers.raw)
    theirs.close()
    ours.close()


def test_the_codes_are_flwr_s_own() -> None:
    codes = (
        fleet_api.VERSION_INCOMPATIBLE,
        fleet_api.ACTIVATION_FAILED,
        fleet_api.RUN_NOT_RUNNING,
        fleet_api.NO_SUCH_RUN,
    )
    assert codes == (
        ApiErrorCode.RUNTIME_VERSION_INCOMPATIBLE,
        ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED,
        ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED,
        ApiErrorCode.FLEET_GET_RUN_FAILED,
    ), MOVED


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"detail": "Invalid SuperNode authentication"}, RefusedError),
        (403, {}, RefusedError),
        (400, {"code": 2004, "detail": "activation"}, RefusedError),
        (409, {"code": 2007, "detail": "over"}, RunFinishedError),
        (400, {"code": 2008, "detail": "no such run"}, RunFinishedError),
        (400, {"code": 1001, "detail": "versions", "extra": "1.41 and 1.30"}, VersionError),
        (503, {}, ServerUnavailableError),
        (429, {}, ServerUnavailableError),
        (500, {"code": "odd"}, ServerUnavailableError),
        (200, None, ServerUnavailableError),
    ],
)
def test_each_answer_means_one_thing(status: int, body: dict[str, object] | None, error: type[ServerError]) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=b"\xff\xff\xff") if body is None else httpx.Response(status, json=body)

    fleet = fleet_on(answer)
    with pytest.raises(ServerError) as raised:
        fleet.heartbeat()
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)
    fleet.close()


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("x"), httpx.ReadError("x"), httpx.ReadTimeout(""), OSError("x")]
)
def test_a_link_that_fails_is_worth_another_attempt(failure: Exception) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise failure

    fleet = fleet_on(answer)
    with pytest.raises(ServerUnavailableError):
        fleet.pull()
    fleet.close()


def test_a_message_comes_as_it_was_sent_and_no_object_comes_twice() -> None:
    store: dict[str, bytes] = {}
    pulled: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked = PullObjectRequest.FromString(request.content)
        pulled.append(asked.object_id)
        found = PullObjectResponse(object_found=True, object_available=True, object_content=store[asked.object_id])
        return httpx.Response(200, content=found.SerializeToString())

    fleet = fleet_on(answer)
    counts = []
    for number in range(3):
        message = a_message(number)
        store.update({name: part.deflate() for name, part in get_all_nested_objects(message).items()})
        work = fleet.fetch(IncomingMessage(message.object_id, 1, head_of(message)))
        got = message_of(work)
        assert got.content == message.content
        assert got.metadata == message.metadata
        counts.append(len(pulled))
        pulled.clear()
    # All but the message itself at first: records, array, chunk. Then the frame, the round, and the array when the
    # length changes; what only names others is made here.
    assert counts == [6, 3, 3]
    fleet.close()


def test_an_object_that_is_not_what_its_name_says_is_refused() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        found = PullObjectResponse(object_found=True, object_available=True, object_content=b"something else")
        return httpx.Response(200, content=found.SerializeToString())

    message = a_message()
    fleet = fleet_on(answer)
    with pytest.raises(ServerError, match="is not what the server sent"):
        fleet.fetch(IncomingMessage(message.object_id, 1, head_of(message)))
    fleet.close()


@pytest.mark.parametrize("kind", ["content", "error"])
def test_a_reply_is_flwr_s_own_and_only_what_is_missing_goes_out(kind: str) -> None:
    asked = a_message()
    reply = Message(a_message(3).content, reply_to=asked) if kind == "content" else failure(asked, "x" * 9999)
    letter = letter_of(IncomingMessage(asked.object_id, 1, b""), reply, 1.5)
    everything = {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
    assert letter.objects == everything
    assert reply.metadata.reply_to_message_id == asked.metadata.message_id
    missing = set(list(everything)[::2])
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("push-messages"):
            head = PushMessagesRequest.FromString(request.content)
            assert head.node.node_id == 5
            assert head.messages_list[0].metadata.message_id == reply.object_id
            assert not head.messages_list[0].content.ByteSize()
            said = PushMessagesResponse(objects_to_push=sorted(missing), session_id="s")
            return httpx.Response(200, content=said.SerializeToString())
        part = PushObjectRequest.FromString(request.content)
        assert part.object_content == everything[part.object_id]
        sent.append(part.object_id)
        return httpx.Response(200, content=PushObjectResponse(stored=True).SerializeToString())

    fleet = fleet_on(answer)
    assert fleet.push(letter)
    assert set(sent) == missing
    assert fleet.traffic.requests["PushObject"] == len(missing)
    fleet.close()
