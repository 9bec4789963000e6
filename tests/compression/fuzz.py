"""Broken frames of every kind, by a seed: mutations, truncations, splices, and headers made by hand."""

import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpress.common.rng import derive
from fedpress.compression import FrameError, Layout, UpdateError, parse
from fedpress.compression.codec import CodecFaultError
from fedpress.compression.frame import (
    DTYPES,
    FrameHead,
    put_varint,
    read_frame,
    restore,
    shorten,
    write_frame,
)
from fedpress.compression.registry import examples

SECONDS = 1.0  # that one frame may take
TIMES = 8  # the layout's memory
SPARE = 4 << 20  # bytes: tables to look tokens up in, whatever the layout
_WATCHED = 50  # one frame in so many has its memory watched, which is slow


@dataclass
class Report:
    frames: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    largest: float = 0.0  # peak of memory over what is allowed
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        decoded = self.outcomes["decoded"]
        return (
            f"{self.frames:,} frames: {decoded:,} decoded, {self.frames - decoded - len(self.failures):,} refused, "
            f"{len(self.failures)} failed; slowest {self.slowest:.3f} s, most memory {self.largest:.0%} of the limit"
        )


@dataclass(frozen=True)
class Case:
    spec: str
    layout: Layout
    frame: bytes


def updates() -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    low = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 60)) + 0.1 * rng.standard_normal((40, 60))
    yield {"w": low.astype(np.float32), "b": rng.normal(size=40).astype(np.float32), "n": np.array(3)}
    yield {"x": (rng.standard_t(3, 300) * 0.01).astype(np.float32)}
    yield {
        "h": rng.normal(size=(9, 10)).astype(np.float16),
        "m": rng.random(9) < 0.5,
        "e": np.zeros((0, 4), np.float32),
    }


def cases() -> list[Case]:
    out = []
    for update in updates():
        layout = Layout.of(update)
        for spec in examples():
            codec = parse(spec)
            try:
                frame, _ = codec.encode(update, codec.init(layout), derive(1))
            except UpdateError:
                continue
            out.append(Case(spec, layout, frame))
    return out


def sealed(body: bytes) -> bytes:
    """A frame whose checksum is right."""
    return body[:3] + zlib.crc32(body[7:]).to_bytes(4, "little") + body[7:] if len(body) >= 7 else body


