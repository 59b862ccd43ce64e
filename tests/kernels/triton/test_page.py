"""The page "Write a Triton kernel" quotes the kernel that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_blocks_that_cannot_run_are_quotations():
    """Line by line as in the file."""
    page = (ROOT / "docs/how-to/write-a-triton-kernel.md").read_text(encoding="utf-8")
    source = (ROOT / "src/bedstone/kernels/norms/triton_rms_norm.py").read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- not run[^\n]*\n```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert block in source
