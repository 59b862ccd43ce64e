"""Conformance kits for other people's implementations, and small real things to test with.

Nothing here is a mock: `tiny_llama` is a Llama, only small.
"""

from bedstone.testing.backend import check_backend as check_backend
from bedstone.testing.errors import check_error as check_error
from bedstone.testing.gguf import write_tiny_gguf as write_tiny_gguf
from bedstone.testing.kernel import check_kernel as check_kernel
from bedstone.testing.quantizer import check_quantizer as check_quantizer
from bedstone.testing.tiny import save_tiny_model as save_tiny_model
from bedstone.testing.tiny import tiny_llama as tiny_llama
from bedstone.testing.tiny import tiny_tokenizer as tiny_tokenizer

__all__ = [
    "check_backend",
    "check_error",
    "check_kernel",
    "check_quantizer",
    "save_tiny_model",
    "tiny_llama",
    "tiny_tokenizer",
    "write_tiny_gguf",
]
