"""Key frames and deltas: made from a model by the server, applied by a node, with the same bits at both ends.

A key frame holds a model, or some of its tensors, and needs nothing; a delta leads from a base that its receiver holds
to another model. One function for both ends computes the model that a frame leads to, so that the server has the bits
that a node holds.

Where weights may be pruned, a pruned weight is minus zero, frames hold only the others, and `weight_mask` leads from
the masks of the base, or from masks of all weights, to those of the new model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

from fedpress.common.errors import FrameError
from fedpress.compression import Codec, Layout, Update, parse, read_codec
from fedpress.compression.codec import only_frame_errors
from fedpress.compression.frame import has_base, shorten
from fedpress.compression.updates import apply, changed, difference, version_of
from fedpress.compression.weight_masks import UNPRUNED, WeightMasks, decode_mask_change, encode_mask_change
from fedpress.protocol.messages import LOSSLESS, TrainRequest


@dataclass(frozen=True)
class ModelFrames:
    """Frames that lead to a model; without frames if the receiver holds it already."""

    frames: tuple[bytes, ...]  # short ones, in the order in which they are applied
    specs: tuple[str, ...]  # of each frame's codec
    tensors: tuple[bytes, ...]  # for each frame the mask of the tensors that it holds; empty for all
    base: bytes = b""  # version that the first starts from, 8 bytes; empty for key frames, or without frames
    weight_mask: bytes = b""  # leads to the model's weight masks; empty if they are the base's
    version: bytes = b""  # of the model that they lead to, 8 bytes; empty until it is computed

    @property
    def is_key(self) -> bool:
        """Whether they need no base."""
        return bool(self.frames) and not has_base(self.frames[0])

    @property
    def data(self) -> bytes:
        """The bytes that are sent."""
        return b"".join((*self.frames, self.weight_mask))

    @property
    def nbytes(self) -> int:
        """Bytes of `data`."""
        return sum(map(len, self.frames)) + len(self.weight_mask)

    @classmethod
    def split(cls, data: bytes, request: TrainRequest) -> Self:
        """Return the frames that were sent as `data` with a request; which base they start from is not known.

        Raises
        ------
        FrameError
            If the lengths do not add up to the data, or a frame of a whole model comes after a delta.
        """
        lengths = request.frame_lengths
        if sum(lengths) + request.weight_mask_length != len(data):
            raise FrameError(f"{len(data)} bytes of frames must be as long as announced, {sum(lengths)}")
        ends = np.cumsum([0, *lengths]).tolist()
        frames = tuple(data[start:end] for start, end in pairwise(ends))
        starts = [has_base(frame) for frame in frames]
        if starts != sorted(starts):
            raise FrameError("frames of a whole model must come before deltas")
        return cls(
            frames, request.frame_specs, request.frame_tensors, weight_mask=data[ends[-1] :], version=request.version
        )


@dataclass(frozen=True, eq=False)
class Target:
    """The model that frames are to lead to."""

    model: Update
    layout: Layout
    masks: WeightMasks | None  # its weight masks; None where no weight may be pruned

    @property
    def weight_masks(self) -> WeightMasks:
        """The masks of the weights that frames hold."""
        return UNPRUNED if self.masks is None else self.masks


def make_delta(
    target: Target, base: Update, version: bytes, codec: Codec, rng: np.random.Generator, *, aim: Update | None = None
) -> tuple[ModelFrames, Update]:
    """Return a delta from `base` to the target, and the model that it leads to.

    Parameters
    ----------
    version : bytes
        Of `base`, 8 bytes.
    codec : Codec
        One without memory.
    aim : Update | None
        Model that the delta approximates in place of the target; tensors that the target leaves as they are do not
        change.

    Raises
    ------
    UpdateError
        If the codec cannot encode the difference.
    """
    layout = target.layout
    mask = layout.mask(changed(target.model, base))
    part = layout.part(mask)
    update = target.weight_masks.select(difference(target.model if aim is None else aim, base, part))
    frame, decoded = codec.encode_decoded(update, rng, base=version)
    weight_mask = encode_mask_change(target.masks, base, layout) if target.masks is not None else b""
    frames = ModelFrames((shorten(frame),), (str(codec),), (mask,), version, weight_mask)
    return frames, target.weight_masks.apply(apply(base, target.weight_masks.restore(decoded, part), layout))


def make_key(target: Target, codec: Codec, rng: np.random.Generator) -> tuple[ModelFrames, Update]:
    """Return key frames of the target, and the model that they lead to.

    Tensors of two axes or more are coded with `codec`; all others, among them variances that must not become zero, are
    exact.
    """
    model, layout = target.model, target.layout
    lossy = {t.name for t in layout.lossy if len(t.shape) > 1} if str(codec) != LOSSLESS else set()
    steps: list[tuple[bytes, str, bytes]] = []
    for names, coder in ((lossy, codec), (model.keys() - lossy, parse(LOSSLESS))):
        if names:
            mask = layout.mask(names)
            update = target.weight_masks.select(
                {tensor.name: model[tensor.name] for tensor in layout.part(mask).tensors}
            )
            steps.append((shorten(coder.encode(update, {}, rng)[0]), str(coder), mask))
    weight_mask = encode_mask_change(target.masks, None, layout) if target.masks is not None else b""
    coded, specs, masks = zip(*steps, strict=True)
    frames = ModelFrames(coded, specs, masks, weight_mask=weight_mask)
    return frames, _follow(frames, {}, layout, target.weight_masks)


def apply_frames(frames: ModelFrames, base: Update, layout: Layout, *, weight_masks: bool) -> Update:
    """Return the model that the frames lead to.

    Parameters
    ----------
    base : Update
        The model that they start from; ignored by key frames.
    layout : Layout
        Of the model that they lead to.
    weight_masks : bool
        Whether weights may be pruned.

    Raises
    ------
    FrameError
        If a frame does not decode, or the frames lead to another model than `frames.version`, as from a wrong base.
    """
    start = {} if frames.is_key else base
    masks = decode_mask_change(frames.weight_mask, start or None, layout) if weight_masks else UNPRUNED
    model = _follow(frames, start, layout, masks)
    if Layout.of(model) != layout or version_of(model, layout) != frames.version:
        raise FrameError(f"the frames must lead to the model {frames.version.hex()} that was announced")
    return model


def _whole(model: Update, layout: Layout) -> Update:
    """Return a model's tensors in the order of its layout; raise FrameError if some are missing or others."""
    ordered = {tensor.name: model[tensor.name] for tensor in layout.tensors if tensor.name in model}
    if Layout.of(ordered) != layout:
        raise FrameError("a delta must start from a whole model")
    return ordered


def _follow(frames: ModelFrames, base: Mapping[str, np.ndarray], layout: Layout, masks: WeightMasks) -> Update:
    """Return the model to which the frames lead from `base`, which may be empty."""
    model, version = dict(base), frames.base  # of the model that the next delta starts from; empty where not computed
    for frame, spec, mask in zip(frames.frames, frames.specs, frames.tensors, strict=True):
        part = layout.part(mask)
        codec, is_delta = read_codec(spec), has_base(frame)
        if is_delta and not version:
            model = _whole(model, layout)
            version = version_of(model, layout)
        with only_frame_errors(codec):
            update = codec.decode(frame, masks.unpruned(part), base=version)
        update = masks.restore(update, part)
        model = apply(model, update, layout) if is_delta else model | update
        version = b""
    return masks.apply({tensor.name: model[tensor.name] for tensor in layout.tensors if tensor.name in model})
