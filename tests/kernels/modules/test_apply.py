"""Modules of a model compute by another forward that gives the same; what is not won or not the same is left alone, with the reason."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from bedstone.core.errors import InvalidConfigError, UnknownNameError, UnsupportedError
from bedstone.kernels import apply, policy, restore
from bedstone.testing import tiny_llama

IDS = torch.arange(12).reshape(2, 6)
AS_MANY_CALLS = "plain torch would run either way, in as many calls"


def _replaced(model):
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


def test_the_norms_of_a_llama_are_replaced_and_give_the_same_bits_and_gradients():
    model, plain = tiny_llama(), tiny_llama()
    handle = apply(model)
    assert str(handle.report()) == (
        f"gated_mlp: matched 0 of 2; 2 skipped: {AS_MANY_CALLS}\n"
        "rms_norm: matched 5 of 5 (2 calls of torch instead of 8)"
    )
    assert handle.report().matched == {"gated_mlp": 0, "rms_norm": 5}
    for each in (model, plain):
        each(input_ids=IDS, labels=IDS).loss.backward()
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_rounded_where_the_model_rounds_them(dtype):
    model = tiny_llama().to(dtype)
    before = model(IDS).logits
    assert apply(model).report().matched["rms_norm"] == 5
    assert torch.equal(model(IDS).logits, before)


def test_a_gemma_keeps_its_weights_distance_from_one():
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

    for dtype in (torch.float32, torch.bfloat16):
        norm = GemmaRMSNorm(32).to(dtype)
        nn.init.normal_(norm.weight, std=0.1)
        x = torch.randn(3, 32, dtype=dtype)
        before = norm(x)
        assert apply(norm).report().modules[0].replaced
        assert torch.equal(norm(x), before)


def test_undo_restores_each_module_exactly_and_may_be_called_twice():
    model = tiny_llama()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    handle = apply(model)
    assert _replaced(model)
    handle.undo()
    handle.undo()
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before
    assert handle.report().matched["rms_norm"] == 5


def test_classes_and_other_models_see_nothing():
    other, model = tiny_llama(), tiny_llama()
    kind = type(model.model.norm)
    forward = kind.forward
    with apply(model):
        assert kind.forward is forward
        assert not _replaced(other)
    assert not _replaced(model)


def test_a_module_that_somebody_replaced_since_stays_theirs_and_is_an_error():
    model = tiny_llama()
    handle = apply(model)
    norm = model.model.norm
    ours = norm.forward
    norm.forward = lambda x: ours(x) * 2
    with pytest.raises(UnsupportedError) as error:
        handle.undo()
    assert str(error.value) == (
        "The forward of 1 modules was replaced once more since: model.norm. "
        "It stays; all others are restored. Take it off, then call undo() again."
    )
    assert _replaced(model) == ["model.norm"]
    norm.forward = ours
    handle.undo()
    assert not _replaced(model)


def test_what_somebody_else_or_we_replaced_before_is_left_alone():
    model = tiny_llama()
    model.model.norm.forward = lambda x: x
    first, second = apply(model), apply(model)
    reasons = {each.module: each.reason for each in second.report().modules}
    assert reasons["model.norm"] == "somebody else has replaced its forward"
    assert reasons["model.layers.0.input_layernorm"] == "it is replaced already"
    second.undo()
    assert len(_replaced(model)) == 5
    first.undo()
    assert _replaced(model) == ["model.norm"]


def test_state_dict_is_unchanged_and_a_pickle_comes_back_with_the_forward_of_its_class():
    model = tiny_llama()
    keys, before = list(model.state_dict()), model(IDS).logits
    apply(model)
    assert list(model.state_dict()) == keys
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert restore(loaded) == 0
    assert torch.equal(loaded(IDS).logits, before)
    assert loaded.model.norm.forward == type(loaded.model.norm).forward.__get__(loaded.model.norm)


def test_a_deep_copy_keeps_the_replacements_and_computes_with_its_own_weights():
    model = tiny_llama()
    handle = apply(model)
    before = model(IDS).logits
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.model.norm.weight.mul_(3)
    torch.testing.assert_close(twin(IDS).logits, 3 * before)
    assert torch.equal(model(IDS).logits, before)
    handle.undo()
    assert len(_replaced(twin)) == 5
    assert restore(twin) == 5
    assert not _replaced(twin)


def test_what_was_not_compared_goes_through_the_forward_of_the_class():
    model = tiny_llama()
    norm = model.model.norm
    calls = []
    original = type(norm).forward
    try:
        type(norm).forward = lambda self, x: calls.append(x.dtype) or original(self, x)
        apply(norm)
        calls.clear()
        norm(torch.randn(2, 64))
        assert calls == []
        norm.to(torch.bfloat16)
        norm(torch.randn(2, 64, dtype=torch.bfloat16))
        norm(x=torch.randn(2, 64, dtype=torch.bfloat16))
        assert calls == [torch.bfloat16, torch.bfloat16]
        norm.to("meta", torch.float32)
        norm(torch.empty(2, 64, device="meta"))
        assert len(calls) == 3
    finally:
        type(norm).forward = original


def test_after_another_dtype_apply_again_takes_it():
    model = tiny_llama()
    apply(model).undo()
    model.bfloat16()
    assert apply(model).report().matched["rms_norm"] == 5


class Wrong(nn.Module):
    """Has the form of a norm and is none."""

    def __init__(self, size=8):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.rand(size)), 1e-6

    def forward(self, x):
        return self.weight * x / (x.abs().mean(-1, keepdim=True) + self.eps)


class WrongEpsilon(Wrong):
    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3))


class WrongGradient(Wrong):
    def forward(self, x):
        return self.weight.detach() * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class WrittenOut(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


class Failing(Wrong):
    def forward(self, x):
        raise ValueError("not today")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Wrong, "the new forward is another: it differs by"),
        (WrongEpsilon, "the new forward is another: it differs by"),
        (WrongGradient, "the new forward is another: the gradient of weight is missing from its own"),
        (Failing, "it could not be compared, ValueError: not today"),
    ],
)
def test_what_computes_something_else_is_refused_with_the_reason(kind, reason):
    module = kind()
    found = apply(module).report().modules[0]
    assert not found.replaced
    assert found.reason.startswith(reason)
    assert "forward" not in vars(module)


def test_torchs_own_norms_gain_nothing_and_are_replaced_when_the_policy_asks():
    norms = nn.ModuleList([nn.RMSNorm(8), nn.LayerNorm(8), nn.LayerNorm(8, bias=False)])
    expected = (
        f"rms_norm: matched 0 of 1; 1 skipped: {AS_MANY_CALLS}\nlayer_norm: matched 0 of 2; 2 skipped: {AS_MANY_CALLS}"
    )
    assert str(apply(norms).report()) == expected
    x = torch.randn(4, 8)
    before = [norm(x) for norm in norms]
    with apply(norms, "reference") as handle:
        assert handle.report().matched == {"rms_norm": 1, "layer_norm": 2}
        for norm, expected in zip(norms, before, strict=True):
            torch.testing.assert_close(norm(x), expected)


def test_modules_that_only_look_alike_are_not_recognised():
    others = [
        nn.GroupNorm(2, 8),
        nn.BatchNorm1d(8),
        nn.InstanceNorm1d(8, affine=True),
        nn.LayerNorm((2, 4)),
        nn.Linear(2, 2),
    ]
    assert str(apply(nn.ModuleList(others)).report()) == "no module that a replacement is known for"


def test_weights_that_are_nowhere_are_left_alone():
    with torch.device("meta"):
        model = tiny_llama(num_hidden_layers=1)
    assert {each.reason for each in apply(model).report().modules} == {"its weights are on meta"}


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_pytorch_tanh"])
def test_gated_blocks_give_the_same_bits_when_the_policy_asks(activation):
    model = tiny_llama(hidden_act=activation)
    before = model(IDS).logits
    with apply(model, "reference") as handle:
        assert handle.report().matched["gated_mlp"] == 2
        assert torch.equal(model(IDS).logits, before)


def test_a_gated_block_of_another_activation_is_left_alone():
    model = tiny_llama(hidden_act="relu")
    reasons = {each.reason for each in apply(model, "reference").report().of("gated_mlp")}
    assert reasons == {"its activation is neither SiLU nor GELU"}


def test_a_written_out_activation_makes_a_gated_block_worth_replacing():
    model = tiny_llama()
    for layer in model.model.layers:
        layer.mlp.act_fn = WrittenOut()
    report = apply(model).report()
    assert {each.reason for each in report.of("gated_mlp")} == {"5 calls of torch instead of 6"}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("wrapping", ["peft", "packed"])
def test_adapted_and_packed_models_compute_the_same(wrapping):
    model = tiny_llama()
    if wrapping == "peft":
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=4, target_modules=["gate_proj", "q_proj"], init_lora_weights=False, lora_dropout=0.3)
        model = get_peft_model(model, config).train()
    else:
        import bedstone as bs

        bs.quantize(model, "nf4")

    def logits():
        torch.manual_seed(0)
        return model(input_ids=IDS).logits

    before = logits()
    with apply(model, "reference") as handle:
        assert handle.report().matched == {"gated_mlp": 2, "rms_norm": 5}
        assert torch.equal(logits(), before)
    assert torch.equal(logits(), before)


def test_compiled_models_see_apply_and_undo():
    from torch._dynamo.testing import CompileCounter

    model = tiny_llama()
    before = model(IDS).logits
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    assert torch.equal(compiled(IDS).logits, before)
    plain = counter.op_count
    with apply(compiled) as handle:
        assert handle.report().matched["rms_norm"] == 5
        assert torch.equal(compiled(IDS).logits, before)
        assert counter.frame_count == 2
        assert counter.op_count - plain < plain
    compiled(IDS)
    assert counter.frame_count == 2


def test_global_random_numbers_and_weights_stay_as_they_were():
    model = tiny_llama().train()
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    apply(model)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(each, weights[name]) for name, each in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())
    assert model.training


def test_one_event_says_what_was_done(events):
    apply(tiny_llama())
    (event,) = [each for each in events if each.name == "kernels_applied"]
    assert event.matched == {"gated_mlp": 0, "rms_norm": 5}
    assert event.message() == (
        "Kernels applied by the policy `auto`. gated_mlp: matched 0 of 2; "
        f"2 skipped: {AS_MANY_CALLS}. rms_norm: matched 5 of 5 (2 calls of torch instead of 8)."
    )


def test_auto_takes_the_policy_that_holds():
    with policy("reference"):
        handle = apply(tiny_llama())
    assert handle.report().policy == "reference"
    assert handle.report().matched["gated_mlp"] == 2


def test_a_required_implementation_that_the_operation_lacks_or_that_cannot_run_leaves_modules_alone():
    report = apply(tiny_llama(), "require:liger").report()
    assert str(report) == (
        "gated_mlp: matched 0 of 2; 2 skipped: glu cannot take the required implementation 'liger': it runs on cuda, not on cpu\n"
        "rms_norm: matched 0 of 5; 5 skipped: rms_norm cannot take the required implementation 'liger': it runs on cuda, not on cpu"
    )
    report = apply(tiny_llama(), "require:triton").report()
    assert "gated_mlp: matched 0 of 2; 2 skipped: it calls no operation that has triton" in str(report)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("model",), InvalidConfigError, "`model` must be a torch.nn.Module, not str."),
        ((nn.LayerNorm, "auto"), InvalidConfigError, "`model` must be a torch.nn.Module, not type."),
        (
            (nn.Linear(2, 2), "fast"),
            InvalidConfigError,
            "`policy` (='fast') must be auto, measure, exact, reference or require:<implementation>, each also with `,strict` behind it.",
        ),
    ],
)
def test_bad_arguments_are_one_clear_error(arguments, error, message):
    with pytest.raises(error) as raised:
        apply(*arguments)
    assert str(raised.value) == message


def test_an_implementation_that_nobody_has_is_an_error_and_the_model_is_as_it_was():
    model = tiny_llama()
    with pytest.raises(UnknownNameError, match="No implementation is called 'nativ'"):
        apply(model, "require:nativ")
    assert not _replaced(model)


def test_a_generated_text_is_the_same():
    model = tiny_llama()
    options = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(IDS)}
    before = model.generate(IDS, **options)
    with apply(model, "reference"):
        assert torch.equal(model.generate(IDS, **options), before)


def test_float64_finds_the_replaced_norm_no_worse_than_the_own():
    x = torch.randn(5, 64)
    norm = tiny_llama().model.norm
    nn.init.normal_(norm.weight)
    exact = F.rms_norm(x.double(), (64,), norm.weight.double(), norm.variance_epsilon)
    apply(norm)
    torch.testing.assert_close(norm(x).double(), exact, rtol=1e-6, atol=1e-6)
