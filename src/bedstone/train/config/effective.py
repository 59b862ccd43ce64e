"""The effective config: every value of a run written out as YAML, each with where it came from.

The text is a config itself: `load_config` reads it back to an equal config, also after a later version has changed a
default. Keys without effect would be refused then, so they are comments here, with the reason.
"""

from __future__ import annotations

from typing import Any

import yaml

from bedstone.train.config.dataset_rules import idle_dataset_keys
from bedstone.train.config.key_path import parents
from bedstone.train.config.rules import idle_keys
from bedstone.train.config.schema import DatasetConfig, TrainConfig, sections
from bedstone.train.config.yaml_lines import EXPONENT_NUMBER

_HEAD = "# The effective config: every value, and where it came from."


_LINE_BREAKS = set("\n\r\x85\u2028\u2029")  # what YAML takes for one


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what our reader takes for a number, and keeps every text on one line."""


def _one_line(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _LINE_BREAKS & set(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT_NUMBER, list("-+0123456789"))
_Dumper.add_representer(str, _one_line)


def dump_effective(config: TrainConfig) -> str:
    """Return all values of a config as YAML, with `# line 3`, `# --set`, `# argument` or `# default` behind each.

    Args:
        config: A config from `load_config` or `parse_config`; of one made otherwise all origins read `default`.

    Returns:
        The text, one key a line, data sets one key a line as well; `load_config` reads it to an equal config.

    >>> from bedstone.train.config import parse_config
    >>> config = parse_config({"base_model": "models/tiny", "datasets": [{"type": "stdlib_docstrings"}], "max_steps": 9})
    >>> text = dump_effective(config)
    >>> [line for line in text.splitlines() if "max_steps" in line or "seed" in line]
    ['# num_epochs: 1  # has no effect: `max_steps` says how long the run is.', 'max_steps: 9  # argument', 'seed: 42  # default']
    """
    idle = idle_keys(config)
    lines = [_HEAD]
    for title, keys in sections().items():
        lines += ["", f"# {title}"]
        for key in keys:
            lines += _key_lines(config, key, idle)
    return "\n".join(lines) + "\n"


def _key_lines(config: TrainConfig, key: str, idle: dict[str, tuple[str, str]]) -> list[str]:
    value = getattr(config, key)
    if key in idle:
        return [f"# {key}: {_flow(value)}  # {idle[key][0]}"]
    if value and isinstance(value[0] if isinstance(value, list) else value, DatasetConfig):
        entries = [_dataset_lines(config, f"{key}[{index}]", entry) for index, entry in enumerate(value)]
        return [f"{key}:", *(line for lines in entries for line in lines)]
    return [f"{key}: {_flow(value)}  # {_origin(config, key)}"]


def _dataset_lines(config: TrainConfig, place: str, dataset: DatasetConfig) -> list[str]:
    keys = [key for key in DatasetConfig.model_fields if key not in idle_dataset_keys(dataset)]
    texts = [
        f"{key}: {_flow(getattr(dataset, key))}  # {_origin(config, f'{place}.{key}', key, dataset)}" for key in keys
    ]
    return [f"  {'-' if index == 0 else ' '} {text}" for index, text in enumerate(texts)]


def _origin(config: TrainConfig, path: str, key: str = "", dataset: DatasetConfig | None = None) -> str:
    if dataset is not None and key not in dataset.model_fields_set:
        return "default"
    origins = config.origins
    return next((origins[place] for place in parents(path) if place in origins), "default")


def _flow(value: Any) -> str:
    # Inside a list a value takes its shortest one-line form; the brackets of that list are cut off again.
    text = yaml.dump(
        [value], Dumper=_Dumper, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    return text.strip()[1:-1]
