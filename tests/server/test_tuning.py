"""Laws of the tuned downlink: what nodes receive does no less of what the exact model does, at no more bytes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fedpress.common.rng import derive
from fedpress.compression import Layout, SettingError, Update, parse
from fedpress.compression.model.evaluation import scores_of
from fedpress.compression.updates import apply
from fedpress.extensions.distillation.acceptance import on_agreement
from fedpress.extensions.distillation.delta_tuning import DeltaTuning
from fedpress.extensions.distillation.distillation import load
from fedpress.extensions.distillation.server import Distillation
from fedpress.extensions.distillation.settings import DistillationSettings
from fedpress.protocol.arrays import model_record
from fedpress.server import Compressed
from fedpress.server.downlink.deltas import DeltaDownlink
from fedpress.server.downlink.model_store import ModelStore

from .test_asking import make_app
from .test_recovery import DOWN, UP, FedAvg, Stop

PROXY = torch.randn(300, 20, generator=torch.Generator().manual_seed(0))


def make() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))


def weights(seed: int) -> Update:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def loss(model: Update, exact: Update) -> float:
    wanted = scores_of(load(make(), exact), PROXY)
    return on_agreement(load(make(), model), PROXY, wanted, "cpu").loss


@pytest.mark.parametrize("keep", [True, False], ids=["deltas", "stateless"])
@pytest.mark.parametrize("down", ["lowrank(nmse=0.3) | ans", "deadzone(nmse=0.5) | ans", "topk(0.1) | ans"])
def test_the_tuned_model_is_no_further_at_no_more_bytes(down: str, keep: bool, tmp_path: Path) -> None:
    exact = weights(1)
    links = []
    for number, tune in enumerate((None, DeltaTuning(make, PROXY, 10))):
        hooks = Distillation(DistillationSettings(), tuning=tune)
        versions = ModelStore(Layout.of(exact), tmp_path / str(number), 1 << 30)
        (tmp_path / str(number)).mkdir()
        link = DeltaDownlink(
            parse(down),
            parse("none"),
            weights(0),
            5,
            versions,
            shared_initial=True,
            stateless=not keep,
            hooks=hooks,
        )
        link.advance(exact, 1)
        links.append(link)
    plain, tuned = links
    assert loss(tuned.model, exact) <= loss(plain.model, exact)
    assert tuned.frames_for(b"").nbytes <= plain.frames_for(b"").nbytes
    assert tuned.frames_for(b"").version == tuned.version
    assert all((tuned.exact[name] == exact[name]).all() for name in exact)


def test_a_codec_that_loses_nothing_is_left_alone() -> None:
    exact = weights(1)
    assert DeltaTuning(make, PROXY, 3)(exact, lambda aim: (9, aim), np.random.default_rng(0)) is exact


def test_an_aim_that_takes_more_bytes_is_not_taken() -> None:
    exact, base = weights(1), weights(0)
    layout, calls = Layout.of(exact), []

    def code(aim: Update) -> tuple[int, Update]:
        calls.append(aim)
        frame, _ = parse("topk(0.1) | ans").encode({k: aim[k] - base[k] for k in aim}, {}, derive(0, "x"))
        return len(calls), apply(base, parse("topk(0.1) | ans").decode(frame, layout), layout)

    assert DeltaTuning(make, PROXY, 5)(exact, code, np.random.default_rng(0)) is exact
    assert len(calls) == 6


@pytest.mark.parametrize("stateless", [False, True])
def test_a_tuned_federation_resumes_with_the_same_bits(stateless: bool, make_grid, tmp_path: Path) -> None:
    def federation(folder: Path, *, resume: bool = False, stop: int = -1) -> Compressed:
        def on_round(done: SimpleNamespace) -> None:
            if done.number == stop:
                raise Stop

        return Compressed(
            FedAvg(fraction_train=1.0, fraction_evaluate=0.0),
            up="topk(0.1) | ans" if stateless else UP,
            down=DOWN,
            stateless=stateless,
            shared_initial=stateless,
            extensions=[Distillation(DistillationSettings(), tuning=DeltaTuning(make, PROXY, 3))],
            checkpoint=folder,
            resume=resume,
        ).observe(on_round)

    def start(strategy: Compressed) -> dict[str, bytes]:
        result = strategy.start(
            make_grid(3, app=make_app(initial=lambda _: weights(0))), model_record(weights(0)), num_rounds=3
        )
        return {name: array.numpy().tobytes() for name, array in result.arrays.items()}

    expected = start(federation(tmp_path / "whole"))
    with pytest.raises(Stop):
        start(federation(tmp_path / "cut", stop=2))
    again = start(federation(tmp_path / "cut", resume=True))
    if stateless:  # else what the nodes had not sent went with them
        assert again == expected
    assert again.keys() == expected.keys()


@pytest.mark.parametrize("terms", [{"down": "none"}, {"down": DOWN, "stateless": True}], ids=str)
def test_tuning_without_deltas_is_refused(terms: dict) -> None:
    with pytest.raises(SettingError, match="distillation needs that nodes are sent deltas"):
        Compressed(
            FedAvg(), extensions=[Distillation(DistillationSettings(), tuning=DeltaTuning(make, PROXY, 3))], **terms
        )
