"""What of a model is shared, and what stays on the device: FedPer, Arivazhagan 2019, https://arxiv.org/abs/1912.00818.

With batch norm for what stays: FedBN, Li et al. 2021, https://arxiv.org/abs/2102.07623.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from fedpress.compression import Layout, Update, parse
from fedpress.compression.tensor_patterns import match_tensors
from fedpress.protocol.messages import LOSSLESS


@dataclass(frozen=True)
class ModelSplit:
    """The tensors that a federation does not learn together: the server keeps what they were when the run began."""

    mask: bytes  # of the whole model's tensors, those that are personal; empty if none are
    own: Update  # what they begin as
    order: tuple[str, ...]  # names of all tensors

    @classmethod
    def of(cls, initial: Mapping[str, np.ndarray], patterns: Sequence[str]) -> Self:
        """Return what `patterns` make personal of a model; raise SettingError if that is nothing, or all."""
        layout = Layout.of(dict(initial))
        names = match_tensors(layout, patterns)
        own = {name: np.asarray(initial[name]) for name in initial if name in names}
        return cls(layout.mask(names) if names else b"", own, tuple(initial))

    def shared(self, model: Mapping[str, np.ndarray]) -> Update:
        """Return what of `model` travels."""
        return {name: array for name, array in model.items() if name not in self.own}

    def whole(self, shared: Update) -> Update:
        """Return the whole model, personal tensors as they were when the run began."""
        if not self.own:
            return shared
        return {name: self.own[name] if name in self.own else shared[name] for name in self.order}

    @cached_property
    def layout(self) -> Layout:
        """Of the personal tensors."""
        return Layout.of(self.own)

    @cached_property
    def frame(self) -> bytes:
        """What they begin as, for a node that cannot make that itself; exact."""
        return parse(LOSSLESS).encode(self.own, {}, np.random.default_rng(0))[0] if self.own else b""
