"""The server's side of FedMD, Li and Wang 2019, https://arxiv.org/abs/1910.03581: a consensus, and who learns from it.

What is federated is one tensor, what models say of public inputs; its mean is the consensus. The server has a student
of the run's model learn from it every round, so that there is something to evaluate, and to keep.
"""

from typing import Any

import numpy as np
import torch

from fedpress.compression import Update
from fedpress.compression.errors import SettingError
from fedpress.compression.groups import SCORES
from fedpress.compression.rng import derive
from fedpress.server.distillation import Distilling, teach


class Student:
    """Learns from the consensus alone: each time anew, so that a run that goes on ends with the same bits.

    Raises SettingError if the task has no public inputs.
    """

    def __init__(self, task: Any, settings: Distilling, seed: int, device: str) -> None:
        self._task, self._settings, self._seed, self._device = task, settings, seed, device
        if not len(getattr(getattr(task, "proxy", None), "x", ())):
            raise SettingError(
                f"scores are exchanged on public inputs: {type(task).__name__} has none, its proxy.x holds at least one"
            )
        self._x = task.proxy.x
        self.weights: Update = task.initial()

    def nothing(self) -> Update:
        """Return the consensus before anybody has said anything."""
        with torch.no_grad():
            said = self._task.model().eval()(self._x[:1])
        return {SCORES: np.zeros((len(self._x), *said.shape[1:]), np.float32)}

    def evaluate(self, number: int, consensus: Update) -> dict[str, Any]:
        """Return what a student reaches on the test set that has learnt from the consensus of round `number`."""
        model = self._task.model().to(self._device)
        if consensus[SCORES].any():
            scores = torch.from_numpy(np.array(consensus[SCORES]))
            teach(model, self._x, scores, self._settings, derive(self._seed, "student", number), self._device)
        self.weights = {
            name: np.ascontiguousarray(tensor.detach().cpu().numpy()) for name, tensor in model.state_dict().items()
        }
        return dict(self._task.evaluate(self.weights))
