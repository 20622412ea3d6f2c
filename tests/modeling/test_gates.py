"""The hard-concrete gate: its distribution, its gradients, and its life inside a model."""

import math
import re

import pytest
import torch
from transformers import AutoModel

from hf_prunable import compact, deterministic_sparsity, expected_sparsity, load_prunable, sparsity_ceiling
from hf_prunable.modeling.gates import LOG_ALPHA_RANGE, HardConcreteGate, check_gates
from hf_prunable.modeling.units import UNITS
from hf_prunable.pruning.decisions import GateDecisions
from hf_prunable.pruning.expected_size import gate_statistics
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_inputs, tiny_prunable


DRAWS = 400_000


def gate_at(log_alpha, num_gates=1, **kwargs):
    gate = HardConcreteGate(num_gates, **kwargs)
    with torch.no_grad():
        gate.log_alpha.copy_(torch.as_tensor(log_alpha))
    return gate


def stretched(log_alpha, uniform):
    """s_bar of the paper, written out."""
    s = torch.sigmoid((uniform.log() - (1 - uniform).log() + log_alpha) / (2 / 3))
    return s * 1.2 - 0.1


def sample(log_alpha):
    torch.manual_seed(0)
    with torch.no_grad():
        return gate_at(log_alpha, DRAWS)()


def within_noise(frequency, probability):
    return abs(frequency - probability) < 4 * math.sqrt(probability * (1 - probability) / DRAWS)


@pytest.mark.parametrize("log_alpha", [-6.9, -4.605, -2.398, -1.0, 0.0, 2.0, 4.6])
def test_open_probability_is_the_frequency_of_open_gates(log_alpha):
    probability = gate_at(log_alpha).open_probability().item()
    assert probability == pytest.approx(1 / (1 + math.exp(-log_alpha - 1.5986)), abs=1e-4)
    assert within_noise((sample(log_alpha) > 0).double().mean().item(), probability)


def test_published_probabilities():
    assert gate_at(-2.398).open_probability().item() == pytest.approx(0.31, abs=0.005)
    assert gate_at(-4.605).open_probability().item() == pytest.approx(0.047, abs=0.0005)
    assert gate_at(-6.9).open_probability().item() == pytest.approx(0.005, abs=0.0005)


def test_samples_are_in_range_and_mostly_exactly_one_at_the_upper_limit():
    values = sample(4.6)
    assert values.min() >= 0 and values.max() == 1
    # z is 1 where s_bar >= 1: P = sigmoid(log_alpha - beta log 11).
    exact = 1 / (1 + math.exp(-4.6 + 2 / 3 * math.log(11)))
    assert exact == pytest.approx(0.95, abs=0.005)
    assert within_noise((values == 1).double().mean().item(), exact)


def test_samples_follow_the_formula():
    log_alpha = torch.linspace(-5, 5, 1001)
    uniform = torch.rand(1001, generator=torch.Generator().manual_seed(0)) * 0.998 + 0.001
    gate = gate_at(log_alpha, 1001)
    gate.set_noise(uniform)
    torch.testing.assert_close(gate(), stretched(log_alpha, uniform).clamp(0, 1), atol=1e-5, rtol=0)


def test_noise_at_its_limits_is_finite():
    gate = gate_at([0.0, 0.0], 2)
    gate.set_noise(torch.tensor([0.0, 1.0]))
    values = gate()
    assert values.tolist() == [0, 1]
    values.sum().backward()
    assert gate.log_alpha.grad.isfinite().all()


def test_fixed_value():
    zero_at = -math.log(11)
    assert zero_at == pytest.approx(-2.398, abs=1e-3)
    log_alpha = torch.tensor(
        [-6.9, -2.398, zero_at - 1e-5, zero_at + 1e-4, 0.0, -zero_at - 1e-4, -zero_at + 1e-5, 4.6]
    )
    gate = gate_at(log_alpha, len(log_alpha)).eval()
    values = gate.deterministic_mask().detach()
    assert (values[:3] == 0).all() and 0 < values[3] < 1e-4
    assert values[4] == pytest.approx(0.5)
    assert 1 - 1e-4 < values[5] < 1 and (values[6:] == 1).all()
    torch.testing.assert_close(values, (torch.sigmoid(log_alpha) * 1.2 - 0.1).clamp(0, 1), atol=1e-6, rtol=0)


