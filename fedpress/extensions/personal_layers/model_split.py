"""The shared and the personal tensors of a model: FedPer, Arivazhagan 2019, https://arxiv.org/abs/1912.00818.

With personal batch norms: FedBN, Li et al. 2021, https://arxiv.org/abs/2102.07623.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from fedpress.compression import Layout, Update, parse
from fedpress.extensions.personal_layers.tensor_patterns import match_tensors
from fedpress.protocol.messages import LOSSLESS


@dataclass(frozen=True)
class ModelSplit:
    """The tensors that are not trained together: the server keeps their initial values."""

    mask: bytes  # which of the whole model's tensors are personal; empty without any
    own: Update  # their initial values
    order: tuple[str, ...]  # names of all tensors

    @classmethod
    def of(cls, initial: Mapping[str, np.ndarray], patterns: Sequence[str]) -> Self:
        """Return the split of a model by `patterns`; raise SettingError if they match no tensor, or all."""
        layout = Layout.of(dict(initial))
        names = match_tensors(layout, patterns)
        own = {name: np.asarray(initial[name]) for name in initial if name in names}
        return cls(layout.mask(names) if names else b"", own, tuple(initial))

    def shared(self, model: Mapping[str, np.ndarray]) -> Update:
        """Return the shared tensors of `model`."""
        return {name: array for name, array in model.items() if name not in self.own}

    def whole(self, shared: Update) -> Update:
        """Return the whole model, with the initial values of the personal tensors."""
        if not self.own:
            return shared
        return {name: self.own[name] if name in self.own else shared[name] for name in self.order}

    @cached_property
    def layout(self) -> Layout:
        """The layout of the personal tensors."""
        return Layout.of(self.own)

    @cached_property
    def frame(self) -> bytes:
        """The initial values of the personal tensors, exact, for a node that cannot compute them."""
        return parse(LOSSLESS).encode(self.own, {}, np.random.default_rng(0))[0] if self.own else b""
