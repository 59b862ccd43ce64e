"""The HTML report of a run: one self-contained page that tells a person what happened, from the run folder alone."""

from bedstone.train.report.write import write_report

__all__ = ["write_report"]
