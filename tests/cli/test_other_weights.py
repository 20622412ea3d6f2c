"""ContentVec, a HuBERT with `final_proj`: pruned by the command, its layers and the projection compared with the original."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import HubertModel, Wav2Vec2FeatureExtractor

import hf_prunable
from hf_prunable import load_prunable, one_shot_prune, truncate
from hf_prunable.cli.pruning_setup import logger
from hf_prunable.hub import published_files
from hf_prunable.modeling.other_weights import OTHER_WEIGHTS_FILE, read_other_weights
from hf_prunable.runtime.files import save_tensors_atomically
from tests.cli.test_methods_without_gates import ONE_SHOT, run
from tests.helpers.processes import with_root
from tests.helpers.speech_files import RATE, write
from tests.helpers.tiny_models import NOISE, randomize_, tiny_config, tiny_inputs


class HubertModelWithFinalProj(HubertModel):
    """The class that projects around ContentVec define."""

    def __init__(self, config):
        super().__init__(config)
        self.final_proj = nn.Linear(config.hidden_size, config.classifier_proj_size)


class PrunableContentVec(hf_prunable.PrunableHubertModel):
    """Its prunable counterpart, as the guide shows it."""

    stock_class = HubertModelWithFinalProj

    def __init__(self, config):
        super().__init__(config)
        self.final_proj = nn.Linear(config.hidden_size, config.classifier_proj_size)


IN_A_NEW_PROCESS = """
import sys, torch, hf_prunable
from safetensors.torch import load_file, save_file
from transformers import AutoModel

