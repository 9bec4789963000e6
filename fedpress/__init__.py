"""fedpress: federated learning on Flower that sends as few bytes as possible, both ways.

The few names that everyone uses, and the version. The work is done in `fedpress.compression` (tensors to bytes and
back), `fedpress.client` (training on the device), `fedpress.server` (aggregation) and `fedpress.simulations` (many
virtual clients on one machine); `fedpress.common`, `fedpress.protocol` and `fedpress.flower` are what they share.
"""

from pathlib import Path

# A Flower bundle holds the repository's files without installing them: the rooms then stand beside this folder.
if (Path(__file__).parent.parent / "server" / "app.py").is_file():
    __path__.append(str(Path(__file__).parent.parent))

from fedpress.common.version import VERSION
from fedpress.compression import FrameError, Layout, codecs
from fedpress.compression import parse as codec

__version__ = VERSION
__all__ = ["FrameError", "Layout", "__version__", "codec", "codecs"]
