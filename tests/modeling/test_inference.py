"""Models prepared for inference compute what they did."""

import copy
import re

import pytest
import torch
from torch import nn

from hf_prunable.modeling import wavlm
from hf_prunable.modeling.gated import GatedMixin
from tests.helpers.tiny_models import FAMILIES, tiny_inputs, tiny_prunable
from tests.modeling.test_common import EVERY_ENCODER, EVERY_HEAD, INPUTS, build, first, run


UNPADDED = {"input_values": INPUTS["input_values"]}


@pytest.fixture(autouse=True)
def clips_are_long(monkeypatch):
    """Lets the few frames of a test count as many."""
    monkeypatch.setattr(wavlm, "MIN_FRAMES", 2)


def assert_same(model, prepared, inputs, tolerance=2e-5, **options):
    expected, output = (run(each, inputs, output_hidden_states=True, **options) for each in (model, prepared))
    for one, other in zip(expected.hidden_states, output.hidden_states, strict=True):
        torch.testing.assert_close(other, one, atol=tolerance, rtol=0)
    torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state, atol=tolerance, rtol=0)


@pytest.mark.parametrize("inputs", [INPUTS, UNPADDED, tiny_inputs(1, 333, padded=False)])
@EVERY_ENCODER
def test_same_hidden_states(family, kind, inputs):
    model, prepared = (build(family, "base", kind) for _ in range(2))
    assert prepared.train().prepare_for_inference_() is prepared
    assert not prepared.training
    assert_same(model, prepared, inputs)
    # The graph of a forward pass with gradients, and attention weights, come by the ordinary way.
    with torch.enable_grad():
        output = prepared(**UNPADDED)
    torch.testing.assert_close(output.last_hidden_state, run(model, UNPADDED).last_hidden_state, atol=2e-5, rtol=0)
    prepared.set_attn_implementation("eager")
    model.set_attn_implementation("eager")
    attentions = [run(each, UNPADDED, output_attentions=True).attentions for each in (model, prepared)]
    for one, other in zip(*attentions, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=0)


@EVERY_HEAD
def test_same_with_every_head(family, head):
    model, prepared = (build(family, head, "pruned") for _ in range(2))
    prepared.prepare_for_inference_()
    torch.testing.assert_close(first(run(prepared)), first(run(model)), atol=2e-5, rtol=0)


def test_batch_norm_before_the_position_convolution():
    model, prepared = (tiny_prunable("hubert", conv_pos_batch_norm=True) for _ in range(2))
    assert_same(model, prepared.prepare_for_inference_(), INPUTS)


@EVERY_ENCODER
def test_copies_and_other_dtypes(family, kind):
    model = build(family, "base", kind)
    prepared = copy.deepcopy(build(family, "base", kind).prepare_for_inference_())
    expected = run(model, UNPADDED).last_hidden_state
    with torch.autocast("cpu", torch.bfloat16):
        output = run(prepared, UNPADDED).last_hidden_state
    assert (output - expected).abs().mean() < 0.05 * expected.std()
    output = run(prepared.to(torch.bfloat16), {"input_values": UNPADDED["input_values"].to(torch.bfloat16)})
    assert output.last_hidden_state.dtype == torch.bfloat16
    assert (output.last_hidden_state - expected).abs().mean() < 0.1 * expected.std()


@EVERY_ENCODER
def test_standard_layers_only(family, kind):
    model, untouched = (build(family, "base", kind) for _ in range(2))
    expected = run(model).last_hidden_state
    names = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    model.prepare_for_inference_(standard_layers_only=True)
    assert torch.equal(run(model).last_hidden_state, expected)
    # Copies share the class that torch made for a parametrized module.
    assert torch.equal(run(untouched).last_hidden_state, expected)
    assert names == {name for name, module in model.named_modules() if type(module) is nn.Linear}
    gated = [module for module in model.modules() if isinstance(module, GatedMixin)]
    assert not [module for module in gated if module.weight is not None]
    assert not [name for name in model.state_dict() if "parametrizations" in name]


@pytest.mark.parametrize("standard_layers_only", [False, True])
def test_what_a_prepared_model_refuses(tmp_path, standard_layers_only):
    model = build("wavlm", "base", "pruned").prepare_for_inference_(standard_layers_only)
    for forbidden in (lambda: model.save_pretrained(tmp_path), model.attach_gates, model.prepare_for_inference_):
        with pytest.raises(ValueError, match="Load its checkpoint again"):
            forbidden()
    model = build("wavlm", "base", "pruned")
    model.attach_gates()
    with pytest.raises(ValueError, match="still to be pruned"):
        model.prepare_for_inference_(standard_layers_only)


@pytest.mark.parametrize("standard_layers_only", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_waveforms_of_another_shape_are_refused(family, standard_layers_only):
    model = build(family, "base", "pruned").prepare_for_inference_(standard_layers_only)
    for shape in ((0, 800), (800,), (2, 1, 800)):
        with pytest.raises(ValueError, match=rf"shape {re.escape(str(shape))}.*\(batch, samples\), at least one"):
            model(torch.zeros(shape))
    with pytest.raises((ValueError, RuntimeError), match="15 samples|Kernel size"):
        model(torch.zeros(2, 15))


@EVERY_ENCODER
def test_on_the_meta_device(family, kind):
    """Shapes without values, as tools compute them that plan memory."""
    prepared = build(family, "base", kind).prepare_for_inference_()
    expected = run(prepared, UNPADDED).last_hidden_state.shape
    prepared.to("meta")
    assert run(prepared, {"input_values": UNPADDED["input_values"].to("meta")}).last_hidden_state.shape == expected


@pytest.mark.slow
@EVERY_ENCODER
def test_compile(family, kind):
    """One graph at any length."""
    torch.compiler.reset()
    model = build(family, "base", kind)
    prepared = build(family, "base", kind).prepare_for_inference_()
    compiled = torch.compile(prepared, fullgraph=True, dynamic=True, backend="aot_eager")
    for samples in (600, 900, 444):
        inputs = tiny_inputs(2, samples)
        torch.testing.assert_close(run(compiled, inputs)[0], run(model, inputs)[0], atol=2e-5, rtol=0)
