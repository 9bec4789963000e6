"""Checks a run's settings against its data and models before its folder is made."""

from torch import Tensor

from fedpress.common.errors import SettingError
from fedpress.common.named import import_object
from fedpress.compression import Layout
from fedpress.server.downlink.models import ModelGroups
from fedpress.server.strategy.factory import build
from fedpress.settings import RunSettings
from fedpress.simulations.workloads.task import WorkloadTask


def check(settings: RunSettings, task: WorkloadTask) -> None:
    """Raise SettingError if the server could not be built from `settings`, or a group's model does not run."""
    check_apps(settings)
    # Workers are forked later, and a GPU must not have been started by then.
    strategy = build(settings.change("run", device="cpu"), task)
    strategy.excluded(Layout.of(strategy.extensions.begin(task.initial())))
    if groups := strategy.extensions.model_groups():
        _check_groups(groups, task.data.train.x[:1])


def check_apps(settings: RunSettings) -> None:
    """Raise SettingError if the run's own apps cannot be imported, or are to be resumed."""
    if settings.simulation.apps:
        if settings.run.resume:
            raise SettingError(
                f"resume must not go with apps, got {settings.simulation.apps!r}: only fedpress's own apps resume a run"
            )
        for name in ("server_app", "client_app"):
            import_object("apps", f"{settings.simulation.apps}:{name}")


def _check_groups(groups: ModelGroups, x: Tensor) -> None:
    """Run each group's model on `x`, (1, ...), on the meta device, which starts no threads."""
    for name in groups.names:
        model = groups.module(name).to("meta").eval()
        try:
            model(x.to("meta"))
        except (RuntimeError, ValueError) as error:
            raise SettingError(
                f"{type(model).__name__} of group {name} does not run on the data: {str(error).splitlines()[0]}"
            ) from error
