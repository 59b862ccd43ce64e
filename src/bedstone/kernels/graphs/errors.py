"""What can go wrong when a graph is rewritten.

CoreError
└── KernelError       RuntimeError
    └── RewriteError                  the pattern is not there, or its replacement computes something else; `rewrite`
"""

from __future__ import annotations

from typing import Any

from bedstone.core.errors import KernelError


class RewriteError(KernelError):
    """A rewrite that was not kept; the graph is as it was.

    Attributes:
        rewrite: The name of the replacement.

    >>> raise RewriteError("`fused` computes something else.", rewrite="fused")
    Traceback (most recent call last):
    bedstone.kernels.graphs.errors.RewriteError: `fused` computes something else.
    """

    code = "rewrite"
    rewrite: str

    def __init__(self, message: str, *, rewrite: str, remedy: str = "", **facts: Any) -> None:
        super().__init__(message, op="rewrite", implementation=rewrite, remedy=remedy, rewrite=rewrite, **facts)
