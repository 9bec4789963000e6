"""`fedpress shrink`: a smaller model made from a run's, tuned by distillation, and a report of both.

Channels are chosen, and the model is tuned, on the training data; the test set is for the report only.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor, nn

from fedpress.client.training.loop import evaluate
from fedpress.common.errors import DataError, SettingError
from fedpress.common.files import output_folder
from fedpress.common.rng import derive
from fedpress.common.version import versions
from fedpress.compression.model import factor_layers, prune_choice, report, weight_sharing
from fedpress.compression.model.distill.score_matching import ScoreMatching, match_scores
from fedpress.compression.model.evaluation import accuracy_by_class, batches_of, recalibrate, scores_of
from fedpress.compression.model.plan import Plan
from fedpress.compression.model.settings import ShrinkSettings
from fedpress.compression.model.step import Choice
from fedpress.server.run.recorder import MODEL, SCHEMA
from fedpress.simulations.postprocess import Progress
from fedpress.simulations.postprocess.run_folder import RunFolder, read_folder, weights_of, write_folder
from fedpress.simulations.run_files import check_made
from fedpress.simulations.settings import check_device

_SCORING = 2000  # training examples by which channels are chosen
_LEVEL = 19  # of zstd
_BATCHES = (1, 100)  # examples in a call whose time is measured


def shrink(
    source: Path,
    out: Path,
    wanted: ShrinkSettings,
    *,
    device: str = "cpu",
    force: bool = False,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Make a smaller model from the one in a run's folder, and write it to a separate folder.

    Parameters
    ----------
    source : Path
        The run's folder.
    out : Path
        The folder of the smaller model.
    wanted : ShrinkSettings
        The steps.
    device : str
        Torch's name of the device for tuning.
    force : bool
        Whether to overwrite a model in `out`.
    progress : callable
        Called with a line after each step.

    Returns
    -------
    dict of str to Any
        The report, JSON values.

    Raises
    ------
    SettingError
        If `source` holds no run, `out` holds one and `force` is False, or a step does not fit the model.
    DataError
        If a file cannot be read, or the workload's data is missing.
    """
    check_device(device)
    check_made(out, source, force=force)
    folder = read_folder(source)
    with output_folder(out, "command"):
        check_made(out, source, force=force)
        progress(f"{source}: {report.parameters(folder.model):,} parameters, {folder.settings.simulation.workload}")
        work = _ShrinkJob(folder, wanted, device, progress)
        done = list(work.steps())
        model, plan = work.model, work.plan
        final = evaluate(model, folder.task.data.test, "cpu")
        data = weights_of(model)
        summary = {
            "schema": SCHEMA,
            "settings": asdict(wanted),
            "steps": done,
            "before": work.sizes(folder.model, (source / MODEL).read_bytes()),
            "after": work.sizes(model, data),
            "latency_ms": work.latencies(),
            "layers": report.layers(folder.model, model, work.x),
            "test": {"before": done[0]["test"]["before"], "after": work.score},
            "versions": versions(),
        }
        settings = folder.settings.change("run", out=str(out))
        about = {"shrunk": asdict(wanted)}
        write_folder(out, data, settings, final, about, force=force, plan=plan, report=summary)
        return summary


