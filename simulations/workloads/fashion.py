"""Fashion-MNIST, Xiao et al. 2017, https://arxiv.org/abs/1708.07747."""

import gzip
import hashlib
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.error import URLError

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedpress.common.errors import DataError
from fedpress.common.files import replace
from fedpress.common.settings import Value
from fedpress.settings.simulation import SimulationSettings
from fedpress.simulations.workloads import models
from fedpress.simulations.workloads.cache import cache, named, verify, write_digests
from fedpress.simulations.workloads.idx import find_idx, read_idx
from fedpress.simulations.workloads.task import Data, Examples

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SOURCE = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
# SHA-256 of each unpacked file: compressed files differ between sources.
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@dataclass(frozen=True)
class Fashion:
    """`fashion`: 60,000 images of clothes for training, 10,000 for the test, 28 x 28, ten kinds."""

    models: ClassVar[Mapping[str, Callable[[float], nn.Module]]] = {
        "cnn": models.cnn,
        "cnnbn": models.cnnbn,
        "mcmahan": models.mcmahan,
        "lenet": models.lenet,
        "resnet18": models.resnet18,
        "strided": models.strided,
        "pocket": models.pocket,
    }
    defaults: ClassVar[Mapping[str, Value]] = {
        "clients": 100,
        "per-round": 10,
        "rounds": 40,
        "partition": "dirichlet",
        "alpha": 0.3,
        "lr": 0.1,
        "schedule": "cosine",
        "batch-size": 16,
        "local-epochs": 2,
    }

    def load(self, settings: SimulationSettings) -> Data:
        folder = _folder(settings)
        arrays = [read_idx(folder, name) for name in FILES]
        train, test = _examples(*arrays[:2]), _examples(*arrays[2:])
        return Data(train, test, train.y.numpy(), NAMES)


def _examples(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Examples:
    shaped = images.shape[1:] == (28, 28) and labels.shape == images.shape[:1] and len(images) > 0
    if not shaped or labels.max() >= len(NAMES):
        raise DataError(
            "Fashion-MNIST must be n images of 28 x 28 and n labels from 0 to 9, got arrays of shape "
            f"{images.shape} and {labels.shape}"
        )
    x = torch.from_numpy(images).unsqueeze(1).float().div_(255)
    return Examples(x, torch.from_numpy(labels.astype(np.int64)))


def _folder(settings: SimulationSettings) -> Path:
    """Return the folder that holds the four files: the one that the run names, else Debian's, else the cache."""
    kept = cache() / "fashion-mnist"
    given = named(settings)
    for folder in [given] if given else [DEBIAN, kept]:
        if all(find_idx(folder, name) for name in FILES):
            verify(folder)
            return folder
    if given:
        raise DataError(f"Fashion-MNIST is not in {given}: its four idx files, gzipped or not, must be there")
    _fetch(kept)
    return kept


def _fetch(folder: Path) -> None:
    """Download the four files, check and store them."""
    for name, digest in FILES.items():
        try:
            with urllib.request.urlopen(f"{SOURCE}{name}.gz", timeout=30) as response:  # noqa: S310  a fixed https address
                raw = gzip.decompress(response.read())
        except (OSError, URLError, EOFError, zlib.error) as error:
            raise DataError(
                "Fashion-MNIST is missing: install Debian's dataset-fashion-mnist, or name its folder "
                f"with --data, or connect to a network for the download ({error})"
            ) from error
        if hashlib.sha256(raw).hexdigest() != digest:
            raise DataError(f"{name}, downloaded from {SOURCE}, has a wrong SHA-256")
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / name, raw, durable=True)
    write_digests(folder, FILES)
