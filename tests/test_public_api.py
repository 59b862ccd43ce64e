"""`import bedstone` costs nothing, offers every public name, and tells type checkers the same as it does."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bedstone


def typed_names():
    """The names that a type checker sees, with the module each comes from."""
    (block,) = (
        node
        for node in ast.parse(Path(bedstone.__file__).read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname: node.module for node in imports for alias in node.names if alias.asname}


def test_type_checkers_see_what_run_time_offers():
    """The two lists of names are one."""
    assert typed_names() == bedstone._HOME


@pytest.mark.parametrize("name", sorted(bedstone._HOME))
def test_every_public_name_is_there_and_documented(name):
    """What the table promises, the rooms keep, with an example that the doctests run."""
    example = ">>> load_run(" if name == "Run" else ">>> "  # a Run is what `finetune` returns
    assert example in (bedstone.load_run if name == "Run" else getattr(bedstone, name)).__doc__
    assert name in dir(bedstone)


def test_an_unknown_name_is_an_attribute_error():
    """As for any module."""
    with pytest.raises(AttributeError, match="module 'bedstone' has no attribute 'nothing'"):
        bedstone.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("bedstone", {"torch", "transformers", "numpy", "rich"}),
        ("bedstone.cli", {"torch", "transformers", "numpy"}),
        ("bedstone.core.device", {"transformers", "numpy", "rich", "pydantic"}),
        ("bedstone.train.config", {"transformers", "peft"}),
        ("bedstone.train", {"transformers", "peft"}),
    ],
)
def test_importing_a_room_loads_no_more_than_it_needs(module, forbidden):
    """Heavy packages are imported where they are used."""
    # torch itself imports NumPy when it is installed; what counts is what comes on top.
    code = f"import sys, importlib; importlib.import_module({module!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    if "torch" in loaded:
        forbidden = forbidden - {"numpy"}
    assert not loaded & forbidden


def test_importing_everything_sets_no_variable_and_adds_no_handler():
    """Importing does nothing: no environment variable, no root handler, no device query."""
    code = (
        "import os, logging; before = dict(os.environ); import torch; after_torch = dict(os.environ)\n"
        "import bedstone.core.device, bedstone.core.logging, bedstone.train, bedstone.repro, bedstone.interop\n"
        "assert dict(os.environ) == after_torch, set(os.environ.items()) ^ set(after_torch.items())\n"
        "assert not logging.getLogger().handlers\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
