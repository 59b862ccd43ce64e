"""The main job: configuration -> data -> model -> loop -> a folder that says everything about the run."""

from bedstone.train.run import Run as Run
from bedstone.train.run import finetune as finetune
from bedstone.train.run import load_run as load_run

__all__ = ["Run", "finetune", "load_run"]
