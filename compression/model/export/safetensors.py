"""safetensors, https://github.com/huggingface/safetensors: the weights by name; int8 with a scale for each row."""

from safetensors.torch import save
from torch import Tensor, nn

from fedpress.compression.model.quantization import pack


def write(model: nn.Module, x: Tensor, int8: bool) -> bytes:  # noqa: ARG001  weights need no inputs
    """Return the file of `model`, its tensors by name."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    return save(pack(tensors) if int8 else tensors)
