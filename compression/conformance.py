"""The laws of codecs, to test a stage, a wrapper or a preset of one's own: `check(spec)`.

fedpress's own codecs are tested by the same functions. Each raises AssertionError with the law that does not hold.
"""

import zlib
from collections.abc import Iterator

import numpy as np

from fedpress.common.errors import FrameError, UpdateError
from fedpress.common.rng import derive
from fedpress.compression.codec import Codec, CodecFaultError
from fedpress.compression.layout import Layout, Update
from fedpress.compression.spec import parse, parse_trusted

_HEAD = 7  # bytes of a frame up to the end of its checksum
_DTYPES = (np.float32, np.float16, np.float64)
_SCALES = (0.0, 1e-40, 1e-20, 1e-3, 1.0, 1e4)
_SHAPES = ((), (0,), (1,), (7,), (3, 5), (8, 1), (2, 3, 4), (64, 33))


def check(spec: str, *, seed: int = 0) -> None:
    """Raise AssertionError unless every law of codecs holds for the codec that `spec` describes.

    Parameters
    ----------
    spec : str
        The spec, which is imported as `fedpress.codec` does.
    seed : int
        Of the updates and of the damage to frames.

    Raises
    ------
    AssertionError
        If a law does not hold; the message says which.

    Examples
    --------
    >>> check("topk(0.1) | uniform(4) | ans")
    """
    codec = parse_trusted(spec)
    check_text(codec)
    check_state(codec, update_like_a_real_one(seed))
    sent = [check_update(codec, update) for update in updates(seed)]
    _require(any(sent), f"{codec} must encode at least one of the updates of `updates`")
    for number in range(20):
        check_damage(codec, update_like_a_real_one(seed), derive(seed, "damage", number))


def check_text(codec: Codec) -> None:
    """Raise AssertionError unless the codec's text is a spec of an equal codec."""
    _require(parse(str(codec)) == codec, f"{codec} must be equal to the codec of its text: a frozen dataclass is")
    _require(str(parse(str(codec))) == str(codec), f"{codec} must have the text that it was parsed from")


def check_update(codec: Codec, update: Update) -> bool:
    """Raise AssertionError unless an update comes back with its names, shapes and dtypes, the same for the same seed.

    Parameters
    ----------
    codec : Codec
        The codec.
    update : dict of str to ndarray
        The update, finite. Integers and the statistics of batch norms must come back exactly.

    Returns
    -------
    bool
        Whether the codec could send it: False if it raised UpdateError.
    """
    layout = Layout.of(update)
    before = {name: array.copy() for name, array in update.items()}
    try:
        frame, _ = codec.encode(update, codec.init(layout), derive(1))
    except UpdateError:
        return False
    _require(_same(update, before), f"{codec} must not write to the update that it encodes")
    back = codec.decode(frame, layout)
    _check_decoded(codec, back, layout)
    exact = {tensor.name for tensor in layout.tensors} - {tensor.name for tensor in layout.lossy}
    changed = [name for name in exact if not np.array_equal(back[name], update[name])]
    _require(not changed, f"{codec} must return integers and statistics exactly, got others for {', '.join(changed)}")
    again, known = (
        (codec.encode(update, codec.init(layout), derive(1))[0], back)
        if codec.stateful
        else codec.encode_decoded(update, derive(1))
    )
    _require(again == frame, f"{codec} must make the same frame from the same update, state and generator")
    odd = [name for name in back if known[name].tobytes() != back[name].tobytes()]
    _require(not odd, f"{codec} must know the bits that its frame decodes to, got others for {', '.join(odd)}")
    return True


def check_state(codec: Codec, update: Update) -> None:
    """Raise AssertionError unless the state has the same arrays from the beginning, as nodes require."""
    fresh = codec.init(Layout.of(update))
    _, after = codec.encode(update, fresh, derive(0))
    shapes = [{key: array.shape for key, array in state.items()} for state in (fresh, after)]
    _require(shapes[0] == shapes[1], f"{codec} must have a state of the same arrays at all times, got {shapes}")
    _require(codec.stateful or not after, f"{codec} must be stateful to have a state, got {', '.join(after)}")


def check_damage(codec: Codec, update: Update, rng: np.random.Generator) -> None:
    """Raise AssertionError if a damaged frame raises another error than FrameError, or decodes to another layout."""
    layout = Layout.of(update)
    frame, _ = codec.encode(update, codec.init(layout), derive(0))
    at, bits = int(rng.integers(len(frame))), int(rng.integers(1, 256))
    flipped = frame[:at] + bytes([frame[at] ^ bits]) + frame[at + 1 :]
    for broken in (flipped, frame[:at], frame + b"x", b""):
        _require(not _decodes(codec, broken, layout), f"{codec} must refuse a frame whose checksum does not match")
    at = max(at, _HEAD)
    for body in (flipped, frame[:at], frame[:at] + frame[_HEAD:]):
        _decodes(codec, body[:3] + zlib.crc32(body[_HEAD:]).to_bytes(4, "little") + body[_HEAD:], layout)


def updates(seed: int = 0) -> Iterator[Update]:
    """Yield updates of many shapes, scales and dtypes: empty, zero, constant, with heavy tails, strided.

    Parameters
    ----------
    seed : int
        Of their values.

    Yields
    ------
    dict of str to ndarray
        Tensors by name, all finite.
    """
    rng = derive(seed, "updates")
    for dtype in _DTYPES:
        for scale in _SCALES:
            update: Update = {"n": np.array(7), "bn.running_var": np.ones(3, np.float32)}
            for number, shape in enumerate(_SHAPES):
                values = (rng.standard_t(2, shape) * scale).clip(-6e4, 6e4)
                update[f"t{number}"] = np.asarray(values, dtype)
            update["constant"] = np.full(9, scale, dtype)
            update["strided"] = np.asarray(rng.normal(size=(6, 4)) * scale, dtype).T
            yield update
    yield update_like_a_real_one(seed)


def update_like_a_real_one(seed: int = 0, rows: int = 40) -> Update:
    """Return an update with heavy tails and rows of different scale: `rows` times 100 floats, and one integer."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_t(3, (rows, 99)) * rng.lognormal(0, 1, (rows, 1)) * 0.01
    return {"w": matrix.astype(np.float32), "b": (rng.normal(size=rows) * 0.01).astype(np.float32), "n": np.array(7)}


def _decodes(codec: Codec, frame: bytes, layout: Layout) -> bool:
    try:
        back = codec.decode(frame, layout)
    except CodecFaultError as error:
        raise AssertionError(f"{codec} must raise FrameError alone for a damaged frame: {error}") from error
    except FrameError:
        return False
    _check_decoded(codec, back, layout)
    return True


def _check_decoded(codec: Codec, back: Update, layout: Layout) -> None:
    _require(Layout.of(back) == layout, f"{codec} must return the names, shapes and dtypes of the update")
    odd = [name for name, array in back.items() if not np.isfinite(array).all()]
    _require(not odd, f"{codec} must return finite values, got others in {', '.join(odd)}")


def _same(one: Update, other: Update) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def _require(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(law)
