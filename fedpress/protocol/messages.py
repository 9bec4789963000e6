"""What client and server say to each other beside the frames: the names of the fields, of frames and of models.

Every message between them carries one ConfigRecord under `RECORD_NAME`; the model, or its update, is one array of
bytes.

    server to node   ask       "who": answer with your name; "work": handle the message
                     arrays    the record's name under which the app expects the model
                     frames    lengths of the frames, bytes, in the order in which they are to be applied
                     tensors   for each frame the mask of the tensors that it holds, empty for all of them
                     version   the model that they lead to
                     layout    the model's layout as text; with key frames only
                     up        the spec of the reply's frame
                     exclude   the mask of the tensors whose changes are not to be sent
                     personal  the mask of the whole model's tensors that stay on the node, empty for none; frames,
                               masks, versions and layouts are of the others alone
                     own       length of one more frame, bytes: what the personal tensors begin as; 0 if the node knows
                     own_layout their layout as text, with that frame
                     sparse    whether dead weights of the model, those that are minus zero, are left out of frames
                     live      length of what leads to the live weights, bytes, behind the frames; 0 if they are those
                               of the model that the frames start from, or all
                     keep      whether the model is to be kept as the base of a later delta frame
                     accepted  the name of the last frame that was accepted from this node, empty if none was
                     turn      how many updates the node had sent by its last reply that arrived
                     server    the run of the server that has counted so far
                     nonce     what makes this message the only one of its kind
                     round, seed
    node to server   version   the model that the node holds now
                     need_key  true if the frames start from another model than the node's
                     turn      how many updates the node has sent, this one included
                     owns      whether it has personal tensors of its own
                     tensors   the mask of the tensors that the frame holds, empty for all of them
                     answer    binds the frame to the message that it answers
                     seconds   how long the app took
                     coding    how long decoding and encoding took, seconds
                     name      the node's name, in answer to "who"
                     width, model   what it can run, in answer to "who", if its configuration says so
"""

import hashlib
from collections.abc import Mapping
from typing import TypeVar

from fedpress.common.errors import FrameError

T = TypeVar("T", bytes, int, float, str, bool)

RECORD_NAME = "fedpress"  # of the ConfigRecord that every message carries
FRAME_STYPE = "fedpress.frame"  # how the array of bytes says what its bytes are
LOSSLESS = "none"  # the codec of whole models
CLASSES = "class-counts"  # the metric in which a node says how many examples of each class it has, if asked


def taken(said: Mapping[str, object], name: str, kind: type[T]) -> T:
    """Return the field `name` of what a node said; raise FrameError if it is not there, or not of this `kind`.

    Nothing is converted: of a number `bytes` would make as many bytes.
    """
    value = said.get(name)
    if type(value) is not kind:
        raise FrameError(f"its {name} is {kind.__name__}, got {type(value).__name__}")
    return value


def frame_name(frame: bytes) -> bytes:
    """Return the name by which both ends speak of `frame`, 8 bytes."""
    return hashlib.blake2b(frame, digest_size=8).digest()


def answer_of(nonce: bytes, round: int, node: str, frame: bytes) -> bytes:
    """Return what binds `frame` to its round, its node and the message it answers, 16 bytes."""
    state = hashlib.blake2b(nonce, digest_size=16, person=b"fedpress.answer", salt=round.to_bytes(8, "little"))
    state.update(len(node.encode()).to_bytes(4, "little") + node.encode())
    state.update(frame)
    return state.digest()
