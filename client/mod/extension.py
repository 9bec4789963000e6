"""The interface of an extension's part on a node, and the extensions that one request carries.

A request names its extensions by the typed records that it carries, `fedpress.<name>`. Their code is found in the
registry: the mod depends on no extension.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

from flwr.app import ArrayRecord, RecordDict

from fedpress.common.errors import FrameError, SettingError
from fedpress.compression import Update
from fedpress.extensions import client_extension
from fedpress.protocol.messages import ExtensionMessage, extension_name, extension_record

Request = TypeVar("Request", bound=ExtensionMessage)


class ClientExtension(Generic[Request]):
    """The node's side of an extension of the round; a method that is not overridden changes nothing.

    An extension is stateless: methods are given its state, an ArrayRecord, and return the new one. It is part of the
    node's state for as long as requests carry the extension's record.

    Examples
    --------
    >>> class Unchanged(ClientExtension[ExtensionMessage]):
    ...     request_type = ExtensionMessage
    >>> Unchanged().begin(ExtensionMessage(), None, dict)
    {}
    """

    request_type: type[Request]  # of its typed record in a request

    def exchanged(self, request: Request, model: Update) -> Update:
        """Return the part of a whole model that server and nodes exchange.

        Parameters
        ----------
        request : ExtensionMessage
            The extension's record of the request.
        model : dict of str to ndarray
            The whole model.

        Returns
        -------
        dict of str to ndarray
            The exchanged tensors.

        Raises
        ------
        FrameError
            If it is not the model of the request.
        """
        return model

    def begin(self, request: Request, state: ArrayRecord | None, initial: Callable[[], Update]) -> ArrayRecord | None:
        """Return the state to start this request with.

        Parameters
        ----------
        request : ExtensionMessage
            The extension's record of the request.
        state : ArrayRecord | None
            The state after the node's last request; None before the first.
        initial : callable
            Returns the whole model that the federation begins with; empty if the node does not have it.

        Returns
        -------
        ArrayRecord | None
            The state, which may be empty; None if the node lacks what the request needs and asks for another request.
        """
        return ArrayRecord() if state is None else state

    def before_app(self, request: Request, state: ArrayRecord, model: ArrayRecord) -> ArrayRecord:
        """Return the model for the app.

        Parameters
        ----------
        request : ExtensionMessage
            The extension's record of the request.
        state : ArrayRecord
            The extension's state.
        model : ArrayRecord
            The model that the frames lead to.

        Returns
        -------
        ArrayRecord
            The model that the app trains or evaluates.
        """
        return model

    def after_app(self, request: Request, state: ArrayRecord, model: Update) -> tuple[Update, ArrayRecord]:
        """Return the part of the trained model whose update is sent, and the state after training.

        Parameters
        ----------
        request : ExtensionMessage
            The extension's record of the request.
        state : ArrayRecord
            The extension's state.
        model : dict of str to ndarray
            The model that the app trained.

        Returns
        -------
        tuple of (dict of str to ndarray, ArrayRecord)
            The exchanged tensors, and the state.

        Raises
        ------
        UpdateError
            If the app's model cannot be sent.
        """
        return model, state

    def reply(self, state: ArrayRecord | None) -> ExtensionMessage | None:
        """Return the record to add to the reply.

        Parameters
        ----------
        state : ArrayRecord or None
            The extension's state; None if `begin` returned None.

        Returns
        -------
        ExtensionMessage or None
            The typed record; None to add nothing.
        """
        return None


@dataclass(frozen=True, eq=False)
class _Active:
    """An extension that a request carries."""

    extension: ClientExtension[Any]
    request: ExtensionMessage
    state: ArrayRecord | None  # None if the node lacks what the request needs


@dataclass(frozen=True, eq=False)
class ActiveExtensions:
    """The extensions that a request carries, in the order of their names."""

    active: Mapping[str, _Active]  # by the name of the extension

    @classmethod
    def take(cls, content: RecordDict, states: Mapping[str, ArrayRecord]) -> Self:
        """Return the extensions of a request, whose records are taken out of `content`.

        Raises
        ------
        FrameError
            If there is no such extension on nodes, or a field of a record is missing or of another type.
        """
        active = {}
        for name in sorted(filter(None, map(extension_name, content.config_records))):
            try:
                extension: ClientExtension[Any] = client_extension(name)
            except SettingError as error:
                raise FrameError(f"a request must hold records of known extensions only: {error}") from error
            request = extension.request_type.from_record(content.config_records[extension_record(name)])
            active[name] = _Active(extension, request, states.get(name))
            del content[extension_record(name)]
        return cls(active)

    @property
    def states(self) -> dict[str, ArrayRecord]:
        """The extensions' states that are stored, by name."""
        return {name: each.state for name, each in self.active.items() if each.state}

    @property
    def ready(self) -> bool:
        """Whether the node has all that the request needs."""
        return all(each.state is not None for each in self.active.values())

    def exchanged(self, model: Update) -> Update:
        """Return the part of a whole model that server and nodes exchange."""
        for each in self.active.values():
            model = each.extension.exchanged(each.request, model)
        return model

    def begin(self, initial: Callable[[], Update]) -> "ActiveExtensions":
        """Return the extensions with their states at the start of the request."""
        return ActiveExtensions(
            {
                name: replace(each, state=each.extension.begin(each.request, each.state, initial))
                for name, each in self.active.items()
            }
        )

    def before_app(self, model: ArrayRecord) -> ArrayRecord:
        """Return the model for the app."""
        for each in reversed(tuple(self.active.values())):
            model = each.extension.before_app(each.request, each.state or ArrayRecord(), model)
        return model

    def after_app(self, model: Update) -> tuple[Update, "ActiveExtensions"]:
        """Return the part of the trained model whose update is sent, and the extensions after training."""
        active = dict(self.active)
        for name, each in self.active.items():
            model, state = each.extension.after_app(each.request, each.state or ArrayRecord(), model)
            active[name] = replace(each, state=state)
        return model, ActiveExtensions(active)

    def add_replies(self, content: RecordDict) -> None:
        """Add the extensions' records to a reply."""
        for name, each in self.active.items():
            reply = each.extension.reply(each.state)
            if reply is not None:
                content[extension_record(name)] = reply.to_record()
