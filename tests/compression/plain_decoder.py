"""A second decoder of frames, written from docs/explanation/frame.md alone, with numpy and zstandard."""

import ast
import hashlib
import json
import math
import struct
import zlib
from collections import Counter, defaultdict

import numpy as np
import zstandard

from fedpress.compression.kernels.lloyd_max import centroids  # the table that the page refers to

DTYPES = [np.dtype(n) for n in ("<f4", "<f2", "u1", "<u2", "<u4", "i1", "<i2", "<i4", "<i8", "<f8", "<u8")]
MOST = np.finfo(np.float32).max
OLD, NEW = (4, 1), (6, 2)  # schemes of tokens


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = bytes(data), 0

    def take(self, size: int) -> bytes:
        assert self.at + size <= len(self.data)
        self.at += size
        return self.data[self.at - size : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def array(self, dtype: np.dtype, size: int) -> np.ndarray:
        return np.frombuffer(self.take(size * dtype.itemsize), dtype)

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)


class Bits:
    def __init__(self, data: bytes) -> None:
        self.bits, self.at = np.unpackbits(np.frombuffer(data, np.uint8)).tolist(), 0

    def take(self, width: int) -> int:
        value = 0
        for bit in self.bits[self.at : self.at + width]:
            value = 2 * value + bit
        self.at += width
        return value


