"""Laws of ensemble distillation: what the ensemble knows is learnt, and by the guard's measure nothing gets worse."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from torch import nn

from fedpress.compression.errors import DataError, SettingError
from fedpress.server import Compressed
from fedpress.server.distillation import Distilling, EnsembleDistillation
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads import task

RNG = np.random.default_rng(3)
X = torch.from_numpy(RNG.normal(size=(600, 2)).astype(np.float32))
Y = (X[:, 0] > 0).long()
GOOD = {"weight": np.array([[-3.0, 0.0], [3.0, 0.0]], np.float32), "bias": np.zeros(2, np.float32)}
BAD = {"weight": np.array([[3.0, 0.0], [-3.0, 0.0]], np.float32), "bias": np.zeros(2, np.float32)}
BLANK = {name: array * 0 for name, array in GOOD.items()}


def vote(model: dict[str, np.ndarray]) -> SimpleNamespace:
    return SimpleNamespace(decode=lambda: model)


def teach(averaged, teachers, seed: int = 0, **settings):
    distil = EnsembleDistillation(lambda: nn.Linear(2, 2), X[:400], X[400:], Y[400:], Distilling(**settings))
    return distil(averaged, [vote(model) for model in teachers], np.random.default_rng(seed))


def test_the_ensemble_teaches() -> None:
    taught = teach(BLANK, [GOOD, GOOD], distil_steps=400)
    assert taught is not BLANK
    assert taught["weight"][1, 0] > taught["weight"][0, 0]


def test_a_worse_model_is_not_taken() -> None:
    assert teach(GOOD, [BAD, BAD]) is GOOD


def test_the_same_seed_gives_the_same_bits() -> None:
    first, again, other = (teach(BLANK, [GOOD], seed=seed)["weight"].tobytes() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_statistics_of_a_batch_norm_stay_the_nodes() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))

    model = {name: tensor.numpy().copy() for name, tensor in make().state_dict().items()}
    best = {**model, "1.weight": GOOD["weight"], "1.bias": GOOD["bias"]}
    distil = EnsembleDistillation(make, X[:400], X[400:], Y[400:], Distilling(distil_steps=300))
    taught = distil({**model, "1.weight": BLANK["weight"]}, [vote(best)], np.random.default_rng(0))
    for name in ("0.running_mean", "0.running_var", "0.num_batches_tracked"):
        assert (taught[name] == model[name]).all()


def test_without_data_there_is_a_clear_error() -> None:
    with pytest.raises(DataError, match="no node has"):
        EnsembleDistillation(lambda: nn.Linear(2, 2), X[:0], X, Y, Distilling())


def test_noise_of_privacy_is_not_gone_around() -> None:
    private = DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 2)
    with pytest.raises(SettingError, match="adds its noise"):
        Compressed(private, distil=lambda model, *_: model)


def test_what_the_server_keeps_no_node_has() -> None:
    work = task(resolve({"distil": True, "distil-proxy": 100, "distil-guard": 50}))
    dealt = [tuple(row.flatten().tolist()) for node in range(100) for row in work.examples(node).x]
    assert (len(work.proxy), len(work.guard)) == (100, 50)
    assert len(dealt) + 150 == len(task(resolve({})).data.train)
    plain = task(resolve({}))
    assert len(plain.proxy) == len(plain.guard) == 0


def test_more_than_there_is_cannot_be_kept() -> None:
    with pytest.raises(SettingError, match="distil-proxy and distil-guard leave some"):
        task(resolve({"distil": True, "distil-proxy": 10**6}))
