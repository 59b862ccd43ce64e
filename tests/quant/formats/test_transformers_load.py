"""transformers loads a dense model packed, saves it, and loads that again bit for bit; modules keep their class."""

import gc
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from bedstone import quant
from bedstone.core.errors import UnknownNameError, UnsupportedError
from bedstone.quant import BedstoneConfig, QuantizationError, QuantizedTensor
from bedstone.quant.events import ModelQuantized
from bedstone.quant.scheme import schemes
from bedstone.testing import save_tiny_model, tiny_llama

IDS = torch.arange(10)[None]
SCHEMES = [quant.NF4(), quant.NF4(double_quant=True), quant.FP4(), quant.Int8(), quant.FP8(), quant.Ternary()]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A folder with a tiny Llama whose output layer is its embedding."""
    return save_tiny_model(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    """A folder with a tiny Llama that has an output layer of its own."""
    return save_tiny_model(tmp_path_factory.mktemp("untied"), tie_word_embeddings=False)


def load(folder, scheme="nf4", *, skip=None, modules_to_save=(), auto=AutoModelForCausalLM, **options):
    config = BedstoneConfig(scheme, skip=skip, modules_to_save=modules_to_save)
    return auto.from_pretrained(folder, quantization_config=config, **options)


def packed_names(model):
    return {
        name for name, module in model.named_modules() if isinstance(getattr(module, "weight", None), QuantizedTensor)
    }


def linear_names(model):
    return {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def same_weights(left, right):
    mine, other = left.state_dict(), right.state_dict()
    assert mine.keys() == other.keys()
    for name, weight in mine.items():
        twin = other[name]
        assert type(weight) is type(twin), name
        pairs = [(weight, twin)]
        if isinstance(weight, QuantizedTensor):
            assert (weight.scheme, weight.shape) == (twin.scheme, twin.shape)
            pairs = [(part, twin.parts[key]) for key, part in weight.parts.items()]
        for one, two in pairs:
            assert one.dtype == two.dtype, name
            assert torch.equal(one.float(), two.float()), name
    return True


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_packs_what_quantize_packs_and_keeps_every_class(dense, scheme):
    """Loading packed is loading and then packing: the same layers, the same bits, the same logits."""
    loaded, reference = load(dense, scheme), tiny_llama()
    classes = {name: type(module) for name, module in reference.named_modules()}
    quant.quantize(reference, scheme)
    assert {name: type(module) for name, module in loaded.named_modules()} == classes
    assert same_weights(loaded, reference)
    assert torch.equal(loaded(IDS).logits, reference(IDS).logits)
    assert not any(weight.requires_grad for weight in loaded.parameters() if isinstance(weight, QuantizedTensor))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_saves_and_reloads_bit_for_bit_without_a_config(dense, tmp_path, scheme):
    """Twice: what was loaded packed is saved like what was packed while loading. One file, and several."""
    first = load(dense, scheme)
    first.save_pretrained(tmp_path / "one")
    second = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    second.save_pretrained(tmp_path / "many", max_shard_size="40KB")
    third, found = AutoModelForCausalLM.from_pretrained(tmp_path / "many", output_loading_info=True)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert same_weights(first, second)
    assert same_weights(first, third)
    assert torch.equal(first(IDS).logits, third(IDS).logits)
    assert third.hf_quantizer.quantization_config.scheme == scheme
    assert not any(found.values()), found


def test_the_saved_folder_is_small_and_says_what_it_is(dense, tmp_path):
    """`config.json` carries scheme, options and version; the file is the size of the packed weights."""
    model = load(dense, quant.NF4(block_size=32), skip=["lm_head"])
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"] == {
        "quant_method": "bedstone",
        "format_version": 1,
        "scheme": {"scheme": "nf4", "block_size": 32, "double_quant": False},
        "skip": ["lm_head"],
        "modules_to_save": [],
    }
    parameters = sum(quant.model_bytes(parameter) for parameter in model.parameters())
    header_bytes = (tmp_path / "model.safetensors").stat().st_size - parameters
    assert 0 < header_bytes < 10_000


def test_a_tied_output_layer_stays_dense_and_is_said(dense, events):
    """An embedding is read by row, so a weight shared with it is not packed, whatever `skip` says."""
    model = load(dense, skip=[])
    assert linear_names(model) - packed_names(model) == {"lm_head"}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    (told,) = [event for event in events if isinstance(event, ModelQuantized)]
    assert told.message() == (
        "Packed 14 linear layers as nf4: 40.5 KiB instead of 288 KiB. "
        "Dense stay lm_head (its weight is shared with an embedding)."
    )


def test_an_untied_output_layer_stays_dense_unless_asked(untied, events):
    """As transformers does for its own methods; an empty list packs it."""
    assert linear_names(load(untied)) - packed_names(load(untied)) == {"lm_head"}
    (told, _) = [event for event in events if isinstance(event, ModelQuantized)]
    assert told.left_dense == {"lm_head": "transformers leaves it dense; `skip=[]` packs it"}
    assert linear_names(load(untied, skip=[])) == packed_names(load(untied, skip=[]))


def test_a_packed_output_layer_reloads(untied, tmp_path):
    """What is packed stands in the files; `skip` is not needed to read them."""
    model = load(untied, skip=[])
    model.save_pretrained(tmp_path)
    assert same_weights(model, AutoModelForCausalLM.from_pretrained(tmp_path))


def test_skip_names_layers_and_the_modules_around_them(dense):
    """The same rules as `quantize`."""
    model = load(dense, skip=["q_proj", "model.layers.1"])
    kept = {"lm_head", "model.layers.0.self_attn.q_proj"} | {n for n in linear_names(model) if "layers.1." in n}
    assert linear_names(model) - packed_names(model) == kept


def test_what_an_adapter_trains_whole_stays_dense(untied):
    """A packed weight takes no gradient."""
    model = load(untied, skip=[], modules_to_save=["lm_head", "embed_tokens"])
    assert linear_names(model) - packed_names(model) == {"lm_head"}


def test_a_name_in_skip_that_no_layer_has_is_refused(dense):
    """A misspelt name would pack what should stay dense."""
    with pytest.raises(
        UnknownNameError, match=r"No linear layer of the model is called 'q_prj'\. Did you mean 'q_proj'\?"
    ):
        load(dense, skip=["q_prj"])


def test_a_model_without_a_layer_to_pack_is_refused(dense):
    """A model that stays as it was is not what was asked for."""
    with pytest.raises(QuantizationError) as caught:
        load(dense, skip=["model", "lm_head"])
    assert str(caught.value).startswith(
        "The model has no linear layer to pack as nf4 (model.layers.0.self_attn.q_proj stays dense: skipped"
    )
    assert str(caught.value).endswith("Load it without a quantization_config.")


@pytest.mark.parametrize("later", [torch.bfloat16, torch.float32, "auto"], ids=str)
def test_the_dtype_is_that_of_the_load_and_never_that_of_the_parts(dense, tmp_path, later):
    """Scales stay float32 when the model is loaded in bfloat16: a cast of them would be a loss that nobody asked for."""
    first = load(dense, dtype=torch.bfloat16, device_map={"": "cpu"})
    first.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=later, device_map={"": "cpu"})
    mine, other = (model.model.layers[0].mlp.up_proj.weight for model in (first, again))
    assert mine.dtype == torch.bfloat16
    assert other.dtype == again.dtype == (torch.bfloat16 if later == "auto" else later)
    assert other.parts["absmax"].dtype == torch.float32
    assert all(torch.equal(part, other.parts[name]) for name, part in mine.parts.items())


def test_dequantize_makes_an_ordinary_model(dense, tmp_path):
    """Also after a save, when transformers hands the dtype as a name."""
    model = load(dense)
    logits = model(IDS).logits
    model.save_pretrained(tmp_path / "packed")
    model.dequantize()
    assert not packed_names(model)
    torch.testing.assert_close(model(IDS).logits, logits)  # the product in another order of sums
    model.save_pretrained(tmp_path / "dense")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    assert same_weights(model, plain)
    assert not hasattr(plain.config, "quantization_config")


def test_a_base_model_reads_the_files_of_one_with_a_head_and_back(dense, tmp_path):
    """The names in the description are those of the files, and the model's differ by a prefix."""
    model = load(dense)
    model.save_pretrained(tmp_path / "head")
    base = AutoModel.from_pretrained(tmp_path / "head")
    assert same_weights(base, model.model)
    base.save_pretrained(tmp_path / "base")
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), model)


