"""fedpress: federated learning on Flower that sends as few bytes as possible, both ways.

The front door: the version and the few names that everyone uses. The work is done in four rooms:
`fedpress.compression` (tensors to bytes and back), `fedpress.client` (training on the device),
`fedpress.server` (aggregation) and `fedpress.simulations` (many virtual clients on one machine).
"""

from pathlib import Path

# A Flower bundle holds the repository's files without installing them: the rooms then stand beside this folder.
if (Path(__file__).parent.parent / "server" / "app.py").is_file():
    __path__.append(str(Path(__file__).parent.parent))

from fedpress.compression import FrameError, Layout, codecs
from fedpress.compression import parse as codec

__version__ = "0.1.0"
__all__ = ["FrameError", "Layout", "__version__", "codec", "codecs"]
