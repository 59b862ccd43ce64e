"""Adapters of peft train on a model that transformers loaded packed, are saved alone, and fit the packed base again."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM

from bedstone import quant
from bedstone.quant import BedstoneConfig, QuantizedTensor
from bedstone.testing import save_tiny_model

IDS = torch.arange(10)[None]
SCHEMES = [quant.NF4(double_quant=True), quant.FP4(), quant.Int8(), quant.FP8(), quant.Ternary()]

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A folder with a tiny dense Llama."""
    return save_tiny_model(tmp_path_factory.mktemp("dense"))


def packed(folder, scheme):
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=BedstoneConfig(scheme))


def trained(model, steps=2):
    torch.manual_seed(0)
    adapted = get_peft_model(prepare_model_for_kbit_training(model), LoraConfig(r=4, target_modules="all-linear"))
    optimizer = torch.optim.Adam([weight for weight in adapted.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = adapted(IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return adapted.eval(), losses


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_an_adapter_trains_is_saved_alone_and_fits_again(dense, tmp_path, scheme):
    """On the base that is packed anew while it loads, and on the one that was saved packed."""
    base = packed(dense, scheme)
    base.save_pretrained(tmp_path / "base")
    adapted, losses = trained(base)
    assert losses[1] < losses[0]
    adapted.save_pretrained(tmp_path / "adapter")
    logits = adapted(IDS).logits
    for again in (packed(dense, scheme), AutoModelForCausalLM.from_pretrained(tmp_path / "base")):
        restored = PeftModel.from_pretrained(again, tmp_path / "adapter")
        assert torch.equal(restored(IDS).logits, logits)


def test_a_merged_model_is_saved_and_reloaded_packed(dense, tmp_path):
    """Merging packs the sum anew, and the weights are still those of the files."""
    merged = trained(packed(dense, "int8"))[0].merge_and_unload()
    assert isinstance(merged.model.layers[0].mlp.up_proj.weight, QuantizedTensor)
    merged.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(IDS).logits, merged(IDS).logits)


def test_an_adapter_added_by_transformers_is_saved_alone(dense, tmp_path):
    """`add_adapter` and `save_pretrained` of transformers write the adapter, not the packed base."""
    model = packed(dense, "nf4")
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj"]))
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 10_000


@pytest.mark.slow
def test_the_trainer_of_transformers_takes_it_with_an_adapter_and_refuses_it_bare(dense, tmp_path):
    """As it does with its own methods."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        tmp_path, max_steps=2, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    data = [{"input_ids": IDS[0], "labels": IDS[0]}] * 16
    with pytest.raises(ValueError, match="You cannot perform fine-tuning on purely quantized models"):
        Trainer(packed(dense, "nf4"), arguments, train_dataset=data)
    adapted, _ = trained(packed(dense, "nf4"), steps=0)
    assert Trainer(adapted, arguments, train_dataset=data).train().global_step == 2


@pytest.mark.slow
def test_a_loaded_model_compiles_whole(dense):
    """`is_compileable` is true: one graph, the same logits."""
    model = packed(dense, "nf4")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(IDS).logits, model(IDS).logits)
