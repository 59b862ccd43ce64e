"""Variables that are set and have an effect are listed with it; a mistyped or useless one is worth a look."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bedstone
from bedstone.cli.environment import OWN, check_environment


def said(environment, deciding=""):
    """Status and text by variable."""
    return {f.subject: (f.status, f.text, f.remedy) for f in check_environment(environment, deciding)}


def test_nothing_set_is_one_green_line():
    """Other programs' variables are nobody's business."""
    assert said({"HOME": "/home/me", "HF_TOKEN": "secret"}) == {"variables": ("ok", "none that has an effect", "")}


def test_an_empty_variable_counts_as_unset():
    """As everywhere here."""
    assert said({"OMP_NUM_THREADS": "", "BEDSTONE_CUDA_DEVICE": ""})["variables"][0] == "ok"


def test_the_variable_that_decided_the_device_is_named():
    """The others are set in vain."""
    found = said({"BEDSTONE_CUDA_DEVICE": "1", "AXOLOTL_FORCE_CPU": "1"}, "BEDSTONE_CUDA_DEVICE")
    assert found["BEDSTONE_CUDA_DEVICE"] == ("ok", "1 (decides the device)", "")
    assert found["AXOLOTL_FORCE_CPU"] == (
        "look",
        "1 (no effect: BEDSTONE_CUDA_DEVICE decides the device)",
        "Unset AXOLOTL_FORCE_CPU.",
    )


def test_a_mistyped_variable_of_ours_is_noticed():
    """It would be ignored in silence otherwise."""
    assert said({"BEDSTONE_LOGLEVEL": "debug"})["BEDSTONE_LOGLEVEL"] == (
        "look",
        "debug (no effect: bedstone reads no variable of this name)",
        "Did you mean BEDSTONE_LOG_LEVEL?",
    )


@pytest.mark.parametrize(("value", "status"), [("debug", "ok"), ("WARNING", "ok"), ("lots", "bad")])
def test_the_log_level_is_checked(value, status):
    """Before logging refuses it."""
    assert said({"BEDSTONE_LOG_LEVEL": value})["BEDSTONE_LOG_LEVEL"][0] == status


def test_switches_that_slow_a_run_down_are_worth_a_look():
    """With what they do."""
    status, text, remedy = said({"PYTORCH_ENABLE_MPS_FALLBACK": "1"})["PYTORCH_ENABLE_MPS_FALLBACK"]
    assert (status, text) == ("look", "1 (operations that MPS lacks run on the CPU in silence)")
    assert remedy == "Unset PYTORCH_ENABLE_MPS_FALLBACK unless that is wanted."


def test_values_cannot_steer_the_terminal():
    """They come from outside."""
    assert said({"HF_HOME": "\x1b[2J"})["HF_HOME"][1] == "\\x1b[2J (where downloaded models lie)"


def test_every_variable_that_the_package_reads_is_known_here():
    """A new one must be described, or doctor would call it a typing error."""
    source = Path(bedstone.__file__).parent
    mentioned = {
        name for file in source.rglob("*.py") for name in re.findall(r"BEDSTONE_[A-Z_]*[A-Z]", file.read_text())
    }
    assert mentioned == set(OWN)
