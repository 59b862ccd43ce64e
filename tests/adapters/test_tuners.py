"""Every peft tuner works on every scheme: it starts as the identity, trains, saves, merges without losing itself, and compiles.

The test of merging is built to catch the fault that this design exists for: a merge that writes to a temporary copy and leaves the
packed weight as it was, with no error. The adapters are trained until they change the weights far more than packing does, so that a
lost merge cannot pass as rounding.
"""

from __future__ import annotations

import copy
import functools
import warnings
from dataclasses import dataclass

import peft
import pytest
import torch
from torch.nn import functional

import bedstone as bs
from bedstone import adapters, quant
from bedstone.core.errors import UnsupportedError
from bedstone.quant.model import relative_error
from bedstone.testing import tiny_llama

LAYERS = ["fc1", "fc2"]
SCHEMES = {
    "nf4": quant.NF4(),
    "nf4-double": quant.NF4(double_quant=True),
    "fp4": quant.FP4(),
    "int8": quant.Int8(),
    "fp8": quant.FP8(),
    "ternary": quant.Ternary(),
}
# peft starts each of these as the identity by default; prompts and prefixes, further down, cannot be one.
TUNERS = {
    "LoRA": lambda: peft.LoraConfig(r=8, target_modules=LAYERS),
    "rsLoRA": lambda: peft.LoraConfig(r=8, target_modules=LAYERS, use_rslora=True),
    "DoRA": lambda: peft.LoraConfig(r=8, target_modules=LAYERS, use_dora=True),
    "AdaLoRA": lambda: peft.AdaLoraConfig(init_r=8, target_r=4, total_step=100, target_modules=LAYERS),
    "OFT": lambda: peft.OFTConfig(oft_block_size=16, target_modules=LAYERS),
    "BOFT": lambda: peft.BOFTConfig(boft_block_size=8, target_modules=LAYERS),
    "IA3": lambda: peft.IA3Config(target_modules=LAYERS, feedforward_modules=["fc2"]),
    "LoHa": lambda: peft.LoHaConfig(r=4, target_modules=LAYERS),
    "LoKr": lambda: peft.LoKrConfig(r=4, target_modules=LAYERS),
    "VeRA": lambda: peft.VeraConfig(r=64, target_modules=LAYERS),
    "MiSS": lambda: peft.MissConfig(r=4, target_modules=LAYERS),
}
PROMPTS = {
    "prefix": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "prompt": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
}
# How wrong a packed merge may be, as a share of the adapter's effect. A merge that is lost is wrong by all of it, 1.0.
TOLERATED = {scheme: 0.85 if scheme == "ternary" else 0.25 for scheme in SCHEMES}