class _ShrinkJob:
    """The state of the steps from the folder's model to the smaller one."""

    def __init__(self, folder: RunFolder, wanted: ShrinkSettings, device: str, progress: Progress) -> None:
        self.model, self.plan = folder.model, folder.plan
        self._folder, self._wanted, self._device, self._progress = folder, wanted, device, progress
        self._seed = folder.settings.run.seed
        self._data = folder.task.data
        some = self._pick("scores", _SCORING)
        self._seen = batches_of(self._data.train.x[some], self._data.train.y[some])
        self._test = batches_of(self._data.test.x, self._data.test.y)
        self._names = _names(folder)
        self.score = self._score()  # of the current model

    @property
    def x(self) -> Tensor:
        """A few inputs, to trace channels and count operations."""
        return self._data.train.x[:2]

    def steps(self) -> Iterator[dict[str, Any]]:
        """Apply each step; yield its entry of the report."""
        for kind, choose in self._choices().items():
            choice = self._chosen(choose)
            before, effects = self.score, self._effects(choice)
            self.plan = self.plan.then(choice.step)
            self.model = Plan((choice.step,)).apply(self.model)
            self.score = self._score()
            scores = {"before": before, "untuned": self.score}
            self._progress(f"{kind}: {len(choice.parts)} layers, accuracy {_accuracies(scores)}")
            if self._wanted.tune:
                self._progress(f"{kind}: tuning for {self._wanted.tune} steps")
                self._tune(kind)
                scores["tuned"] = self.score = self._score()
                self._progress(f"{kind}: tuned, accuracy {_accuracies(scores)}")
            yield {"step": kind, "alone": effects, "left": dict(choice.left), "test": scores}

    def sizes(self, model: nn.Module, data: bytes) -> dict[str, int]:
        """Return a model's parameters, FLOPs of one example, and bytes of its file, also compressed by zstd."""
        return {
            "parameters": report.parameters(model),
            "flops": report.flops(model, self.x),
            "bytes": len(data),
            "zstd_bytes": len(zstandard.compress(data, _LEVEL)),
        }

    def latencies(self) -> dict[str, dict[str, float]]:
        """Return the latency of both models in milliseconds, by the number of examples in a call."""
        models = {"before": self._folder.model, "after": self.model}
        return {str(count): report.latency(models, self._data.test.x[:count]) for count in _BATCHES}

    def _score(self) -> dict[str, Any]:
        """Return the model's accuracy on the test set, by class and in total."""
        *each, whole = accuracy_by_class(self.model, self._test, len(self._names))
        return {"accuracy": whole, "classes": report.named(each, self._names)}

    def _choices(self) -> dict[str, Callable[[], Choice]]:
        wanted, choices = self._wanted, dict[str, Callable[[], Choice]]()
        if wanted.prune:
            choices["prune"] = lambda: prune_choice.choose(self.model, self.x, wanted.prune, wanted.by, self._seen)
        if wanted.factorise:
            choices["factorise"] = lambda: factor_layers.choose(self.model, wanted.factorise, wanted.energy)
        if wanted.share:
            choices["share"] = lambda: weight_sharing.choose(self.model, wanted.share)
        return choices

    def _chosen(self, choose: Callable[[], Choice]) -> Choice:
        try:
            return choose()
        except SettingError as error:
            if not weight_sharing.is_shared(self.model):
                raise
            raise SettingError(
                "weights of this model are shared, which must be the last step: shrink the model that it was made from "
                f"({error})"
            ) from error

    def _effects(self, choice: Choice) -> list[dict[str, Any]]:
        """Return the effect of each part alone on the accuracy of each class, on training examples."""
        return report.effects(self.model, choice, self._seen, self._names)

    def _tune(self, kind: str) -> None:
        """Distil the folder's model into this one on training examples, without their targets."""
        training = ScoreMatching(steps=self._wanted.tune)
        some = self._pick(f"tune {kind}", training.steps * training.batch_size)
        x = self._data.train.x[some]
        recalibrate(self.model, self._seen)
        scores = scores_of(self._folder.model.to(self._device), x, self._device)
        student = self.model.to(self._device)
        match_scores(student, x, scores, training, derive(self._seed, "shrink", "teach", kind), self._device)
        student.cpu()
        self._folder.model.cpu()
        if not all(tensor.isfinite().all() for tensor in student.state_dict().values()):
            raise DataError(f"tuning at lr {training.lr} left weights that are not finite")

    def _pick(self, purpose: str, count: int) -> Tensor:
        """Return the indices of at most `count` training examples, in random choice."""
        order = derive(self._seed, "shrink", purpose).permutation(len(self._data.train))
        return torch.from_numpy(np.sort(order[:count]))


def _names(folder: RunFolder) -> list[str]:
    """Return the names of the model's classes; numbers if the data's names are not of its outputs."""
    with torch.no_grad():
        count = folder.model.eval()(folder.task.data.test.x[:1]).shape[-1]
    known = folder.task.data.names
    return list(known) if len(known) == count else [str(number) for number in range(count)]


def _accuracies(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return accuracies as text, from the first to the last."""
    return " to ".join(f"{score['accuracy']:.4f}" for score in scores.values())
