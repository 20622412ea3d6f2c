"""The upstream for s3prl, against the interface that its runner and its featurizer use."""

import huggingface_hub
import pytest
import torch
from transformers import AutoModel, Wav2Vec2FeatureExtractor

from hf_prunable import compact, load_prunable, truncate
from tests.helpers.scripts import load_script
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_stock


LENGTHS = (700, 400, 800, 400)


@pytest.fixture(scope="module")
def upstream_module():
    return load_script("examples/s3prl_upstream.py")


def checkpoint(folder, family, norm_order, pruned):
    model = tiny_stock(family, norm_order)
    if pruned:
        model.save_pretrained(folder / "dense")
        model = load_prunable(folder / "dense")
        model.attach_gates(("int",))
        for _, gate in model.named_gates():
            gate.log_alpha.data[::2] = -4.0
        model = truncate(compact(model), 2)
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=norm_order == "pre", do_normalize=True).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("pruned", [False, True], ids=("stock", "pruned"))
@torch.no_grad()
def test_hidden_states_are_those_of_each_clip_alone(upstream_module, tmp_path, family, norm_order, pruned):
    folder = checkpoint(tmp_path, family, norm_order, pruned)
    upstream = upstream_module.UpstreamExpert(ckpt=folder, model_config=None, refresh=False).eval()
    wavs = [torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in LENGTHS]
    states = upstream(wavs)["hidden_states"]
    model, feature_extractor = AutoModel.from_pretrained(folder), Wav2Vec2FeatureExtractor.from_pretrained(folder)
    assert len(states) == model.config.num_hidden_layers + 1 == (3 if pruned else 4)
    # What s3prl's featurizer takes a clip's number of frames for.
    rate = upstream.get_downsample_rates("hidden_states")
    assert rate == 20
    for number, waveform in enumerate(wavs):
        inputs = feature_extractor(waveform.numpy(), sampling_rate=16000, return_tensors="pt")
        alone = model(inputs.input_values, output_hidden_states=True).hidden_states
        frames = alone[0].shape[1]
        assert abs(frames - LENGTHS[number] / rate) < 2
        for state, own in zip(states, alone, strict=True):
            assert len(state) == len(wavs)
            torch.testing.assert_close(state[number, :frames], own[0], rtol=0, atol=2e-5)


def test_the_runner_finds_it_by_name(upstream_module, tmp_path, monkeypatch):
    # With the imports of s3prl 0.4.18, two of which huggingface_hub no longer has.
    (tmp_path / "s3prl").mkdir()
    (tmp_path / "s3prl/__init__.py").touch()
    (tmp_path / "s3prl/hub.py").touch()
    (tmp_path / "s3prl/run_downstream.py").write_text(
        "from huggingface_hub import HfApi, HfFolder, Repository\n"
        "from s3prl import hub\n\n\n"
        "def main():\n"
        "    hub.found = hub.hf_prunable\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("HfFolder", "Repository"):
        # Set first, so that the test's end takes away what `main` sets.
        monkeypatch.setattr(huggingface_hub, name, None, raising=False)
        monkeypatch.delattr(huggingface_hub, name)
    upstream_module.main()
    from s3prl import hub

    assert hub.found is upstream_module.UpstreamExpert
