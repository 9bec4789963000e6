"""Files that run a trained model without fedpress: ONNX, ExecuTorch, and safetensors for torch.

In go a torch module and inputs from its training data, out come the bytes of one file, of float32 or int8. A format is
one file here with a `write`, and one entry in `formats.FORMATS`. `measure` runs files in separate processes and
compares them. The packages of formats are the extra `fedpress[export]`, imported when they are used.
"""

from fedpress.compression.model.export.formats import FORMATS, export
from fedpress.compression.model.export.measure import ExportMeasurement, measure

__all__ = ["FORMATS", "ExportMeasurement", "export", "measure"]
