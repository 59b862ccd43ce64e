"""Facts about `torch.dtype`: exact bits, kinds, accumulators, names, precision modes, conversion that refuses overflow.

The document's `DTypeExt` is these functions; each takes a `torch.dtype` or its name (`"bf16"`, `"float32"`).
"""

from bedstone.core.dtype.convert import ConversionOverflowError as ConversionOverflowError
from bedstone.core.dtype.convert import safe_convert as safe_convert
from bedstone.core.dtype.kinds import accumulator_dtype as accumulator_dtype
from bedstone.core.dtype.kinds import bits_per_element as bits_per_element
from bedstone.core.dtype.kinds import bytes_per_element as bytes_per_element
from bedstone.core.dtype.kinds import is_floating_point as is_floating_point
from bedstone.core.dtype.kinds import is_half_precision as is_half_precision
from bedstone.core.dtype.kinds import is_integer as is_integer
from bedstone.core.dtype.kinds import is_quantized as is_quantized
from bedstone.core.dtype.kinds import is_training_dtype as is_training_dtype
from bedstone.core.dtype.names import dtype_name as dtype_name
from bedstone.core.dtype.names import parse_dtype as parse_dtype
from bedstone.core.dtype.precision import PrecisionMode as PrecisionMode

__all__ = [
    "ConversionOverflowError",
    "PrecisionMode",
    "accumulator_dtype",
    "bits_per_element",
    "bytes_per_element",
    "dtype_name",
    "is_floating_point",
    "is_half_precision",
    "is_integer",
    "is_quantized",
    "is_training_dtype",
    "parse_dtype",
    "safe_convert",
]
