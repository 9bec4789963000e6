"""Peers: each method's own law, that server and nodes agree, and that bytes are those of real frames."""

import math
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from peers import cafe, evofed, fedpara, fedpm, fetchsgd, klms
from peers.federation import Downlink, Method, Reply

from fedpress.common.checked_files import read_json
from fedpress.common.errors import SettingError
from fedpress.server.run.recorder import RESULT
from fedpress.simulations.run import run, settings_of
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads import task

M = TypeVar("M", bound=Method)
SMALL = {"workload": "digits", "clients": 8, "per-round": 2, "rounds": 3, "workers": 1}
RNG = np.random.default_rng(0)


def make(cls: type[M], **given: object) -> M:
    settings = resolve({**SMALL, "down": "none", **given})
    return cls(settings, task(settings))


def test_fitnesses_are_a_projection_of_the_change_unbiased() -> None:
    change = RNG.normal(size=40).astype(np.float32)
    pairs = evofed.POPULATION // 2
    found = []
    for number in range(200):
        members = evofed.perturbations(0, number, 0, change.size)
        found.append(evofed.decode(members, evofed.fitness(members, change)))
        random = members / evofed.SIGMA
        projected = random.T @ (random @ change) / pairs
        np.testing.assert_allclose(found[-1], projected, atol=2e-3)
    assert np.abs(np.mean(found, 0) - change).max() < 0.25


def test_the_mean_of_fitnesses_is_that_of_the_changes() -> None:
    changes = RNG.normal(size=(3, 50)).astype(np.float32)
    members = evofed.perturbations(0, 1, 0, 50)
    mean = np.mean([evofed.fitness(members, change) for change in changes], 0)
    expected = evofed.decode(members, evofed.fitness(members, changes.mean(0)))
    np.testing.assert_allclose(evofed.decode(members, mean), expected, atol=1e-3)


def test_nodes_that_were_away_hold_the_server_s_model_again() -> None:
    server, node = make(evofed.EvoFed), make(evofed.EvoFed)
    size = evofed.PARTS * evofed.POPULATION
    for number in (1, 2):
        server.aggregate([Reply(0, RNG.normal(size=size).astype("<f4").tobytes(), 1.0)], number)
    frame = server.request(5, 3)
    assert len(frame) == 1 + 2 * 4 * size
    np.testing.assert_array_equal(node.follow(frame, 3, node.initial), server.weights())
    assert len(server.request(5, 3)) == 1, "nothing was missed since"


def test_masks_take_their_entropy_and_probabilities_are_their_mean() -> None:
    server = make(fedpm.FedPM)
    masks = [RNG.random(server.layout.size) < share for share in (0.1, 0.3)]
    frames = [fedpm.encode(mask) for mask in masks]
    for mask, frame, share in zip(masks, frames, (0.1, 0.3), strict=True):
        np.testing.assert_array_equal(fedpm.decode(frame, mask.size), mask)
        entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
        assert 8 * len(frame) == pytest.approx(entropy * mask.size, rel=0.1)
    server.aggregate([Reply(node, frame, 1.0) for node, frame in enumerate(frames)], 1)
    np.testing.assert_allclose(server.theta, np.mean(masks, 0))


def test_a_masked_model_has_kept_and_dropped_weights_and_trains_logits_alone() -> None:
    body = torch.nn.Linear(30, 1, bias=False)
    model = fedpm.MaskedModel(body, {"weight": torch.ones(1, 30)}, {"weight": torch.zeros(1, 30)})
    outputs = model(torch.eye(30))
    assert set(outputs.flatten().tolist()) == {0.0, 1.0}
    outputs.sum().backward()
    assert [parameter.shape for parameter in model.parameters()] == [(1, 30)]
    torch.testing.assert_close(model.logits[0].grad, torch.full((1, 30), 0.25))


def test_coded_masks_have_the_node_s_distribution() -> None:
    known = np.full(6, 0.5, np.float32)
    local = np.array([0.9, 0.8, 0.5, 0.5, 0.3, 0.2], np.float32)
    draws = []
    for number in range(2000):
        masks = klms.candidates(known, 0, number)
        draws.append(masks[klms.choose(masks, local, known, RNG)])
    assert klms.divergence(local, known) < klms.NATS
    np.testing.assert_allclose(np.mean(draws, 0), local, atol=0.05)


def test_an_index_names_the_same_mask_at_both_ends_and_costs_the_divergence() -> None:
    server, node = make(klms.Klms), make(klms.Klms)
    server.request(3, 1)
    known = np.full(server.layout.size, 0.5, np.float32)
    local = np.where(np.arange(known.size) % 2, 0.7, 0.3).astype(np.float32)
    frame = node.encode(local, known, RNG, 1, 3)
    assert len(frame) == math.ceil(klms.divergence(local, known) / klms.NATS)
    mask = server.decode(Reply(3, frame, 1.0), 1)
    assert abs(mask[1::2].mean() - mask[::2].mean() - 0.4) < 0.1


