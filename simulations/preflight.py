"""What a run's data and models say against its settings: asked before its folder is made, so that it can be mended."""

from torch import Tensor

from fedpress.common.errors import SettingError
from fedpress.compression import Layout
from fedpress.server.downlink.models import ModelGroups
from fedpress.server.strategy.factory import build
from fedpress.settings import RunSettings
from fedpress.simulations.workloads.task import WorkloadTask


def check(settings: RunSettings, task: WorkloadTask) -> None:
    """Raise SettingError if the server could not be built from `settings`, or a group's model does not run."""
    # Workers are forked later, and a GPU must not have been started by then.
    strategy = build(settings.change("run", device="cpu"), task)
    strategy.excluded(Layout.of(strategy.extensions.begin(task.initial())))
    if groups := strategy.extensions.model_groups():
        _try(groups, task.data.train.x[:1])


def _try(groups: ModelGroups, x: Tensor) -> None:
    """Let each group's model say something of `x`, (1, ...), in shapes alone: that starts no threads either."""
    for name in groups.names:
        model = groups.module(name).to("meta").eval()
        try:
            model(x.to("meta"))
        except (RuntimeError, ValueError) as error:
            raise SettingError(
                f"{type(model).__name__} of group {name} does not run on the data: {str(error).splitlines()[0]}"
            ) from error
