"""Applies a rate policy, and checks the codecs that it returns."""

from collections.abc import Callable, Mapping
from typing import Any

from flwr.serverapp.strategy import Strategy

from fedpress.common.errors import SettingError
from fedpress.compression import Codec, Layout
from fedpress.server.aggregation import privacy
from fedpress.server.aggregation.aggregate import UpdateEnergy
from fedpress.server.aggregation.coordinates import warn_of_equal_values
from fedpress.server.messaging.exchange import Exchange
from fedpress.server.rate_control.bias import warn_of_loss
from fedpress.server.rate_control.policies import Fixed, Policy, RateContext
from fedpress.server.strategy.round_record import Round


class RateController:
    """A policy, with the check that all its codecs have the same state, so that each can use the last one's."""

    def __init__(self, policy: Policy, strategy: Strategy, *, stateless: bool) -> None:
        self._policy = policy
        self._strategy = strategy
        self._stateless = stateless
        self._memory: dict[Layout, set[str]] = {}  # names of the codecs' state, by the layout of the model
        self._warned = not isinstance(policy, Fixed)  # only of a codec that a person named
        first = policy.codec(RateContext("", 1, 1))  # so that errors are raised before round 1
        self._check(first, None)
        warn_of_equal_values(strategy, first)

    def chooser(self, number: int, exchange: Exchange) -> Callable[[str, int], Codec]:
        """Return a function from a node's name and the number of requests to its codec in round `number`."""

        def choose(node: str, requests: int) -> Codec:
            layout = exchange.models.of(node).layout
            codec = self._policy.codec(
                RateContext(node=node, round=number, requests=requests, exact=layout.exact_nbytes)
            )
            self._check(codec, layout)
            if not self._warned:
                self._warned = True
                warn_of_loss(codec, requests, len(list(exchange.grid.get_node_ids())))
            return codec

        return choose

    def round_facts(self, done: Round) -> dict[str, Any]:
        """Return the codec of each node's update, for the round's row in result.json, if the policy may vary it."""
        if isinstance(self._policy, Fixed):
            return {}
        return {"codecs": {node: counted.codec for node, counted in done.counted.items()}}

    def observe(self, energy: UpdateEnergy | None) -> None:
        """Let the policy take note of a round's updates; None if nodes have different parts of the model."""
        if energy is not None:
            self._policy.observe(energy)

    def dump_state(self) -> Mapping[str, float]:
        """Return the policy's state."""
        return self._policy.dump_state()

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore the state that `dump_state` returned."""
        self._policy.load_state(state)

    def _check(self, codec: Codec, layout: Layout | None) -> None:
        if self._stateless and codec.stateful:
            raise SettingError(f"a stateless federation needs codecs without state, got {str(codec)!r}")
        privacy.check(self._strategy, codec)
        if layout is None:
            return
        memory = set(codec.init(layout)) if codec.stateful else set()
        if memory != self._memory.setdefault(layout, memory):
            raise SettingError(f"a policy's codecs keep the same memory: {str(codec)!r} does not")
