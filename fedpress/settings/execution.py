"""How a run is executed: seed, device and folder."""

from dataclasses import dataclass

from fedpress.common.logs import LOG_BYTES, LOG_FILES
from fedpress.common.settings import Settings, option


@dataclass(frozen=True)
class ExecutionSettings(Settings):
    """Settings that simulated and deployed runs share."""

    seed: int = option(0, minimum=0, below=2**62, help="seed of all random generators")
    device: str = option("cpu", help="where models are trained and evaluated: cpu, cuda or cuda:N")
    out: str = option("", changes_result=False, help="the run's folder; a new one under runs/ if not given")
    resume: bool = option(False, changes_result=False, help="continue the run in that folder")
    log_bytes: int = option(
        LOG_BYTES, minimum=1 << 12, changes_result=False, help="size of the log at which it is renamed, bytes"
    )
    log_files: int = option(LOG_FILES, minimum=1, changes_result=False, help="number of renamed logs that are kept")
