"""Rules between keys: what may not stand together, and what has no effect where it stands.

One table answers "has this key an effect here?" (`idle_keys`, `dataset_rules.idle_dataset_keys`). A key that was written
and has none is a problem, since its author expects something; one that merely has its default is shown as a comment in
the effective config. Each rule names the keys it reads, so that it is left out when one of them is itself wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bedstone.core.device import DeviceConfig
from bedstone.core.errors import InvalidConfigError, Problem
from bedstone.train.config.dataset_rules import dataset_problems
from bedstone.train.config.quantization import KEYS as QUANTIZATION_KEYS
from bedstone.train.config.quantization import quantization_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from bedstone.train.config.schema import TrainConfig

    Check = Callable[[TrainConfig], Iterator[Problem]]

_LORA_KEYS = (
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_target_linear",
    "lora_modules_to_save",
    "peft_use_dora",
    "peft_use_rslora",
)
_REMOVE = "Or remove this key."


@dataclass(frozen=True, slots=True)
class _Idle:
    """Keys that have no effect `when` something holds that the keys in `reads` say."""

    keys: tuple[str, ...]
    reads: tuple[str, ...]
    when: Callable[[TrainConfig], bool]
    reason: str
    remedy: str


_IDLE = (
    _Idle(
        _LORA_KEYS,
        ("adapter",),
        lambda config: config.adapter is None,
        "has no effect: `adapter` is not set, so the whole model is trained.",
        f"Write `adapter: lora`. {_REMOVE}",
    ),
    _Idle(
        ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant"),
        ("load_in_4bit",),
        lambda config: not config.load_in_4bit,
        "has no effect: `load_in_4bit` is not set.",
        f"Write `load_in_4bit: true`. {_REMOVE}",
    ),
    _Idle(
        ("num_epochs",),
        ("max_steps",),
        lambda config: config.max_steps is not None,
        "has no effect: `max_steps` says how long the run is.",
        "Keep one of the two; `--set num_epochs=` takes it away.",
    ),
    _Idle(
        ("eval_steps", "eval_batch_size"),
        ("test_datasets", "val_set_size"),
        lambda config: not config.test_datasets and not config.val_set_size,
        "has no effect: there is nothing to evaluate on.",
        f"Set `test_datasets` or `val_set_size`. {_REMOVE}",
    ),
    _Idle(
        ("cosine_min_lr_ratio",),
        ("lr_scheduler",),
        lambda config: config.lr_scheduler != "cosine",
        "has no effect: only `lr_scheduler: cosine` reads it.",
        f"Use that schedule. {_REMOVE}",
    ),
    _Idle(
        ("sample_max_new_tokens",),
        ("sample_prompts",),
        lambda config: not config.sample_prompts,
        "has no effect: `sample_prompts` is empty.",
        f"List questions there. {_REMOVE}",
    ),
)


def idle_keys(config: TrainConfig, wrong: Collection[str] = ()) -> dict[str, tuple[str, str]]:
    """Return the keys that have no effect in this config, each with the reason and what to do about it.

    Args:
        config: The config.
        wrong: Keys whose value says nothing, as in `rule_problems`.

    >>> from bedstone.train.config import DatasetConfig, TrainConfig
    >>> config = TrainConfig(base_model="models/tiny", datasets=[DatasetConfig(type="stdlib_docstrings")], max_steps=5)
    >>> idle_keys(config)["num_epochs"][0]
    'has no effect: `max_steps` says how long the run is.'
    """
    idle: dict[str, tuple[str, str]] = {}
    for group in _IDLE:
        if not set(group.reads) & set(wrong) and group.when(config):
            idle |= dict.fromkeys(group.keys, (group.reason, group.remedy))
    return idle


def rule_problems(config: TrainConfig, wrong: Collection[str] = ()) -> Iterator[Problem]:
    """Yield what is wrong between keys.

    Args:
        config: A config whose keys are sound one by one, except those in `wrong`, which hold their defaults.
        wrong: Top-level keys that are themselves wrong; rules that read them are left out.
    """
    for key, (reason, remedy) in idle_keys(config, wrong).items():
        value = getattr(config, key)
        if key in config.model_fields_set and value is not None:
            yield Problem(key, reason, value, remedy=remedy)
    for keys, check in _RULES:
        if not keys & set(wrong):
            yield from check(config)


def _two_target_keys(config: TrainConfig) -> Iterator[Problem]:
    if config.lora_target_modules and config.lora_target_linear:
        message = "stands beside `lora_target_modules`; both say which layers get an adapter."
        yield Problem("lora_target_linear", message, config.lora_target_linear, remedy="Keep one of the two.")


def _two_warmups(config: TrainConfig) -> Iterator[Problem]:
    if config.warmup_steps is not None and config.warmup_ratio is not None:
        message = "stands beside `warmup_steps`; both say how long the warm-up is."
        yield Problem("warmup_ratio", message, config.warmup_ratio, remedy="Keep one of the two.")


def _warmup_fills_the_run(config: TrainConfig) -> Iterator[Problem]:
    steps, total = config.warmup_steps, config.max_steps
    if steps is not None and total is not None and steps >= total:
        message = f"must be below `max_steps` (={total}), not {steps}: the learning rate would never reach its height."
        yield Problem("warmup_steps", message, steps, remedy="A tenth of `max_steps` is usual.")


def _two_evaluations(config: TrainConfig) -> Iterator[Problem]:
    if config.test_datasets and config.val_set_size:
        message = "stands beside `test_datasets`; both say what the loss is measured on."
        yield Problem("val_set_size", message, config.val_set_size, remedy="Keep one of the two.")


def _no_such_device(config: TrainConfig) -> Iterator[Problem]:
    try:
        DeviceConfig(config.device)  # the spelling only; whether it can be had is seen when the run starts
    except InvalidConfigError as error:
        yield from (replace(problem, path="device") for problem in error.problems)


def _bf16_on_cpu(config: TrainConfig) -> Iterator[Problem]:
    if config.bf16 is True and config.device == "cpu":
        message = "asks for bfloat16 on the CPU, where most processors compute it about ten times slower than float32."
        yield Problem("bf16", message, True, remedy="Write `bf16: auto`, which chooses for the device.")


_RULES: tuple[tuple[set[str], Check], ...] = (
    ({"lora_target_modules", "lora_target_linear"}, _two_target_keys),
    ({"warmup_steps", "warmup_ratio"}, _two_warmups),
    ({"warmup_steps", "max_steps"}, _warmup_fills_the_run),
    ({"test_datasets", "val_set_size"}, _two_evaluations),
    ({"device"}, _no_such_device),
    ({"bf16", "device"}, _bf16_on_cpu),
    ({"adapter", *QUANTIZATION_KEYS}, quantization_problems),
    ({"datasets"}, lambda config: dataset_problems("datasets", config.datasets)),
    ({"test_datasets"}, lambda config: dataset_problems("test_datasets", config.test_datasets)),
)
