"""The mod: `ClientApp(mods=[compress()])` makes any Flower app send and receive compressed models."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
from flwr.app import Context, Message, MessageType, RecordDict

from fedpress.client.mod.downlink import ReceivedModel, receive_model
from fedpress.client.mod.extension import ActiveExtensions
from fedpress.client.mod.node_state import ClientState
from fedpress.client.mod.trained_model import MOST_NORM, norm_of_change, take_model
from fedpress.client.mod.uplink import encode_update
from fedpress.common.errors import FrameError, SettingError
from fedpress.common.logs import LOGGER
from fedpress.compression import Update, read_codec
from fedpress.protocol.arrays import frame_record, model_record, read_frame_record
from fedpress.protocol.folding import fold, unfold
from fedpress.protocol.messages import (
    RECORD_NAME,
    BaseRequest,
    DivergedReply,
    NodeDescription,
    NodeQuery,
    TrainReply,
    TrainRequest,
    answer_of,
    read_request,
)
from fedpress.protocol.model_frames import ModelFrames
from fedpress.settings.node import NodeConfig

App = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, App], Message]
Initial = Callable[[Context], Mapping[str, np.ndarray]]

_log = logging.getLogger(LOGGER)


def compress(initial: Initial | None = None) -> Mod:
    """Return a Flower mod that decodes models for the app, and encodes the models that it trained.

    It must be the first of a ClientApp's mods. The server's `Compressed` strategy chooses the codecs; messages from
    other strategies are passed through unchanged.

    Parameters
    ----------
    initial : Initial | None
        Returns the initial model of the federation, arrays by name, from the node's Context, if the node has it: from a
        seed, or from a file that came with the app. A server with `Compressed(..., shared_initial=True)` then sends no
        key frames. If it is not the server's model, a key frame replaces it.

    Returns
    -------
    Mod
        The mod.

    Raises
    ------
    SettingError
        If `initial` is not a function.
    UpdateError
        For a message, if the app's reply does not hold the model: see `take_model`.
    FrameError
        For a message that is not one of the protocol's. Flower reports errors for messages as the node's failure.

    Examples
    --------
    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp(mods=[compress()])
    """
    if initial is not None and not callable(initial):
        raise SettingError(f"initial must be a function of the node's Context, got {type(initial).__name__}")

    def mod(message: Message, context: Context, app: App) -> Message:
        folded = unfold(message.content)
        reply = handle(message, context, app)
        if folded and reply.has_content():
            fold(reply.content)
        return reply

    def handle(message: Message, context: Context, app: App) -> Message:
        record = message.content.config_records.get(RECORD_NAME)
        if record is None:
            return app(message, context)
        request = read_request(record)
        if isinstance(request, NodeQuery):
            return Message(RecordDict({RECORD_NAME: describe_node(context).to_record()}), reply_to=message)
        return _handle_task(message, request, context, app, initial)

    return mod


def _handle_task(
    message: Message, request: TrainRequest, context: Context, app: App, initial: Initial | None
) -> Message:
    """Return the reply to a request for training or evaluation of a model."""
    node = NodeConfig.read(context.node_config, context.node_id).name
    codec = read_codec(request.up)  # before the app works for nothing
    state = ClientState.load(context.state).settle(request, node)

    began = time.monotonic()
    received, extensions = _receive(message, request, state, context, initial)
    coding_seconds = time.monotonic() - began
    if received is None or not extensions.ready:
        _log.warning("node %s does not hold the model that the frames start from: it requests other frames", node)
        replace(state, extensions=extensions.states).save(context.state)
        return _answer(Message(RecordDict(), reply_to=message), BaseRequest(state.version, state.turn), extensions)

    model = model_record(received.model)
    state = state.hold(request, model)
    given = extensions.before_app(model)
    message.content[request.arrays] = given
    began = time.monotonic()
    reply = app(message, context)
    if not isinstance(reply, Message):
        raise TypeError(f"the ClientApp must return a Message, got {type(reply).__name__}")
    training_seconds = time.monotonic() - began

    frame = b""
    if message.metadata.message_type.split(".")[0] == MessageType.TRAIN and not reply.has_error():
        began = time.monotonic()
        name, trained = take_model(reply, request.arrays, given)
        norm = norm_of_change(trained, given)
        if not norm <= MOST_NORM:
            _log.warning("node %s: the training diverged: its update has norm %.3g", node, norm)
            replace(state, extensions=extensions.states).save(context.state)
            bound = answer_of(request.nonce, request.round, node, b"")
            diverged = DivergedReply(version=state.version, turn=state.turn, answer=bound, norm=norm)
            return _answer(Message(RecordDict(), reply_to=message), diverged, extensions)
        update, extensions = extensions.after_app(trained)
        del trained
        frame, state = encode_update(codec, update, received, request, state, node)
        reply.content[name] = frame_record(frame)
        coding_seconds += time.monotonic() - began
    replace(state, extensions=extensions.states).save(context.state)
    if reply.has_error():
        return reply
    answer = TrainReply(
        version=state.version,
        turn=state.turn,
        tensors=state.tensors if frame else b"",
        answer=answer_of(request.nonce, request.round, node, frame),
        training_seconds=training_seconds,
        coding_seconds=coding_seconds,
    )
    return _answer(reply, answer, extensions)


def _receive(
    message: Message, request: TrainRequest, state: ClientState, context: Context, initial: Initial | None
) -> tuple[ReceivedModel | None, ActiveExtensions]:
    """Remove the request from its message; return the model that its frames lead to, and its extensions.

    The model is None if the node does not hold the one that the frames start from.
    """

    @cache
    def first() -> Update:
        """Return the initial model of the federation; empty if the node does not have it."""
        return {} if initial is None else {name: np.asarray(array) for name, array in initial(context).items()}

    def exchanged() -> Update:
        """Return the part of it that server and nodes exchange; empty if it is not the server's model."""
        try:
            return extensions.exchanged(first()) if first() else {}
        except FrameError:
            return {}

    extensions = ActiveExtensions.take(message.content, state.extensions)
    del message.content[RECORD_NAME]
    frames = ModelFrames.split(read_frame_record(message.content.array_records.get(request.arrays)), request)
    return receive_model(frames, request, state, exchanged), extensions.begin(first)


def _answer(reply: Message, answer: TrainReply | BaseRequest | DivergedReply, extensions: ActiveExtensions) -> Message:
    """Return `reply` with the records of the protocol and of extensions added."""
    reply.content[RECORD_NAME] = answer.to_record()
    extensions.add_replies(reply.content)
    return reply


def describe_node(context: Context) -> NodeDescription:
    """Return the node's answer to a NodeQuery."""
    node = NodeConfig.read(context.node_config, context.node_id)
    return NodeDescription(
        name=node.name, version=ClientState.load(context.state).version, width=node.width, model=node.model
    )
