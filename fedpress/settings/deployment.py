"""The settings of a run on real devices."""

from dataclasses import dataclass

from fedpress.common.errors import SettingError
from fedpress.common.settings import Arguments, Settings, free_arguments, option

WORKLOADS_TASK = "fedpress.simulations.workloads:task"
MIN_BODY = 8 << 20  # bytes: flwr cuts arrays into chunks of 5 MiB


@dataclass(frozen=True)
class DeploymentSettings(Settings):
    """The programs of real devices, and the number of devices that the server waits for."""

    task: str = option(WORKLOADS_TASK, help="data, model and test set, package.module:object on both ends")
    nodes: int = option(
        0, minimum=0, changes_result=False, help="enrolled devices that round 1 waits for; 0 in a simulation"
    )
    app: str = option("fedpress.server.app:app", help="the ServerApp, package.module:object")
    client_app: str = option("fedpress.client.app:app", help="the ClientApp, for devices that take it from the server")
    max_body: int = option(MIN_BODY, minimum=MIN_BODY, changes_result=False, help="greatest size of a request, bytes")
    node_names: str = option("", changes_result=False, help="file of the enrolled devices; the server fills it in")
    signals: str = option("", changes_result=False, help="folder of the server's signal files; it fills it in")

    def check(self) -> None:
        for name in ("task", "app", "client_app"):
            module, colon, attribute = getattr(self, name).partition(":")
            if not (module and colon and attribute):
                raise SettingError(
                    f"{name.replace('_', '-')} must be package.module:object, got {getattr(self, name)!r}"
                )


@dataclass(frozen=True)
class TaskSettings(Settings):
    """Settings that only the task of a deployed run reads."""

    arguments: Arguments = free_arguments("the task's own settings, by their names")
