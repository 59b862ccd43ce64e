"""One hash for all that decides the bits of the result; a checkpoint carries it and refuses to go on under another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bedstone.repro.fingerprint import fingerprint

if TYPE_CHECKING:
    from bedstone.train.config.schema import TrainConfig

NOT_HASHED: dict[str, str] = {
    "device": "the run's manifest records the device that was had; `auto`, `cuda` and `cuda:0` may be the same one",
    "dataloader_num_workers": "any number of workers gives the same batches",
    "test_datasets": "measuring the loss changes no weight",
    "eval_batch_size": "measuring the loss changes no weight",
    "eval_steps": "measuring the loss changes no weight",
    "logging_steps": "only what is shown",
    "sample_prompts": "answering questions changes no weight",
    "sample_max_new_tokens": "answering questions changes no weight",
    "save_steps": "when a checkpoint is written changes no weight",
    "save_total_limit": "how many checkpoints are kept changes no weight",
    "output_dir": "a run folder may be moved",
}
"""The keys that leave the weights of the result as they are, each with the reason."""


def config_hash(config: TrainConfig) -> str:
    """Return the SHA-256, in hexadecimal, of the keys that decide the bits of the trained weights.

    Values count, not spellings: `5e-4` in a file equals `0.0005`, and a default equals the same value written out. Paths
    count as they are written. What is not in the hash, and why: `NOT_HASHED`. `val_set_size` is in it, since the rows
    it holds out are not learned; the content of model and data is not, the data fingerprint stands beside this hash.

    >>> from bedstone.train.config import parse_config
    >>> base = {"base_model": "models/tiny", "datasets": [{"type": "stdlib_docstrings"}]}
    >>> config_hash(parse_config(base)) == config_hash(parse_config(base | {"output_dir": "elsewhere", "seed": 42}))
    True
    >>> config_hash(parse_config(base)) == config_hash(parse_config(base | {"seed": 43}))
    False
    """
    return fingerprint(hashed_values(config))


def hashed_values(config: TrainConfig) -> dict[str, Any]:
    """Return what `config_hash` is the hash of: the keys that decide the bits of the trained weights, as JSON values."""
    return config.model_dump(mode="json", exclude=set(NOT_HASHED))
