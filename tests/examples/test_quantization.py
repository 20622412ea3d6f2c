"""Eight-bit weights: how far outputs move, and that quantised models load again."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.ao.nn.quantized.dynamic import Linear as DynamicLinear
from torch.ao.quantization import quantize_dynamic

from hf_prunable import load_prunable
from tests.helpers.fresh_processes import ragged
from tests.helpers.tiny_models import FAMILIES, randomize_, tiny_emptied, tiny_inputs, tiny_prunable


KINDS = {"dense": tiny_prunable, "pruned": ragged, "emptied": tiny_emptied}
EVERY_ENCODER = pytest.mark.parametrize(("family", "kind"), [(family, kind) for family in FAMILIES for kind in KINDS])
# On the mean difference, in parts of the outputs' standard deviation. Eight bits a weight are off by 1/256 of its row's
# range, and by twice that where activations have eight bits too; a few layers add up.
LARGEST_ERROR = 0.05


@torch.no_grad()
def run(model, inputs):
    return model(**inputs).last_hidden_state


def error(found, expected):
    return ((found - expected).abs().mean() / expected.std()).item()


def quantized(model):
    with warnings.catch_warnings():
        # torch's advice to move to torchao.
        warnings.simplefilter("ignore")
        return quantize_dynamic(model.prepare_for_inference_(), {nn.Linear}, dtype=torch.qint8)


@EVERY_ENCODER
def test_dynamic_quantization(tmp_path, family, kind):
    model, inputs = KINDS[kind](family), tiny_inputs(2, 600)
    expected = run(model, inputs)
    small = quantized(copy.deepcopy(model))
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert len(linear) == sum(isinstance(module, DynamicLinear) for module in small.modules()) > 0
    found = run(small, inputs)
    assert 0 < error(found, expected) < LARGEST_ERROR

    torch.save(small.state_dict(), tmp_path / "quantized.pt")
    again = quantized(randomize_(copy.deepcopy(model), seed=9))
    assert not torch.equal(run(again, inputs), found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again.load_state_dict(torch.load(tmp_path / "quantized.pt", weights_only=True))
    assert torch.equal(run(again, inputs), found)


@pytest.mark.parametrize(("family", "kind"), [("wavlm", "pruned"), ("hubert", "dense"), ("wav2vec2", "emptied")])
def test_torchao_weight_only(tmp_path, family, kind):
    pytest.importorskip("torchao")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    # With a head: torchao cannot read a tensor that is in no module, as a base model's `masked_spec_embed` is.
    auto_class = "AutoModelForAudioClassification"
    model, inputs = KINDS[kind](family, head="classification"), tiny_inputs(2, 600)
    model.save_pretrained(tmp_path / "model")
    config = TorchAoConfig(Int8WeightOnlyConfig(version=2))
    small = load_prunable(tmp_path / "model", auto_class, quantization_config=config)
    assert "Int8" in type(small.base_model.encoder.layers[0].attention.v_proj.weight).__name__
    expected, found = run(model.base_model, inputs), run(small.base_model, inputs)
    assert 0 < error(found, expected) < LARGEST_ERROR
    small.save_pretrained(tmp_path / "small")
    assert (tmp_path / "small" / "model.safetensors").exists()
    again = load_prunable(tmp_path / "small", auto_class)
    assert torch.equal(run(again.base_model, inputs), found)
