"""SpeechBrain's wrappers around models of transformers, with pruned folders as their source."""

import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from tests.helpers.fresh_processes import ragged
from tests.helpers.tiny_models import FAMILIES, tiny_emptied, tiny_inputs


pytest.importorskip("speechbrain", exc_type=ImportError)
WRAPPERS = {
    "wavlm": ("wavlm", "WavLM"),
    "hubert": ("hubert", "HuBERT"),
    "wav2vec2": ("wav2vec2", "Wav2Vec2"),
}
KINDS = {"ragged": ragged, "emptied": tiny_emptied}
# One length: SpeechBrain normalises a batch with its padding.
AUDIO = tiny_inputs(padded=False)["input_values"]


def wrapper(family, folder, **options):
    module, name = WRAPPERS[family]
    return getattr(pytest.importorskip(f"speechbrain.integrations.huggingface.{module}"), name)(
        str(folder), save_path=str(folder / "saved"), **options
    )


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def model(kind, family, tmp_path):
    """A pruned model that is saved with its feature extractor."""
    model = kind(family)
    model.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=False).save_pretrained(tmp_path)
    return model


@torch.no_grad()
def test_frozen_features(model, family, tmp_path):
    expected = model(AUDIO, output_hidden_states=True)
    wrapped = wrapper(family, tmp_path, freeze=True)
    assert type(wrapped.model) is type(model)
    torch.testing.assert_close(wrapped(AUDIO), expected.last_hidden_state, rtol=0, atol=0)
    states = wrapper(family, tmp_path, freeze=True, output_all_hiddens=True)(AUDIO)
    torch.testing.assert_close(states, torch.stack(expected.hidden_states), rtol=0, atol=0)


@torch.no_grad()
def test_relative_lengths(model, family, tmp_path):
    inputs = tiny_inputs()
    lengths = inputs["attention_mask"].sum(-1) / AUDIO.shape[1]
    expected = model(**inputs).last_hidden_state
    found = wrapper(family, tmp_path, freeze=True)(inputs["input_values"], lengths)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_fine_tuning(model, family, tmp_path):
    wrapped = wrapper(family, tmp_path, freeze_feature_extractor=True)
    before = {name: parameter.detach().clone() for name, parameter in wrapped.model.named_parameters()}
    optimizer = torch.optim.SGD([parameter for parameter in wrapped.parameters() if parameter.requires_grad], lr=0.1)
    wrapped(AUDIO).square().mean().backward()
    optimizer.step()
    changed = {
        name for name, parameter in wrapped.model.named_parameters() if not torch.equal(parameter, before[name])
    }
    assert changed and not any(name.startswith("feature_extractor") for name in changed)