pytestmark = [
    # peft looks for a CUDA extension whenever it makes a BOFT layer, and does with less.
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor to 1:UserWarning"),
    # peft 0.21 reads a name that transformers 5 has renamed.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
every_pair = pytest.mark.parametrize(("tuner", "scheme"), [(tuner, scheme) for tuner in TUNERS for scheme in SCHEMES])
every_prompt = pytest.mark.parametrize(
    ("tuner", "scheme"), [(tuner, scheme) for tuner in PROMPTS for scheme in SCHEMES]
)


class Net(torch.nn.Module):
    """Two square layers, so that VeRA can share its projections and every factorisation divides."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.relu(self.fc1(x)))


def packed_net(scheme: str) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
    bs.quantize(net, SCHEMES[scheme])
    return net


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(32, 64, generator=generator), torch.randn(32, 64, generator=generator)


def weights(net: torch.nn.Module) -> torch.Tensor:
    """The dense weights of both layers, adapted or not, end to end."""
    layers = [layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer for layer in (net.fc1, net.fc2)]
    found = [layer.weight.detach() for layer in layers]
    return torch.cat([(w.dequantize() if isinstance(w, quant.QuantizedTensor) else w).flatten() for w in found])


@dataclass(frozen=True)
class Trained:
    """A trained adapter and what was seen on the way; tests work on copies."""

    model: peft.PeftModel
    base_output: torch.Tensor
    first_output: torch.Tensor
    losses: list[float]
    untouched: set[str]
    output: torch.Tensor

    def merged_exactly(self) -> torch.nn.Module:
        return adapters.merge(copy.deepcopy(self.model))


@functools.cache
def trained(tuner: str, scheme: str) -> Trained:
    x, target = batch()
    net = packed_net(scheme)
    base_output = net(x).detach()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = peft.get_peft_model(adapters.prepare_for_adapters(net), TUNERS[tuner]())
    first_output = model(x).detach()
    losses, untouched = descend(model, lambda: functional.mse_loss(model(x), target), steps=24, rate=0.05)
    model.eval()
    return Trained(model, base_output, first_output, losses, untouched, model(x).detach())


def descend(model, loss_of, steps: int, rate: float) -> tuple[list[float], set[str]]:
    """Train a few steps; return the losses and the names of parameters that never had a gradient other than zero."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(parameters.values(), lr=rate)
    losses, untouched = [], set(parameters)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        losses.append(loss.item())
        untouched -= {name for name, p in parameters.items() if p.grad is not None and bool(p.grad.any())}
        optimizer.step()
    return losses, untouched


@every_pair
def test_a_fresh_adapter_changes_nothing(tuner, scheme):
    """Exactly nothing: the output is bit for bit that of the packed base."""
    run = trained(tuner, scheme)
    assert torch.equal(run.first_output, run.base_output)


@every_pair
def test_it_trains(tuner, scheme):
    """The loss falls, and each of its parameters has had a gradient."""
    run = trained(tuner, scheme)
    assert run.losses[-1] < 0.98 * run.losses[0]
    assert not run.untouched


@every_pair
def test_it_is_saved_and_loaded_on_a_fresh_base(tuner, scheme, tmp_path):
    """The same bits in, the same bits out."""
    run = trained(tuner, scheme)
    run.model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(packed_net(scheme), tmp_path).eval()
    assert torch.equal(loaded(batch()[0]), run.output)


@every_pair
def test_an_exact_merge_computes_what_the_adapter_did(tuner, scheme):
    """Up to the rounding of float32 in another order of operations."""
    run = trained(tuner, scheme)
    assert relative_error(run.merged_exactly()(batch()[0]), run.output) < 1e-6


@every_pair
def test_a_merge_by_peft_keeps_the_adapter(tuner, scheme):
    """It is the exact merge packed again, no more and no less; a merge that was lost would be the base."""
    run = trained(tuner, scheme)
    base, exact = weights(packed_net(scheme)), weights(run.merged_exactly())
    merged = weights(copy.deepcopy(run.model).merge_and_unload())
    packed = torch.cat([SCHEMES[scheme].quantize(part.view(64, 64)).dequantize().flatten() for part in exact.chunk(2)])
    effect = torch.dist(exact, base)
    assert torch.dist(packed, exact) < TOLERATED[scheme] * effect  # far enough for what follows to mean something
    assert torch.dist(merged, packed) < 0.02 * effect  # a sum in another order moves a few codes by one
    assert torch.dist(merged, exact) < TOLERATED[scheme] * effect
    assert torch.dist(merged, base) > 0.3 * effect


@every_pair
def test_a_merge_into_dense_weights_is_taken_back(tuner, scheme):
    """By peft's `unmerge_adapter`, on the layers that were unpacked."""
    run = trained(tuner, scheme)
    model = copy.deepcopy(run.model)
    quant.dequantize(model)
    model.merge_adapter()
    unmerge(model)
    assert relative_error(model(batch()[0]), run.output) < 1e-5


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_merge_into_int8_is_taken_back_up_to_rounding(tuner):
    """Peft's `unmerge_adapter` subtracts from weights that were rounded; only a fine grid forgives that."""
    run = trained(tuner, "int8")
    base, exact = weights(packed_net("int8")), weights(run.merged_exactly())
    model = copy.deepcopy(run.model)
    model.merge_adapter()
    unmerge(model)
    assert torch.dist(weights(model.get_base_model()), base) < 0.2 * torch.dist(exact, base)


def unmerge(model: peft.PeftModel) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Unmerge result can be inaccurate", UserWarning
        )  # IA3 divides by what it multiplied
        model.unmerge_adapter()