def test_evaluation_mode_is_the_fixed_value_and_training_mode_is_not():
    gate = gate_at(torch.linspace(-3, 3, 50), 50)
    assert not torch.equal(gate(), gate())
    gate.eval()
    gate.set_noise(torch.rand(50))
    state = torch.get_rng_state()
    assert torch.equal(gate(), gate()) and torch.equal(gate(), gate.deterministic_mask())
    assert torch.equal(torch.get_rng_state(), state)


def gradients(ste):
    """Of a gate and of s_bar, for open, partly open and closed gates, under one noise."""
    log_alpha = torch.linspace(-4, 4, 301)
    uniform = torch.rand(301, generator=torch.Generator().manual_seed(1)) * 0.98 + 0.01
    gate = gate_at(log_alpha, 301, ste=ste)
    gate.set_noise(uniform)
    weights = torch.randn(301, generator=torch.Generator().manual_seed(2))
    values = gate()
    (values * weights).sum().backward()
    leaf = log_alpha.clone().requires_grad_()
    s_bar = stretched(leaf, uniform)
    (s_bar * weights).sum().backward()
    clamped = (s_bar < 0) | (s_bar > 1)
    assert 50 < clamped.sum() < 250
    torch.testing.assert_close(values, s_bar.clamp(0, 1), atol=1e-5, rtol=0)
    return gate.log_alpha.grad, leaf.grad, clamped


def test_straight_through_gradient_is_that_of_s_bar():
    of_gate, of_s_bar, clamped = gradients(ste=True)
    torch.testing.assert_close(of_gate, of_s_bar, atol=1e-6, rtol=1e-4)
    assert (of_gate[clamped] != 0).all()


def test_without_straight_through_no_gradient_passes_the_limits():
    of_gate, of_s_bar, clamped = gradients(ste=False)
    assert (of_gate[clamped] == 0).all()
    torch.testing.assert_close(of_gate[~clamped], of_s_bar[~clamped], atol=1e-6, rtol=1e-4)


def test_clamp():
    gate = gate_at([-9.0, -6.9, 0.25, 4.6, 9.0], 5)
    gate.clamp_()
    assert gate.log_alpha.tolist() == pytest.approx([-6.9, -6.9, 0.25, 4.6, 4.6])
    assert gate.log_alpha.requires_grad and LOG_ALPHA_RANGE == (-6.9, 4.6)


@pytest.mark.parametrize("drop_rate", [0.01, 0.5, 0.9])
def test_initial_drop_rate(drop_rate):
    gate = HardConcreteGate(3, initial_drop_rate=drop_rate)
    torch.testing.assert_close(1 - torch.sigmoid(gate.log_alpha), torch.full((3,), drop_rate))


@pytest.mark.parametrize(
    "cast", [torch.nn.Module.half, torch.nn.Module.bfloat16, torch.nn.Module.double, lambda it: it.to(torch.bfloat16)]
)
def test_casting_leaves_the_gate_in_float32(cast):
    gate = gate_at(torch.randn(64, generator=torch.Generator().manual_seed(0)), 64)
    gate().sum().backward()
    before, gradient = gate.log_alpha.detach().clone(), gate.log_alpha.grad.clone()
    assert not torch.equal(before, before.bfloat16().float())
    module = cast(torch.nn.Sequential(torch.nn.Linear(2, 2), gate))
    assert module[0].weight.dtype != torch.float32
    assert gate.log_alpha.dtype == gate.log_alpha.grad.dtype == torch.float32
    assert torch.equal(gate.log_alpha, before) and torch.equal(gate.log_alpha.grad, gradient)
    assert isinstance(gate.log_alpha, torch.nn.Parameter) and gate().dtype == torch.float32


def test_moving_a_gate():
    gate = gate_at(0.5, 4)
    assert gate.to("meta").log_alpha.device.type == "meta"
    assert gate.log_alpha.dtype == torch.float32 and gate.log_alpha.shape == (4,)
    assert gate.to("meta", torch.bfloat16).log_alpha.dtype == torch.float32
    assert gate.to_empty(device="cpu").log_alpha.device.type == "cpu"


