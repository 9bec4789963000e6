"""Laws of ensemble distillation: a student learns from the ensemble, and a worse model is never accepted."""

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from torch import nn

from fedpress.common.errors import SettingError
from fedpress.extensions.distillation.distillation import DistillationContext, EnsembleDistillation
from fedpress.extensions.distillation.proxies import proxy_of
from fedpress.extensions.distillation.server import Distillation
from fedpress.extensions.distillation.settings import DistillationSettings
from fedpress.protocol.app_config import CLASS_COUNTS
from fedpress.server import Compressed
from fedpress.server.messaging.node_evaluation import ModelScore
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads import task

RNG = np.random.default_rng(3)
X = torch.from_numpy(RNG.normal(size=(600, 2)).astype(np.float32))
Y = (X[:, 0] > 0).long()
GOOD = {"weight": np.array([[-3.0, 0.0], [3.0, 0.0]], np.float32), "bias": np.zeros(2, np.float32)}
BAD = {"weight": np.array([[3.0, 0.0], [-3.0, 0.0]], np.float32), "bias": np.zeros(2, np.float32)}
BLANK = {name: array * 0 for name, array in GOOD.items()}


def vote(model: dict[str, np.ndarray], counts: list[int] | None = None) -> SimpleNamespace:
    metrics = MetricRecord({"num-examples": 10} | ({CLASS_COUNTS: counts} if counts else {}))
    return SimpleNamespace(
        decode=lambda: model, weight=10.0, message=SimpleNamespace(content=RecordDict({"metrics": metrics}))
    )


def made(make: Any = lambda: nn.Linear(2, 2), **settings: Any) -> EnsembleDistillation:
    chosen = DistillationSettings(**settings)
    return EnsembleDistillation(make, proxy_of(X[:400], chosen, "cpu"), X[400:], Y[400:], chosen)


def teach(averaged, teachers, seed: int = 0, **settings):
    return made(**settings)(averaged, [vote(model) for model in teachers], np.random.default_rng(seed)).model


def test_a_student_learns_from_the_ensemble() -> None:
    taught = teach(BLANK, [GOOD, GOOD], steps=400)
    assert taught is not BLANK
    assert taught["weight"][1, 0] > taught["weight"][0, 0]


def test_a_worse_model_is_rejected() -> None:
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
    taught = made(make, steps=300, previous_model=False)(
        {**model, "1.weight": BLANK["weight"]}, [vote(best)], np.random.default_rng(0)
    ).model
    for name in ("0.running_mean", "0.running_var", "0.num_batches_tracked"):
        assert (taught[name] == model[name]).all()


def test_an_empty_proxy_is_refused_with_the_remedy() -> None:
    with pytest.raises(SettingError, match=r"got 0.*proxy-examples.*folder:PATH.*noise") as caught:
        proxy_of(X[:0], DistillationSettings(), "cpu")
    assert "\n" not in str(caught.value)


def test_a_guard_without_targets_is_refused() -> None:
    chosen = DistillationSettings()
    with pytest.raises(SettingError, match="guard-examples"):
        EnsembleDistillation(lambda: nn.Linear(2, 2), proxy_of(X, chosen, "cpu"), X[:0], Y[:0], chosen)
    chosen = DistillationSettings(criterion="agreement")
    EnsembleDistillation(lambda: nn.Linear(2, 2), proxy_of(X, chosen, "cpu"), X[:0], Y[:0], chosen)


def test_agreement_needs_no_targets() -> None:
    assert teach(BLANK, [GOOD], criterion="agreement", steps=200) is not BLANK
    assert teach(GOOD, [BAD], criterion="agreement", steps=400) is not GOOD, "who asks only the ensemble"


@pytest.mark.parametrize(
    ("after", "taken"),
    [
        (ModelScore(0.94, 0.8), True),
        (ModelScore(0.96, 0.9), False),
        (ModelScore(0.5, 0.7), False),
        (ModelScore(2, 0.9), False),
    ],
)
def test_nodes_may_decide(after: ModelScore, taken: bool) -> None:  # with the default margin, 0.05
    asked: list[Any] = []

    def ask(models: Any) -> list[ModelScore]:
        asked.extend(models)
        return [ModelScore(1.0, 0.8), after]

    distil = made(criterion="clients", steps=5)
    result = distil(BLANK, [vote(GOOD)], np.random.default_rng(0), DistillationContext(ask))
    taught, noted = result.model, result.facts
    assert asked[0] is BLANK
    assert (taught is not BLANK) == taken
    assert taught is (asked[1] if taken else BLANK)
    assert (noted["criterion"], noted["taken"], noted["accuracy"]) == ("clients", taken, [0.8, after.accuracy])


