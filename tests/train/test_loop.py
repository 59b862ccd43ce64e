"""A step weights every token alike, however the batch is cut; whatever diverges stops before it does harm."""

from __future__ import annotations

import pytest
import torch

from bedstone.core.events import TrainingStep
from bedstone.train.adapter import trainable
from bedstone.train.config import parse_config
from bedstone.train.errors import TrainingDivergedError
from bedstone.train.folder import RunFolder
from bedstone.train.loop import evaluate, train
from bedstone.train.setup import prepare


@pytest.fixture
def session(config, tmp_path):
    def make(**changes):
        folder = RunFolder(tmp_path / "session")
        folder.make()
        return prepare(parse_config(config(save_steps=..., **changes)), folder)[0]

    return make


def weights_after(session):
    train(session, {"conditions": {}})
    return torch.cat([p.detach().flatten() for p in trainable(session.model).values()])


def test_accumulated_micro_batches_equal_one_big_batch(session, events):
    """Rows of one to four answer tokens in uneven windows, the last one short: same loss and gradient to 1e-6."""

    def trained(**cut):
        made = session(lora_dropout=0.0, max_steps=3, val_set_size=5, max_grad_norm=0.0, **cut)
        # Plain gradient descent: the change of the weights is the gradient.
        made.optimizer = torch.optim.SGD(trainable(made.model).values(), lr=1.0)
        return weights_after(made)

    small, big = trained(micro_batch_size=2, gradient_accumulation_steps=4), trained(micro_batch_size=8)
    torch.testing.assert_close(small, big, rtol=0, atol=1e-6)
    losses = [event.loss for event in events if isinstance(event, TrainingStep)]
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-6)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_bit(session, workers):
    """Dropout, order and batches are functions of the seed."""
    assert torch.equal(weights_after(session()), weights_after(session(dataloader_num_workers=workers)))


def test_another_seed_changes_the_weights_and_the_same_does_not(session):
    """The seed is used, and it is all that is used."""
    first = weights_after(session(seed=1))
    assert torch.equal(first, weights_after(session(seed=1)))
    assert not torch.equal(first, weights_after(session(seed=2)))


def test_evaluating_on_the_way_changes_no_bit(session):
    """Measuring draws no random number and leaves the mode as it was."""
    assert torch.equal(weights_after(session()), weights_after(session(eval_steps=1)))


def test_an_epoch_sees_every_row_once_and_the_next_in_another_order(session):
    """The order is a permutation per epoch."""
    from bedstone.train.loop import _windows

    made = session(num_epochs=2, max_steps=..., micro_batch_size=5, val_set_size=1)
    assert (made.steps_per_epoch, made.total) == (3, 6)
    windows = list(_windows(made))
    epochs = [[tuple(row.tolist()) for (batch,) in part for row in batch.labels] for part in (windows[:3], windows[3:])]
    trained = [sorted(tuple(t for t in row if t >= 0) for row in rows) for rows in epochs]
    assert len(trained[0]) == 15
    assert trained[0] == trained[1]
    assert epochs[0] != epochs[1]


def test_training_lowers_the_held_out_loss_of_what_it_has_seen(session):
    """Learning happens: on its own rows, the full model's loss falls by half."""
    made = session(
        adapter="", lora_r=..., lora_alpha=..., lora_dropout=..., max_steps=80, learning_rate=3e-3, val_set_size=0
    )
    made.heldout = made.train
    before = evaluate(made)
    weights_after(made)
    assert evaluate(made) < before / 2


def test_gradient_checkpointing_changes_no_bit(session):
    """The same numbers are computed twice."""
    assert torch.equal(weights_after(session()), weights_after(session(gradient_checkpointing=True)))


def test_a_diverging_run_stops_before_the_step(session):
    """Weights stay finite; the message names the rate."""
    made = session(learning_rate=1e30, max_grad_norm=0.0, max_steps=50, lr_scheduler="constant")
    with pytest.raises(TrainingDivergedError) as caught:
        weights_after(made)
    assert "Lower `learning_rate` (=1e+30)" in str(caught.value)
    assert caught.value.step == made.step + 1


def test_bfloat16_on_a_cpu_keeps_the_adapter_in_float32(session, on_the_cpu):
    """Products in bfloat16, frozen weights stored in it, trained ones exact."""
    made = session(bf16=True, device="auto", max_steps=1)
    assert made.autocast_dtype is torch.bfloat16
    assert {p.dtype for p in trainable(made.model).values()} == {torch.float32}
    assert made.model.get_base_model().lm_head.weight.dtype is torch.bfloat16
    weights_after(made)
