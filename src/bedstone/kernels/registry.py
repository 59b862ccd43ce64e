"""Which implementation of an operation runs, and why not another one.

An operation has implementations, best first, the last of them plain torch (`reference`), which runs everywhere. Each says of a
`KernelSpec` in one sentence why it cannot take it, or nothing (`implementation.py`). Of those that can the policy (`policies.py`) takes one:
the pinned one (`pins.py`), else the fastest where somebody measured (`measured.py`), else the first. The choice is kept for the
specification. Implementations of other packages come before ours: an entry point in `bedstone.kernels` names a `KernelExtension`.
"""

from __future__ import annotations

import functools
import statistics
from typing import TYPE_CHECKING, Any, Literal

import torch

from bedstone.core.errors import CoreError, KernelError, UnknownNameError
from bedstone.kernels.choice import KernelChoice
from bedstone.kernels.implementation import KernelImpl, KernelSpec, extensions
from bedstone.kernels.measured import measured, remember
from bedstone.kernels.pins import as_record, pin_of
from bedstone.kernels.policies import (
    against_policy,
    changed,
    current_policy,
    is_strict,
    measures_first,
    required_implementation,
)
from bedstone.kernels.timing import by_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Sample = Callable[[KernelSpec, Callable[..., torch.Tensor]], tuple[Any, ...]]
    """Makes arguments for a specification; the second argument gives normal values of a shape."""

_KEPT_CHOICES = 4096  # specifications of one operation whose choice is kept

Agreement = Literal["bits", "product", "values"]
"""How implementations of an operation agree: to the `bits`; as the `product` of an input with a packed weight; in `values` and, where it
can be differentiated, in gradients."""