def test_if_no_node_answers_the_average_stays() -> None:
    distil = made(criterion="clients", steps=5)
    assert distil(BLANK, [vote(GOOD)], np.random.default_rng(0), DistillationContext(lambda _: [])).model is BLANK


def test_without_a_criterion_the_distilled_model_is_accepted() -> None:
    assert teach(GOOD, [BAD], criterion="none") is not GOOD


def test_a_node_without_class_counts_is_no_teacher() -> None:
    distil = made(teacher_weights="classes", steps=200)
    votes = [vote(GOOD, [50, 50]), vote(BAD), vote(BAD)]
    assert distil(BLANK, votes, np.random.default_rng(0)).model is not BLANK
    assert distil(BLANK, votes[1:], np.random.default_rng(0)).model is BLANK


def test_a_node_with_counts_of_other_classes_is_no_teacher() -> None:
    distil = made(teacher_weights="classes", steps=200)
    assert distil(BLANK, [vote(BAD, [50, 50, 50])], np.random.default_rng(0)).model is BLANK


@pytest.mark.parametrize("criterion", ["none", "clients", "held-out", "agreement"])
def test_a_distilled_model_that_is_not_finite_is_rejected(criterion: str) -> None:
    asked: list[Any] = []

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))

    model = {name: tensor.numpy() for name, tensor in make().state_dict().items()}
    distil = made(make, proxy_lr=1e30, criterion=criterion)
    teaching = DistillationContext(lambda models: asked.extend(models) or [])
    assert distil(model, [vote(model)], np.random.default_rng(0), teaching).model is model
    assert not asked


def test_the_previous_model_stands_for_absent_nodes() -> None:
    """No reply was trained on class 1; the previous model was."""
    knows_none = {"weight": np.zeros((2, 2), np.float32), "bias": np.array([4.0, -4.0], np.float32)}
    votes = [vote(knows_none, [100, 0]) for _ in range(5)]

    def accuracy(**more: Any) -> float:
        distil = made(teacher_weights="classes", criterion="none", steps=300, **more)
        taught = distil(BLANK, votes, np.random.default_rng(0), DistillationContext(previous=GOOD)).model
        said = X[400:] @ torch.from_numpy(taught["weight"]).T + torch.from_numpy(taught["bias"])
        return float((said.argmax(-1) == Y[400:]).float().mean())

    assert accuracy() > accuracy(previous_model=False) + 0.05


@pytest.mark.parametrize("source", ["held-out", "inverted"])
def test_one_teacher_is_decoded_at_a_time(source: str) -> None:
    live: list[Any] = []
    most = 0

    class Weights(dict):
        """A decoded model that can be watched."""

    def decode() -> Weights:
        nonlocal most
        weights = Weights({name: array.copy() for name, array in GOOD.items()})
        live.append(weakref.ref(weights))
        gc.collect()
        most = max(most, sum(ref() is not None for ref in live))
        return weights

    modules = []

    def make() -> nn.Module:
        modules.append(nn.Linear(2, 2))
        return modules[-1]

    votes = [SimpleNamespace(decode=decode, weight=1.0, message=None) for _ in range(7)]
    made(make, steps=3, source=source, proxy_examples=50)(BLANK, votes, np.random.default_rng(0))
    assert len(live) == (14 if source == "inverted" else 7)
    assert (most, len(modules)) == (1, 1), "one decoded, and one module that they and the student take turns with"


def test_distillation_with_differential_privacy_is_refused() -> None:
    private = DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 2)
    with pytest.raises(SettingError, match="learn from single updates"):
        Compressed(private, extensions=[Distillation(DistillationSettings(), ensemble=made())])


def test_examples_held_back_are_on_no_node() -> None:
    work = task(resolve({"distillation.enabled": True, "proxy-examples": 100, "guard-examples": 50}))
    dealt = [tuple(row.flatten().tolist()) for node in range(100) for row in work.examples(node).x]
    assert {name: len(held) for name, held in work.held_back.items()} == {"proxy-examples": 100, "guard-examples": 50}
    assert len(dealt) + 150 == len(task(resolve({})).data.train)
    assert not task(resolve({})).held_back


def test_holding_back_all_examples_is_refused() -> None:
    with pytest.raises(SettingError, match="proxy-examples and guard-examples"):
        task(resolve({"distillation.enabled": True, "proxy-examples": 10**6}))
