"""A checkpoint has the weights of its encoder, by their names, and no others; its head is complete or new."""

import json
import pickle
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForAudioClassification, AutoModelForCTC

from hf_prunable import load_prunable
from hf_prunable.modeling.checkpoint_weights import check_found
from hf_prunable.modeling.loading import load_complete
from tests.helpers.tiny_models import FAMILIES, tiny_emptied, tiny_prunable, tiny_stock


ROADS = {"base": AutoModel, "ctc": AutoModelForCTC, "classification": AutoModelForAudioClassification}


def rewrite(folder, change):
    """Changes the weights of a checkpoint: `change` gets and returns them by name."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without(*names):
    return lambda state: {name: tensor for name, tensor in state.items() if not name.endswith(names)}


def renamed(old, new):
    return lambda state: {new if name == old else name: tensor for name, tensor in state.items()}


def with_more(name):
    return lambda state: state | {name: torch.ones(2)}


def gated(family):
    model = tiny_prunable(family)
    model.attach_gates()
    return model


def with_letter_changed(name):
    middle = len(name) // 2
    return name[:middle] + ("x" if name[middle] != "x" else "y") + name[middle + 1 :]


@pytest.mark.parametrize("head", ROADS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "name",
    (
        "feature_projection.projection.weight",
        "feature_projection.layer_norm.bias",
        "encoder.layer_norm.weight",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
        "encoder.pos_conv_embed.conv.bias",
        "encoder.layers.0.attention.v_proj.weight",
        "feature_extractor.conv_layers.0.layer_norm.weight",
    ),
)
def test_missing_weights_of_the_encoder(tmp_path, family, head, name):
    tiny_emptied(family, "post", head).save_pretrained(tmp_path)
    rewrite(tmp_path, without(name))
    with pytest.raises(ValueError, match=f"disagree. Weights missing: .*{name}"):
        ROADS[head].from_pretrained(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_wrong_letter_in_any_name(family):
    for model in (tiny_emptied(family, "post", "classification"), gated(family)):
        for name in model.state_dict():
            changed = with_letter_changed(name)
            info = SimpleNamespace(missing_keys={name}, unexpected_keys={changed}, mismatched_keys=set())
            with pytest.raises(ValueError, match="Configuration and weights of .* disagree"):
                check_found(model, "place", info, False)


@pytest.mark.parametrize(
    "name", ("classifier.bias", "wavlm.masked_spec_embed", "wavlm.encoder.pos_conv_embed.conv.bias")
)
def test_one_wrong_letter_in_a_file(tmp_path, name):
    tiny_emptied("wavlm", "post", "classification").save_pretrained(tmp_path)
    rewrite(tmp_path, renamed(name, with_letter_changed(name)))
    with pytest.raises(ValueError, match=f"disagree. Weights .*{with_letter_changed(name)}"):
        AutoModelForAudioClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "name", ("encoder.layers.0.attention.more", "adapter.proj.weight", "nobody.weight", "lm_heae.bias")
)
def test_weights_that_are_left_over(tmp_path, name):
    tiny_emptied("wavlm").save_pretrained(tmp_path)
    rewrite(tmp_path, with_more(name))
    for auto_class in ("AutoModel", "AutoModelForCTC"):
        with pytest.raises(ValueError, match=f"disagree. Weights without a place: {name}"):
            load_prunable(tmp_path, auto_class)


def test_weights_of_another_head_are_left_over_from_a_head_that_was_found(tmp_path):
    tiny_emptied("wavlm", head="ctc").save_pretrained(tmp_path)
    assert load_prunable(tmp_path).encoder is not None
    assert load_prunable(tmp_path, "AutoModelForAudioClassification").classifier is not None
    rewrite(tmp_path, with_more("layer_weights"))
    with pytest.raises(ValueError, match="Weights without a place: layer_weights"):
        load_prunable(tmp_path, "AutoModelForCTC")


def test_half_a_head(tmp_path):
    tiny_emptied("wavlm", head="classification", num_labels=5).save_pretrained(tmp_path)
    options = {"num_labels": 7, "ignore_mismatched_sizes": True}
    assert load_prunable(tmp_path, "AutoModelForAudioClassification", **options).classifier.out_features == 7
    rewrite(tmp_path, without("projector.bias"))
    with pytest.raises(ValueError, match="Weights missing: projector.bias"):
        load_prunable(tmp_path, "AutoModelForAudioClassification")


def test_weights_of_another_size_cannot_be_ignored_in_the_encoder(tmp_path):
    tiny_emptied("wavlm").save_pretrained(tmp_path)
    rewrite(tmp_path, lambda state: state | {"encoder.layer_norm.weight": torch.ones(23)})
    with pytest.raises(ValueError, match="Weights of another size: encoder.layer_norm.weight"):
        load_prunable(tmp_path, ignore_mismatched_sizes=True)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        load_prunable(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_dense_checkpoints_need_their_encoder_too(tmp_path, family):
    tiny_stock(family).save_pretrained(tmp_path)
    rewrite(tmp_path, without("encoder.layer_norm.weight"))
    with pytest.raises(ValueError, match="Weights missing: encoder.layer_norm.weight"):
        load_prunable(tmp_path)


def test_what_dense_checkpoints_may_lack_or_have(tmp_path):
    tiny_stock("wav2vec2", "pre").save_pretrained(tmp_path)
    # As in the stock classes: new adapters, and fewer layers than there are.
    model = load_prunable(tmp_path, adapter_attn_dim=5, add_adapter=True, num_hidden_layers=2)
    assert model.adapter is not None and len(model.encoder.layers) == 2
    rewrite(tmp_path, lambda state: without("masked_spec_embed")(state) | {"quantizer.codevectors": torch.ones(2)})
    assert load_complete(tmp_path).masked_spec_embed is not None


def edit(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("family", "options", "values"),
    (
        ("wavlm", {}, {"num_hidden_layers": 2}),
        ("hubert", {}, {"num_hidden_layers": 0}),
        ("hubert", {}, {"feat_proj_layer_norm": False}),
        ("wavlm", {}, {"model_type": "hubert"}),
        ("wav2vec2", {"add_adapter": True, "num_adapter_layers": 2}, {"add_adapter": False}),
        ("wav2vec2", {"norm_order": "pre", "adapter_attn_dim": 5}, {"adapter_attn_dim": None}),
    ),
)
def test_a_dense_config_that_leaves_weights_out(tmp_path, family, options, values):
    tiny_stock(family, **options).save_pretrained(tmp_path)
    assert load_prunable(tmp_path) is not None
    edit(tmp_path, **values)
    with pytest.raises(ValueError, match="disagree. Weights without a place: "):
        load_prunable(tmp_path)


def test_a_letter_in_an_adapter_of_a_dense_checkpoint(tmp_path):
    tiny_stock("wav2vec2", add_adapter=True, num_adapter_layers=2).save_pretrained(tmp_path)
    rewrite(tmp_path, renamed("adapter.layers.0.conv.bias", "adapter.layers.0.conv.bios"))
    with pytest.raises(ValueError, match=r"Weights without a place: adapter.layers.0.conv.bios"):
        load_prunable(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_letter_in_the_head_of_a_dense_checkpoint(tmp_path, family):
    tiny_stock(family, head="ctc").save_pretrained(tmp_path)
    assert load_prunable(tmp_path, "AutoModelForAudioClassification").classifier is not None
    rewrite(tmp_path, renamed("lm_head.weight", "lm_head.weighx"))
    with pytest.raises(ValueError, match="Weights missing: lm_head.weight; without a place: lm_head.weighx"):
        load_prunable(tmp_path, "AutoModelForCTC")


def test_a_pickle_with_more_than_tensors(tmp_path):
    tiny_stock("hubert").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": print}))
    with pytest.raises(ValueError, match="are a pickle that holds more than tensors, which is not loaded"):
        load_prunable(tmp_path)
