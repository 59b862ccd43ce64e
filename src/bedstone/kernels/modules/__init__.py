"""Kernels in the modules of a model: found, compared, replaced for one instance, undone."""

from bedstone.kernels.modules.apply import Applied as Applied
from bedstone.kernels.modules.apply import apply as apply
from bedstone.kernels.modules.forward import restore as restore
from bedstone.kernels.modules.replacement import Replacement as Replacement
from bedstone.kernels.modules.replacement import replacements as replacements
from bedstone.kernels.modules.replacement import sample_rows as sample_rows
from bedstone.kernels.modules.report import ApplyReport as ApplyReport
from bedstone.kernels.modules.report import KernelsApplied as KernelsApplied
from bedstone.kernels.modules.report import ModuleReport as ModuleReport

__all__ = [
    "Applied",
    "ApplyReport",
    "KernelsApplied",
    "ModuleReport",
    "Replacement",
    "apply",
    "replacements",
    "restore",
    "sample_rows",
]
