"""What holds of a federation whatever happened to it: its model, and what its clients keep."""

import base64
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file

from fedpress.client.edge.journal import Journal
from fedpress.client.mod.node_state import ClientState
from fedpress.compression import Layout, parse, parse_stateless
from fedpress.compression.updates import apply
from fedpress.protocol.messages import frame_name
from fedpress.server.deploy.settings import resolve
from fedpress.server.downlink.deltas import DeltaDownlink
from fedpress.server.downlink.model_store import ModelStore

from . import proofapps
from .proofapps import WANTED

if TYPE_CHECKING:
    from .federation import Federation


def accepted(federation: "Federation", last: int) -> list[dict[str, Any]]:
    """The rounds as they counted, up to `last`: what a repeated one had before is void."""
    rounds = {}
    for text in (federation.meet / "accepted.jsonl").read_text().splitlines():
        row = json.loads(text)
        rounds[row["round"]] = row
    assert set(rounds) >= set(range(1, last + 1))
    return [rounds[number] for number in range(1, last + 1)]


def decode(federation: "Federation", vote: Mapping[str, Any], layout: Layout) -> dict[str, np.ndarray]:
    part = layout.part(layout.mask(set(vote["tensors"])))
    frame = base64.b64decode(vote["frame"])
    codec = parse(federation.chosen["up"])
    return codec.decode(frame, part, base=bytes.fromhex(vote["version"]))


def initial(federation: "Federation") -> dict[str, np.ndarray]:
    """The model that the run began with."""
    settings = resolve(federation.chosen)
    task = getattr(proofapps, settings.deployment.task.partition(":")[2])
    return dict(task(settings).initial())


def check_model(federation: "Federation", last: int) -> None:
    """The model after round `last` is what the accepted updates make, to the bit."""
    settings = federation.chosen
    model = initial(federation)
    layout = Layout.of(model)
    with tempfile.TemporaryDirectory() as folder:
        downlink = DeltaDownlink(
            parse_stateless(settings["down"]),
            parse_stateless(settings["key"]),
            model,
            settings["seed"],
            ModelStore(layout, Path(folder), 1 << 30),
            shared_initial=True,
        )
        for row in accepted(federation, last):
            total = sum(vote["weight"] for vote in row["votes"])
            sums: dict[str, np.ndarray] = {}
            for vote in row["votes"]:
                local = apply(downlink.exact, decode(federation, vote, layout), layout)
                for name, array in local.items():
                    part = array * (vote["weight"] / total)
                    sums[name] = sums[name] + part if name in sums else part
            downlink.advance({name: np.asarray(a, np.float32) for name, a in sums.items()}, row["round"])
    saved = load_file(federation.out / "model.safetensors")
    assert saved.keys() == downlink.model.keys()
    for name, array in downlink.model.items():
        assert array.tobytes() == saved[name].tobytes(), f"{name} is not what the accepted updates make"


def check_residuals(federation: "Federation", last: int) -> None:
    """Of every client: what counted plus what it keeps is what its training wanted."""
    layout = Layout.of(initial(federation))
    sent: dict[str, np.ndarray] = {}
    names: dict[str, set[bytes]] = {}
    for row in accepted(federation, last):
        for vote in row["votes"]:
            update = decode(federation, vote, layout)
            whole = {t.name: update.get(t.name, np.zeros(t.shape, np.float32)) for t in layout.tensors}
            flat = layout.flatten(whole)[0].astype(np.float64)
            sent[vote["node"]] = sent.get(vote["node"], 0) + flat
            names.setdefault(vote["node"], set()).add(frame_name(base64.b64decode(vote["frame"])))
    checked = 0
    for name in federation.names:
        state = read_state(federation, name)
        if state is None or WANTED not in state:
            assert name not in sent, f"{name} sent, and keeps nothing"
            continue
        wanted = {key: array.numpy() for key, array in state[WANTED].items()}
        asked = np.concatenate([wanted[tensor.name].ravel() for tensor in layout.tensors])
        memory = ClientState.load(state)
        lost = memory.sent and memory.sent not in names.get(name, set())
        kept = (memory.lost if lost else memory.after).get("residual")
        left = np.zeros(layout.size) if kept is None else spread(kept, layout, memory.tensors)
        np.testing.assert_allclose(sent.get(name, 0) + left, asked, atol=2e-5, err_msg=name)
        checked += 1
    assert checked, "no client was there to be checked"


def read_state(federation: "Federation", name: str) -> Any:
    """What a client keeps on its disk, as a RecordDict; None if it keeps nothing."""
    folder = federation.state(name)
    states = sorted(folder.glob("state-*"), key=lambda path: path.stat().st_mtime_ns)
    if not states:
        return None
    journal = object.__new__(Journal)  # without its lock: the client may be running, and replaces files whole
    journal.folder = folder
    return journal.load(int(states[-1].name.removeprefix("state-")))


def spread(kept: np.ndarray, layout: Layout, mask: bytes) -> np.ndarray:
    """Values of some tensors, at their places among those of all."""
    part = layout.part(mask)
    values = dict(
        zip((t.name for t in part.lossy), np.split(kept, np.cumsum([t.size for t in part.lossy])[:-1]), strict=True)
    )
    return np.concatenate([values.get(t.name, np.zeros(t.size)) for t in layout.lossy]).astype(np.float64)