def test_a_hadamard_product_has_full_rank_from_fewer_parameters() -> None:
    layer = fedpara.HadamardLinear(256, 110)
    assert torch.linalg.matrix_rank(layer.weight) == 110
    assert sum(parameter.numel() for parameter in layer.parameters()) < 256 * 110 / 3
    assert layer.weight.var().item() == pytest.approx(2 / 256, rel=0.3)
    whole, small = torch.nn.Sequential(torch.nn.Linear(256, 110)), fedpara.cnn()
    assert any(isinstance(part, fedpara.HadamardLinear) for part in small)
    assert isinstance(fedpara.factored(whole)[0], fedpara.HadamardLinear)


def test_sketches_are_linear_and_each_row_is_unbiased() -> None:
    first, second = RNG.normal(size=(2, 200)).astype(np.float32)
    sketch = fetchsgd.Sketch(200, 0)
    np.testing.assert_allclose(sketch.of(first) + sketch.of(second), sketch.of(first + second), atol=1e-5)
    rows = [fetchsgd.Sketch(200, seed) for seed in range(1000)]
    found = np.mean([one.estimates(one.of(first)).mean(0) for one in rows], 0)
    assert np.abs(found - first).max() < 1.0, "five columns hold 200 values: estimates are noisy"
    assert np.corrcoef(found, first)[0, 1] > 0.95


def test_a_sketch_finds_the_largest_values() -> None:
    vector = RNG.normal(size=20_000).astype(np.float32) * 0.01
    vector[[5, 777, 19_000]] = [3, -4, 5]
    sketch = fetchsgd.Sketch(vector.size, 1)
    found = sketch.decode(sketch.of(vector))
    assert set(np.argsort(-np.abs(found))[:3]) == {5, 777, 19_000}
    np.testing.assert_allclose(found[[5, 777, 19_000]], [3, -4, 5], atol=0.3)


def test_a_node_that_was_away_gets_the_values_that_changed() -> None:
    old = RNG.normal(size=1000).astype(np.float32)
    new = np.where(RNG.random(1000) < 0.05, old + 1, old).astype(np.float32)
    frame = fetchsgd.encode_changes(new, old)
    np.testing.assert_array_equal(fetchsgd.decode_changes(frame, old), new)
    assert len(frame) < 4 * np.count_nonzero(new != old) + 100
    assert len(fetchsgd.encode_changes(old, old)) == 4


@pytest.mark.parametrize("down", ["none", "lowrank(nmse=0.3) | ans"])
def test_what_equals_the_last_mean_costs_nothing_and_the_server_adds_it_again(down: str) -> None:
    server, node = (make(cafe.Cafe, up="topk(0.01) | fp16 | pack", down=down) for _ in range(2))
    last = RNG.normal(size=server.layout.size).astype(np.float32)
    for _ in range(2):
        before = server.weights()
        server.request(1, 1)
        held = server.updates.held(1, server.last)
        frame = node.encode(held + last, held, RNG)
        server.aggregate([Reply(1, frame, 1.0)], 1)
        change = server.weights() - before
        lost = np.abs(held + last - change)
        assert np.count_nonzero(lost > 0.01) == pytest.approx(0.99 * lost.size, rel=0.02)
    same = node.encode(last, last, RNG)
    np.testing.assert_array_equal(server.vector(server.codec.decode(same, server.layout)), 0)


@pytest.mark.parametrize("down", ["none", "even(0.5) | lowrank(nmse=0.3) | ans"])
def test_the_server_knows_what_a_node_holds(down: str) -> None:
    method = make(fedpm.FedPM, down=down)
    ends = [Downlink(method, method.initial) for _ in range(2)]
    vector, state = method.initial, {}
    for number in range(1, 4):
        vector = vector + 0.1 * RNG.normal(size=vector.size).astype(np.float32)
        read = ends[1].read(ends[0].frame(7, vector, number), state)
        if down == "none":
            np.testing.assert_array_equal(read, vector)
        else:
            np.testing.assert_array_equal(read, ends[0].held(7, vector))
            assert np.square(read - vector).sum() < np.square(method.initial - vector).sum()


def test_a_federation_counts_real_frames_and_is_not_resumed(tmp_path: Path) -> None:
    result = run(resolve({**SMALL, "apps": "peers.evofed", "up": "none", "down": "none", "out": str(tmp_path / "run")}))
    frame = 4 * evofed.PARTS * evofed.POPULATION
    assert [row["uplink_bytes"] for row in result["rounds"]] == [2 * frame] * 3
    assert [row["downlink_bytes"] for row in result["rounds"][:2]] == [2, 2 + 2 * frame]
    assert all(row["uplink_message_bytes"] > row["uplink_bytes"] for row in result["rounds"])
    with pytest.raises(SettingError, match=r"peers\.evofed"):
        run(settings_of({"out": str(tmp_path / "run"), "resume": True, "rounds": 4}))
    assert read_json(tmp_path / "run" / RESULT) == result
