"""Files that a trained model runs from without fedpress: ONNX and ExecuTorch; safetensors for those who stay in torch.

In go a torch module and inputs from its training data, out come the bytes of one file, of float32 or int8. A format is
one file here with a `write`, and one entry in `formats.FORMATS`. `measure` runs files in processes of their own and
says what each gives and takes. The packages that formats need are the extra `fedpress[export]`, imported when used.
"""

from fedpress.server.export.formats import FORMATS, export
from fedpress.server.export.measure import Measured, measure

__all__ = ["FORMATS", "Measured", "export", "measure"]
