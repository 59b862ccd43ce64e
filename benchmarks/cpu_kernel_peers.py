"""The other side of `cpu_kernels.py`: torch, its int8 and int4 kernels, fbgemm, and bitsandbytes with its interface and its C kernel.

Each packs the same float32 weight in its own way; the error stands beside the time. ggml has a file of its own, `peer_ggml.py`.
"""

from __future__ import annotations

import copy
import ctypes
import warnings
from typing import TYPE_CHECKING, Any

import torch
from cpu_kernel_clock import Contestant, copies, in_turn, peak_growth, relative_error, rotated

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 64
THE_WEIGHT, SAME_WEIGHT = (
    "the exact product with the float32 weight",
    "the exact product with the same dequantized weight",
)
linear = torch.nn.functional.linear


def products(weight: torch.Tensor, x: torch.Tensor) -> dict[str, Contestant]:
    """Return who multiplies x by the transposed weight, each with a weight packed in its own way."""
    inputs, exact = len(x), x.double() @ weight.double().t()
    found: dict[str, Contestant] = {}

    def add(name: str, call: Callable[[], torch.Tensor], nbytes: float) -> None:
        found[name] = Contestant(call, nbytes, relative_error(call().float(), exact), THE_WEIGHT)

    half = x.bfloat16()
    dense, dense_half = rotated((weight,), inputs), rotated((weight.bfloat16(),), inputs)
    add("torch fp32", lambda: linear(x, *dense()), weight.nbytes)
    add("torch bf16", lambda: linear(half, *dense_half()), weight.nbytes / 2)
    scale = weight.abs().amax(1) / 127
    eight = rotated(((weight / scale[:, None]).round().to(torch.int8),), inputs)
    scale_half = scale.bfloat16()
    add("aten int8pack bf16", lambda: torch._weight_int8pack_mm(half, *eight(), scale_half), weight.numel())  # noqa: SLF001 - there is no public name
    four, zeros = _four_bits(weight)
    fours, bytes4 = rotated((four,), inputs), weight.numel() / 2 + zeros.nbytes
    add("aten int4pack bf16", lambda: torch._weight_int4pack_mm_for_cpu(half, *fours(), BLOCK, zeros), bytes4)  # noqa: SLF001 - there is no public name
    prepacked = in_turn([_fbgemm(weight) for _ in range(copies(weight.numel(), inputs))])
    dynamic = torch.ops.quantized.linear_dynamic
    add("torch fbgemm dynamic int8", lambda: dynamic(x, prepacked(), reduce_range=True), weight.numel())
    limit = float(torch.finfo(torch.float8_e4m3fn).max)
    by_row = weight.abs().amax(1, keepdim=True) / limit
    fp8 = rotated(((weight / by_row).to(torch.float8_e4m3fn),), inputs)
    add("torch fp8, dequantized", lambda: linear(x, fp8()[0].float().mul_(by_row)), weight.numel())
    return found | _bitsandbytes_product(weight, x)


