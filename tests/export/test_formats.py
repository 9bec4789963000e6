"""What a file of a model holds, and what is said where it cannot hold it."""

from importlib.machinery import ModuleSpec
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from fedpress.common.errors import SettingError
from fedpress.compression.model import weight_sharing
from fedpress.compression.model.evaluation import scores_of
from fedpress.compression.model.export import FORMATS, export, formats, measure
from fedpress.compression.model.plan import Plan
from fedpress.compression.model.weight_sharing import ShareWeights
from fedpress.simulations.workloads import models
from fedpress.simulations.workloads.speeches import CHARACTERS

FILES = ("onnx", "executorch")
MODELS = {
    "mlp": (models.mlp, (1, 8, 8)),
    "cnn": (models.cnn, (1, 28, 28)),
    "mcmahan": (models.mcmahan, (1, 28, 28)),
    "lenet": (models.lenet, (1, 28, 28)),
    "resnet18": (models.resnet18, (1, 28, 28)),
    "cnn1d": (models.cnn1d, (6, 100)),
}


def have(format: str) -> None:
    for package in FORMATS[format].packages:
        pytest.importorskip(package)


def gru() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return models.CharacterGRU(len(CHARACTERS) + 1, 0.0), torch.randint(0, len(CHARACTERS), (5, 80))


def compare(model: nn.Module, x: Tensor, format: str, *, int8: bool) -> float:
    """How far the scores of the file are from the model's, as a share of the largest."""
    scores = scores_of(model, x)
    data = export(model, x, format, int8=int8)
    found = measure(data, format, x, scores.argmax(-1), scores)
    assert found.nbytes == len(data)
    assert found.agreement == found.accuracy  # here torch's own answers are the targets
    return found.difference / float(scores.abs().max())


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_every_model_gives_torch_s_scores(name: str, int8: bool, format: str) -> None:
    have(format)
    torch.manual_seed(0)
    make, shape = MODELS[name]
    assert compare(make(0.0), torch.rand(20, *shape), format, int8=int8) < (0.15 if int8 else 1e-4)


@pytest.mark.slow
def test_a_recurrent_model_takes_any_number_of_texts() -> None:
    have("onnx")
    assert compare(*gru(), "onnx", int8=False) < 1e-4


@pytest.mark.parametrize(("format", "int8"), [("onnx", True), ("executorch", False), ("executorch", True)])
def test_a_recurrent_model_is_refused_where_there_is_nothing_for_it(format: str, int8: bool) -> None:
    have(format)
    with pytest.raises(SettingError, match=r"holds no recurrent layers, and 'gru' is of GRU: "):
        export(*gru(), format, int8=int8)


class Undecided(nn.Module):
    """What it does hangs on what it gets: no graph holds that."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x


@pytest.mark.parametrize("format", FILES)
def test_a_model_that_is_no_graph_is_one_clear_line(format: str) -> None:
    have(format)
    with pytest.raises(SettingError) as error:
        export(Undecided(), torch.rand(2, 3), format)
    said = str(error.value)
    assert said.startswith(f"the model cannot be exported as {format}: ")
    assert "\n" not in said


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(SettingError, match="unknown format 'onxx': did you mean 'onnx'"):
        export(nn.Linear(2, 2), torch.rand(2, 2), "onxx")


@pytest.mark.parametrize("format", FILES)
def test_without_the_extra_it_is_named(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> ModuleSpec | None:
        return None if name in FORMATS[format].packages else find_spec(name)

    monkeypatch.setattr(formats, "find_spec", gone)
    with pytest.raises(SettingError, match=r"not installed here: pip install 'fedpress\[export\]'"):
        export(nn.Linear(2, 2), torch.rand(2, 2), format)


def test_a_model_that_shares_weights_is_exported_with_plain_ones() -> None:
    have("onnx")
    torch.manual_seed(0)
    model, x = models.mlp(0.0), torch.rand(20, 1, 8, 8)
    shared = Plan((weight_sharing.choose(model, 16).step,)).apply(model)
    before = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
    assert compare(shared, x, "onnx", int8=False) < 1e-4
    assert {name for name in before if torch.equal(before[name], shared.state_dict()[name])} == before.keys()
    assert load(export(shared, x, "safetensors")).keys() == before.keys()  # the codebooks stay


@pytest.mark.slow
def test_executorch_takes_shared_weights_too() -> None:
    have("executorch")
    model, x = nn.Sequential(nn.Linear(8, 16)), torch.rand(4, 8)
    shared = Plan((ShareWeights({"0": 4}),)).apply(model)
    assert compare(shared, x, "executorch", int8=False) < 1e-4
