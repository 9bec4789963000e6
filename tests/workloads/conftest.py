"""What tests of workloads share."""

from collections.abc import Callable

import pytest

from fedpress.common.settings import Value
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads import WorkloadTask, find
from fedpress.simulations.workloads.task import TaskTerms, make_task


@pytest.fixture
def make() -> Callable[..., WorkloadTask]:
    """Make a task as a run does, from what the command line would say."""

    def build(**given: Value) -> WorkloadTask:
        settings = resolve({key.replace("_", "-"): value for key, value in given.items()})
        return make_task(find(settings.simulation.workload), TaskTerms.of(settings))

    return build
