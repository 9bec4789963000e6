"""The fields of a message's metadata that only flwr itself sets."""

from typing import Any

from flwr.app import Metadata


def set_metadata(metadata: Metadata, **fields: Any) -> None:
    """Set fields of `metadata` for which flwr has no public setter.

    Parameters
    ----------
    metadata : Metadata
        Changed in place.
    **fields
        Values by the name of the public property that reads them, e.g. ``message_id``.

    Examples
    --------
    >>> from flwr.app import Metadata
    >>> metadata = Metadata(1, "", 0, 5, "", "", 0.0, 60.0, "train")
    >>> set_metadata(metadata, message_id="a1")
    >>> metadata.message_id
    'a1'
    """
    for name, value in fields.items():
        metadata.__dict__[f"_{name}"] = value


def get_metadata(metadata: Metadata) -> dict[str, Any]:
    """Return the arguments with which `Metadata` makes an equal object."""
    return {name.lstrip("_"): value for name, value in metadata.__dict__.items() if name != "_delivered_at"}
