"""The function that a Flower app calls in its ServerApp to take part in comparisons."""

from dataclasses import replace
from pathlib import Path

from flwr.app import Context, MetricRecord
from flwr.serverapp.strategy import Strategy

from fedpress.common.errors import DataError
from fedpress.common.settings import read
from fedpress.server import Compressed
from fedpress.server.run.recorder import Recorder
from fedpress.server.strategy.round_record import Round
from fedpress.settings import RunSettings
from fedpress.simulations.compare.app_settings import PREFIX, ComparedRun

EVALUATED = "evaluated"  # in a row of result.json: 1 if the app has evaluated its model


def comparable(strategy: Strategy, context: Context) -> Strategy:
    """Return the strategy that a ServerApp should start, so that `fedpress compare --app` can compare codecs on it.

    Parameters
    ----------
    strategy : Strategy
        The app's strategy; one in `Compressed` is compared without that wrapper.
    context : Context
        The ServerApp's.

    Returns
    -------
    Strategy
        During a comparison `strategy` with the candidate's codecs, whose rounds are recorded; otherwise `strategy`.

    Examples
    --------
    >>> from flwr.app import Context, RecordDict
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = FedAvg()
    >>> comparable(strategy, Context(1, 1, {}, RecordDict(), {})) is strategy
    True
    """
    if not any(key.startswith(PREFIX) for key in context.run_config):
        return strategy
    run = read(ComparedRun, context.run_config, PREFIX)
    inner = strategy.strategy if isinstance(strategy, Compressed) else strategy
    compressed = Compressed(inner, up=run.up, down=run.down, seed=run.seed)
    record, scorer = Recorder(Path(run.folder), _settings(run), compressed.ledger), _Scorer()
    return compressed.observe(lambda done: record(scorer(done)))


def _settings(run: ComparedRun) -> RunSettings:
    """Return the settings for the run's record; the number of rounds is the app's and not known."""
    return RunSettings.read(
        {
            "server.up": run.up,
            "server.down": run.down,
            "server.rounds": 1,
            "server.per-round": 1,
            "run.seed": run.seed,
            "simulation.clients": run.clients,
        }
    )


class _Scorer:
    """Finds a round's accuracy and loss among the metrics of the server, or else of the nodes.

    A round without an evaluation has the values of the last evaluated one.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, done: Round) -> Round:
        """Return the round with both, and with `evaluated`: whether it or an earlier round was evaluated.

        Raises
        ------
        DataError
            If it was evaluated, and has no accuracy in [0, 1].
        """
        found = done.evaluation or done.evaluated or MetricRecord()
        numbers = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
        for key in ("accuracy", "loss"):
            matching = [value for name, value in numbers.items() if key[:3] in name.lower()]
            if matching:
                self._last[key] = matching[0]
        if numbers and not 0 <= self._last.get("accuracy", -1.0) <= 1:
            listed = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
            raise DataError(
                f"evaluation of round {done.number} must have an accuracy in [0, 1], a metric with 'acc' in its name, "
                f"got {listed}"
            )
        evaluation = MetricRecord({"accuracy": 0.0, "loss": 0.0, EVALUATED: int(bool(self._last))})
        evaluation.update(self._last)
        return replace(done, evaluation=evaluation)