folder, inputs, outputs = sys.argv[1:]
model = AutoModel.from_pretrained(folder)
final_proj = torch.nn.Linear(model.config.hidden_size, model.config.classifier_proj_size)
weights = load_file(f"{folder}/other_weights.safetensors")
final_proj.load_state_dict({name.removeprefix("final_proj."): weight for name, weight in weights.items()})
with torch.no_grad():
    states = model(**load_file(inputs), output_hidden_states=True).hidden_states
    save_file({"9": states[9], "12": states[12].clone(), "units": final_proj(states[9])}, outputs)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """ContentVec's layout with random weights, 12 layers and a projection, and audio."""
    place = tmp_path_factory.mktemp("contentvec")
    noise = dict.fromkeys(NOISE, 0.0) | {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "apply_spec_augment": False}
    config = tiny_config("hubert", num_hidden_layers=12, **noise)
    randomize_(HubertModelWithFinalProj(config)).eval().save_pretrained(place / "dense")
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(place / "dense")
    for number, samples in enumerate(0.1 * np.random.default_rng(0).standard_normal((8, RATE // 10))):
        write(place / "audio" / f"{number}.wav", samples)
    return place


def prune_contentvec(place, folder, **options):
    return run(place, folder, **ONE_SHOT | {"rounds": 1, "target_sparsity": [0.1]} | options)


def similarity(states, others):
    """Mean cosine similarity of frames, from their mean over time; the numbers of frames are equal."""
    assert states.shape == others.shape
    moves = [hidden - hidden.mean(1, keepdim=True) for hidden in (states, others)]
    return torch.cosine_similarity(*moves, dim=-1).mean().item()


def test_a_pruned_contentvec_keeps_frames_layers_and_projection(place, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(logger, "warning", warnings.append)
    folder = prune_contentvec(place, tmp_path, keep_other_weights=True, target_sparsity=[0.2])
    assert warnings == [
        "PrunableHubertModel has no place for weights of the checkpoint: final_proj.bias, final_proj.weight. They are kept "
        "in other_weights.safetensors."
    ]
    dense = HubertModelWithFinalProj.from_pretrained(place / "dense")
    kept = load_file(folder / OTHER_WEIGHTS_FILE)
    assert kept.keys() == {"final_proj.bias", "final_proj.weight"}
    assert all(torch.equal(weight, dense.state_dict()[name]) for name, weight in kept.items())
    assert OTHER_WEIGHTS_FILE in published_files(folder)
    inputs = {"input_values": tiny_inputs(padded=False)["input_values"]}
    save_tensors_atomically(tmp_path / "inputs", inputs)
    command = [
        sys.executable,
        "-c",
        IN_A_NEW_PROCESS,
        str(folder),
        str(tmp_path / "inputs"),
        str(tmp_path / "outputs"),
    ]
    subprocess.run(command, check=True, env=with_root(), capture_output=True, timeout=300)
    small = load_file(tmp_path / "outputs")
    with torch.no_grad():
        states = dense(**inputs, output_hidden_states=True).hidden_states
        found = {
            "9": similarity(small["9"], states[9]),
            "12": similarity(small["12"], states[12]),
            "units": similarity(small["units"], dense.final_proj(states[9])),
        }
    assert min(found.values()) > 0.85 and not torch.equal(small["9"], states[9]), found
    # The layer before is another one.
    assert similarity(small["9"], states[8]) < found["9"] - 0.05
    # Pruned again, they are still there.
    assert read_other_weights(folder, load_prunable(folder)).keys() == kept.keys()


def test_weights_without_a_place_are_named_and_left_out(place, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(logger, "warning", warnings.append)
    folder = prune_contentvec(place, tmp_path)
    (line,) = warnings
    assert "final_proj.bias, final_proj.weight. They are left out of the result." in line
    assert not (folder / OTHER_WEIGHTS_FILE).exists()


def test_a_class_with_the_projection_is_truncated_and_pruned(place, tmp_path):
    dense = HubertModelWithFinalProj.from_pretrained(place / "dense")
    inputs = {"input_values": tiny_inputs(padded=False)["input_values"]}
    truncate(dense, 9, inputs).save_pretrained(tmp_path / "nine")
    nine, info = HubertModelWithFinalProj.from_pretrained(tmp_path / "nine", output_loading_info=True)
    assert not any(info.values())
    with torch.no_grad():
        units = [
            model.final_proj(model(**inputs, output_hidden_states=True).hidden_states[9]) for model in (dense, nine)
        ]
    assert torch.equal(*units)
    model = PrunableContentVec.from_pretrained(place / "dense")
    for folder, stock_shape, kind in (
        ("ragged", False, PrunableContentVec),
        ("stock", True, HubertModelWithFinalProj),
    ):
        small = one_shot_prune(model, inputs["input_values"], target_sparsity=0.1, rounds=1, stock_shape=stock_shape)
        small.save_pretrained(tmp_path / folder)
        loaded, info = kind.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not any(info.values())
        assert torch.equal(loaded.final_proj.weight, dense.final_proj.weight)


@pytest.mark.parametrize("form", ["shards", "pickled weights", "a pruned head"])
def test_weights_are_found_in_every_form_of_checkpoint(form, place, tmp_path):
    dense = HubertModelWithFinalProj.from_pretrained(place / "dense")
    if form == "shards":
        dense.save_pretrained(tmp_path, max_shard_size="20KB")
        assert (tmp_path / "model.safetensors.index.json").exists()
    elif form == "pickled weights":
        dense.config.save_pretrained(tmp_path)
        torch.save(dense.state_dict(), tmp_path / "pytorch_model.bin")
    else:
        config = tiny_config("hubert", prunable=True)
        randomize_(hf_prunable.PrunableHubertForCTC(config)).save_pretrained(tmp_path)
    model = load_prunable(tmp_path)
    names = ["lm_head.bias", "lm_head.weight"] if form == "a pruned head" else ["final_proj.bias", "final_proj.weight"]
    assert list(read_other_weights(tmp_path, model)) == names
    if form == "a pruned head":
        assert read_other_weights(tmp_path, load_prunable(tmp_path, "AutoModelForCTC")) == {}


def test_a_checkpoint_without_feature_extractor_is_refused(place, tmp_path):
    HubertModelWithFinalProj.from_pretrained(place / "dense").save_pretrained(tmp_path / "bare")
    with pytest.raises(OSError, match=r"no feature extractor \(preprocessor_config.json\) in .*bare'. Download the"):
        prune_contentvec(place, tmp_path, model_name_or_path=str(tmp_path / "bare"))
