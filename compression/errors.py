"""The errors that codecs raise, importable from the package that raises them."""

from fedpress.common.errors import FedpressError, FrameError, SpecError, UpdateError

__all__ = ["FedpressError", "FrameError", "SpecError", "UpdateError"]
