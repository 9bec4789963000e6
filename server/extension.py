"""The interface of a feature that joins the rounds of a federation on the server.

`Compressed(strategy, extensions=[...])` calls the methods of its extensions at their places in the round, in the order
in which the extensions are listed, each with the result of the one before. A method that is not overridden changes
nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from flwr.app import ConfigRecord
from flwr.serverapp.strategy import Strategy

from fedpress.common.task import Task
from fedpress.compression import Codec, Update
from fedpress.protocol.messages import ExtensionMessage
from fedpress.server.aggregation.client_update import ClientUpdate
from fedpress.server.downlink.deltas import DeltaContext
from fedpress.server.downlink.models import ModelGroups, Models
from fedpress.server.messaging.exchange import Exchange
from fedpress.server.messaging.extension_messages import RequestContext
from fedpress.server.messaging.node_evaluation import Ask
from fedpress.server.strategy.round_record import Round


class Property(Enum):
    """A property of a federation that one extension may need and another may remove.

    Examples
    --------
    >>> Property.ONE_MODEL.value
    'all nodes have the same model'
    """

    WHOLE_MODEL = "the server has every tensor of the model"
    ONE_MODEL = "all nodes have the same model"
    FREE_WEIGHTS = "every weight may change"
    NODE_STATE = "nodes keep state between rounds"
    LOSSY_DELTAS = "nodes are sent deltas, and something of them is lost"
    PLAIN_UPDATES = "the server may learn from single updates"


@dataclass(frozen=True)
class FederationTerms:
    """The federation that an extension is to join.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> from fedpress.compression import parse
    >>> terms = FederationTerms(FedAvg(), down=parse("fp16"), shared_initial=False, stateless=False, lacks={})
    >>> str(terms.down)
    'fp16'
    """

    strategy: Strategy  # the inner strategy, which aggregates
    down: Codec  # codec of the deltas by which nodes follow the server's model
    shared_initial: bool  # whether nodes have the initial model from the start
    stateless: bool  # whether nodes keep nothing between rounds
    lacks: Mapping[Property, str]  # the properties that it does not have, with the setting that is the reason


@dataclass(frozen=True)
class BuildContext:
    """The run for which an extension is built.

    Examples
    --------
    >>> BuildContext(task=None, seed=0, clients=10, device="cpu", folder=None).clients
    10
    """

    task: Task  # the model, the test set and the data of the run
    seed: int  # of the run
    clients: int  # number of virtual nodes; unused with real devices
    device: str  # torch's name of the server's device
    folder: Path | None  # the run's folder; None to write nothing


@dataclass(frozen=True)
class RoundContext:
    """A round after its replies were aggregated and before the server's model advances.

    Examples
    --------
    An extension's method that keeps the model of a round without replies:

    >>> def after_aggregation(self, model: Update, context: RoundContext) -> Update:
    ...     return model if context.updates else context.previous
    """

    number: int  # of the round; the first is 1
    seed: int  # of the run: an extension's generators are derived from it
    previous: Update  # the server's exact model before the round
    updates: Sequence[ClientUpdate]  # the replies that counted, by their nodes' names; may be empty
    models: Models  # the models that nodes have, before the round
    ask: Ask  # requests evaluations of models from the round's nodes; the bytes are counted


@dataclass(frozen=True)
class FinalContext:
    """A federation after its last round.

    Examples
    --------
    An extension's method that adds the bytes of all frames to the final scores:

    >>> def after_last_round(self, context: FinalContext) -> Mapping[str, Any]:
    ...     return {"frame_bytes": context.exchange.ledger.totals().frame}
    """

    number: int  # of the last round
    exchange: Exchange  # sends messages to nodes; holds the models and the ledger
    timeout: float  # seconds to wait for replies


class Extension:
    """The server's side of a feature of the round.

    State between rounds is saved and restored by `dump_state` and `load_state`, so that a resumed run has the same
    bits.

    Examples
    --------
    >>> class Halve(Extension):
    ...     name = "halve"
    ...     settings = None
    ...
    ...     def after_aggregation(self, model, context):
    ...         return {name: array / 2 for name, array in model.items()}
    >>> Halve().prunes
    False
    """

    name: ClassVar[str]  # of its package in `fedpress.extensions`, and of its section in the settings
    settings: Any  # the frozen dataclass that configures it; a resumed run must have an equal one

    @property
    def needs(self) -> frozenset[Property]:
        """The properties that the federation must have."""
        return frozenset()

    @property
    def removes(self) -> frozenset[Property]:
        """The properties that the federation does not have with this extension."""
        return frozenset()

    @property
    def prunes(self) -> bool:
        """Whether weights of the model may be pruned: minus zero, and not sent."""
        return False

    def conflicts(self, federation: FederationTerms) -> None:
        """Check that the federation can have this extension.

        Conflicts between extensions follow from `needs` and `removes`.

        Parameters
        ----------
        federation : FederationTerms
            The federation that the extension is to join.

        Raises
        ------
        SettingError
            If it cannot; the message is one line.
        """

    def begin(self, initial: Update) -> Update:
        """Return the part of the initial model that server and nodes exchange.

        Parameters
        ----------
        initial : dict of str to ndarray
            The whole model.

        Returns
        -------
        dict of str to ndarray
            The exchanged tensors.
        """
        return initial

    def complete(self, model: Update) -> Update:
        """Return the whole model of an exchanged part: the inverse of `begin`.

        Parameters
        ----------
        model : dict of str to ndarray
            The exchanged tensors.

        Returns
        -------
        dict of str to ndarray
            The whole model.
        """
        return model

    def model_groups(self) -> ModelGroups | None:
        """Return the groups of nodes with different models.

        Returns
        -------
        ModelGroups or None
            The groups; None if all nodes have the same model.
        """
        return None

    def on_request(self, request: RequestContext) -> ExtensionMessage | None:
        """Return the record to add to a request.

        Parameters
        ----------
        request : RequestContext
            The request that is about to be sent.

        Returns
        -------
        ExtensionMessage or None
            The typed record; None to add nothing.
        """
        return None

    def on_reply(self, node: str, record: ConfigRecord | None) -> None:
        """Read this extension's record of a reply.

        Parameters
        ----------
        node : str
            The node's name.
        record : ConfigRecord or None
            The record; None if the reply has none.

        Raises
        ------
        FrameError
            To refuse the reply.
        """

    def after_aggregation(self, model: Update, context: RoundContext) -> Update:
        """Return the model that replaces the result of aggregation.

        Parameters
        ----------
        model : dict of str to ndarray
            The result of aggregation, not to be changed in place.
        context : RoundContext
            The round.

        Returns
        -------
        dict of str to ndarray
            The server's model after the round.
        """
        return model

    def aim_delta(self, aim: Update, context: DeltaContext) -> Update:
        """Return the model that a delta approximates.

        Parameters
        ----------
        aim : dict of str to ndarray
            The model that it approximates otherwise.
        context : DeltaContext
            The delta, before it is encoded.

        Returns
        -------
        dict of str to ndarray
            The model; `aim` itself to change nothing.
        """
        return aim

    def round_facts(self, done: Round) -> Mapping[str, Any]:
        """Return entries for the round's row in result.json.

        Parameters
        ----------
        done : Round
            The finished round.

        Returns
        -------
        mapping of str to Any
            JSON values by name.
        """
        return {}

    def model_scores(self, done: Round) -> Mapping[str, Any]:
        """Return scores of the round's model for its row in result.json and the final scores.

        Parameters
        ----------
        done : Round
            The finished round.

        Returns
        -------
        mapping of str to Any
            JSON values by name.
        """
        return {}

    def after_last_round(self, context: FinalContext) -> Mapping[str, Any]:
        """Run work after the last round.

        Parameters
        ----------
        context : FinalContext
            The federation.

        Returns
        -------
        mapping of str to Any
            Entries for the final scores: JSON values by name.
        """
        return {}

    def dump_state(self) -> Mapping[str, Any]:
        """Return the state between rounds.

        Returns
        -------
        mapping of str to Any
            What `load_state` restores: plain values, bytes, arrays, lists and dicts.
        """
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state between rounds.

        Parameters
        ----------
        state : mapping of str to Any
            The state that `dump_state` returned.
        """
