"""Audio and models that one-shot pruning can and cannot work with."""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModel

from hf_prunable.modeling.size import count_frames
from hf_prunable.one_shot.calibration import check_clips, check_models, own_clips, own_share
from tests.helpers.one_shot_models import RAGGED, make_clips
from tests.helpers.tiny_models import FAMILIES, STOCK_CONFIGS, tiny_prunable


def refused(clips, *words, **options):
    with pytest.raises(ValueError) as caught:
        check_clips(clips, tiny_prunable("hubert"), **options)
    for word in words:
        assert word in str(caught.value)


# Audio


def test_clips_that_serve():
    check_clips(make_clips(), tiny_prunable("hubert"))
    check_clips(make_clips().double(), tiny_prunable("hubert"))


@pytest.mark.parametrize("clips", ["speech.wav", [torch.ones(400), torch.ones(300)], torch.randn(400)])
def test_what_is_no_matrix_of_clips(clips):
    refused(clips, "shape (clips, samples)", "different lengths")


def test_integers_are_no_normalised_audio():
    refused(torch.ones(16, 400, dtype=torch.int16), "floating-point", "int16")


def test_no_clip():
    refused(torch.zeros(0, 400), "no calibration clips")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_named(value):
    clips = make_clips()
    clips[3, 7] = clips[11, 0] = value
    refused(clips, "NaN or infinite", "3", "11")


@pytest.mark.parametrize("value", [0.0, -0.25])
def test_silence_and_a_constant_are_named(value):
    clips = make_clips()
    clips[5] = value
    refused(clips, "silent", "5")


def test_one_clip_many_times():
    refused(make_clips(1).expand(16, -1), "All 16 calibration clips are the same")


def test_clips_too_short_for_a_frame():
    refused(make_clips(samples=20), "too short for one frame")


def test_fewer_frames_than_inputs():
    """The message names frames, inputs and the seconds that would do; the ridge alone decides where it is asked to."""
    model, clips = tiny_prunable("hubert"), make_clips(2)
    num_frames = 2 * count_frames(model.config, 400)
    assert num_frames < 40
    refused(clips, f"{num_frames} frames", "40 inputs", "Give at least 0 s", "allow_few_frames")
    check_clips(clips, model, allow_few_frames=True)
    # A frame more for each input is enough.
    check_clips(make_clips(3), model)


def test_inputs_are_those_that_are_left():
    clips = make_clips(1)
    refused(clips, "19 frames", "40 inputs")
    check_clips(clips, tiny_prunable("hubert", pruned_shape=RAGGED.to_dict()))


def test_alone_a_process_has_all_clips():
    clips = make_clips()
    assert torch.equal(own_clips(clips), clips)
    assert own_share(7) == 7 and own_share(0) == 1


# Models


def test_a_stock_model_is_refused():
    model = AutoModel.from_config(STOCK_CONFIGS["hubert"](num_hidden_layers=1))
    with pytest.raises(ValueError, match=r"model is a HubertModel\. Load it with `hf_prunable\.load_prunable"):
        check_models(model, model)


@pytest.mark.parametrize("role", ["model", "teacher"])
def test_gates_are_refused(role):
    models = {"model": tiny_prunable("hubert"), "teacher": tiny_prunable("hubert")}
    models[role].attach_gates(("qk", "int"))
    with pytest.raises(ValueError, match=f"The {role} has gates on qk, int"):
        check_models(**models)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prepared_model_is_refused(family):
    model = tiny_prunable(family, pruned_shape=RAGGED.to_dict()).eval()
    model.prepare_for_inference_()
    with pytest.raises(ValueError, match="prepare"):
        check_models(model, tiny_prunable(family))


class LowRankAdapter(nn.Module):
    """Stands for the modules that adapter libraries put around a linear layer."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer


@pytest.mark.parametrize(
    "name", ["attention.q_proj", "attention.out_proj", "feed_forward.intermediate_dense", "feed_forward.output_dense"]
)
def test_modules_of_other_tools_are_named(name):
    model = tiny_prunable("hubert")
    layer = model.encoder.layers[1]
    layer.set_submodule(name, LowRankAdapter(layer.get_submodule(name)))
    with pytest.raises(ValueError, match=rf"encoder\.layers\.1\.{name} is a LowRankAdapter.*Merge or remove"):
        check_models(model, tiny_prunable("hubert"))


@pytest.mark.parametrize(
    ("family", "options"), [("hubert", {"norm_order": "pre"}), ("hubert", {"hidden_size": 32}), ("wavlm", {})]
)
def test_a_teacher_that_does_not_fit(family, options):
    model = tiny_prunable("hubert")
    teacher = tiny_prunable(family, **options)
    if family == "hubert":
        with pytest.raises(ValueError):
            check_models(model, teacher)
    else:
        # Another family with the same sizes has hidden states that can be compared.
        check_models(model, teacher)


def test_models_are_left_as_they_are():
    model = tiny_prunable("hubert")
    before = copy.deepcopy(model.state_dict())
    check_models(model, model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
