"""Which scheme quantized the weights of a checkpoint, told by the names and the types of its tensors."""

import re
from collections.abc import Mapping

from jaxconf.models.tensor_files import Tensor

# Scheme → what the name of one of its tensors ends in. A scheme stands before those whose names it has too.
ENDS = {
    "bitsandbytes (8 bits)": r"\.SCB",
    "bitsandbytes (4 bits)": r"\.weight\.(absmax|quant_map|nested_absmax|quant_state\..*)",
    "GPTQ": r"\.g_idx",
    "AWQ": r"\.qweight",
    "compressed-tensors": r"\.weight_packed",
    "MXFP4": r"_blocks",
    "HQQ": r"\.W_q",
}


def scheme(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the scheme, or None if no tensor shows one."""
    for name, end in ENDS.items():
        if any(re.search(f"{end}$", tensor) for tensor in tensors):
            return name
    weights = {tensor.dtype for name, tensor in tensors.items() if name.endswith(".weight")}
    if any(dtype.startswith("F8_") for dtype in weights):
        return "fp8"
    if "U32" in weights:  # eight numbers of 4 bits each
        return "MLX"
    return None
