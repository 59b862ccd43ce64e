"""Every Triton kernel with examples of what it is called with, to compile it ahead of time for a GPU that is not here.

The compiler for NVIDIA and AMD comes with Triton and needs no device. This proves that kernels compile, not that they are right or fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bedstone.kernels.cross_entropy import triton_cross_entropy as loss
from bedstone.kernels.norms import triton_rms_norm as norm
from bedstone.kernels.triton import triton_dense, triton_products
from bedstone.kernels.triton.launch import FUSED, UNFUSED
from bedstone.kernels.triton.packed import PLANES

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
"""An A100, an H100, an MI300."""
_LIMITS = {"int8": 127.0, "e4m3": 448.0, "e5m2": 57344.0}


@dataclass(frozen=True)
class Example:
    """A kernel and the types of its arguments.

    Attributes:
        kernel: The `triton.jit` function.
        types: By argument, such as `*bf16` for a pointer; `i32` and `fp32` for numbers.
        constants: By argument, what it is compiled for.
        options: Of a launch.
    """

    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def __str__(self) -> str:
        told = [str(self.constants[name]) for name in ("FORMAT", "LLAMA", "GRADIENT") if name in self.constants]
        return " ".join([self.kernel.__name__, *told, self.types.get("out", "").lstrip("*")]).strip()

    def compiled(self, target: str) -> Any:
        """Return the compiled kernel; its `asm` has the code by stage, such as `ptx`, `cubin`, `amdgcn`.

        Args:
            target: A key of `TARGETS`.
        """
        signature = {**self.types, **dict.fromkeys(self.constants, "constexpr")}
        in_order = {name: signature[name] for name in self.kernel.arg_names}
        source = ASTSource(fn=self.kernel, signature=in_order, constexprs=self.constants)
        return triton.compile(source, target=TARGETS[target], options=self.options)


def examples() -> Iterator[Example]:
    """Yield each kernel in each of its formats, in bfloat16, and products also in float32."""
    for format_ in PLANES:
        yield from _of_weight(format_, "*bf16")
    yield from _of_weight("int8", "*fp32")
    numbers = dict.fromkeys(("vocabulary",), "i32") | dict.fromkeys(("smoothing", "z_loss", "softcap"), "fp32")
    rows = {"logits": "*fp32", "labels": "*i64", "losses": "*fp32"}
    for every in (True, False):
        constants = {"SMOOTHED": every, "CAPPED": every, "GRADIENT": every, "BLOCK": loss.BLOCK}
        scales, none = ({"scales": "*fp32"}, {}) if every else ({}, {"scales": None})
        yield Example(loss.losses_kernel, {**rows, **scales, **numbers}, {**constants, **none}, FUSED)
    absmax = {"absmax": "*u8", **dict.fromkeys(("nested", "offset", "dynamic", "out"), "*fp32"), "count": "i32"}
    yield Example(triton_dense.absmax_kernel, absmax, {"GROUP": 256, "BLOCK": triton_dense.BLOCK}, UNFUSED)
    for llama in (True, False):
        given = {"x": "*bf16", "weight": "*bf16", "inverses": "*fp32", "columns": "i32", "offset": "fp32"}
        constants = {"LLAMA": llama, "BLOCK": 4096}
        yield Example(norm.rms_norm_kernel, {**given, "out": "*bf16", "eps": "fp32"}, constants, FUSED)
        more = {"grad": "*bf16", "grad_x": "*bf16", "parts": "*fp32", "rows": "i32", "several": "i32"}
        yield Example(norm.rms_norm_grad_kernel, {**given, **more}, constants, FUSED)


def _of_weight(format_: str, dtype: str) -> Iterator[Example]:
    constants = {"FORMAT": format_, "PLANES": PLANES[format_], "LIMIT": _LIMITS.get(format_, 1.0), "BLOCK_SIZE": 64}
    tables = {"table": "*fp32"} if "nibbles" in format_ else {}
    if not tables:
        constants["table"] = None
    weight = {"codes": "*u8", "scales": "*fp32", **tables, **dict.fromkeys(("columns", "row_bytes", "row_step"), "i32")}
    dense = {**weight, "out": dtype, "blocks": "i32"}
    yield Example(triton_dense.dense_kernel, dense, {**constants, "BLOCK": triton_dense.BLOCK}, UNFUSED)
    product = {**weight, "out": dtype, "rows": "i32", "tiles": "i32"}
    linear = {**product, "x": dtype, "bias": dtype}
    yield Example(triton_products.few_kernel, linear, {**constants, **triton_products.FEW_TILE}, FUSED)
    if format_ in ("e4m3", "e5m2"):  # conversions, compiled above; the tiles are those of int8
        return
    many = {**constants, **triton_products.TILE}
    yield Example(triton_products.many_kernel, {**linear, "inputs": "i32"}, many, FUSED)
    yield Example(triton_products.grad_kernel, {**product, "grad": dtype, "inputs": "i32"}, many, FUSED)
