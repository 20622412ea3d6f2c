"""What transformers tests of every model, in this project's own words, for every prunable class, dense and pruned.

What of the common tests does not apply here, and why:
- generation, beam search, caches: encoders generate nothing.
- token embeddings (set, resize, tie) and `inputs_embeds`: the input is a waveform, which the first convolution takes in.
- resizing of position embeddings: there are none to resize; positions come from a convolution and a table of distances.
- tied weights: there are none.
- chunked feed-forward: stock speech models have no such option either.
- 4d attention masks: the models take a mask of samples.
- regression and multi-label classification: the stock heads know cross-entropy alone, whatever `problem_type` says.
- flash and flex attention, data parallelism, tensor parallelism, CPU and disk offload: they need a GPU.
- attention implementations of parts, backbones, processors: a speech model is one part.
Elsewhere: fresh processes, dtypes, shards and device maps on disk (test_pretrained), stock equality, layer drop, language
adapters, old key names (test_dense_equals_stock), pipelines (test_heads), torch.export (test_export), several processes
(test_distributed).
"""

import copy
import functools
import inspect

import numpy as np
import pytest
import torch
from torch import nn

from hf_prunable import load_prunable
from tests.helpers.fresh_processes import AUTO_CLASSES, FAMILY_HEADS, ragged
from tests.helpers.installed_versions import skip_uninitialized_loss
from tests.helpers.tiny_models import FAMILIES, NUM_LABELS, tiny_emptied, tiny_inputs, tiny_labels, tiny_prunable


# A post-norm model of full width, one of uneven width, and a pre-norm one with empty blocks.
KINDS = {
    "dense": lambda family, head, **config: tiny_prunable(family, head=head, **config),
    "pruned": lambda family, head, **config: ragged(family, head, **config),
    "emptied": lambda family, head, **config: tiny_emptied(family, head=head, **config),
}
EVERY_MODEL = pytest.mark.parametrize(
    ("family", "head", "kind"), [(family, head, kind) for family, head in FAMILY_HEADS for kind in KINDS]
)
EVERY_HEAD = pytest.mark.parametrize(("family", "head"), FAMILY_HEADS)
EVERY_ENCODER = pytest.mark.parametrize(("family", "kind"), [(family, kind) for family in FAMILIES for kind in KINDS])
INPUTS = tiny_inputs(2, 600)
ROUNDING = {"atol": 1e-5, "rtol": 0}


@functools.cache
def _model(family, head, kind):
    # A dropped layer has no hidden state and no gradient.
    return KINDS[kind](family, head, num_labels=NUM_LABELS, layerdrop=0.0)


def build(family, head, kind):
    return copy.deepcopy(_model(family, head, kind))


@torch.no_grad()
def run(model, inputs=INPUTS, **options):
    return model(**inputs, **options)


def first(output):
    return output.logits if "logits" in output else output.last_hidden_state


def train_step(model, head, seed=0):
    """Loss and gradients of one pass with everything random that training does."""
    model.train().zero_grad()
    torch.manual_seed(seed)
    np.random.seed(seed)
    labels = {} if head == "base" else {"labels": tiny_labels(model, head, INPUTS)}
    output = model(**INPUTS, **labels)
    loss = output.last_hidden_state.square().mean() if head == "base" else output.loss
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@EVERY_MODEL
def test_save_and_load(tmp_path, family, head, kind):
    model = build(family, head, kind)
    expected = run(model, output_hidden_states=True)
    model.save_pretrained(tmp_path)
    loaded, info = load_prunable(tmp_path, AUTO_CLASSES[head], output_loading_info=True)
    assert type(loaded) is type(model) and not any(info.values()) and not loaded.training
    found = run(loaded, output_hidden_states=True)
    assert torch.equal(first(found), first(expected))
    assert all(map(torch.equal, found.hidden_states, expected.hidden_states))


@EVERY_MODEL
def test_evaluation_is_deterministic(family, head, kind):
    model = build(family, head, kind)
    expected = first(run(model))
    with torch.no_grad():
        noisy = [first(model.train()(**INPUTS)) for _ in range(2)]
    assert not torch.equal(*noisy)
    # Training leaves no trace but in a batch norm's statistics, which move.
    if not any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        assert torch.equal(first(run(model.eval())), expected)


@EVERY_MODEL
def test_hidden_states_and_attentions(family, head, kind):
    model = build(family, head, kind)
    model.set_attn_implementation("eager")
    output = run(model, output_hidden_states=True, output_attentions=True)
    frames = int(model._get_feat_extract_output_lengths(600))
    assert [state.shape for state in output.hidden_states] == [(2, frames, 24)] * 4
    shapes = [(2, len(layer.heads), frames, frames) for layer in model.config.shape.layers]
    assert [weights.shape for weights in output.attentions] == shapes
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), **ROUNDING)
    plain = run(model)
    assert "hidden_states" not in plain and "attentions" not in plain
    model.config.output_hidden_states = model.config.output_attentions = True
    by_config = run(model)
    assert all(map(torch.equal, by_config.hidden_states, output.hidden_states))
    assert all(map(torch.equal, by_config.attentions, output.attentions))