class KernelOp:
    """An operation with its implementations, best first; calling it runs the one chosen for the arguments.

    Args:
        name: Of the operation.
        describe: Of the operation's arguments, their specification.
        implementations: Best first; the last one takes everything.
        samples: By name, functions that make arguments, for the conformance kit and for measurements; one for each kind of argument that
            every implementation must take.
        agreement: How its implementations agree.
    """

    def __init__(
        self,
        name: str,
        describe: Callable[..., KernelSpec],
        *implementations: KernelImpl,
        samples: Mapping[str, Sample] | None = None,
        agreement: Agreement = "values",
    ) -> None:
        self.name = name
        self.describe = describe
        self.samples = samples or {}
        self.agreement: Agreement = agreement
        self._own = implementations
        self._chosen: dict[KernelSpec, KernelImpl] = {}
        operations[name] = self

    @property
    def implementations(self) -> tuple[KernelImpl, ...]:
        """All of them, those of other packages first."""
        added = (extensions.get(name) for name in extensions.names())
        return (*(each.implementation for each in added if each.op == self.name), *self._own)

    @property
    def reference(self) -> KernelImpl:
        """The one in plain torch."""
        return self._own[-1]

    def __call__(self, *args: Any) -> Any:
        """Run the chosen implementation.

        Raises:
            KernelError: It failed; nothing else was tried.
        """
        spec = self.describe(*args)
        return self.run(self._chosen.get(spec) or self._choose(spec, args), *args)

    def bind(self, spec: KernelSpec) -> Callable[..., Any]:
        """Return what calling the operation with arguments of one specification does, the choice made now instead of at each call.

        A module that knows what it will be called with binds when it is built and saves the question at each call. A later change of the
        policy does not reach it.

        Args:
            spec: Of all arguments that it will be called with; nobody looks again.

        Raises:
            KernelError: The policy requires an implementation that cannot.

        >>> from bedstone.kernels.ask import operation
        >>> quantize = operation("nf4_quantize")
        >>> weight = torch.ones(2, 64)
        >>> quantize.bind(quantize.describe(weight, 64, "nf4"))(weight, 64, "nf4")[1]
        tensor([1., 1.])
        """
        return functools.partial(self.run, self._chosen.get(spec) or self._choose(spec, None))

    def run(self, chosen: KernelImpl, *args: Any) -> Any:
        """Run an implementation that somebody chose.

        Raises:
            KernelError: It failed; nothing else was tried.
        """
        try:
            return chosen.call(*args)
        except (CoreError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if chosen is self.reference:
                raise
            raise self._failure(chosen, args, error) from error

    def workspace(self, *args: Any) -> int:
        """Return what the chosen implementation needs."""
        spec = self.describe(*args)
        return (self._chosen.get(spec) or self._choose(spec, None)).workspace(*args)

    def choice(self, spec: KernelSpec) -> KernelChoice:
        """Return what is chosen for a specification, with the reasons.

        Args:
            spec: Any; nothing runs.

        Raises:
            KernelError: The policy requires an implementation that cannot.
        """
        return self._decided(spec)[0]

    def why_not(self, name: str, spec: KernelSpec) -> str:
        """Return why an implementation cannot be taken under the policy that holds, or nothing.

        Args:
            name: Of the implementation.
            spec: What it would be called with.
        """
        for each in self.implementations:
            if each.name == name:
                return against_policy(name, each.numerics, required=self._required()) or each.cannot(spec)
        return "there is none of that name"

    def forget(self) -> None:
        """Choose anew from now on."""
        self._chosen.clear()

    def chosen(self) -> list[dict[str, Any]]:
        """Return what was chosen so far, once a shape class, as plain values for JSON."""
        classes = {spec.shape_class(): each.name for spec, each in self._chosen.items()}
        return [{"op": self.name, "implementation": name, **as_record(spec)} for spec, name in classes.items()]

    def _choose(self, spec: KernelSpec, args: tuple[Any, ...] | None) -> KernelImpl:
        if args is not None and measures_first() and not measured(self.name, spec):
            self._measure(spec, args)
        chosen = self._decided(spec)[1]
        if len(self._chosen) >= _KEPT_CHOICES:
            self._chosen.clear()
        self._chosen[spec] = chosen
        return chosen

    def _measure(self, spec: KernelSpec, args: tuple[Any, ...]) -> None:
        """Keep how long each implementation that may be taken needs for arguments."""
        may = [each for each in self.implementations if not self.why_not(each.name, spec)]
        if len(may) > 1:
            calls = {each.name: lambda call=each.call: call(*args) for each in may}
            times = by_turns(calls, spec.device, rounds=5, seconds=0.5)
            remember(self.name, spec, {name: statistics.median(found) for name, found in times.items()})

    def _decided(self, spec: KernelSpec) -> tuple[KernelChoice, KernelImpl]:
        required = pin_of(self.name, spec) or self._required()
        times = {} if required else measured(self.name, spec)
        ranked = sorted(self.implementations, key=lambda each: times.get(each.name, float("inf")))
        rejected: dict[str, str] = {}
        for each in ranked:
            reason = against_policy(each.name, each.numerics, required=required) or each.cannot(spec)
            if not reason:
                return self._taken(each, spec, rejected, times), each
            rejected[each.name] = reason
        why = rejected.get(required, "there is none of that name")
        raise self._refused(f"{self.name} cannot take the required implementation {required!r}: {why}.", required, spec)

    def _taken(
        self, taken: KernelImpl, spec: KernelSpec, rejected: dict[str, str], times: Mapping[str, float]
    ) -> KernelChoice:
        able = [each for each in self.implementations if each.name in rejected and not each.refuses(spec)]
        wanted = next((each.name for each in able if each.lacks()), "")
        if taken is self.reference and is_strict(current_policy()):
            self._refuse_substitute(spec, rejected)
        for each in self.implementations:  # those that would come first, had nobody measured
            if each.name == taken.name:
                break
            if each.name in times and each.name not in rejected:
                rejected[each.name] = (
                    f"it took {times[each.name] * 1e3:.3g} ms here, {taken.name} {times[taken.name] * 1e3:.3g} ms"
                )
        return KernelChoice(self.name, spec, taken.name, taken.numerics, tuple(rejected.items()), wanted)

    def _refuse_substitute(self, spec: KernelSpec, rejected: Mapping[str, str]) -> None:
        """Raise if plain torch stands in for what runs on this device and cannot."""
        for each in self.implementations[:-1]:
            reason = rejected.get(each.name, "")
            serves = not each.devices or spec.device in each.devices
            if serves and reason and reason == each.cannot(spec):
                message = f"{self.name} on {spec} would run in plain torch, since {each.name} cannot: {reason}."
                raise self._refused(message, each.name, spec)

    def _refused(self, message: str, implementation: str, spec: KernelSpec) -> KernelError:
        shapes = [(spec.inputs, spec.columns), (spec.rows, spec.columns)]
        remedy = f"The policy is `{current_policy()}`; with `auto` another one is taken. `kernels.explain` tells more."
        return KernelError(message, op=self.name, implementation=implementation, shapes=shapes, remedy=remedy)

    def _required(self) -> str:
        """The implementation that must be taken; an operation that has none of that name is free, unless nobody has."""
        required = required_implementation()
        if not required or any(each.name == required for each in self.implementations):
            return required
        known = {each.name for op in operations.values() for each in op.implementations}
        if required not in known:
            raise UnknownNameError("implementation", required, known, remedy="Change the policy.")
        return ""

    def _failure(self, chosen: KernelImpl, args: tuple[Any, ...], error: Exception) -> KernelError:
        shapes = [tuple(value.shape) for value in args if isinstance(value, torch.Tensor)]
        message = f"{self.name} failed in its implementation {chosen.name!r}: {type(error).__name__}: {error}"
        remedy = 'Plain torch computes it too: `kernels.policy("reference")`, or BEDSTONE_KERNELS=reference.'
        return KernelError(message, op=self.name, implementation=chosen.name, shapes=shapes, remedy=remedy)


operations: dict[str, KernelOp] = {}
"""Every operation by name."""


def forget_choices() -> None:
    """Choose anew from now on, in every operation."""
    for each in operations.values():
        each.forget()


def chosen_kernels() -> list[dict[str, Any]]:
    """Return what every operation chose so far, once a shape class; `pinned` takes it again.

    Returns:
        Plain values for JSON: `op`, `implementation`, and the fields of `KernelSpec`.
    """
    return [record for op in operations.values() for record in op.chosen()]


changed.append(forget_choices)
