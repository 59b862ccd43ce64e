"""What one peft tuner does on one base: the child process of `tuner_table.py`.

    python benchmarks/tuner_cells.py BASE '[["LoRA", "train"], ...]'    # the cells that are known already
    python benchmarks/tuner_cells.py --cost                             # what merging into packed weights costs

Before a cell it prints `{"begin": [tuner, aspect]}` and after it `{"cell": [...], "outcome": ..., ...}`, a line each, so that the parent
knows which cell a crash belongs to.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING, Any

import peft
import torch
import tuner_bases
from torch.nn import functional

from bedstone import adapters, quant
from bedstone.quant.model import relative_error

if TYPE_CHECKING:
    from collections.abc import Callable

LAYERS = ["fc1", "fc2"]
TUNERS: dict[str, Callable[[], Any]] = {
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
    "prefix tuning": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "prompt tuning": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
}
PROMPTS = ("prefix tuning", "prompt tuning")
ASPECTS = ("train", "save", "merge", "exact", "compile")
TOKENS = torch.arange(24).view(2, 12)


class Subject:
    """A tuner on a base: built, and trained when `train` ran."""

    def __init__(self, base: str, tuner: str) -> None:
        self.base, self.tuner, self.prompt = base, tuner, tuner in PROMPTS
        generator = torch.Generator().manual_seed(7)
        self.x, self.target = (torch.randn(32, tuner_bases.WIDTH, generator=generator) for _ in range(2))

    def fresh(self) -> Any:
        """Return the base, untouched."""
        return tuner_bases.llama(self.base) if self.prompt else tuner_bases.net(self.base)

    def output(self, model: Any) -> torch.Tensor:
        return model(input_ids=TOKENS).logits if self.prompt else model(self.x)

    def loss(self, model: Any) -> torch.Tensor:
        if self.prompt:
            return model(input_ids=TOKENS, labels=TOKENS).loss
        return functional.mse_loss(model(self.x), self.target)

    def train(self) -> dict[str, Any]:
        base = self.fresh()
        torch.manual_seed(1)
        self.model = peft.get_peft_model(base, TUNERS[self.tuner]())
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        optimizer = torch.optim.Adam(named.values(), lr=0.2 if self.prompt else 0.05)
        losses, idle = [], set(named)
        for _ in range(24):
            optimizer.zero_grad()
            loss = self.loss(self.model)
            loss.backward()
            idle -= {name for name, p in named.items() if p.grad is not None and bool(p.grad.any())}
            optimizer.step()
            losses.append(loss.item())
        self.model.eval()
        learned = losses[-1] < 0.99 * losses[0]
        outcome = "no gradient" if idle else "ok" if learned else "does not learn"
        return {"outcome": outcome, "loss": [round(losses[0], 3), round(losses[-1], 3)]}

    def save(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            self.model.save_pretrained(folder)
            loaded = peft.PeftModel.from_pretrained(self.fresh(), folder).eval()
        error = relative_error(self.output(loaded), self.output(self.model))
        return {"outcome": "ok" if error < 1e-5 else "differs", "error": error}

    def merge(self) -> dict[str, Any]:
        """By peft; the error is that of the merged change of the weights, relative to the change."""
        if self.prompt:
            return {"outcome": "no weights"}
        base, wanted = weights(self.fresh()), weights(self.model.get_base_model())
        merged = weights(copy.deepcopy(self.model).merge_and_unload())
        effect = torch.dist(wanted, base)
        error, moved = (torch.dist(merged, wanted) / effect).item(), (torch.dist(merged, base) / effect).item()
        outcome = "lost" if moved < 0.05 else "wrong" if error > 1.2 else "ok"
        return {"outcome": outcome, "error": error, "effect": (effect / base.norm()).item()}

    def exact(self) -> dict[str, Any]:
        """By `bedstone.adapters.merge`, against the output of the unmerged model; for our own bases."""
        if self.prompt or self.base not in tuner_bases.OURS:
            return {"outcome": "not ours"}
        error = relative_error(adapters.merge(copy.deepcopy(self.model))(self.x), self.model(self.x))
        return {"outcome": "ok" if error < 1e-6 else "differs", "error": error}

    def compile(self) -> dict[str, Any]:
        torch.compiler.reset()  # else torch stops after a number of models that share a forward
        compiled = torch.compile(self.model, backend="aot_eager", fullgraph=True)
        error = relative_error(self.output(compiled), self.output(self.model))
        return {"outcome": "ok" if error < 1e-5 else "differs", "error": error}


def weights(model: Any) -> torch.Tensor:
    """The matrices that the layers multiply with, whatever they are made of: seen by sending the unit matrix through."""
    eye = torch.eye(tuner_bases.WIDTH)
    with torch.no_grad():
        return torch.stack([layer(eye) - layer(torch.zeros_like(eye)) for layer in (model.fc1, model.fc2)])


def attempt(subject: Subject, aspect: str) -> dict[str, Any]:
    """Run one cell; a failure is its result."""
    try:
        return getattr(subject, aspect)()
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is what the cell says
        return {"outcome": type(error).__name__, "message": " ".join(str(error).split())[:300]}


def run(base: str, known: set[tuple[str, str]]) -> None:
    for tuner in TUNERS:
        if all((tuner, aspect) in known for aspect in ASPECTS):
            continue
        subject, trained = Subject(base, tuner), True
        for aspect in ASPECTS:
            is_known = (tuner, aspect) in known
            if is_known and aspect != "train":
                continue
            say(begin=[tuner, aspect])
            result = attempt(subject, aspect) if trained else {"outcome": "not reached"}
            trained = trained and hasattr(subject, "model") and (aspect != "train" or "message" not in result)
            if not is_known:
                say(cell=[tuner, aspect], **result)


def cost() -> None:
    """Merge LoRAs of several sizes into packed weights, which are normal with a deviation of 0.02, 256 x 256."""
    for name, scheme in tuner_bases.OURS.items():
        for size in (0.01, 0.03, 0.1, 0.3, 1.0):
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Linear(256, 256))
            torch.nn.init.normal_(model[0].weight, std=0.02)
            quant.quantize(model, scheme)
            base = model[0].weight.dequantize()
            adapted = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=["0"], init_lora_weights=False))
            up, down = (matrix["default"].weight.data for matrix in (model[0].lora_B, model[0].lora_A))
            up.mul_(size * base.norm() / (up @ down).norm())
            report = adapters.merge(adapted, exact=False)
            say(scheme=name, size=size, kept=report.kept, error=report.error)


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if sys.argv[1] == "--cost":
        cost()
    else:
        run(sys.argv[1], {(tuner, aspect) for tuner, aspect in json.loads(sys.argv[2])})
