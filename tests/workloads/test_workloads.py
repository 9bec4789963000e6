"""Laws of tasks: the same for every workload, on its real data."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedpress.client.training.loop import evaluate, train
from fedpress.common.errors import SettingError
from fedpress.settings import RunSettings
from fedpress.simulations.settings import resolve, simulation_schema
from fedpress.simulations.workloads import WORKLOADS, Examples, WorkloadTask, task
from fedpress.simulations.workloads.cache import cache
from fedpress.simulations.workloads.fashion import DEBIAN
from fedpress.simulations.workloads.partitions import from_flower, partition

ABSENT = {
    "fashion": None if DEBIAN.is_dir() else "Debian's dataset-fashion-mnist is not installed",
    "speeches": None if (cache() / "sotu").is_dir() else "the speeches have not been fetched",
}
NAMES = ("digits", "fashion", "watch", "speeches")
# Of each model: the shape of an example and of its scores, and how many parameters there are.
MODELS = {
    ("digits", "mlp"): ((1, 8, 8), (10,), 9_610),
    ("fashion", "cnn"): ((1, 28, 28), (10,), 32_804),
    ("fashion", "cnnbn"): ((1, 28, 28), (10,), 32_852),
    ("fashion", "mcmahan"): ((1, 28, 28), (10,), 1_663_370),
    ("fashion", "lenet"): ((1, 28, 28), (10,), 44_426),
    ("fashion", "resnet18"): ((1, 28, 28), (10,), 11_171_018),
    ("fashion", "strided"): ((1, 28, 28), (10,), 89_770),
    ("fashion", "pocket"): ((1, 28, 28), (10,), 15_786),
    ("watch", "cnn1d"): ((6, 100), (7,), 11_159),
    ("speeches", "gru"): ((80,), (80, 87), 64_911),
}


def need(workload: str) -> None:
    if ABSENT.get(workload):
        pytest.skip(ABSENT[workload])


@pytest.fixture(scope="module", params=NAMES)
def found(request: pytest.FixtureRequest) -> WorkloadTask:
    """Every workload, as it is without a setting."""
    need(request.param)
    return task(resolve({"workload": request.param}))


def test_every_workload_and_model_is_tried() -> None:
    assert set(NAMES) == set(WORKLOADS)
    assert set(MODELS) == {(name, model) for name, workload in WORKLOADS.items() for model in workload.models}


@pytest.mark.parametrize(("workload", "model"), MODELS)
def test_a_model_takes_the_examples_and_has_the_parameters_it_should(workload: str, model: str) -> None:
    example, scores, parameters = MODELS[workload, model]
    made = WORKLOADS[workload].models[model](0.0)
    assert sum(p.numel() for p in made.parameters()) == parameters
    inputs = torch.zeros(3, *example, dtype=torch.int64 if workload == "speeches" else torch.float32)
    assert made(inputs).shape == (3, *scores)
    dropping = WORKLOADS[workload].models[model](0.25)
    assert [layer.p for layer in dropping.modules() if isinstance(layer, nn.Dropout)] == [0.25]


def test_nodes_share_out_the_training_set(found: WorkloadTask) -> None:
    assert np.array_equal(np.sort(np.concatenate(found.parts)), np.arange(len(found.data.train)))
    node = len(found.parts) // 2
    examples = found.examples(node)
    part = torch.from_numpy(found.parts[node])
    assert torch.equal(examples.x, found.data.train.x[part])
    assert torch.equal(examples.y, found.data.train.y[part])
    assert found.examples(node) is examples
    assert len(found.holdout(node)) == 0


def test_no_example_of_the_test_set_is_in_the_training_set(found: WorkloadTask) -> None:
    def prints(examples: Examples) -> set[bytes]:
        rows = torch.cat([examples.x.flatten(1).double(), examples.y.reshape(len(examples), -1).double()], 1)
        return {row.tobytes() for row in rows.numpy()}

    # Among tens of thousands of images and passages a few are there twice.
    assert len(prints(found.data.train) & prints(found.data.test)) <= len(found.data.test) / 500


def test_labels_are_those_of_the_names(found: WorkloadTask) -> None:
    assert found.data.labels.shape == (len(found.data.train),)
    assert set(np.unique(found.data.labels)) == set(range(len(found.data.names)))


def test_training_on_a_node_lowers_the_loss_on_its_examples(
    found: WorkloadTask, request: pytest.FixtureRequest
) -> None:
    """With the workload's own settings, from what a run begins with."""
    training = resolve({"workload": request.node.callspec.params["found"]}).training
    model, examples = found.model(), found.examples(0)
    before = evaluate(model, examples, "cpu")
    train(model, examples, training, round=1, rounds=1, seed=0, partition=0, device="cpu")
    assert evaluate(model, examples, "cpu")["loss"] < 0.97 * before["loss"]


def test_the_initial_weights_are_the_models(found: WorkloadTask) -> None:
    model = found.model()
    initial = found.initial()
    assert all(np.array_equal(initial[name], tensor.numpy()) for name, tensor in model.state_dict().items())
    torch.rand(3)
    again = found.initial()
    assert all(np.array_equal(initial[name], again[name]) for name in initial)


