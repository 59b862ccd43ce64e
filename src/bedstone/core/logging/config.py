"""What is logged and how it looks: the levels, and `LogConfig` with its presets, which stand next to each other."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from bedstone.core.errors import InvalidConfigError, Problem, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TRACE = 5
"""The level below DEBUG, for what happens many times a step."""

LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}
"""Every accepted name of a level, with its number in `logging`; `warning` is Python's word for `warn`."""

LEVEL_VARIABLE = "BEDSTONE_LOG_LEVEL"
"""The environment variable that wins over the level of a configuration."""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """How log lines look and which are shown; cannot exist with a bad value.

    Args:
        level: The least severe level shown: `error`, `warn`, `info`, `debug` or `trace`.
        timestamps: Whether a text line starts with the time, ISO 8601 in UTC. A JSON line always has it.
        target: Whether a text line names its logger. A JSON line always does.
        location: Whether a line names the `file:line` that logged it.
        color: Whether the level is coloured on a terminal. `NO_COLOR` turns colour off, `FORCE_COLOR` turns it on for
            pipes too; JSON lines have none.
        json: Whether each line is one JSON object, with the fields of an event as its own and numbers as numbers.
        propagate: Whether records also go up to the handlers of the host application, as is usual. When the host prints
            its own lines, a record then shows twice; `False` keeps it to bedstone's handler.

    Raises:
        InvalidConfigError: A level that is not known, or a switch that is not a bool; all of them are listed.

    >>> LogConfig.testing().level
    'warn'
    >>> LogConfig(level="inof")
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: `level` (='inof') must be one of error, warn, info, debug, trace. Did you mean 'info'?
    """

    level: str = "info"
    timestamps: bool = True
    target: bool = True
    location: bool = False
    color: bool = True
    json: bool = False
    propagate: bool = True

    @classmethod
    def default(cls) -> LogConfig:
        """Return the preset for a program that people watch."""
        return cls()

    @classmethod
    def development(cls) -> LogConfig:
        """Return the preset for working on code: debug level, and where each line comes from."""
        return cls(level="debug", location=True)

    @classmethod
    def production(cls) -> LogConfig:
        """Return the preset for log collectors: one JSON object a line."""
        return cls(target=False, color=False, json=True)

    @classmethod
    def testing(cls) -> LogConfig:
        """Return the preset for test runs: warnings and errors, the same text each time."""
        return cls(level="warn", timestamps=False, target=False, color=False)

    def __post_init__(self) -> None:
        # By hand, since `ValidatableConfig` stands above logging.
        if found := tuple(self._problems()):
            raise InvalidConfigError(problems=found)

    def _problems(self) -> Iterator[Problem]:
        if self.level not in tuple(LEVELS):  # a tuple, so that an unhashable level is reported too
            yield Problem("level", _bad_level(self.level), self.level)
        for switch in fields(self)[1:]:
            value = getattr(self, switch.name)
            if not isinstance(value, bool):
                yield Problem(switch.name, f"(={value!r}) must be True or False.", value)


def level_in(environment: Mapping[str, str]) -> int | None:
    """Return the level that the environment asks for, `None` when it asks for none.

    Args:
        environment: Names and values, usually `os.environ`.

    Raises:
        InvalidConfigError: `BEDSTONE_LOG_LEVEL` is set to something that is no level; names both.

    >>> level_in({"BEDSTONE_LOG_LEVEL": "debug"})
    10
    """
    text = environment.get(LEVEL_VARIABLE, "").strip()
    if not text:
        return None
    if text.lower() not in LEVELS:
        message = f"The environment variable {LEVEL_VARIABLE} {_bad_level(text)}"
        raise InvalidConfigError(message, argument=LEVEL_VARIABLE, value=text)
    return LEVELS[text.lower()]


def _bad_level(level: object) -> str:
    guess = nearest(str(level), LEVELS)
    hint = f" Did you mean {guess!r}?" if guess else ""
    return f"(={level!r}) must be one of {', '.join(name for name in LEVELS if name != 'warning')}.{hint}"
