"""From a configuration to a loaded session, in the order that finds mistakes before they cost time."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.device import DeviceConfig, get_device
from bedstone.core.errors import InvalidConfigError
from bedstone.core.events import emit
from bedstone.repro import CheckpointStore, SeedTree, sha256_file
from bedstone.train.adapter import prepare_adapter, trainable
from bedstone.train.config import base_quantization
from bedstone.train.data import load_split, split_validation
from bedstone.train.errors import ModelLoadError
from bedstone.train.events import DataPrepared
from bedstone.train.models import load_model, load_tokenizer, locate, longest_input
from bedstone.train.schedule import Schedule
from bedstone.train.session import Session

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bedstone.train.config import TrainConfig
    from bedstone.train.data import DataSplit
    from bedstone.train.folder import RunFolder
    from bedstone.train.models import ModelSource

_FUSED = {"cpu", "cuda", "mps", "xpu"}  # devices for which torch has the fused AdamW


def prepare(config: TrainConfig, folder: RunFolder) -> tuple[Session, ModelSource]:
    """Choose the device, read the data, load and adapt the model.

    Raises:
        CoreError: Whatever is wrong with device, data or model, named; nothing was written.
    """
    seeds = SeedTree(config.seed)
    device = choose_device(config)
    source = locate(config.base_model)
    tokenizer = load_tokenizer(source, trust_remote_code=config.trust_remote_code)
    train, heldout = _load_data(config, tokenizer, seeds)
    weights_dtype, autocast_dtype = precision(config, device)
    base = load_model(
        source,
        dtype=weights_dtype,
        device=device,
        attn_implementation=config.attn_implementation,
        trust_remote_code=config.trust_remote_code,
        quantization=base_quantization(config),
    )
    for split in (train, heldout):
        if split is not None:
            _check_fits(base, split, config)
    if config.gradient_checkpointing:
        base.activation_checkpointing_enable({"use_reentrant": False})
    model = prepare_adapter(base, config, seeds.seed("adapter"))
    per_epoch = _steps_per_epoch(config, len(train.examples))
    session = Session(
        name=folder.path.name,
        config=config,
        device=device,
        autocast_dtype=autocast_dtype,
        model=model,
        tokenizer=tokenizer,
        train=train,
        heldout=heldout,
        optimizer=_optimizer(model, config),
        schedule=Schedule.of(config, config.max_steps or math.ceil(config.num_epochs * per_epoch)),
        steps_per_epoch=per_epoch,
        seeds=seeds,
        store=CheckpointStore(folder.checkpoints, keep=config.save_total_limit),
    )
    return session, source


def choose_device(config: TrainConfig) -> torch.device:
    """Return the device of a configuration; `auto` leaves the choice to the environment variables, then to the probe.

    Raises:
        DeviceNotAvailableError: The device was named and cannot be had.
    """
    return get_device() if config.device == "auto" else get_device(DeviceConfig(device=config.device))


def precision(config: TrainConfig, device: torch.device) -> tuple[torch.dtype, torch.dtype | None]:
    """Return the dtype of the loaded weights, and that of the matrix products where it differs.

    bfloat16 is used where `bf16` says so, or is `auto` and an accelerator has it. Frozen weights are then stored in it;
    trained ones (the adapter's, or all of them) stay float32.
    """
    wanted = _has_bfloat16(device) if config.bf16 == "auto" else config.bf16
    if not wanted:
        return torch.float32, None
    return torch.bfloat16 if config.adapter else torch.float32, torch.bfloat16


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "xpu"


def describe_model(source: ModelSource) -> dict[str, Any]:
    """Return what identifies a base model in a manifest: where, the hash of its config, the sizes of its weights."""
    if not source.local:
        return {"asked": source.asked, "hub_id": source.location}
    folder = Path(source.location)
    weights = sorted(folder.glob("*.safetensors"))
    return {
        "asked": source.asked,
        "config_sha256": sha256_file(folder / "config.json"),
        "weights_bytes": {file.name: file.stat().st_size for file in weights},
    }


def describe_data(session: Session) -> dict[str, Any]:
    """Return fingerprint and counts of each split."""
    splits = {"train": session.train, "heldout": session.heldout}
    return {
        name: {"fingerprint": split.fingerprint, **asdict(split.report)}
        for name, split in splits.items()
        if split is not None
    }


def _load_data(
    config: TrainConfig, tokenizer: PreTrainedTokenizerBase, seeds: SeedTree
) -> tuple[DataSplit, DataSplit | None]:
    options: dict[str, Any] = {
        "sequence_len": config.sequence_len,
        "excess_length_strategy": config.excess_length_strategy,
        "train_on_inputs": config.train_on_inputs,
    }
    train, heldout = load_split(config.datasets, tokenizer, **options), None
    if config.test_datasets:
        heldout = load_split(config.test_datasets, tokenizer, **options)
    elif config.val_set_size:
        train, heldout = split_validation(train, config.val_set_size, seeds)
    for name, split in {"train": train, "held-out": heldout}.items():
        if split is not None:
            emit(DataPrepared(split=name, **asdict(split.report)))
    return train, heldout


def _check_fits(model: PreTrainedModel, split: DataSplit, config: TrainConfig) -> None:
    """Refuse tokens and lengths that the model cannot read: it would fail in the middle of a run, without a name."""
    embedding: Any = model.get_input_embeddings()
    known, largest = embedding.weight.shape[0], max(max(example.input_ids) for example in split.examples)
    if largest >= known:
        message = (
            f"The tokenizer of {config.base_model} writes token {largest}, and its model knows only {known} tokens."
        )
        raise ModelLoadError(
            message, base_model=config.base_model, remedy="Put the tokenizer that the model was trained with beside it."
        )
    limit = longest_input(model)
    longest = max(split.examples, key=lambda example: len(example.input_ids))
    if limit is not None and len(longest.input_ids) > limit:
        raise InvalidConfigError(
            f"{longest.source} has {len(longest.input_ids)} tokens, and the model reads at most {limit}.",
            argument="sequence_len",
            value=config.sequence_len,
            remedy=f"Set `sequence_len` (={config.sequence_len}) to at most {limit}.",
        )


def _steps_per_epoch(config: TrainConfig, rows: int) -> int:
    batches = math.ceil(rows / config.micro_batch_size)
    return math.ceil(batches / config.gradient_accumulation_steps)


def _optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019); vectors do not decay."""
    parameters = list(trainable(model).values())
    if not parameters:
        message = "Nothing would be trained: no parameter requires a gradient."
        raise InvalidConfigError(message, remedy="Set `adapter: lora`, or leave `adapter` empty to train everything.")
    matrices = [p for p in parameters if p.ndim >= 2]  # noqa: PLR2004 - norms and biases have one dimension
    vectors = [p for p in parameters if p.ndim < 2]  # noqa: PLR2004
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        # One pass over memory for all tensors instead of one an operation: four times as fast on a CPU.
        fused=parameters[0].device.type in _FUSED or None,
    )
