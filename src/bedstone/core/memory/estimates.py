"""How many bytes a tensor and an attention layer take, from their sizes alone.

All arithmetic is in Python integers: nothing wraps, however large, and a result is exact for what its formula counts.
What each formula counts is said in its docstring; what torch takes beside that (blocks of its allocator, the tiles that a
fused kernel works in) is not counted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, SupportsIndex

from bedstone.core.dtype import accumulator_dtype, bits_per_element
from bedstone.core.errors import InvalidConfigError, UnknownNameError
from bedstone.core.memory.sizes import checked_count, checked_shape

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

_MODES = ("linear", "materialized")


def estimate_tensor_bytes(shape: Iterable[SupportsIndex], dtype: torch.dtype | str) -> int:
    """Return the bytes of a tensor's elements, packed: `ceil(product(shape) * bits / 8)`.

    Args:
        shape: Sizes of the dimensions, each at least 0; the empty shape `()` is one element.
        dtype: Any dtype or its name. Elements below a byte are counted as packed, two `uint4` to a byte, as quantized
            weights are kept; a plain `torch.empty(n, dtype=torch.uint4)` spends a byte on each.

    Returns:
        Bytes.

    Raises:
        InvalidConfigError: A size is negative, a bool or not whole; it is named.
        UnknownNameError: A text that names no dtype.

    >>> import torch
    >>> estimate_tensor_bytes((4096, 4096), torch.bfloat16)
    33554432
    >>> estimate_tensor_bytes((3,), torch.uint4)
    2
    """
    return _packed(math.prod(checked_shape(shape)), bits_per_element(dtype))


def estimate_attention_memory(
    batch_size: int,
    num_heads: int,
    seq_len: int,
    head_dim: int,
    dtype: torch.dtype | str,
    *,
    num_kv_heads: int | None = None,
    kv_seq_len: int | None = None,
    mode: Literal["materialized", "linear"] = "materialized",
    backward: bool = False,
) -> int:
    """Return the peak bytes of `softmax(q @ k.T) @ v`.

    With `q = b*h*s*d` bytes for each of queries and output, `k = b*g*t*d` for each of keys and values, `p = b*h*s*t` for
    the scores (each times the element size) and `r = b*h*s` accumulators (float32; float64 for float64):

    | mode | forward | forward and backward |
    |---|---|---|
    | materialized | `2q + 2k + p` | `max(3q + 3k + 3p, 4q + 4k + p)` |
    | linear | `2q + 2k + r` | `4q + 4k + w + 2r` |

    Materialized, forward: the softmax overwrites the scores; by default this is `b*h*s*e*(4d + s)`. An eager softmax that
    does not overwrite holds one more `p`. Backward: probabilities, their gradient and that of the scores meet (3p) while
    the gradient of the values is there; or, for short sequences, all four gradients and inputs meet at the end.
    Linear is what fused kernels do (`F.scaled_dot_product_attention`): only the log-sum-exp of each row (r) is kept, and
    the backward pass adds its row sums (r) and one buffer `w` of the queries' size in the accumulator dtype.
    On CUDA with fewer kv heads, the fused backward widens the gradients of keys and values first; that is not counted.

    Args:
        batch_size: b, sequences at once.
        num_heads: h, query heads.
        seq_len: s, queries in each sequence.
        head_dim: d, size of a head.
        dtype: The dtype of queries, keys, values and output, or its name.
        num_kv_heads: g, heads of keys and values, which must divide h; `None` means h (1 is multi-query attention).
        kv_seq_len: t, keys in each sequence; `None` means s.
        mode: `"materialized"` holds all scores, `"linear"` never does.
        backward: Whether the backward pass follows; inputs, output and its gradient stay alive until the end.

    Returns:
        Bytes.

    Raises:
        InvalidConfigError: A size is negative, a bool or not whole, or `num_kv_heads` does not divide `num_heads`.
        UnknownNameError: Unknown mode or dtype.

    >>> import torch
    >>> estimate_attention_memory(1, 32, 4096, 128, torch.bfloat16)
    1207959552
    >>> estimate_attention_memory(1, 32, 4096, 128, torch.bfloat16, num_kv_heads=8, mode="linear")
    84410368

    References:
        Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023,
        https://arxiv.org/abs/2307.08691 (linear mode).
    """
    if mode not in _MODES:
        raise UnknownNameError("attention mode", mode, _MODES)
    b, h = checked_count(batch_size, "batch_size"), checked_count(num_heads, "num_heads")
    s, d = checked_count(seq_len, "seq_len"), checked_count(head_dim, "head_dim")
    g = h if num_kv_heads is None else _checked_kv_heads(num_kv_heads, h)
    t = s if kv_seq_len is None else checked_count(kv_seq_len, "kv_seq_len")
    bits = bits_per_element(dtype)
    q, k, p = _packed(b * h * s * d, bits), _packed(b * g * t * d, bits), _packed(b * h * s * t, bits)
    if mode == "materialized":
        return max(3 * (q + k + p), 4 * (q + k) + p) if backward else 2 * (q + k) + p
    wide = bits_per_element(accumulator_dtype(dtype))
    r, w = _packed(b * h * s, wide), _packed(b * h * s * d, wide)
    return 4 * (q + k) + w + 2 * r if backward else 2 * (q + k) + r


def _packed(count: int, bits: int) -> int:
    return -(-count * bits // 8)


def _checked_kv_heads(num_kv_heads: int, num_heads: int) -> int:
    count = checked_count(num_kv_heads, "num_kv_heads", at_least=1)
    if num_heads % count:
        raise InvalidConfigError(
            f"`num_kv_heads` (={count}) must divide `num_heads` (={num_heads}).",
            argument="num_kv_heads",
            value=count,
            remedy="Each head of keys and values serves the same number of query heads.",
        )
    return count
