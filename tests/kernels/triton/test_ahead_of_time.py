"""Every Triton kernel compiles for GPUs of NVIDIA and AMD, on a machine that has none."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import bedstone.kernels
from bedstone.kernels import triton_aot

EXAMPLES = list(triton_aot.examples())


@pytest.fixture(autouse=True)
def _no_kept_code(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_compiles_for_every_target(example):
    """An example names every argument of its kernel, and the code that keeps torch's bits has no fused multiply-add."""
    for target in triton_aot.TARGETS:
        code = example.compiled(target).asm
        assert code["hsaco" if target == "gfx942" else "cubin"]
        if target != "gfx942" and not example.options["enable_fp_fusion"]:
            assert "fma.rn.f32" not in code["ptx"]
        assert "tf32" not in code.get("ptx", "")


def test_every_kernel_has_an_example():
    """A kernel is what Triton compiles and launches: not the functions that kernels call, which return something."""
    names = [each.name for each in pkgutil.walk_packages(bedstone.kernels.__path__, "bedstone.kernels.")]
    modules = [importlib.import_module(name) for name in names if name.rpartition(".")[2].startswith("triton_")]
    kernels = {name for module in modules for name in vars(module) if name.endswith("_kernel")}
    assert kernels == {each.kernel.__name__ for each in EXAMPLES}
    assert len(kernels) == 8