def test_weights_derive_from_the_seed_alone(make: Callable[..., WorkloadTask]) -> None:
    def weights(task: WorkloadTask) -> bytes:
        return b"".join(array.tobytes() for array in task.initial().values())

    state = torch.get_rng_state()
    one = weights(make(seed=1))
    assert torch.equal(state, torch.get_rng_state())
    assert one == weights(make(seed=1, clients=7, per_round=2, partition="shards", dropout=0.5))
    assert one != weights(make(seed=2))


PLACE = {"seed": 5, "alpha": 0.3, "holdout": 0.25}


def print_of(work: WorkloadTask) -> str:
    """Return a hash of all that a task derives from its seed."""
    arrays = [*work.initial().values(), work.examples(9).x.numpy(), work.holdout(9).x.numpy()]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_another_process_makes_the_same_task() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from fedpress.simulations.settings import resolve\n"
        "from fedpress.simulations.workloads import task\n"
        "from test_workloads import PLACE, print_of\n"
        "print(print_of(task(resolve(PLACE))))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == print_of(task(resolve(PLACE)))


def test_a_process_makes_a_task_once() -> None:
    config = resolve({"seed": 6})
    assert task(config) is task(resolve({"seed": 6, "rounds": 3, "lr": 0.5, "out": "elsewhere"}))
    assert task(config) is not task(resolve({"seed": 7}))


def test_a_task_scores_the_weights_it_is_given(make: Callable[..., WorkloadTask]) -> None:
    work = make()
    weights = work.initial()
    untrained = work.evaluate(weights)
    assert untrained["accuracy"] < 0.35
    model = work.model()
    whole = resolve({"local-epochs": 5}).training
    train(model, work.data.train, whole, round=1, rounds=1, seed=0, partition=0, device="cpu")
    learnt = work.evaluate({name: tensor.numpy() for name, tensor in model.state_dict().items()})
    assert learnt["accuracy"] > 0.9
    assert learnt["loss"] < untrained["loss"]
    assert work.evaluate(weights) == untrained


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_node_holds_out_what_it_does_not_train_on(share: float, make: Callable[..., WorkloadTask]) -> None:
    work = make(holdout=share, clients=10, per_round=5)
    for node in range(10):
        kept, own = work.holdout(node), work.examples(node)
        assert len(kept) == int(share * len(work.parts[node]))
        both = torch.cat([kept.x, own.x]).flatten(1)
        whole = work.data.train.x[torch.from_numpy(work.parts[node])].flatten(1)
        assert torch.equal(both[both.sum(1).argsort()].sum(0), whole[whole.sum(1).argsort()].sum(0))
        assert len(both) == len(whole)


def test_the_page_on_workloads_says_what_there_is() -> None:
    page = DOCS.read_text(encoding="utf-8")
    for (workload, model), (_, _, parameters) in MODELS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{workload}` |")]
        assert f"`{model}`: {parameters:,}" in row


def test_ten_thousand_clients_of_fashion(make: Callable[..., WorkloadTask]) -> None:
    need("fashion")
    work = make(workload="fashion", clients=10_000, partition="iid")
    for node in range(0, 10_000, 7):
        assert len(work.examples(node)) == 6
    assert len(work._assigned) <= 256


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"workload": "fashon"}, ["'fashon'", "'fashion'"]),
        ({"model": "mpl"}, ["'mpl'", "'mlp'"]),
        ({"dropout": 1.0}, ["dropout", "1.0"]),
        ({"holdout": -0.5}, ["holdout", "-0.5"]),
        ({"clients": 1439}, ["1438", "1439"]),
        ({"partition": "natural"}, ["natural"]),
        ({"workload": "nowhere.at:all"}, ["'nowhere.at:all'", "'nowhere'"]),
        ({"workload": "math:pi"}, ["'math:pi'", "models, defaults, load"]),
    ],
)
def test_an_invalid_task_gets_one_line(given: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SettingError) as error:
        task(RunSettings.from_config({**resolve({}).to_config(), **simulation_schema().flatten(given)}))
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "workloads.md"


def test_your_own_workload_runs(tmp_path: Path) -> None:
    """From the command line, as documented, in separate processes."""
    example = re.search(r"```python\n(# streets\.py\n.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    (tmp_path / "streets.py").write_text(example[1])
    command = [sys.executable, "-m", "fedpress", "simulate", "--workload", "streets:signs", "--json", "--out", "run"]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [*command, "--workers", "1", "--draw-partition"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["config"]["clients"] == 12
    assert len(result["rounds"]) == 4
    assert result["final"]["accuracy"] > 0.9
    assert (tmp_path / "run" / "partition.png").is_file()


def test_a_partition_made_elsewhere_is_a_natural_one() -> None:
    """The documented way to have a partitioner of flwr-datasets: its nodes are the owners."""

    class Halves:
        dataset = None
        num_partitions = 2

        def load_partition(self, partition_id: int) -> Mapping[str, list[int]]:
            return {"index": list(range(partition_id, 300, 2))}

    owners = np.empty(300, np.int64)
    for node, part in enumerate(from_flower(Halves())):
        owners[part] = node
    parts = partition("natural", np.zeros(300, np.int64), 2, 0, owners=owners)
    assert [part.tolist() for part in parts] == [list(range(0, 300, 2)), list(range(1, 300, 2))]
