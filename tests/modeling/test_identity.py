"""Facts about models: the same for the same weights, others when weights or configuration have changed."""

import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable.modeling.identity import identify_model
from tests.helpers.tiny_models import FAMILIES, tiny_prunable


def differing(before, now):
    return {fact for fact in before if before[fact] != now.get(fact)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_is_the_same_however_it_is_sharded(tmp_path, family):
    model = tiny_prunable(family)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    facts = [identify_model(type(model).from_pretrained(tmp_path / name)) for name in ("whole", "sharded")]
    assert facts[0] == facts[1] and facts[0]["parameters"] == model.num_parameters()


def test_any_weight_and_any_field_counts():
    before = identify_model(tiny_prunable("wavlm"))
    assert before == identify_model(tiny_prunable("wavlm"))
    for name in dict(tiny_prunable("wavlm").named_parameters()):
        model = tiny_prunable("wavlm")
        with torch.no_grad():
            model.get_parameter(name).view(-1)[-1] += 0.5
        assert differing(before, identify_model(model)) == (set() if name == "masked_spec_embed" else {"weights"}), (
            name
        )
    model = tiny_prunable("wavlm")
    model.config.layer_norm_eps = 1e-4
    assert differing(before, identify_model(model)) == {"configuration"}
    model = tiny_prunable("wavlm")
    model.config._name_or_path = "elsewhere"
    assert identify_model(model) == before


def test_the_feature_extractor_counts_where_it_is_used():
    model = tiny_prunable("wavlm")
    facts = [identify_model(model, Wav2Vec2FeatureExtractor(do_normalize=value)) for value in (True, False)]
    assert differing(*facts) == {"feature extractor"}