def _four_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = weight.shape
    groups = weight.view(rows, columns // BLOCK, BLOCK)
    low = groups.amin(2)
    step = (groups.amax(2) - low) / 15
    codes = ((groups - low[..., None]) / step[..., None]).round().clamp(0, 15).to(torch.int32).view(rows, columns)
    zeros = torch.stack([step, low + step * 8], -1).transpose(0, 1).contiguous().bfloat16()
    return torch._convert_weight_to_int4pack_for_cpu(codes, 1), zeros  # noqa: SLF001 - there is no public name


def _fbgemm(weight: torch.Tensor) -> Any:
    torch.backends.quantized.engine = "fbgemm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in torch, which is said on the page
        codes = torch.quantize_per_tensor(weight, (weight.abs().amax() / 127.5).item(), 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(codes, None)


def _bitsandbytes_product(weight: torch.Tensor, x: torch.Tensor) -> dict[str, Contestant]:
    import bitsandbytes
    from bitsandbytes import functional

    codes, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
    weights = rotated((codes, state.absmax), len(x))

    def call() -> torch.Tensor:
        packed, absmax = weights()
        mine = copy.copy(state)
        mine.absmax = absmax
        return bitsandbytes.matmul_4bit(x, packed.t(), quant_state=mine)

    exact = x.double() @ functional.dequantize_4bit(codes, state).double().t()
    nbytes = codes.nbytes + state.absmax.nbytes
    return {"bitsandbytes nf4": Contestant(call, nbytes, relative_error(call(), exact), SAME_WEIGHT)}


def quantizers(scheme: str, weight: torch.Tensor) -> dict[str, Contestant]:
    """Return who packs a weight in a format of the same kind."""
    if scheme in ("nf4", "fp4"):
        from bitsandbytes import functional

        def four() -> Any:
            return functional.quantize_4bit(weight, blocksize=BLOCK, quant_type=scheme)

        return {
            "bitsandbytes API": Contestant(
                four, 0, relative_error(functional.dequantize_4bit(*four()), weight), "the weight"
            )
        }
    if scheme == "int8":
        from bitsandbytes import functional

        return {
            "torch": Contestant(lambda: _int8(weight)),
            "bitsandbytes row": Contestant(lambda: torch.ops.bitsandbytes.int8_vectorwise_quant(weight)),
            "bitsandbytes dynamic": Contestant(lambda: functional.quantize_blockwise(weight, blocksize=BLOCK)),
        }
    return {"torch": Contestant({"fp8": lambda: _fp8(weight), "ternary": lambda: _trits(weight)}[scheme])}


def _int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    blocks = weight.view(-1, BLOCK)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    return (blocks / scale).round().to(torch.int8), scale


def _fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = weight.abs().amax(1, keepdim=True) / float(torch.finfo(torch.float8_e4m3fn).max)
    return (weight / scale).to(torch.float8_e4m3fn), scale


def _trits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = weight.abs().mean().clamp_(min=1e-5)
    codes = (weight / scale).round_().clamp_(-1, 1).add_(1).to(torch.uint8).view(-1, 4, 32)
    return codes[:, 0] | (codes[:, 1] << 2) | (codes[:, 2] << 4) | (codes[:, 3] << 6), scale


def dequantizers(scheme: str, weight: torch.Tensor, dtype: torch.dtype) -> dict[str, Contestant]:
    """Return who unpacks a weight into memory of its own."""
    if scheme in ("nf4", "fp4"):
        from bitsandbytes import functional

        codes, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type=scheme)
        state.dtype = dtype
        return {"bitsandbytes API": Contestant(lambda: functional.dequantize_4bit(codes, state))}
    if scheme == "ternary":
        packed, scale = _trits(weight)
        shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[None, :, None]
        return {"torch": Contestant(lambda: ((packed.view(-1, 1, 32) >> shifts) & 3).to(dtype).sub_(1).mul_(scale))}
    codes, scale = (_int8 if scheme == "int8" else _fp8)(weight)
    return {"torch": Contestant(lambda: codes.to(dtype).mul_(scale))}


def kernels_into_buffer(scheme: str, weight: torch.Tensor, out: torch.Tensor) -> dict[str, Contestant]:
    """Return the C kernel of bitsandbytes, writing into memory that is there already."""
    if scheme not in ("nf4", "fp4"):
        return {}
    from bitsandbytes import functional
    from bitsandbytes.cextension import lib

    codes, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type=scheme)
    function = getattr(lib, f"cdequantize_blockwise_cpu_{scheme}_{'fp32' if out.dtype == torch.float32 else 'bf16'}")
    places = [ctypes.c_void_p(each.data_ptr()) for each in (codes, state.absmax, out)]
    sizes = [ctypes.c_longlong(each) for each in (BLOCK, *weight.shape)]
    out.zero_()
    function(*places, *sizes)
    dense = functional.dequantize_4bit(codes, state)

    def call(
        kept: object = (codes, state, out),
    ) -> None:  # the kernel sees addresses: somebody must keep what lies there
        del kept
        function(*places, *sizes)

    return {"bitsandbytes C kernel": Contestant(call, 0, relative_error(out, dense))}


def input_gradients(weight: torch.Tensor, grad: torch.Tensor) -> dict[str, Contestant]:
    """Return who multiplies a gradient by the weight; of the bitsandbytes layer the backward pass alone is timed."""
    import bitsandbytes
    from bitsandbytes import functional

    codes, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
    x = torch.zeros(len(grad), weight.shape[1], requires_grad=True)
    with torch.enable_grad():
        y = bitsandbytes.matmul_4bit(x, codes.t(), quant_state=state)

    def theirs() -> torch.Tensor:
        return torch.autograd.grad(y, x, grad, retain_graph=True)[0]

    exact = grad.double() @ functional.dequantize_4bit(codes, state).double()
    found = {
        "bitsandbytes nf4": Contestant(theirs, 0, relative_error(theirs(), exact), SAME_WEIGHT),
        "torch fp32": Contestant(
            lambda: grad @ weight, 0, relative_error(grad @ weight, grad.double() @ weight.double())
        ),
    }
    for each in found.values():
        grown = peak_growth(each.call)
        each.extra["peak_bytes"] = grown and max(grown - x.nbytes, 0)
    return found