def broken(case: Case, other: Case, rng: np.random.Generator) -> bytes:
    """A frame in which something is wrong, most often with a checksum that is right."""
    frame = bytearray(case.frame)
    # Half of the changes hit the head, where lengths and kinds stand.
    span = len(frame) if rng.random() < 0.5 else min(len(frame), 160)
    kind = int(rng.integers(9))
    if kind == 0:
        for _ in range(int(rng.integers(1, 4))):
            frame[int(rng.integers(7, span))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        for _ in range(int(rng.integers(1, 9))):
            frame[int(rng.integers(7, span))] = int(rng.choice([0, 1, 127, 128, 255, rng.integers(256)]))
    elif kind == 2:
        del frame[int(rng.integers(7, span)) :]
    elif kind == 3:
        at = int(rng.integers(7, span))
        frame[at:at] = rng.bytes(int(rng.integers(1, 20)))
    elif kind == 4:
        at = int(rng.integers(7, span))
        del frame[at : at + int(rng.integers(1, 20))]
    elif kind == 5:
        at, cut = int(rng.integers(7, len(frame))), int(rng.integers(7, len(other.frame)))
        frame = frame[:at] + bytearray(other.frame[cut:])
    elif kind == 6:
        return by_hand(case, rng)
    elif kind == 7:
        return swapped(case, other, rng)
    else:
        frame = bytearray(rng.bytes(len(frame)))
        frame[:3] = case.frame[:3]
    return bytes(frame) if rng.random() < 0.05 else sealed(bytes(frame))


def broken_short(frame: bytes, case: Case, rng: np.random.Generator) -> bytes:
    """The short form of a frame, or of the right one with a changed head, most often with a checksum that is right."""
    if rng.random() < 0.5:
        try:
            return shorten(frame)
        except FrameError:
            pass
    short = bytearray(shorten(case.frame))
    for _ in range(int(rng.integers(1, 4))):
        short[int(rng.integers(min(len(short), 40)))] = int(rng.choice([0, 1, 2, 21, 128, 130, 255, rng.integers(256)]))
    if rng.random() < 0.2:
        del short[int(rng.integers(len(short))) :]
    if rng.random() < 0.05:
        return bytes(short)
    try:
        whole = restore(bytes(short), FrameHead(read_frame(case.frame).spec, case.layout.digest, b""))
    except FrameError:
        return bytes(short)
    return bytes(short[:1]) + zlib.crc32(whole[7:]).to_bytes(4, "little") + bytes(short[5:])


def by_hand(case: Case, rng: np.random.Generator) -> bytes:
    """The right spec and layout, and streams that claim whatever they like."""
    read = read_frame(case.frame)
    streams = {}
    names = [*read.streams, *(f"s{i}" for i in range(int(rng.integers(0, 60))))]
    for name in names[: int(rng.integers(1, 64))]:
        head = bytearray()
        if rng.random() < 0.8:
            head.append(int(rng.integers(len(DTYPES) + 1)))
            count = int(
                rng.choice([0, 1, case.layout.size, case.layout.max_nbytes, 2**31, 2**62, rng.integers(1, 2**20)])
            )
            put_varint(head, count)
            head.append(int(rng.integers(7)))
        head += rng.bytes(int(rng.integers(0, 60)))
        streams[name] = np.frombuffer(bytes(head), np.uint8)
    return write_frame(read.spec, read.layout, b"", streams)


def swapped(case: Case, other: Case, rng: np.random.Generator) -> bytes:
    """Streams of this frame and of another one, mixed up."""
    mine, theirs = read_frame(case.frame), read_frame(other.frame)
    streams = dict(mine.streams)
    for name in mine.streams:
        draw = rng.random()
        if draw < 0.3:
            donor = [*mine.streams.values(), *theirs.streams.values()]
            streams[name] = donor[int(rng.integers(len(donor)))]
        elif draw < 0.4:
            del streams[name]
        elif draw < 0.5:
            streams[name] = np.frombuffer(rng.bytes(streams[name].nbytes), streams[name].dtype)
        elif draw < 0.6:
            streams[name] = np.tile(streams[name], int(rng.integers(2, 5)))
    if rng.random() < 0.2:
        streams.update({name: array for name, array in theirs.streams.items() if rng.random() < 0.5})
    return write_frame(mine.spec, mine.layout, b"", streams)


def attempt(case: Case, frame: bytes, report: Report, *, watch: bool) -> str | None:
    """What is wrong with how `frame` was taken; None if nothing is."""
    allowed = TIMES * case.layout.nbytes + SPARE + len(frame)
    if watch:
        tracemalloc.start()
    began = time.perf_counter()
    try:
        back = parse(case.spec).decode(frame, case.layout)
        report.outcomes["decoded"] += 1
        fine = Layout.of(back) == case.layout and all(np.isfinite(array).all() for array in back.values())
        wrong = None if fine else "decoded to what the layout does not hold"
    except CodecFaultError as error:
        wrong = str(error)
    except FrameError as error:
        report.outcomes[str(error)[:24]] += 1
        wrong = None
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    took = time.perf_counter() - began
    if watch:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        report.largest = max(report.largest, peak / allowed)
        if peak > allowed:
            wrong = wrong or f"{peak} bytes, {allowed} are allowed"
    else:
        report.slowest = max(report.slowest, took)
        if took > SECONDS:
            wrong = wrong or f"{took:.2f} s"
    report.frames += 1
    return wrong


def fuzz(frames: int, seed: int, keep: Path | None, note: Callable[[str], None]) -> Report:
    """Try so many frames; write those that fail to the folder `keep`."""
    every, rng, report = cases(), np.random.default_rng(seed), Report()
    began = time.monotonic()
    while report.frames < frames:
        case, other = (every[int(rng.integers(len(every)))] for _ in range(2))
        frame = broken(case, other, rng)
        if rng.random() < 0.3:
            frame = broken_short(frame, case, rng)
        wrong = attempt(case, frame, report, watch=report.frames % _WATCHED == 0)
        if wrong:
            report.failures.append(f"{case.spec}: {wrong}")
            note(report.failures[-1])
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{len(report.failures)}.fp").write_bytes(frame)
        if report.frames % 50_000 == 0:
            note(f"{report.frames:,} frames, {report.frames / (time.monotonic() - began):.0f} a second")
    return report
