"""From a file, a dictionary or a config to a config that is sound in every key and between keys.

Nothing here opens a model or a data set: whatever is wrong with a config is said, all of it at once, before anything is
downloaded or loaded. The problems of one config are raised as one `InvalidConfigError`, each on its own line in the form
that editors and terminals jump to: `config.yaml:12: lora_rr: unknown key. Did you mean 'lora_r'?`
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bedstone.core.errors import InvalidConfigError, Problem
from bedstone.core.events import ConfigValidated, emit, listening
from bedstone.train.config.config_file import read_config_file
from bedstone.train.config.key_path import parents, split_path
from bedstone.train.config.overrides import Overrides, apply_overrides
from bedstone.train.config.problems import from_pydantic
from bedstone.train.config.rules import rule_problems
from bedstone.train.config.schema import DatasetConfig, TrainConfig

_SET = "--set"
_STAND_INS = {"base_model": "missing", "datasets": [{"type": "missing"}]}


@dataclass(frozen=True)
class _Draft:
    """Values that are not yet a config, and where each came from; `source` is a file or, for a dictionary, empty."""

    values: dict[str, Any]
    source: str = ""
    lines: dict[str, int] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def load_config(path: str | os.PathLike[str], overrides: Overrides = ()) -> TrainConfig:
    r"""Return the config in a YAML file.

    Args:
        path: The file; UTF-8, at most 1 MiB.
        overrides: Values laid over those of the file: `["lora_r=16", "datasets.0.split=train"]`, the later winning, or
            a mapping of key to value text. An empty value takes the key away, so that its default holds.

    Returns:
        The config; without `output_dir` it gets `runs/` and the name of the file.

    Raises:
        StorageError: The file is missing, a folder, or cannot be read.
        InvalidConfigError: The file is not text, not YAML or not a mapping, or any key is wrong, or keys do not go
            together; `problems` holds all of it, with lines.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = Path(folder.name) / "first.yaml"
    >>> _ = file.write_text("base_model: models/tiny\nlearning_rate: 5e-4\ndatasets: [{type: stdlib_docstrings}]\n")
    >>> config = load_config(file, ["max_steps=10"])
    >>> config.learning_rate, config.max_steps, config.output_dir
    (0.0005, 10, 'runs/first')
    >>> folder.cleanup()
    """
    document = read_config_file(path)
    source = os.fspath(path)
    if document.values is None:
        raise _invalid(_Draft({}, source), list(document.problems))
    values, changed, problems = apply_overrides(document.values, overrides)
    values.setdefault("output_dir", f"runs/{Path(path).stem}")
    lines = {key: line for key, line in document.lines.items() if not set(parents(key)) & set(changed)}
    return _finish(
        _Draft(
            values, source, lines, (*changed, *(problem.path for problem in problems)), (*document.problems, *problems)
        )
    )


def parse_config(values: Mapping[str, Any] | TrainConfig) -> TrainConfig:
    """Return the config that a dictionary describes, or a config itself, checked again.

    Args:
        values: Keys and values as in a file; paths may be `pathlib` paths, lists may be tuples.

    Returns:
        A new config, or the very config given.

    Raises:
        InvalidConfigError: As for `load_config`, without lines.

    >>> parse_config({"base_model": "models/tiny", "datasets": [{"type": "stdlib_docstrings"}], "lora_rr": 8})
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: lora_rr: unknown key. Did you mean 'lora_r'?
    """
    if isinstance(values, TrainConfig):
        # Checked again, since a copy with changed values (`model_copy(update=...)`) has been checked by nobody.
        _sound(_Draft(values.model_dump(exclude_unset=True, warnings="none")))
        return values
    if not isinstance(values, Mapping):
        what = f"A config is a mapping or a TrainConfig, not {type(values).__name__}."
        raise InvalidConfigError(what, argument="values", value=values, remedy="Use `load_config` for a file.")
    return _finish(_Draft(_plain(values)))


def _finish(draft: _Draft) -> TrainConfig:
    config = _sound(draft)
    given = {} if draft.source else dict.fromkeys(draft.values, "argument")
    lines = {key: f"line {line}" for key, line in draft.lines.items()}
    config._origins.update(given | lines | dict.fromkeys(draft.changed, _SET))  # noqa: SLF001 - its maker fills it
    if listening(ConfigValidated.level):
        emit(ConfigValidated(config=TrainConfig.__name__, source=draft.source or "argument"))
    return config


def _sound(draft: _Draft) -> TrainConfig:
    """Return the config of a draft without a problem; raise all problems of one that has some."""
    config, found = _checked(draft.values)
    # A value that YAML could not read is empty; that it is empty need not be said as well.
    told = {problem.path for problem in draft.problems}
    found = [*draft.problems, *(problem for problem in found if not told & set(parents(problem.path)))]
    if found or config is None:
        raise _invalid(draft, found)
    return config


def _checked(values: dict[str, Any]) -> tuple[TrainConfig | None, list[Problem]]:
    try:
        config = TrainConfig.model_validate(values)
    except ValidationError as error:
        found = from_pydantic(error)
    else:
        return config, list(rule_problems(config))
    # The rules between keys still run on the keys that are sound, so that one run shows all there is.
    wrong = {str(split_path(problem.path)[0]) for problem in found}
    sound = {key: value for key, value in values.items() if key not in wrong}
    return None, [*found, *rule_problems(TrainConfig.model_validate(_STAND_INS | sound), wrong)]


def _invalid(draft: _Draft, problems: list[Problem]) -> InvalidConfigError:
    placed = [_placed(problem, draft) for problem in problems]
    placed.sort(key=lambda problem: (problem.line is None, problem.line or 0))
    texts = [_text(problem, draft) for problem in placed]
    if len(texts) > 1:
        texts.insert(0, f"{len(placed)} problems:")
    return InvalidConfigError("\n  ".join(texts), problems=placed, source=draft.source)


def _placed(problem: Problem, draft: _Draft) -> Problem:
    """Return the problem with the line of its key, or of the innermost thing around it that has one."""
    if problem.line is not None or _is_set(problem, draft):
        return problem
    line = next((draft.lines[path] for path in parents(problem.path) if path in draft.lines), None)
    return replace(problem, line=line)


def _text(problem: Problem, draft: _Draft) -> str:
    place = draft.source if problem.line is None else f"{draft.source}:{problem.line}"
    place = _SET if problem.line is None and _is_set(problem, draft) else place
    parts = [part for part in (place, problem.path) if part]
    return ": ".join([*parts, f"{problem.message} {problem.remedy}".strip()])


def _is_set(problem: Problem, draft: _Draft) -> bool:
    return bool(set(parents(problem.path)) & set(draft.changed))


def _plain(value: Any) -> Any:
    """Return the value as a file would give it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, DatasetConfig):
        return value.model_dump(exclude_unset=True)
    return os.fspath(value) if isinstance(value, os.PathLike) else value
