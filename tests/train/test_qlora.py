"""A packed base model trains, answers, resumes and is refused as a dense one is; only its bytes and its codes differ."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import bedstone as bs
import bedstone.kernels
from bedstone.core.errors import UnknownNameError
from bedstone.core.events import TrainingStep, sink
from bedstone.kernels import KernelExtension, extensions, native
from bedstone.quant import FP8, NF4, BedstoneConfig, Int8, NonFiniteWeightError, QuantizedTensor, Ternary
from bedstone.train.errors import InterruptedRunError, ModelLoadError

PROMPT = "Say amber."
KEYS = {
    "nf4": ({"load_in_4bit": True}, NF4()),
    "double": ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, NF4(double_quant=True)),
    "int8": ({"load_in_8bit": True}, Int8()),
    "fp8": ({"quantization": {"scheme": "fp8"}}, FP8()),
    "ternary": ({"quantization": {"scheme": "ternary", "granularity": "row"}}, Ternary(granularity="row")),
}


def layers(run):
    """The base model's linear layers as `run.generate` loads them."""
    model = run._loaded[0].get_base_model()
    return {name: m for name, m in model.named_modules() if name.endswith(("up_proj", "q_proj.base_layer", "lm_head"))}


@pytest.mark.parametrize("kind", KEYS)
def test_a_packed_base_model_trains_and_answers(config, kind):
    """The loss falls, the event tells the bytes, and `generate` packs the base again to the same answer."""
    keys, scheme = KEYS[kind]
    values = config(adapter="qlora", max_steps=12, sample_prompts=[PROMPT], sample_max_new_tokens=4, **keys)
    run = bs.finetune(values)
    assert run.summary.loss_after < run.summary.loss_before
    told = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    (packed,) = [event for event in told if event["event"] == "model_quantized"]
    assert packed["options"] == scheme.to_dict()
    assert packed["packed_bytes"] < packed["dense_bytes"] / 3
    assert packed["left_dense"] == {"lm_head": "its weight is shared with an embedding"}
    assert run.generate(PROMPT, max_new_tokens=4) == run.summary.answers[0].after
    weights = {name: layer.weight for name, layer in layers(run).items()}
    assert all(isinstance(w, QuantizedTensor) and w.scheme == scheme for n, w in weights.items() if n != "lm_head")
    assert not isinstance(weights["lm_head"], QuantizedTensor)
    assert "Base model packed" in run.report.read_text()


def test_the_key_kernels_decides_what_the_run_computes_in_and_the_manifest_keeps_it(config, tmp_path):
    """Plain torch and the compiled library come to the same loss up to rounding; what must be taken and cannot is an error."""
    plain = bs.finetune(config(load_in_4bit=True, kernels="reference", output_dir=str(tmp_path / "plain")))
    compiled = bs.finetune(config(load_in_4bit=True, kernels="require:native", output_dir=str(tmp_path / "compiled")))
    assert compiled.summary.loss_after == pytest.approx(plain.summary.loss_after, rel=1e-3)
    kept = [
        json.loads((run.folder / "manifest.json").read_text())["conditions"]["kernels"] for run in (plain, compiled)
    ]
    assert kept == [f"reference, {native.status().isa}", f"require:native, {native.status().isa}"]
    with pytest.raises(UnknownNameError, match="No implementation is called 'fpga'"):
        bs.finetune(config(load_in_4bit=True, kernels="require:fpga", output_dir=str(tmp_path / "none")))


