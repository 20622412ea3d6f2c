"""The sample of clips that layers are scored on, and the number of layers that the options choose."""

from collections import Counter

import pytest
from datasets import Dataset

from hf_prunable.finetuning.arguments import TruncationArguments
from hf_prunable.finetuning.task_profiles import choose_depth, profile_clips
from hf_prunable.reporting.layer_pictures import draw_profiles
from hf_prunable.truncation.convexity_config import ConvexityConfig
from hf_prunable.truncation.layer_profile import LabelProfile, LayerProfile, LayerScores


def clips(**counts):
    return Dataset.from_dict({"word": [word for word, count in counts.items() for _ in range(count)]})


@pytest.mark.parametrize("max_clips, expected", [(100, {"b": 30, "c": 20}), (24, {"b": 12, "c": 12})])
def test_classes_have_their_fair_share(max_clips, expected):
    drawn = profile_clips(clips(a=9, b=30, c=20), "word", max_clips=max_clips, min_clips_per_class=10)
    assert Counter(drawn["word"]) == expected
    assert drawn["word"][:] == sorted(drawn["word"])


def test_more_classes_than_fit_are_left_out():
    drawn = profile_clips(
        clips(**{f"w{number}": 20 for number in range(9)}), "word", max_clips=35, min_clips_per_class=10
    )
    assert Counter(drawn["word"]) == {"w0": 11, "w1": 11, "w2": 11}


def test_fewer_than_two_classes():
    assert profile_clips(clips(a=4, b=30), "word", max_clips=100) is None


def profile(values):
    scores = LayerScores(values, [0.01] * len(values))
    return LayerProfile(len(values) - 1, 50, ConvexityConfig(), {"word": LabelProfile(convexity=scores, probe=scores)})


def options(**changes):
    return TruncationArguments("model", "data", **changes)


@pytest.mark.parametrize(
    "changes, num_layers",
    [({}, 2), ({"layer_criterion": "probe"}, 2), ({"truncate": "3"}, 3), ({"truncate": 1}, 1)],
)
def test_depth(changes, num_layers):
    profiles = {"word": profile([0.1, 0.5, 0.8, 0.7])}
    assert choose_depth(profiles, "word", options(**changes)).num_layers == num_layers


def test_no_truncation_and_too_deep():
    profiles = {"word": profile([0.1, 0.5, 0.8, 0.7])}
    assert choose_depth(profiles, "word", options(truncate="none")) is None
    with pytest.raises(ValueError, match="4 layers cannot be kept; the model has layers 1 to 3"):
        choose_depth(profiles, "word", options(truncate="4"))


def test_picture_of_two_stages(tmp_path):
    stages = {stage: {"word": profile([0.1, 0.5, 0.8, 0.7])} for stage in ("pretrained", "fine-tuned")}
    draw_profiles(stages, choose_depth(stages["pretrained"], "word", options()), "word", tmp_path / "profile.png")
    assert (tmp_path / "profile.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"task": "noise"}, "`task` is 'noise'; choose from 'word', 'speaker'"),
        ({"truncate": "-1"}, "`truncate` is '-1'; it must be 'auto', 'none' or a number"),
        ({"layer_criterion": "size"}, "`layer_criterion` is 'size'; choose from convexity"),
        ({"seeds": []}, "`seeds` is empty"),
    ],
)
def test_options_that_do_not_exist(changes, message):
    with pytest.raises(ValueError, match=message):
        options(**changes)
