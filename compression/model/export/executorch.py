"""ExecuTorch, https://docs.pytorch.org/executorch: one input at a time, on XNNPACK; int8 by torchao's PT2E."""

import torch
from torch import Tensor, nn

_ALIGNMENT = 16  # bytes, that of XNNPACK; the default of 128 pads every tensor of a small model


def write(model: nn.Module, x: Tensor, int8: bool) -> bytes:
    """Return the file of `model`."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower

    # With another memory format of the weights the program would start with a conversion.
    plain = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    one = (x[:1].contiguous(),)
    program = torch.export.export(plain, one)
    if int8:
        program = torch.export.export(_quantise(program.module(), x), one)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return bytes(lowered.to_executorch(ExecutorchBackendConfig(segment_alignment=_ALIGNMENT)).buffer)


def _quantise(graph: nn.Module, x: Tensor) -> nn.Module:
    """Return the graph with int8 weights, a scale for each channel, and activations in the ranges that `x` shows."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(graph, quantizer)
    with torch.inference_mode():
        for one in x.split(1):  # type: ignore[no-untyped-call]
            prepared(one.contiguous())
    converted: nn.Module = convert_pt2e(prepared)
    return converted