def test_a_base_model_that_is_packed_already_trains_and_is_not_packed_again(config, tiny_folder, tmp_path):
    """Its files say how; a second scheme is refused, and LoRA on it needs no key."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_folder, quantization_config=BedstoneConfig("nf4"))
    model.save_pretrained(tmp_path / "packed")
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path / "packed")
    base = str(tmp_path / "packed")
    with pytest.raises(ModelLoadError) as caught:
        bs.finetune(config(base_model=base, load_in_8bit=True))
    assert str(caught.value) == (
        f"{base} is packed already (by bedstone), and the configuration asks to pack it as int8. "
        "Remove `load_in_4bit`, `load_in_8bit` or `quantization`, or start from the dense model."
    )
    run = bs.finetune(config(base_model=base))
    same = bs.finetune(config(load_in_4bit=True, output_dir=str(tmp_path / "same")))
    assert run.summary.weights_sha256 == same.summary.weights_sha256


def test_what_is_trained_whole_stays_dense(config):
    """A packed weight takes no gradient."""
    run = bs.finetune(config(load_in_4bit=True, lora_modules_to_save=["o_proj"], lora_target_modules=["q_proj"]))
    trained = load_file(run.weights / "adapter_model.safetensors")
    assert any(name.endswith("o_proj.weight") for name in trained)
    with_copies = dict(run._loaded[0].named_parameters())
    assert not any(isinstance(p, QuantizedTensor) for name, p in with_copies.items() if "o_proj" in name)


def test_gradient_checkpointing_gives_the_same_bits(config, tmp_path):
    """Packed weights are unpacked again in the backward pass as they were in the forward pass."""
    kept = bs.finetune(config(load_in_4bit=True))
    again = bs.finetune(config(load_in_4bit=True, gradient_checkpointing=True, output_dir=str(tmp_path / "again")))
    assert kept.summary.weights_sha256 == again.summary.weights_sha256


def test_an_interrupted_run_resumes_to_the_same_bits(config, tmp_path):
    """The base is packed from the same files to the same codes."""
    whole = bs.finetune(config(load_in_4bit=True, output_dir=str(tmp_path / "whole")))
    values = config(load_in_4bit=True)

    def stop(event):
        if isinstance(event, TrainingStep) and event.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with sink(stop), pytest.raises(InterruptedRunError):
        bs.finetune(values)
    assert bs.finetune(values, resume="auto").summary.weights_sha256 == whole.summary.weights_sha256


def test_a_base_model_with_a_weight_that_is_not_finite_is_refused_by_name(config, tiny_folder, tmp_path):
    """It would spoil the scale of its whole block; nothing is written."""
    import shutil

    damaged = shutil.copytree(tiny_folder, tmp_path / "damaged")
    tensors = load_file(damaged / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][2, 5] = torch.inf
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteWeightError) as caught:
        bs.finetune(config(base_model=str(damaged), load_in_4bit=True))
    assert caught.value.position == (2, 5)
    assert str(caught.value).startswith(
        "model.layers.1.mlp.up_proj.weight: nf4 holds finite weights, but the one at (2, 5)"
    )


def taken(run):
    """The implementations that the manifest of a run names for the packed product."""
    kept = json.loads((run.folder / "manifest.json").read_text())["kernels"]
    return {record["implementation"] for record in kept if record["op"] == "linear_4bit"}


def half_done(run):
    """Take the end of a run back, so that its last steps are to be done again."""
    (run.folder / "summary.json").unlink()
    newest = max((run.folder / "checkpoints").glob("step-*"))
    shutil.rmtree(newest)
    return run


def test_a_resumed_run_takes_the_kernels_that_it_took_before(config, monkeypatch, tmp_path):
    """Whatever would be chosen by then: the same bits as without a stop."""
    values = config(load_in_4bit=True, max_steps=4, save_steps=1)
    monkeypatch.setenv("BEDSTONE_KERNELS", "reference")
    first = bs.finetune(values)
    assert taken(first) == {"reference"}
    half_done(first)
    monkeypatch.delenv("BEDSTONE_KERNELS")
    second = bs.finetune(values, resume="auto")
    assert taken(second) == {"reference"}
    assert second.summary.weights_sha256 == first.summary.weights_sha256
    fresh = bs.finetune(values | {"output_dir": str(tmp_path / "fresh")})
    assert taken(fresh) == {"native_rounded"}


def test_a_policy_that_forbids_the_earlier_kernel_is_obeyed_and_told(config, monkeypatch, events):
    """Who asks for plain torch by then gets it."""
    values = config(load_in_4bit=True, max_steps=4, save_steps=1)
    half_done(bs.finetune(values))
    events.clear()
    monkeypatch.setenv("BEDSTONE_KERNELS", "reference")
    assert taken(bs.finetune(values, resume="auto")) == {"reference"}
    told = " ".join(event.differences for event in events if event.name == "resume_differs")
    assert "linear_4bit by native_rounded: the policy is `reference`" in told


def test_a_kernel_that_is_gone_is_told_and_the_run_goes_on_with_another(config, monkeypatch, events):
    """Its results may differ in the last bits, as under any other condition."""
    values = config(load_in_4bit=True, max_steps=4, save_steps=1)
    mine = replace(bedstone.kernels.operation("linear_4bit").reference, name="mine")
    with monkeypatch.context() as patch:
        members = {**extensions._members, "mine": KernelExtension("linear_4bit", mine)}
        patch.setattr(extensions, "_members", members)
        first = half_done(bs.finetune(values))
        assert taken(first) == {"mine"}
    events.clear()
    assert taken(bs.finetune(values, resume="auto")) == {"native_rounded"}
    (told,) = [event.differences for event in events if event.name == "resume_differs"]
    assert told == "linear_4bit by mine: there is none of that name"