# Rows of streams in short frames: name, code of the dtype, and size if it is not sent.
ROWS = [
    [("vertices", 2)],
    [("values", 0)],
    [("values", 1)],
    [("values", 3)],
    [("values", 2)],
    [("exact", 2)],
    [("scale", 0)],
    [("scale", 2)],
    [("symbols", 2)],
    [("symbols", 5)],
    [("gap", 2)],
    [("gap", 4)],
    [("mask", 2)],
    [("coin", 10, 2)],
    [("seed", 4, 1)],
    [("rest", 0)],
    [("sizes", 2)],
    [("codebook", 0)],
    [("left", 0), ("right", 0), ("rest", 0)],
    [("step", 0, 1), ("symbols", 2), ("point", 2)],
    [("step", 0, 1), ("symbols", 2), ("point", 2), ("rank", 2), ("code", 2), ("points", 2), ("factors", 2)],
    [("side.name", 2, 8)],
]


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + varint(value // 128)


def whole(frame: bytes, spec: str, digest: bytes, base: bytes) -> bytes:
    """The whole frame of a short one."""
    reader = Bytes(frame)
    kind, crc = reader.byte(), reader.take(4)
    assert kind in (2, 130)
    streams, row = [], 128
    while row >= 128:
        row = reader.byte()
        streams += ROWS[row % 128 - 1] if row % 128 else [(reader.take(reader.byte()).decode(), reader.byte())]
    sizes = [known[0] if known else reader.varint() for _, _, *known in streams[:-1]]
    payload = reader.rest()
    size = streams[-1][2:]
    before = sum(n * DTYPES[code].itemsize for n, (_, code, *_) in zip(sizes, streams, strict=False))
    sizes.append(size[0] if size else (len(payload) - before) // DTYPES[streams[-1][1]].itemsize)
    base = base if kind == 130 else b""
    head = varint(len(spec.encode())) + spec.encode() + digest + bytes([len(base)]) + base + bytes([len(streams)])
    for (name, code, *_), size in zip(streams, sizes, strict=True):
        head += bytes([len(name)]) + name.encode() + bytes([code]) + varint(size)
    return b"fp\x01" + crc + head + payload


def decode(
    frame: bytes,
    layout: list[tuple[str, tuple[int, ...], str]],
    side: np.ndarray | None = None,
    known: tuple[str, bytes] = ("", b""),
) -> dict[str, np.ndarray]:
    """Decode a frame, or a short one whose codec's spec and base are `known`."""
    if frame[:2] != b"fp":
        frame = whole(frame, known[0], digest_of(reduced(layout, known[0])), known[1])
    reader = Bytes(frame)
    assert reader.take(2) == b"fp"
    assert reader.byte() == 1
    assert struct.unpack("<I", reader.take(4))[0] == zlib.crc32(frame[7:])
    spec = reader.take(reader.varint()).decode()
    wanted, layout = layout, reduced(layout, spec)
    assert reader.take(8) == digest_of(layout)
    reader.take(reader.byte())
    table = []
    for _ in range(reader.byte()):
        name = reader.take(reader.byte()).decode()
        dtype = DTYPES[reader.byte()]
        table.append((name, dtype, reader.varint()))
    streams = {name: reader.array(dtype, size) for name, dtype, size in table}
    assert reader.rest() == b""
    model = Model(layout)
    model.side = side
    for part in reversed(spec.split(" | ")):
        call = ast.parse(part, mode="eval").body
        name = call.func.id if isinstance(call, ast.Call) else part
        args = [ast.literal_eval(arg) for arg in call.args] if isinstance(call, ast.Call) else []
        if name not in ("ef", "dgc", "subspace") or part != spec.split(" | ")[0]:
            streams = STAGES[name](streams, model, args)
    tensors = model.tensors(streams["values"], streams.get("exact", np.zeros(0, np.uint8)))
    for (name, shape, dtype), (_, small, _) in zip(wanted, layout, strict=True):
        if shape != small:
            tensors[name] = expanded(name, math.prod(shape), tensors[name]).astype(dtype).reshape(shape)
    return tensors


def digest_of(layout: list[tuple[str, tuple[int, ...], str]]) -> bytes:
    text = json.dumps([[name, list(shape), dtype] for name, shape, dtype in layout], separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def reduced(layout: list[tuple[str, tuple[int, ...], str]], spec: str) -> list[tuple[str, tuple[int, ...], str]]:
    """The layout of the coordinates in subspaces."""
    if not spec.startswith("subspace("):
        return layout
    share = float(spec[len("subspace(") : spec.index(")")])
    small = []
    for name, shape, dtype in layout:
        dimensions = max(256, math.ceil(share * math.prod(shape)))
        cuts = approximated(name, dtype) and dimensions < math.prod(shape)
        small.append((name, (dimensions,), "float32") if cuts else (name, shape, dtype))
    return small


def expanded(name: str, size: int, coordinates: np.ndarray) -> np.ndarray:
    random = words(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little"), size).tolist()
    bucket = [0] * size
    for first in range(0, size, 1 << 16):
        run = range(first, min(first + (1 << 16), size))
        for number, at in enumerate(sorted(run, key=lambda at: random[at]), start=first):
            bucket[at] = number % coordinates.size
    count = Counter(bucket)
    values = np.zeros(size, np.float32)
    for at, (word, its) in enumerate(zip(random, bucket, strict=True)):
        value = coordinates[its] * np.float32(1 / math.sqrt(count[its]))
        values[at] = -value if word & 1 else value
    return values


class Model:
    def __init__(self, layout: list[tuple[str, tuple[int, ...], str]]) -> None:
        self.layout = layout
        self.floats = [shape for name, shape, dtype in layout if approximated(name, dtype)]
        self.sizes = [math.prod(shape) for shape in self.floats]
        self.n = sum(self.sizes)
        self.matrices = [
            (shape[0], math.prod(shape[1:])) if len(shape) > 1 and math.prod(shape) else (1, math.prod(shape))
            for shape in self.floats
        ]

    def tensors(self, values: np.ndarray, exact: np.ndarray) -> dict[str, np.ndarray]:
        out, at, data = {}, 0, Bytes(exact.tobytes())
        for name, shape, dtype in self.layout:
            size = math.prod(shape)
            if approximated(name, dtype):
                part = values[at : at + size]
                if dtype == "float16":
                    part = np.clip(part, -np.finfo(np.float16).max, np.finfo(np.float16).max)
                at += size
            else:
                part = data.array(np.dtype(dtype).newbyteorder("<"), size)
            out[name] = part.astype(dtype).reshape(shape)
        return out


def approximated(name: str, dtype: str) -> bool:
    return dtype.startswith("float") and name.rsplit(".", maxsplit=1)[-1] not in ("running_mean", "running_var")


def cut(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -MOST, MOST)


def words(seed: int, count: int) -> np.ndarray:
    return np.random.Philox(key=seed).random_raw(count)


# From streams to values


def places(streams: dict, model: Model) -> list[int] | None:
    if "gap" in streams:
        at, out = -1, []
        for gap in streams["gap"].tolist():
            at += gap + 1
            out.append(at)
        return out
    if "coin" in streams:
        seed, limit = streams["coin"].tolist()
        return np.flatnonzero(words(seed, model.n) < np.uint64(limit)).tolist()
    return None


def spread(streams: dict, model: Model, args: list) -> dict:
    values = np.zeros(model.n, np.float32)
    values[places(streams, model)] = streams["values"]
    return {
        "values": values,
        **{k: v for k, v in streams.items() if k not in ("values", "gap", "coin")},
    }


def of_tensor(streams: dict, model: Model) -> np.ndarray:
    owner = np.repeat(np.arange(len(model.sizes)), model.sizes)
    at = places(streams, model)
    return owner if at is None else owner[at]


def replace(streams: dict, values: np.ndarray, *used: str) -> dict:
    return {**{name: array for name, array in streams.items() if name not in used}, "values": values}


def scaled(streams: dict, model: Model, args: list) -> dict:
    with np.errstate(over="ignore"):
        values = streams["symbols"].astype(np.float32) * streams["scale"][of_tensor(streams, model)]
    return replace(streams, cut(values), "symbols", "scale")


def sign(streams: dict, model: Model, args: list) -> dict:
    return scaled({**streams, "symbols": 2 * streams["symbols"].astype(int) + 1}, model, args)


def uniform(streams: dict, model: Model, args: list) -> dict:
    return (sign if args == [1] else scaled)(streams, model, args)


def kmeans(streams: dict, model: Model, args: list) -> dict:
    begin = np.concatenate([[0], np.cumsum(streams["sizes"])]).astype(int)
    values = streams["codebook"][begin[of_tensor(streams, model)] + streams["symbols"]] if model.n else np.zeros(0)
    return replace(streams, values.astype(np.float32), "symbols", "sizes", "codebook")


def dead(symbols: list[int], streams: dict) -> np.ndarray:
    step, point = streams["step"][0], streams["point"].tolist()
    out = np.zeros(len(symbols), np.float32)
    with np.errstate(over="ignore"):
        for i, s in enumerate(symbols):
            if s:
                size = (np.float32(abs(s)) + np.float32(point[min(abs(s), 3) - 1] / 128)) * step
                out[i] = size if s > 0 else -size
    return cut(out)


def deadzone(streams: dict, model: Model, args: list) -> dict:
    return replace(streams, dead(streams["symbols"].tolist(), streams), "symbols", "step", "point")


def even(streams: dict, model: Model, args: list) -> dict:
    power = np.repeat(streams["exponents"].astype(int), model.sizes)
    with np.errstate(over="ignore"):
        return replace(streams, np.ldexp(streams["values"], power).astype(np.float32), "exponents")


def ternarise(streams: dict, model: Model, args: list) -> dict:
    return replace(streams, streams["symbols"].astype(np.float32) * streams["scale"][0], "symbols", "scale")


def lowrank(streams: dict, model: Model, args: list) -> dict:
    values, step = dead(streams["symbols"].tolist(), streams), float(streams["step"][0])
    factors, codes = iter(streams["factors"].tolist()), iter(streams["code"].tolist())
    short, long = streams["points"][:3].tolist(), streams["points"][3:].tolist()
    at = 0
    for (m, n), r in zip(model.matrices, streams["rank"].tolist(), strict=True):
        left = [[next(factors) for _ in range(m)] for _ in range(r)]
        right = [[next(factors) for _ in range(n)] for _ in range(r)]
        pairs = list(zip([next(codes) for _ in range(r)], left, right, strict=True))
        of_left, of_right = (short, long) if m <= n else (long, short)
        while pairs:
            size = 1
            while size < len(pairs) and bound(pairs[: size + 1]) < 2**53:
                size += 1
            run, pairs = pairs[:size], pairs[size:]
            octave = max(code // 4 for code, _, _ in run)
            total = np.zeros((m, n), np.int64)
            for code, a, b in run:
                heavy = np.array([level(s, of_left) * weight(code, octave) for s in a], np.int64)
                total += np.outer(heavy, np.array([level(s, of_right) for s in b], np.int64))
            add = (total.astype(np.float64) * (step * 2.0**-octave / 262144)).astype(np.float32)
            values[at : at + m * n] += add.reshape(-1)
        at += m * n
    return replace(streams, values, "symbols", "step", "point", "rank", "code", "points", "factors")


def level(symbol: int, point: list[int]) -> int:
    size = 32 * abs(symbol) + (point[min(abs(symbol), 3) - 1] if symbol else 0)
    return -size if symbol < 0 else size


def weight(code: int, octave: int) -> int:
    return (256, 215, 181, 152)[code % 4] * 2 ** (octave - code // 4)


def bound(run: list[tuple[int, list[int], list[int]]]) -> int:
    octave = max(code // 4 for code, _, _ in run)
    # 32 (L + 1/2) is 32 L + 16.
    return sum(weight(code, octave) * (32 * max(map(abs, a)) + 16) * (32 * max(map(abs, b)) + 16) for code, a, b in run)


# Rotations and PowerSGD


def blocks(sizes: list[int]) -> list[tuple[int, int]]:
    """First value and size of each block."""
    out, at = [], 0
    for size in sizes:
        end, length = at + size, 1 << 13
        while length >= 16:
            while end - at >= length:
                out.append((at, length))
                at += length
            length //= 2
        at = end
    return out


def walsh(x: np.ndarray) -> np.ndarray:
    for _ in range(x.size.bit_length() - 1):
        x = np.concatenate([x[0::2] + x[1::2], x[0::2] - x[1::2]])
    return x


def signs(seed: int, count: int) -> np.ndarray:
    word = words(seed, (count + 63) // 64)
    bits = [(int(word[i // 64]) >> (i % 64)) & 1 for i in range(count)]
    return np.where(bits, np.float32(-1), np.float32(1)).astype(np.float32)


def sizes_of(streams: dict, model: Model) -> list[int]:
    return np.bincount(of_tensor(streams, model), minlength=len(model.sizes)).tolist() if model.sizes else []


def hadamard(streams: dict, model: Model, args: list) -> dict:
    values = streams["values"].copy()
    with np.errstate(over="ignore"):
        for at, size in blocks(sizes_of(streams, model)):
            x = walsh(values[at : at + size] * np.float32(1 / size)) * np.float32(math.sqrt(size))
            values[at : at + size] = cut(x)
    return replace(streams, values * signs(int(streams["seed"][0]), values.size), "values", "seed")


def rotated(streams: dict, model: Model, levels: np.ndarray) -> dict:
    sizes = sizes_of(streams, model)
    count = sum(sizes)
    values, rest = np.zeros(count, np.float32), np.ones(count, bool)
    sign, symbol = signs(int(streams["seed"][0]), count), 0
    with np.errstate(over="ignore"):
        for (at, size), scale in zip(blocks(sizes), streams["scale"], strict=True):
            x = walsh(levels[streams["symbols"][symbol : symbol + size]]) * scale
            values[at : at + size] = cut(x) * sign[at : at + size]
            rest[at : at + size] = False
            symbol += size
    values[rest] = streams["rest"]
    return replace(streams, values, "symbols", "scale", "rest", "seed")


def drive(streams: dict, model: Model, args: list) -> dict:
    return rotated(streams, model, np.array([-1, 1], np.float32))


def eden(streams: dict, model: Model, args: list) -> dict:
    return rotated(streams, model, centroids(args[0]))


EIGHTHS = np.array([1, 0.917004, 0.8408964, 0.7711054, 0.70710677, 0.64841974, 0.59460354, 0.5452539], np.float32)


def order(count: int) -> int:
    sizes = [64, 128, 192, 256, *(m << k for k in range(6, 40) for m in (5, 6, 8))]
    return min(size for size in sizes if size >= count)


def paley(n: int) -> np.ndarray:
    squares = {i * i % (n - 1) for i in range(1, n - 1)}
    rows = [[1] * n]
    rows += [[-1] + [1 if a == b or (a - b) % (n - 1) in squares else -1 for b in range(n - 1)] for a in range(n - 1)]
    return np.array(rows, float)


def sylvester(x: np.ndarray) -> np.ndarray:  # along the first axis
    size = 1
    while size < len(x):
        for at in range(0, len(x), 2 * size):
            first, second = x[at : at + size].copy(), x[at + size : at + 2 * size].copy()
            x[at : at + size], x[at + size : at + 2 * size] = first + second, first - second
        size *= 2
    return x


def transposed(x: np.ndarray) -> np.ndarray:
    size = {5: 20, 3: 24}.get(x.size >> ((x.size & -x.size).bit_length() - 1), 1)
    x = x.reshape(-1, size)
    return sylvester(x @ paley(size) if size > 1 else x.copy()).reshape(-1)


def crosspolytope(streams: dict, model: Model, args: list) -> dict:
    reader = Bytes(streams["vertices"].tobytes())
    density = args[0] if args else None
    if density is None:
        octave, j = divmod(reader.byte() - 96, 8)
        density = float(EIGHTHS[8 - j]) * 2.0 ** (octave + 1) if j else 2.0**octave
    seed, top = struct.unpack("<If", reader.take(8))
    codes, out = reader.take(len(model.sizes)), []
    bits = Bits(reader.rest())
    for i, (size, code) in enumerate(zip(sizes_of(streams, model), codes, strict=True)):
        if code == 255 or not size:
            out.append(np.zeros(size, np.float32))
            continue
        n = order(size)
        d = math.ceil(n / min(max(1, round(density * math.sqrt(size))), n))
        count, at, x = math.ceil(n / d), 0, np.zeros(n)
        width = {g: ((2 * d) ** g - 1).bit_length() for g in range(1, 65) if (2 * d) ** g <= 2**64}
        best = min(width, key=lambda g: (width[g] / g, g))
        while at < count:
            g = min(best, count - at)
            number = bits.take(width[g])
            for _ in range(g):
                number, vertex = divmod(number, 2 * d)
                x[at * d + vertex // 2] = 1 - 2 * (vertex % 2)
                at += 1
        rows = 4 if n <= 1024 else 2
        *blocks_signs, last = signs(seed + (i << 32), rows * n).reshape(rows, n)
        x = transposed(x) * last
        for row in reversed(blocks_signs):
            x = np.concatenate([transposed(x[k : k + 64]) for k in range(0, n, 64)]) * row
        scale = EIGHTHS[code % 8] * np.float32(top) * np.float32(2.0 ** -(code // 8))
        with np.errstate(over="ignore"):
            out.append(cut(x[:size].astype(np.float32) * scale))
    return replace(streams, np.concatenate([np.zeros(0, np.float32), *out]), "vertices")


def powersgd(streams: dict, model: Model, args: list) -> dict:
    r, values, at = args[0], np.zeros(model.n, np.float32), 0
    left, right, rest = (iter(streams[name]) for name in ("left", "right", "rest"))
    with np.errstate(over="ignore"):
        for shape, size in zip(model.floats, model.sizes, strict=True):
            m = shape[0] if len(shape) > 1 else 1
            n = size // m if m else 0
            if len(shape) > 1 and r * (m + n) < m * n:
                ps = [np.array([next(left) for _ in range(m)], np.float32) for _ in range(r)]
                qs = [np.array([next(right) for _ in range(n)], np.float32) for _ in range(r)]
                total = np.zeros((m, n), np.float32)
                for p, q in zip(ps, qs, strict=True):
                    total = cut(total + cut(np.outer(p, q)))
                values[at : at + size] = total.reshape(-1)
            else:
                values[at : at + size] = [next(rest) for _ in range(size)]
            at += size
    return replace(streams, values, "left", "right", "rest")


# Lossless stages


def zstd(streams: dict, model: Model, args: list) -> dict:
    out = {}
    for name, data in streams.items():
        reader = Bytes(data.tobytes())
        dtype, size = DTYPES[reader.byte()], reader.varint()
        press = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=1 << 27)
        plain = press.stream_reader(reader.rest()).read(size * dtype.itemsize)
        out[name] = np.frombuffer(plain, dtype)
    return out


def unfold(number: int, dtype: np.dtype) -> int:
    return number if dtype.kind == "u" else (number // 2 if number % 2 == 0 else -(number + 1) // 2)


def pack(streams: dict, model: Model, args: list) -> dict:
    out = dict(streams)
    for name, data in streams.items():
        if data.dtype.kind in "iu":
            reader = Bytes(data.tobytes())
            dtype, size, width = DTYPES[reader.byte()], reader.varint(), reader.byte()
            bits = Bits(reader.rest())
            out[name] = np.array([unfold(bits.take(width), dtype) for _ in range(size)], dtype)
    return out


def quad(streams: dict, model: Model, args: list) -> dict:
    out = {}
    for name, data in streams.items():
        if name.endswith(".large"):
            continue
        if name + ".large" not in streams:
            out[name] = data
            continue
        reader, large = Bytes(data.tobytes()), iter(streams[name + ".large"].tolist())
        dtype, size = DTYPES[reader.byte()], reader.varint()
        packed = reader.rest()
        codes = [packed[i // 4] >> (2 * (i % 4)) & 3 for i in range(size)]
        out[name] = np.array([next(large) if code == 3 else (0, 1, -1)[code] for code in codes], dtype)
    return out


def ans(streams: dict, model: Model, args: list) -> dict:
    out = dict(streams)
    if "side.name" in out:
        digest = hashlib.blake2b(model.side.astype("<f4").tobytes(), digest_size=8).digest()
        assert out.pop("side.name").tobytes() == digest
    for name in sorted(out, key=lambda name: name == "factors"):
        data = streams[name]
        if data.dtype.kind in "iu":
            shapes = None
            if name == "factors":
                shapes = [
                    (r, side)
                    for r, shape in zip(out["rank"].tolist(), model.matrices, strict=True)
                    if r
                    for side in shape
                ]
            out[name] = integers(data.tobytes(), model, shapes, np.asarray(out.get("rank", [])).tolist())
    if "mask" in out:
        at = np.flatnonzero(out.pop("mask"))
        out["gap"] = np.diff(at, prepend=-1) - 1
    return out


def integers(data: bytes, model: Model, shapes: list | None, rank: list[int]) -> np.ndarray:
    reader = Bytes(data)
    dtype, size, way = DTYPES[reader.byte()], reader.varint(), reader.byte()
    if shapes is None:
        shapes = model.matrices if size == model.n else [(1, size)]
    if way == 0:
        numbers = reader.array(dtype, size).tolist()
    elif way == 1:
        numbers = [unfold(number, dtype) for number in sequence(reader, size)]
    elif way == 2:
        k = reader.varint()
        gaps, others = sequence(reader, k), sequence(reader, k)
        numbers, at = [0] * size, -1
        for gap, other in zip(gaps, others, strict=True):
            at += gap + 1
            numbers[at] = unfold(other + 1, dtype)
    elif way == 5:
        numbers = history(reader, shapes, size, beginnings(model, rank))
    else:
        numbers = (cells if way == 3 else history)(reader, shapes, size)
    assert reader.rest() == b""
    return np.array(numbers, dtype)


class Table:
    def __init__(self, reader: Bytes) -> None:
        self.precision, size = reader.byte(), reader.varint()
        bits = Bits(reader.take(reader.varint()))
        self.frequency = []
        for _ in range(size):
            zeros = 0
            while not bits.take(1):
                zeros += 1
            self.frequency.append((1 << zeros | bits.take(zeros)) - 1)
        assert sum(self.frequency) == 1 << self.precision

    def slots(self, precision: int) -> list[tuple[int, int, int]]:
        """Token, frequency, and place within the token's slots, of each slot."""
        return [
            (token, f << precision - self.precision, i)
            for token, f in enumerate(self.frequency)
            for i in range(f << precision - self.precision)
        ]


class Coder:
    def __init__(self, reader: Bytes, tables: list[Table]) -> None:
        self.lanes = reader.varint()
        self.states = reader.array(np.dtype("<u4"), self.lanes).tolist()
        self.words = reader.array(np.dtype("<u2"), reader.varint()).tolist()
        self.precision = max(table.precision for table in tables)
        self.slots = [table.slots(self.precision) for table in tables]
        self.at = 0

    def call(self, contexts: list[int]) -> list[int]:
        out, mask = [], (1 << self.precision) - 1
        for i, context in enumerate(contexts):
            x = self.states[i % self.lanes]
            token, f, place = self.slots[context][x & mask]
            x = f * (x >> self.precision) + place
            if x < 1 << 16:
                x = x << 16 | self.words[self.at]
                self.at += 1
            self.states[i % self.lanes] = x
            out.append(token)
        return out

    def end(self) -> bytes:
        assert self.at == len(self.words)
        return b"".join(struct.pack("<H", x - (1 << 16)) for x in self.states)


def join(token: int, raw: Bits, scheme: tuple[int, int]) -> int:
    d, s = scheme
    if token < 1 << d:
        return token
    octave, low = divmod(token - (1 << d), 1 << s)
    width = d + octave - s
    return ((1 << s | low) << width) | raw.take(width)


def sequence(reader: Bytes, count: int) -> list[int]:
    if count == 0:
        return []
    coder = Coder(reader, [Table(reader)])
    tokens = coder.call([0] * count)
    assert not any(coder.end())
    raw = Bits(reader.take(reader.varint()))
    return [join(token, raw, OLD) for token in tokens]


def numbers_of(reader: Bytes, count: int) -> list[int]:
    """A list."""
    if count == 0:
        return []
    if reader.byte() == 1:
        return sequence(reader, count)
    width = reader.byte()
    bits = Bits(reader.take((count * width + 7) // 8))
    return [bits.take(width) for _ in range(count)]


def group_of(kind: int, last: list[int]) -> int | None:
    return None if kind == 0 else next((g for g, end in enumerate(last) if kind <= end), None)


def signed(numbers: list[int], kind: int, carried: bytes, reader: Bytes) -> list[int]:
    live = sum(number != 0 for number in numbers)
    size = (live + 7) // 8 if kind == 1 else 0
    used = min(len(carried), size // 2 * 2)
    assert not any(carried[used:])
    bits = Bits(carried[:used] + reader.take(size - used))
    return [-n if n and (kind == 2 or (kind == 1 and bits.take(1))) else n for n in numbers]


def cells(reader: Bytes, shapes: list, size: int) -> list[int]:
    many = numbers_of(reader, len(shapes))
    rows = iter(numbers_of(reader, sum(m if kind & 1 else 1 for kind, (m, _) in zip(many, shapes, strict=True))))
    columns = iter(numbers_of(reader, sum(n for kind, (_, n) in zip(many, shapes, strict=True) if kind & 2)))
    classes = []
    levels = [[next(rows) for _ in range(m if kind & 1 else 1)] for kind, (m, _) in zip(many, shapes, strict=True)]
    for kind, (m, n), row in zip(many, shapes, levels, strict=True):
        column = [next(columns) for _ in range(n)] if kind & 2 else [64] * n
        every = row if kind & 1 else row * m
        classes += [0 if not a or not b else min(max(a + b - 64, 1), 47) for a in every for b in column]
    last = list(reader.take(reader.byte()))
    kinds = list(reader.take(len(last)))
    segments = []
    for first in range(0, size, 1 << 19):
        by_group = defaultdict(list)
        for at in range(first, min(first + (1 << 19), size)):
            by_group[group_of(classes[at], last)].append(at)
        segments += [(group, by_group[group]) for group in range(len(last)) if by_group[group]]
    found = iter(numbers_of(reader, sum(kinds[group] != 0 for group, _ in segments)))
    parts = []  # context, how many
    for group, at in segments:
        k = len(at) if kinds[group] == 0 else next(found)
        parts += [(2 * group, k)] + [(2 * group + 1, k)] * (kinds[group] == 1)
    sign = reader.byte()
    out, carried = [0] * size, b""
    live = sorted({context for context, k in parts if k})
    if live:
        coder = Coder(reader, [Table(reader) for _ in live])
        tokens = iter(coder.call([live.index(context) for context, k in parts for _ in range(k)]))
        carried = coder.end()
        raw = Bits(reader.take(reader.varint()))
        part = iter([[join(next(tokens), raw, NEW) for _ in range(k)] for _, k in parts])
        for group, at in segments:
            if kinds[group] == 0:
                for place, number in zip(at, next(part), strict=True):
                    out[place] = number
                continue
            gaps = next(part)
            others = next(part) if kinds[group] == 1 else [0] * len(gaps)
            place = -1
            for gap, other in zip(gaps, others, strict=True):
                place += gap + 1
                out[at[place]] = other + 1
    return signed(out, sign, carried, reader)


def beginnings(model: Model, rank: list[int]) -> list[list[int]]:
    """What the columns of each matrix of factors are said to have had."""
    out, at = [], 0
    for (m, n), r in zip(model.matrices, rank, strict=True):
        matrix = np.abs(model.side[at : at + m * n].reshape(m, n).astype(np.float64))
        at += m * n
        whole = np.floor(matrix * 2.0 ** (12 - math.frexp(matrix.max(initial=0))[1])).astype(np.int64)
        both = (whole.sum(axis=1), whole.sum(axis=0)) if r else ()
        out += [[4 * sums.size * int(b) // max(1, int(sums.sum())) for b in sums] for sums in both]
    return out


def history(reader: Bytes, shapes: list, size: int, start: list | None = None) -> list[int]:
    means = iter(kinds := numbers_of(reader, sum(m for m, n in shapes if n)))
    if not any(kinds):
        return [0] * size
    last = list(reader.take(reader.byte()))
    tables = [Table(reader) for _ in last]
    sign = reader.byte()
    raw = Bits(reader.take(reader.varint()))
    coder = Coder(reader, tables)
    steps = np.array([2**-0.75, 2**-0.25])
    out: list[int] = []
    for number, (m, n) in enumerate(shapes):
        above = start[number] if start else [0] * n
        for _ in range(m if n else 0):
            mean, row = next(means), [0] * n
            if mean:
                total, contexts = float(sum(above)), []
                for a in above:
                    z, e = math.frexp((a + 0.5) * n / (total + n / 2))
                    half = 2 * e - 2 + int((z >= steps).sum())
                    contexts.append(group_of(min(max(mean + half, 1), 47, last[-1]), last))
                row = [join(token, raw, NEW) for token in coder.call(contexts)]
            above = [a + b for a, b in zip(above, row, strict=True)]
            out += row
    return signed(out, sign, coder.end(), reader)


STAGES = {
    "none": lambda streams, model, args: streams,
    "fp16": lambda streams, model, args: {**streams, "values": streams["values"].astype(np.float32)},
    "bf16": lambda streams, model, args: {
        **streams,
        "values": (streams["values"].astype(np.uint32) << 16).view(np.float32),
    },
    **dict.fromkeys(("topk", "threshold", "randk"), spread),
    **dict.fromkeys(("qsgd", "ternary"), scaled),
    **{"uniform": uniform, "sign": sign, "kmeans": kmeans},
    **{"deadzone": deadzone, "even": even, "ternarise": ternarise, "lowrank": lowrank},
    **{"hadamard": hadamard, "drive": drive, "eden": eden, "powersgd": powersgd, "crosspolytope": crosspolytope},
    **{"zstd": zstd, "pack": pack, "quad": quad, "ans": ans},
}
