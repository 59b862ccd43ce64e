"""What can go wrong with packed weights in other people's formats, and in our own files.

CoreError
└── WeightFormatError         ValueError      tensors that are not what their format says; `format`, `weight`
    └── FormatVersionError                    written by a newer bedstone; `version`, `newest`
"""

from __future__ import annotations

from typing import Any

from bedstone.core.errors import CoreError


class WeightFormatError(CoreError, ValueError):
    """Tensors that a format cannot hold, or that are not what the format says; nothing was changed or written.

    Attributes:
        format: Of which format: `bedstone`, `bitsandbytes`, `bitnet`, `i2_s` or `gguf`.
        weight: The name of the weight concerned; empty when it is the whole state or file.

    >>> raise WeightFormatError("The part 'absmax' of 'a.weight' is missing.", format="bedstone", weight="a.weight")
    Traceback (most recent call last):
    bedstone.quant.formats.errors.WeightFormatError: The part 'absmax' of 'a.weight' is missing.
    """

    code = "weight_format"
    format: str
    weight: str

    def __init__(self, message: str, *, format: str, weight: str = "", remedy: str = "", **facts: Any) -> None:  # noqa: A002 - what users call it
        super().__init__(message, remedy=remedy, format=format, weight=weight, **facts)


class FormatVersionError(WeightFormatError):
    """A description that a newer bedstone wrote.

    Attributes:
        version: Of the description.
        newest: The newest that this bedstone reads.

    >>> raise FormatVersionError(version=2, newest=1)
    Traceback (most recent call last):
    bedstone.quant.formats.errors.FormatVersionError: The packed weights are of format version 2, and this bedstone reads \
up to version 1. Install a newer bedstone.
    """

    code = "format_version"
    version: int
    newest: int

    def __init__(self, *, version: int, newest: int) -> None:
        super().__init__(
            f"The packed weights are of format version {version}, and this bedstone reads up to version {newest}.",
            format="bedstone",
            remedy="Install a newer bedstone.",
            version=version,
            newest=newest,
        )
