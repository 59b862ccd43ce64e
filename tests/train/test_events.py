"""The sentences of the run's events read well for small numbers and large ones."""

from __future__ import annotations

import pytest

from bedstone.train.events import CheckpointWritten, RunStarted


@pytest.mark.parametrize(
    ("trained", "epochs", "text"),
    [
        (460_800, 0.5, "(0.5 epochs) on cpu, training 460,800 of 134,515,008 parameters (0.34%)"),
        (134_515_008, 120.0, "(120 epochs) on cpu, training 134,515,008 of 134,515,008 parameters (100%)"),
    ],
)
def test_a_start_is_told_without_powers_of_ten(trained, epochs, text):
    """Full fine-tuning trains 100% of the parameters, not 1e+02%."""
    event = RunStarted(
        run="demo",
        base_model="tiny",
        device="cpu",
        steps=60,
        epochs=epochs,
        parameters=134_515_008,
        trainable_parameters=trained,
        resumed_from_step=0,
    )
    assert event.message() == f"demo started: 60 steps {text}"


def test_a_checkpoint_tells_its_size_in_the_units_of_the_report():
    """Binary ones, everywhere."""
    event = CheckpointWritten(step=4, path="runs/a/checkpoints/step-000004", bytes=3 * 2**20, seconds=0.25)
    assert event.message() == "checkpoint runs/a/checkpoints/step-000004 (3 MiB in 0.25 s)"