SLOW_TO_COMPILE = {"BOFT"}
compiled_pairs = [
    pytest.param(
        tuner,
        scheme,
        marks=[] if (scheme == "nf4" and tuner not in SLOW_TO_COMPILE) or tuner == "LoRA" else pytest.mark.slow,
    )
    for tuner in TUNERS
    for scheme in SCHEMES
]


@pytest.mark.parametrize(("tuner", "scheme"), compiled_pairs)
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracing of LoHa
def test_it_compiles_as_one_graph(tuner, scheme):
    """Forward and backward; outputs and gradients are those of eager."""
    torch.compiler.reset()
    run = trained(tuner, scheme)
    model, (x, target) = copy.deepcopy(run.model), batch()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert relative_error(compiled(x), run.output) < 1e-6
    assert same_gradients(model, lambda net: functional.mse_loss(net(x), target), compiled)


def same_gradients(model, loss_of, compiled) -> bool:
    found = []
    for forward in (model, compiled):
        model.zero_grad()
        loss_of(forward).backward()
        found.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    return all(relative_error(b, a) < 1e-5 for a, b in zip(*found, strict=True))


# --- prompts and prefixes: no weights, so nothing starts as the identity and nothing merges ----------------


TOKENS = torch.arange(24).view(2, 12)


def packed_llama(scheme: str) -> torch.nn.Module:
    llama = tiny_llama()
    bs.quantize(llama, SCHEMES[scheme])
    return llama


@functools.cache
def prompted(tuner: str, scheme: str):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = peft.get_peft_model(packed_llama(scheme), PROMPTS[tuner]())
    losses, untouched = descend(model, lambda: model(input_ids=TOKENS, labels=TOKENS).loss, steps=12, rate=0.2)
    return model.eval(), losses, untouched


@every_prompt
def test_a_prompt_trains(tuner, scheme):
    """The loss falls, and each of its parameters has had a gradient."""
    _, losses, untouched = prompted(tuner, scheme)
    assert losses[-1] < 0.99 * losses[0]
    assert not untouched


@every_prompt
def test_a_prompt_is_saved_and_loaded_on_a_fresh_base(tuner, scheme, tmp_path):
    """The same bits in, the same bits out."""
    model, _, _ = prompted(tuner, scheme)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(packed_llama(scheme), tmp_path).eval()
    assert torch.equal(loaded(input_ids=TOKENS).logits, model(input_ids=TOKENS).logits)


@pytest.mark.parametrize("tuner", PROMPTS)
def test_a_prompt_cannot_be_merged_and_says_so(tuner):
    """It adds to the input."""
    model, _, _ = prompted(tuner, "nf4")
    with pytest.raises(UnsupportedError) as caught:
        adapters.merge(model)
    assert str(caught.value) == (
        f"The adapter 'default' is a {tuner}_tuning adapter: it adds to the input, not to weights, so nothing can be merged. "
        "Keep the adapter beside the model."
    )


@pytest.mark.slow
@pytest.mark.parametrize("tuner", PROMPTS)
def test_a_prompt_compiles_as_one_graph(tuner):
    """Forward and backward; outputs and gradients are those of eager."""
    torch.compiler.reset()
    model, _, _ = prompted(tuner, "nf4")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert relative_error(compiled(input_ids=TOKENS).logits, model(input_ids=TOKENS).logits) < 1e-6
    assert same_gradients(model, lambda net: net(input_ids=TOKENS, labels=TOKENS).loss, compiled)