def gated(family, norm_order="post", units=None, seed=0, **config):
    model = tiny_prunable(family, norm_order, seed=seed, **config)
    # Convolutions that normalise over their channels cannot have gates.
    usable = [unit for unit in UNITS if unit != "conv" or model.config.feat_extract_norm == "group"]
    model.attach_gates(tuple(units or usable))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, gate in model.named_gates():
            # Wide enough that gates close and open, and that 1 / 1000 matters.
            gate.log_alpha.copy_(torch.rand(gate.num_gates, generator=generator) * 7 - 2.4)
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "cast",
    [lambda it: it.half(), lambda it: it.bfloat16(), lambda it: it.to(torch.bfloat16)],
    ids=["half", "bf16", "to"],
)
def test_casting_a_model_leaves_its_gates_in_float32(family, cast):
    model = gated(family)
    before = {name: gate.log_alpha.detach().clone() for name, gate in model.named_gates()}
    assert before
    model = cast(model)
    for name, parameter in model.named_parameters():
        assert (parameter.dtype == torch.float32) == name.endswith("log_alpha"), name
    for name, gate in model.named_gates():
        assert torch.equal(gate.log_alpha, before[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_bfloat16_runs_with_its_gates(family):
    model = gated(family, layerdrop=0.0).to(torch.bfloat16).train()
    inputs = tiny_inputs()
    output = model(inputs["input_values"].bfloat16(), inputs["attention_mask"]).last_hidden_state
    output.float().square().mean().backward()
    assert output.dtype == torch.bfloat16 and output.isfinite().all()
    assert all(gate.log_alpha.grad.dtype == torch.float32 for _, gate in model.named_gates())


@pytest.mark.parametrize("family", FAMILIES)
def test_moving_a_model_with_gates(family):
    model = gated(family).to("meta")
    assert all(gate.log_alpha.is_meta for _, gate in model.named_gates())


def values_of(model):
    return [gate().detach().clone() for _, gate in model.named_gates()]


def all_equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_is_a_function_of_seed_and_index(family):
    model = gated(family, apply_spec_augment=False, layerdrop=0.0).train()
    inputs = tiny_inputs()
    torch.manual_seed(0)
    model.set_gate_noise(seed=3, index=5)
    first = values_of(model)
    assert all_equal(first, values_of(model))

    torch.manual_seed(99)
    torch.rand(7)
    model(**inputs)
    assert all_equal(first, values_of(model))
    model.set_gate_noise(seed=3, index=6)
    other_index = values_of(model)
    model(**inputs)
    model.set_gate_noise(seed=4, index=5)
    other_seed = values_of(model)
    state = torch.get_rng_state()
    model.set_gate_noise(seed=3, index=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all_equal(first, values_of(model))
    same_gates = gated(family).train()
    same_gates.set_gate_noise(seed=3, index=5)
    assert all_equal(first, values_of(same_gates))
    for other in (other_index, other_seed):
        assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.numel() > 1)

    noises = [gate.noise for _, gate in model.named_gates() if gate.num_gates == 40]
    assert len(noises) == 3 and not any(torch.equal(a, b) for a, b in zip(noises, noises[1:], strict=False))
    model.set_gate_noise(None)
    assert not all_equal(values_of(model), values_of(model))


def test_seed_and_index_do_not_collide():
    model = gated("hubert", units=("int",)).train()
    seen = set()
    for seed in range(8):
        for index in range(8):
            model.set_gate_noise(seed, index)
            seen.add(tuple(next(model.named_gates())[1].noise.tolist()))
    assert len(seen) == 64


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_evaluation_mode_is_deterministic(family, norm_order):
    model = gated(family, norm_order).eval()
    inputs = tiny_inputs()
    with torch.no_grad():
        first = model(**inputs).last_hidden_state
        model.set_gate_noise(1, 2)
        assert torch.equal(model(**inputs).last_hidden_state, first)
        assert not torch.equal(model.train()(**inputs).last_hidden_state, first)


@pytest.mark.parametrize("noise", ["set", "drawn"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(family, norm_order, dropout, noise):
    rates = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), dropout)
    model = gated(family, norm_order, apply_spec_augment=False, layerdrop=0.0, **rates).train()
    if noise == "set":
        model.set_gate_noise(1, 2)
    inputs = tiny_inputs()

    def parameter_gradients():
        model.zero_grad()
        torch.manual_seed(0)
        output = model(**inputs).last_hidden_state
        output.square().mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = parameter_gradients()
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    checkpointed = parameter_gradients()
    # The mask embedding has no gradient while SpecAugment is off.
    assert plain.keys() == checkpointed.keys() == dict(model.named_parameters()).keys() - {"masked_spec_embed"}
    assert sum(name.endswith("log_alpha") for name in plain) == len(list(model.named_gates()))
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_gates_that_cannot_be_are_refused(family):
    model = tiny_prunable(family)
    with pytest.raises(ValueError, match=r"Unknown units \['heads'\]: choose one or more of mha, head, qk"):
        model.attach_gates(("mha", "heads"))
    with pytest.raises(ValueError, match="choose one or more of"):
        model.attach_gates(())
    for rate in (0, 1, 1.5):
        with pytest.raises(ValueError, match=f"must be between 0 and 1, but is {rate}"):
            model.attach_gates(initial_drop_rate=rate)
    assert not list(model.named_gates()) and model.config.gates is None
    model.attach_gates(("ffn",))
    with pytest.raises(ValueError, match=r"already has gates on \('ffn',\)"):
        model.attach_gates(("int",))
    model.detach_gates()
    assert not list(model.named_gates()) and model.config.gates is None
    with pytest.raises(ValueError, match="need `feat_extract_norm='group'`. This model has 'layer'"):
        tiny_prunable(family, "pre").attach_gates(("conv",))


BAD_VALUES = (float("nan"), float("inf"), -float("inf"))


def with_bad_gates(family="wavlm", head=None, value=float("nan")):
    """A model with three gates that are not finite in one module and one in another, and the names of these modules."""
    model = tiny_prunable(family) if head is None else tiny_prunable(family, head=head)
    model.attach_gates(UNITS)
    names = [name for name, _ in model.named_gates() if "layers.1." in name and name.endswith(("vo", "int"))]
    gates = dict(model.named_gates())
    gates[names[0]].log_alpha.data[2:5] = value
    gates[names[1]].log_alpha.data[7] = value
    return model, names


@pytest.mark.parametrize("value", BAD_VALUES)
def test_gates_that_are_not_finite_are_named_and_counted(value):
    model, names = with_bad_gates(value=value)
    sizes = {name: gate.num_gates for name, gate in model.named_gates()}
    with pytest.raises(ValueError) as raised:
        check_gates(model.named_gates())
    assert str(raised.value).startswith(
        f"`log_alpha` of 4 of {sum(sizes.values())} gates is NaN or infinite: {names[0]} (3 of {sizes[names[0]]}), "
        f"{names[1]} (1 of {sizes[names[1]]}). "
    )


@pytest.mark.parametrize("head", [None, "ctc"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_decided_or_counted_by_gates_that_are_not_finite(family, head):
    model, names = with_bad_gates(family, head)
    for decide in (
        compact,
        lambda model: compact(model, 0.3),
        lambda model: compact(model, target_macs=0.3),
        GateDecisions,
        deterministic_sparsity,
        expected_sparsity,
        sparsity_ceiling,
        gate_statistics,
    ):
        with pytest.raises(ValueError, match=re.escape(f"{names[0]} (3 of ")):
            decide(model)


@pytest.mark.parametrize("load", [load_prunable, lambda folder: AutoModel.from_pretrained(folder)])
def test_a_checkpoint_with_gates_that_are_not_finite_is_refused(tmp_path, load):
    model, names = with_bad_gates()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"{names[1]} (1 of ")):
        load(tmp_path)


def test_finite_gates_and_models_without_memory_pass():
    model = tiny_prunable("wavlm")
    check_gates(model.named_gates())
    model.attach_gates(UNITS)
    check_gates(model.named_gates())
    check_gates(model.to("meta").named_gates())
