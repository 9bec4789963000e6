"""digits: a model and its data."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def load_data(partition_id: int, num_partitions: int):
    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32)[partition_id::num_partitions]
    y = torch.tensor(digits.target)[partition_id::num_partitions]
    return x[len(x) // 5 :], y[len(y) // 5 :], x[: len(x) // 5], y[: len(y) // 5]


def train(net, x, y, lr):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    for _ in range(2):
        for batch in torch.randperm(len(x)).split(16):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
    return loss.item()


@torch.no_grad()
def test(net, x, y):
    return (net(x).argmax(1) == y).float().mean().item()
