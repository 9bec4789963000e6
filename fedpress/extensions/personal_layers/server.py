"""Personal layers and fine-tuning after the last round, on the server."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord

from fedpress.compression import Update
from fedpress.extensions.personal_layers.finetune import FineTuned, finetune, scores_of, write_table
from fedpress.extensions.personal_layers.messages import PersonalLayersReply, PersonalLayersRequest
from fedpress.extensions.personal_layers.model_split import ModelSplit
from fedpress.extensions.personal_layers.settings import PersonalLayersSettings
from fedpress.server.extension import BuildContext, Extension, FinalContext, Property
from fedpress.server.messaging.extension_messages import RequestContext


class PersonalLayers(Extension):
    """Removes the personal tensors from the models that server and nodes exchange.

    Parameters
    ----------
    settings : PersonalLayersSettings
        The personal tensors, and how nodes fine-tune.
    seed : int
        Seed of the run, by which the nodes that fine-tune are chosen.
    folder : Path | None
        Folder of the file `personal.csv` with each node's scores; None for no file.

    Examples
    --------
    >>> import numpy as np
    >>> extension = PersonalLayers(PersonalLayersSettings(tensors=("head.*",)))
    >>> list(extension.begin({"body": np.zeros(1, np.float32), "head.w": np.zeros(1, np.float32)}))
    ['body']
    """

    name = "personal_layers"
    settings: PersonalLayersSettings

    def __init__(self, settings: PersonalLayersSettings, seed: int = 0, folder: Path | None = None) -> None:
        self.settings = settings
        self._seed = seed
        self._folder = folder
        self._split = ModelSplit(b"", {}, ())
        self._owns: dict[str, bool] = {}  # node -> whether it has personal tensors, by its last reply
        self._finetuned: dict[str, Any] = {}  # its results; empty before

    @property
    def needs(self) -> frozenset[Property]:
        return frozenset({Property.NODE_STATE, Property.ONE_MODEL}) if self.settings.tensors else frozenset()

    @property
    def removes(self) -> frozenset[Property]:
        return frozenset({Property.WHOLE_MODEL}) if self.settings.tensors else frozenset()

    def begin(self, initial: Update) -> Update:
        self._split = ModelSplit.of(initial, self.settings.tensors)
        return self._split.shared(initial)

    def complete(self, model: Update) -> Update:
        return self._split.whole(model)

    def on_request(self, request: RequestContext) -> PersonalLayersRequest | None:
        split, owns = self._split, self._owns.get(request.node)
        if not split.mask:
            return None
        if owns or (owns is None and request.has_initial):  # the node has them, or computes the initial ones
            return PersonalLayersRequest(split.mask, b"", "")
        return PersonalLayersRequest(split.mask, split.frame, split.layout.text)

    def on_reply(self, node: str, record: ConfigRecord | None) -> None:
        if self._split.mask:
            self._owns[node] = PersonalLayersReply.from_record(record or ConfigRecord()).owned

    def after_last_round(self, context: FinalContext) -> Mapping[str, Any]:
        if not self.settings.finetune_epochs:
            return {}
        if self._finetuned.get("round") != context.number:  # a resumed run does not fine-tune again
            before = context.exchange.ledger.totals(purpose="evaluate")
            nodes = finetune(self.settings, self._seed, context)
            after = context.exchange.ledger.totals(purpose="evaluate")
            self._finetuned = {
                "round": context.number,
                "nodes": [asdict(node) for node in nodes],
                "bytes": {
                    "finetune_bytes": after.frame - before.frame,
                    "finetune_message_bytes": after.message - before.message,
                },
            }
        nodes = [FineTuned(**node) for node in self._finetuned["nodes"]]
        if self._folder is not None:
            write_table(self._folder, nodes)
        return {"nodes": scores_of(nodes), **self._finetuned["bytes"]} if nodes else {}

    def dump_state(self) -> Mapping[str, Any]:
        return {"owns": self._owns, "finetuned": self._finetuned}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._owns, self._finetuned = state["owns"], state["finetuned"]


def build(settings: PersonalLayersSettings, context: BuildContext) -> PersonalLayers:
    """Return the extension that `settings` describe."""
    return PersonalLayers(settings, context.seed, context.folder)