@EVERY_HEAD
def test_gradient_checkpointing_by_the_configuration(family, head):
    """Asked for as in old checkpoints of stock models, which have the request in their config.json."""
    config = copy.deepcopy(_model(family, head, "dense").config)
    config.gradient_checkpointing = True
    model = type(_model(family, head, "dense"))(config)
    layers = [*model.base_model.encoder.layers, *model.base_model.feature_extractor.conv_layers]
    assert all(layer.gradient_checkpointing for layer in layers)
    assert not hasattr(model.config, "gradient_checkpointing")
    assert not hasattr(_model(family, head, "dense").config, "gradient_checkpointing")


@EVERY_ENCODER
def test_gradients_reach_hidden_states_and_attentions(family, kind):
    model = build(family, "base", kind)
    model.set_attn_implementation("eager")
    output = model(**INPUTS, output_hidden_states=True, output_attentions=True)
    # An emptied attention's weights lead nowhere.
    read = [*output.hidden_states, *(weights for weights in output.attentions if weights.shape[1])]
    for values in read:
        values.retain_grad()
    output.last_hidden_state.square().mean().backward()
    assert all(values.grad is not None and values.grad.abs().max() > 0 for values in read)


@EVERY_MODEL
def test_tuple_equals_dict(family, head, kind):
    model = build(family, head, kind)
    model.set_attn_implementation("eager")
    options = {"output_hidden_states": True, "output_attentions": True}
    if head != "base":
        options["labels"] = tiny_labels(model, head, INPUTS)
    as_dict, as_tuple = run(model, **options), run(model, return_dict=False, **options)
    assert len(as_tuple) == len(as_dict) == len(as_dict.to_tuple())
    for one, other in zip(as_tuple, as_dict.to_tuple(), strict=True):
        pairs = [(one, other)] if isinstance(one, torch.Tensor) else zip(one, other, strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


@EVERY_MODEL
def test_training_reaches_every_parameter(family, head, kind):
    model = build(family, head, kind)
    loss, gradients = train_step(model, head)
    assert torch.isfinite(loss)
    without = [name for name, gradient in gradients.items() if gradient is None]
    assert not without
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    # Keys' biases move all scores of a query alike, which softmax does not see.
    silent = [name for name, gradient in gradients.items() if not gradient.abs().max() > 0]
    assert not [name for name in silent if not name.endswith("k_proj.bias")]


@EVERY_MODEL
def test_gradient_checkpointing(family, head, kind):
    # Both kinds of torch's checkpoints, of which the first is transformers' choice.
    for use_reentrant in (False, True) if head == "base" else (False,):
        assert_checkpointing_changes_nothing(build(family, head, kind), head, use_reentrant)


def assert_checkpointing_changes_nothing(model, head, use_reentrant):
    loss, gradients = train_step(model, head)
    assert model.supports_gradient_checkpointing and not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    assert model.is_gradient_checkpointing
    checkpointed_loss, checkpointed = train_step(model, head)
    torch.testing.assert_close(checkpointed_loss, loss, **ROUNDING)
    for name, gradient in gradients.items():
        torch.testing.assert_close(checkpointed[name], gradient, **ROUNDING, msg=lambda text, at=name: f"{at}: {text}")
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@EVERY_MODEL
def test_eager_equals_sdpa(family, head, kind):
    model = build(family, head, kind)
    for inputs in (INPUTS, {"input_values": INPUTS["input_values"]}):
        outputs = []
        for attention in ("eager", "sdpa"):
            model.set_attn_implementation(attention)
            outputs.append(run(model, inputs, output_hidden_states=True))
        torch.testing.assert_close(first(outputs[0]), first(outputs[1]), **ROUNDING)
        for one, other in zip(outputs[0].hidden_states, outputs[1].hidden_states, strict=True):
            torch.testing.assert_close(one, other, **ROUNDING)


@EVERY_MODEL
def test_half_precision(tmp_path, family, head, kind):
    model = build(family, head, kind)
    model.save_pretrained(tmp_path)
    expected = first(run(model))
    for dtype in (torch.bfloat16, torch.float16) if head == "base" else (torch.bfloat16,):
        loaded = load_prunable(tmp_path, AUTO_CLASSES[head], dtype=dtype)
        assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
        # oneDNN's bfloat16 is far off in a grouped convolution of so few channels, in stock models too.
        with torch.backends.mkldnn.flags(enabled=False):
            found = first(run(loaded, {**INPUTS, "input_values": INPUTS["input_values"].to(dtype)}))
        assert found.dtype == dtype
        # A few layers of 8 bits each; in parts of what the outputs differ from each other.
        assert (found.float() - expected).abs().mean() < 0.1 * expected.std()


@EVERY_MODEL
def test_a_batch_equals_its_clips(family, head, kind):
    model = build(family, head, kind)
    audio = tiny_inputs(3, 600, padded=False)["input_values"]
    together = run(model, {"input_values": audio}, output_hidden_states=True)
    for number in range(3):
        alone = run(model, {"input_values": audio[number : number + 1]}, output_hidden_states=True)
        torch.testing.assert_close(first(alone)[0], first(together)[number], **ROUNDING)
        torch.testing.assert_close(alone.hidden_states[-1][0], together.hidden_states[-1][number], **ROUNDING)


@EVERY_HEAD
def test_signature(family, head):
    model = _model(family, head, "dense")
    names = list(inspect.signature(model.forward).parameters)
    assert names[:2] == ["input_values", "attention_mask"] and model.main_input_name == "input_values"
    assert head == "base" or "labels" in names


@EVERY_MODEL
def test_all_tensors_are_registered(family, head, kind):
    """A plain tensor attribute would stay behind when a model moves, and on meta when it is loaded."""
    for name, module in _model(family, head, kind).named_modules():
        assert not [key for key, value in vars(module).items() if isinstance(value, torch.Tensor)], name
    moved = build(family, head, kind).to("meta")
    assert {tensor.device.type for tensor in (*moved.parameters(), *moved.buffers())} == {"meta"}


@EVERY_MODEL
def test_config_round_trip(tmp_path, family, head, kind):
    config = _model(family, head, kind).config
    assert type(config).from_dict(config.to_dict()).to_dict() == config.to_dict()
    config.save_pretrained(tmp_path)
    loaded = type(config).from_pretrained(tmp_path)
    assert loaded.to_diff_dict() == config.to_diff_dict() and loaded.shape == config.shape
    assert loaded.num_labels == NUM_LABELS


@pytest.mark.parametrize("kind", ("pruned", "emptied"))
@pytest.mark.parametrize(("family", "head"), [pair for pair in FAMILY_HEADS if pair[1] != "base"])
def test_a_new_head(tmp_path, family, head, kind):
    """On an encoder without one, or in the place of one with other labels: initialised, and nothing else touched."""
    skip_uninitialized_loss(head)
    base, old = build(family, "base", kind), build(family, head, kind)
    size = {"vocab_size": 17} if head == "ctc" else {"num_labels": 7}
    for name, model in (("base", base), ("head", old)):
        model.save_pretrained(tmp_path / name)
        heads = []
        for _ in range(2):
            torch.manual_seed(0)
            options = {**size, "ignore_mismatched_sizes": True}
            heads.append(load_prunable(tmp_path / name, AUTO_CLASSES[head], **options))
        one, other = (loaded.state_dict() for loaded in heads)
        assert all(torch.isfinite(tensor).all() and torch.equal(tensor, other[key]) for key, tensor in one.items())
        encoder = heads[0].base_model.state_dict()
        assert all(torch.equal(encoder[key], tensor) for key, tensor in model.base_model.state_dict().items())
        logits = first(run(heads[0]))
        assert torch.isfinite(logits).all()
        if head != "xvector":
            # What an x-vector head returns as logits are its last layer's features; labels belong to its loss.
            assert logits.shape[-1] == next(iter(size.values()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("family", "head"), [pair for pair in FAMILY_HEADS if pair[1] != "base"])
def test_freezing(family, head, kind):
    model = build(family, head, kind)
    model.freeze_feature_encoder()
    _, gradients = train_step(model, head)
    prefix = model.base_model_prefix
    frozen = {name for name, gradient in gradients.items() if gradient is None}
    assert frozen == {name for name in gradients if name.startswith(f"{prefix}.feature_extractor.")}
    if head == "ctc":
        # A stock CTC head freezes no more than that.
        return
    model.freeze_base_model()
    _, gradients = train_step(model, head)
    assert {name for name, gradient in gradients.items() if gradient is None} == {
        name for name in gradients if name.startswith(f"{prefix}.")
    }


@pytest.mark.slow
@EVERY_ENCODER
def test_compile(family, kind):
    """One graph at any length."""
    torch.compiler.reset()
    model = build(family, "base", kind)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for samples in (600, 900, 444):
        inputs = tiny_inputs(2, samples)
        torch.testing.assert_close(run(compiled, inputs)[0], run(model, inputs)[0], **ROUNDING)
