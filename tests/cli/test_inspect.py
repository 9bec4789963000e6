"""`fedpress inspect` and the recorded updates' bench, called as a person would."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fedpress
from fedpress.common.rng import derive

from .conftest import Call

UPDATES = Path(__file__).parents[1] / "data" / "updates"


@pytest.fixture
def frame(empty: Path) -> Path:
    rng = np.random.default_rng(0)
    update = {"w": (rng.normal(size=(40, 50)) * 0.1).astype(np.float32), "n": np.array(3)}
    save_file(update, empty / "model.safetensors")
    (empty / "layout.json").write_text(fedpress.Layout.of(load_file(empty / "model.safetensors")).text)
    update = load_file(empty / "model.safetensors")
    codec = fedpress.codec("ef | deadzone(nmse=0.1) | ans")
    layout = fedpress.Layout.of(update)
    path = empty / "update.fp"
    path.write_bytes(codec.encode(update, codec.init(layout), derive(0), base=b"12345678")[0])
    return path


def test_what_the_bytes_alone_tell(call: Call, frame: Path) -> None:
    said = call("inspect", str(frame))
    assert said.code == 0
    for words in ("ef | deadzone(nmse=0.1) | ans", b"12345678".hex(), "symbols", "--layout"):
        assert words in said.out


@pytest.mark.parametrize("layout", ["model.safetensors", "layout.json"])
def test_what_the_layout_opens(call: Call, frame: Path, layout: str) -> None:
    said = call("inspect", str(frame), "--layout", layout, "--json")
    report = json.loads(said.out)
    assert report["nbytes"] == frame.stat().st_size == report["head"] + sum(s["nbytes"] for s in report["streams"])
    assert report["ratio"] == pytest.approx(8008 / report["nbytes"])
    assert {tensor["name"] for tensor in report["tensors"]} == {"w", "n"}
    (symbols,) = [found for found in report["symbols"] if found["name"] == "symbols"]
    assert symbols["count"] == 2000 == sum(symbols["histogram"].values())
    assert symbols["zeros"] == symbols["histogram"]["0"] / 2000
    assert "█" in call("inspect", str(frame), "--layout", layout).out


def test_bad_input_is_one_line(call: Call, frame: Path) -> None:
    broken = frame.read_bytes()[:-1]
    Path("broken.fp").write_bytes(broken)
    Path("other.json").write_text('[["w",[2],"float32"]]')
    for words, line, code in [
        (("broken.fp",), "broken.fp", 1),
        (("nothing.fp",), "nothing.fp", 2),
        ((str(frame), "--layout", "other.json"), "another layout", 1),
        ((str(frame), "--layout", str(frame)), "holds no layout", 1),
    ]:
        said = call("inspect", *words)
        assert said.code == code
        assert line in said.err
        assert said.err.count("\n") == 1
    assert call("inspect").code == 2


def test_codecs_are_compared_on_a_recorded_update(call: Call) -> None:
    words = ("bench", "codec", "--updates", str(UPDATES), "--only", "digits", "--repeats", "1")
    said = call(*words, "--codecs", "best(nmse=0.1); none", "--json")
    (found,) = json.loads(said.out)
    best, none = found["codecs"]
    assert best["bytes"] * 10 < none["bytes"]
    assert best["nmse"] <= 0.1
    assert none["cosine"] == pytest.approx(1)
    assert best["cosine"] == pytest.approx((1 - best["nmse"]) ** 0.5, abs=0.02)
    said = call(*words, "--codecs", "sign | pack")
    assert "digits: 9,610 parameters" in said.out


def test_a_bench_without_updates_is_a_wrong_call(call: Call) -> None:
    said = call("bench", "codec", "--updates", "nowhere")
    assert said.code == 2
    assert "nowhere" in said.err
    assert call("bench", "codec", "--updates", str(UPDATES), "--only", "nothing").code == 2
    assert call("bench", "record", "nothing").code == 2
