"""Rewriting `torch.fx` graphs: a pattern, what takes its place, and the proof on inputs."""

from bedstone.kernels.graphs.errors import RewriteError as RewriteError
from bedstone.kernels.graphs.hints import FUSION_HINTS as FUSION_HINTS
from bedstone.kernels.graphs.hints import FusionHint as FusionHint
from bedstone.kernels.graphs.hints import rewrite_all as rewrite_all
from bedstone.kernels.graphs.rewrite import Rewrite as Rewrite
from bedstone.kernels.graphs.rewrite import rewrite as rewrite

__all__ = ["FUSION_HINTS", "FusionHint", "Rewrite", "RewriteError", "rewrite", "rewrite_all"]
