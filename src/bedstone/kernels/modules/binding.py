"""An operation with the policy that held when it was bound: what is decided once is not asked at every call."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels.policies import current_policy, policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from bedstone.kernels.implementation import KernelImpl, KernelSpec
    from bedstone.kernels.registry import KernelOp

_KEPT_CHOICES = 4096


class BoundOp:
    """An operation that chooses by a policy of its own, once a specification.

    Args:
        op: The operation.
        name: Of the policy.

    Attributes:
        taken: What was chosen so far.
    """

    def __init__(self, op: KernelOp, name: str) -> None:
        self._op = op
        self._policy = name
        self.taken: dict[KernelSpec, KernelImpl] = {}

    def __call__(self, *args: Any) -> Any:
        """Run what is chosen.

        Raises:
            KernelError: It failed, or the policy requires what cannot run.
        """
        if torch.compiler.is_compiling():
            return self._op(*args)  # plain torch, which the compiler fuses
        spec = self._op.describe(*args)
        return self._op.run(self.taken.get(spec) or self._choose(spec), *args)

    def bound(self) -> Callable[..., Any]:
        """Return what to call: plain torch itself if that is what runs for few rows and many, of every kind that was called so far."""
        sizes = (spec._replace(inputs=rows) for spec in tuple(self.taken) for rows in (1, 16, 256, 4096))
        chosen = {self._choose(spec) for spec in sizes}
        return self._op.reference.call if chosen == {self._op.reference} else self

    def _choose(self, spec: KernelSpec) -> KernelImpl:
        # Another policy has every operation choose anew, so it is set only where it is another one.
        with nullcontext() if current_policy() == self._policy else policy(self._policy):
            name = self._op.choice(spec).name
        if len(self.taken) >= _KEPT_CHOICES:
            self.taken.clear()
        self.taken[spec] = next(each for each in self._op.implementations if each.name == name)
        return self.taken[spec]