def test_models_whose_weights_are_renamed_or_split_on_load(tmp_path):
    """DINOv2's files name the attention otherwise and hold two weights of the MLP as one: packed, each is saved for itself."""
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 16, "patch_size": 8}
    pixels = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
    Dinov2Model(Dinov2Config(use_swiglu_ffn=True, **sizes)).save_pretrained(tmp_path / "dense")
    reference = Dinov2Model.from_pretrained(tmp_path / "dense")
    quant.quantize(reference, "nf4")
    model = Dinov2Model.from_pretrained(tmp_path / "dense", quantization_config=BedstoneConfig("nf4", skip=[]))
    assert same_weights(model, reference)
    model.save_pretrained(tmp_path / "packed")
    again = Dinov2Model.from_pretrained(tmp_path / "packed")
    assert same_weights(again, reference)
    assert torch.equal(again(pixels).last_hidden_state, model(pixels).last_hidden_state)


def test_a_new_head_stays_dense_and_trainable(dense):
    """A weight that no checkpoint has is random: it is there to be trained."""
    model, found = load(dense, auto=AutoModelForSequenceClassification, output_loading_info=True)
    assert found["missing_keys"] == {"score.weight"}
    assert model.score.weight.requires_grad
    assert linear_names(model) - packed_names(model) == {"score"}


