"""fedpress: federated learning on Flower that sends as few bytes as possible, both ways.

The few names that everyone uses, and the version. The work is done in `fedpress.compression` (tensors to bytes and
back), `fedpress.client` (training on the device), `fedpress.server` (aggregation) and `fedpress.simulations` (many
virtual clients on one machine); `fedpress.common`, `fedpress.protocol` and `fedpress.flower` are what they share.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

# A Flower bundle holds the repository's files without installing them: the packages are then next to this folder.
if (Path(__file__).parent.parent / "server" / "app.py").is_file():
    __path__.append(str(Path(__file__).parent.parent))

from fedpress.common.version import VERSION
from fedpress.compression import FrameError, Layout, codecs
from fedpress.compression import parse_trusted as codec
from fedpress.compression.third_party import register

if TYPE_CHECKING:
    from fedpress.simulations.completed_run import Run

__version__ = VERSION
__all__ = ["FrameError", "Layout", "__version__", "codec", "codecs", "register", "simulate"]


def simulate(**settings: Any) -> "Run":
    """Simulate a federation and return the run.

    Parameters
    ----------
    **settings
        Settings by their keys, with `_` for `-`, or tables of them by section: `rounds=20, training={"lr": 0.1}`.
        `fedpress settings` lists them.

    Returns
    -------
    Run
        Its rounds, the clients' traffic, and the trained model.

    Raises
    ------
    SettingError
        If a setting cannot work, or the folder `out` holds a run already.
    DataError
        If the workload's data is not there.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     run = simulate(workload="digits", rounds=1, clients=4, per_round=2, out=f"{folder}/run")
    >>> len(run.rounds)
    1
    """
    from fedpress.simulations.completed_run import simulate as run  # which imports torch

    return run(settings)
