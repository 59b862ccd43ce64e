"""What bedstone says while it works, shown through the standard `logging` and never in the way of the host application.

Everything bedstone logs goes to the logger `bedstone` or one below it, so one switch shows or hides all of it.
`init_logging` gives that logger one handler and a level; the root logger, other loggers and other people's handlers are
left alone. Libraries should not call it; programs may, before or after they configure logging of their own, and again.

A preset is a classmethod of `LogConfig`; a new one goes beside the four:

    preset         level    timestamps  target  location  colour  form
    default()      info     yes         yes     no        yes     text
    development()  debug    yes         yes     yes       yes     text
    production()   info     yes         no      no        no      JSON lines
    testing()      warn     no          no      no        no      text

The variable `BEDSTONE_LOG_LEVEL` wins over the level of the configuration.
"""

from bedstone.core.logging.config import LEVEL_VARIABLE, LEVELS, TRACE, LogConfig
from bedstone.core.logging.formats import JsonFormatter, TextFormatter
from bedstone.core.logging.helpers import log_memory_usage, log_metric, log_training_step
from bedstone.core.logging.setup import init_logging

__all__ = [
    "LEVELS",
    "LEVEL_VARIABLE",
    "TRACE",
    "JsonFormatter",
    "LogConfig",
    "TextFormatter",
    "init_logging",
    "log_memory_usage",
    "log_metric",
    "log_training_step",
]