def test_a_dictionary_is_a_config_too(dense):
    """As it stands in a YAML file or in another program's settings."""
    config = {"quant_method": "bedstone", "scheme": "int8"}
    model = AutoModelForCausalLM.from_pretrained(dense, quantization_config=config)
    assert model.model.layers[0].mlp.up_proj.weight.scheme == quant.Int8()


def test_a_scheme_of_another_package_works_by_name(dense, tmp_path, monkeypatch):
    """Nothing here knows ours from theirs."""

    @dataclass(frozen=True)
    class Halved(quant.Scheme):
        name = "halved"

        def pack(self, weight):
            return {"half": weight.to(torch.float16)}

        def unpack(self, parts, shape, dtype):
            return parts["half"].to(dtype)

    monkeypatch.setattr(schemes, "_members", dict(schemes._members))  # forgotten afterwards
    schemes.add("halved", Halved)
    model = load(dense, "halved")
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert same_weights(model, again)
    assert again.model.layers[0].mlp.up_proj.weight.scheme == Halved()


def test_layers_on_the_disk_or_on_the_cpu_beside_a_gpu_are_refused(dense):
    """Offloading copies weights as plain tensors for each step."""
    with pytest.raises(UnsupportedError) as caught:
        load(dense, device_map={"model": "cpu", "lm_head": "disk"})
    assert str(caught.value) == (
        "Packed weights cannot be offloaded, but `device_map` places layers on cpu and disk. Pack in fewer bits, or place the "
        'whole model on one device: `device_map={"": "cpu"}`.'
    )


def test_an_automatic_device_map_works_where_all_fits(dense):
    """It reckons with the packed sizes."""
    assert packed_names(load(dense, device_map="auto"))


def test_the_dense_weights_of_two_layers_are_never_alive_at_once(dense):
    """One tensor is read, packed and let go, then the next is read."""
    shapes = {
        tuple(layer.weight.shape)
        for name, layer in tiny_llama().named_modules()
        if isinstance(layer, nn.Linear) and name != "lm_head"
    }
    gc.freeze()  # looks at what is made from here on
    try:
        model = load(dense, _Watching(shapes=tuple(shapes)))
    finally:
        gc.unfreeze()
    assert len(_Watching.alive) == len(packed_names(model)) == 14
    assert max(_Watching.alive) == 1


@dataclass(frozen=True)
class _Watching(quant.Int8):
    """int8 that counts, each time a weight is packed, how many dense weights of layers are alive in the process."""

    shapes: tuple[tuple[int, int], ...] = ()
    alive: ClassVar[list[int]] = []

    def pack(self, weight):
        if weight.device.type != "meta":
            self.alive.append(_dense_weights_alive(self.shapes))
        return super().pack(weight)


def _dense_weights_alive(shapes):
    plain = (thing for thing in gc.get_objects() if type(thing) in {torch.Tensor, nn.Parameter})
    return len(
        {
            tensor.untyped_storage().data_ptr()
            for tensor in plain
            if tensor.device.type == "cpu" and tuple(tensor.shape) in shapes and tensor.is_floating_point()
        }
    )
