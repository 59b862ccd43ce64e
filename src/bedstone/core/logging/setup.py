"""`init_logging`: one handler on the logger `bedstone`, changed in place when it is called again."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

from bedstone.core.logging.config import LEVELS, LogConfig, level_in
from bedstone.core.logging.formats import JsonFormatter, TextFormatter

if TYPE_CHECKING:
    from typing import TextIO

_logger = logging.getLogger("bedstone")
_lock = threading.Lock()


def init_logging(config: LogConfig | None = None, *, stream: TextIO | None = None) -> None:
    """Show bedstone's log lines; call it again to change how.

    Only the logger `bedstone` is touched: its level, its `propagate`, one handler of ours; and it is enabled again if the
    host application's `logging.config` had disabled it.

    Args:
        config: What to show and how; `LogConfig.default()` when left out.
        stream: Where to; when left out, whatever `sys.stderr` is at the moment of writing.

    Raises:
        InvalidConfigError: `BEDSTONE_LOG_LEVEL` is set to something that is no level. Nothing was changed then.

    >>> import io, logging
    >>> lines = io.StringIO()
    >>> init_logging(LogConfig.testing(), stream=lines)
    >>> logging.getLogger("bedstone.mine").warning("the well is %s", "dry")
    >>> lines.getvalue().splitlines()
    ['WARN  the well is dry']

    A handler is taken away like any other:

    >>> logging.getLogger("bedstone").handlers.pop().close()
    >>> logging.getLogger("bedstone").setLevel(logging.NOTSET)
    """
    config = config or LogConfig.default()
    level = level_in(os.environ) or LEVELS[config.level]
    with _lock:
        # One handler for good, changed in place: no record is lost or shown twice while another thread logs.
        handler = next((own for own in _logger.handlers if isinstance(own, _Handler)), None) or _Handler()
        handler.show(config, stream)
        _logger.addHandler(handler)
        _logger.disabled = False  # `logging.config` switches off every logger that it was not told of
        _logger.setLevel(level)
        _logger.propagate = config.propagate


class _Handler(logging.Handler):
    """Our one handler; looks the stream up when it writes, so that a replaced `sys.stderr` is followed."""

    def __init__(self) -> None:
        super().__init__()
        self.show(LogConfig(), None)

    def show(self, config: LogConfig, stream: TextIO | None) -> None:
        """Use this look and stream from the next record on."""
        plain = JsonFormatter(location=config.location) if config.json else TextFormatter(config)
        coloured = TextFormatter(config, coloured=True) if config.color and not config.json else plain
        self._view = (plain, coloured, stream)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line; like every standard handler, report a failure and go on."""
        plain, coloured, stream = self._view
        target = stream if stream is not None else sys.stderr
        try:
            formatter = coloured if _shows_colour(target) else plain
            target.write(formatter.format(record) + "\n")
            target.flush()
        except Exception:  # noqa: BLE001 - the contract of logging: no pipe, or a full one, stops no program
            with contextlib.suppress(ValueError):  # it writes to `sys.stderr`, which may be the closed file
                self.handleError(record)


def _shows_colour(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
