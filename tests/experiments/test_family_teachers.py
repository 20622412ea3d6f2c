"""Teachers of other families: which weights they start from, what they are trained on, and what is written."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel, Wav2Vec2FeatureExtractor

from experiments import family_teachers
from experiments.family_starts import FAMILIES, PRE_NORM, STARTS, Family, family_config, make_start
from experiments.family_teachers import FamilyArguments, training_clips
from experiments.split_audio import SplitAudio, clip_names
from tests.helpers.speech_files import RATE, write, write_speech_commands
from tests.helpers.tiny_models import tiny_inputs, tiny_stock


@pytest.fixture(scope="module")
def wavlm():
    return tiny_stock("wavlm")


@pytest.fixture
def audio(tmp_path):
    """Six utterances, and words of which two clips are tested."""
    generator = np.random.default_rng(0)
    for index, seconds in enumerate((8.5, 3, 3, 9.5, 1, 8)):
        write(tmp_path / "speech" / f"{index}-1-0.wav", 0.1 * generator.standard_normal(round(seconds * RATE)))
    clips = [f"{word}/{speaker}_nohash_0" for word in ("no", "yes") for speaker in "abc"]
    write_speech_commands(
        tmp_path / "words", clips, validation=["no/b_nohash_0"], test=["yes/c_nohash_0"], seconds=1.0
    )
    return tmp_path


def arguments(audio, **options):
    return FamilyArguments(
        teacher="",
        dataset_name=str(audio / "speech"),
        speech_commands=str(audio / "words"),
        held_out_crop_seconds=2.0,
        held_out_every=3,
        **options,
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_family_has_the_size_of_its_teacher(name, wavlm):
    config = family_config(FAMILIES[name], wavlm.config)
    assert config.model_type == FAMILIES[name].model_type
    fields = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    fields += ("num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "hidden_dropout", "layerdrop")
    assert all(getattr(config, field) == getattr(wavlm.config, field) for field in fields)
    assert all(
        list(getattr(config, field)) == list(getattr(wavlm.config, field)) for field in ("conv_dim", "conv_kernel")
    )
    assert all(getattr(config, field) == value for field, value in FAMILIES[name].fields.items())
    assert config.do_stable_layer_norm == ("prenorm" in name)


def test_names_tell_where_weights_come_from(wavlm):
    start = make_start(FAMILIES["wav2vec2"], wavlm, 0, "new_attention")
    own, given = start.model.state_dict(), wavlm.state_dict()
    assert sorted([*start.copied, *start.new]) == sorted(own)
    assert all(torch.equal(own[name], given[name]) for name in start.copied)
    projections = [name for name in start.new if name.endswith("_proj.weight")]
    assert len(projections) == 4 * 3 and all(".attention." in name for name in start.new)
    assert not any(torch.equal(own[name], given[name]) for name in projections)
    assert set(start.left_out) == set(given) - set(start.copied)
    assert any("rel_attn_embed" in name for name in start.left_out)
    summary = start.summary()
    assert summary["copied_parameters"] + summary["new_parameters"] == sum(tensor.numel() for tensor in own.values())


def test_copied_model_differs_from_the_teacher_by_its_position_bias(wavlm):
    start = make_start(FAMILIES["hubert"], wavlm, 0, "copied")
    assert start.new == [] and all(".attention.rel_" in name or ".gru_rel_" in name for name in start.left_out)
    inputs = tiny_inputs(padded=False)["input_values"]
    without_bias = tiny_stock("wavlm")
    for layer in without_bias.encoder.layers:
        if hasattr(layer.attention, "rel_attn_embed"):
            layer.attention.rel_attn_embed.weight.data.zero_()
    with torch.inference_mode():
        states = [model.eval()(inputs).last_hidden_state for model in (start.model, without_bias, wavlm)]
    assert torch.allclose(states[0], states[1], atol=1e-5)
    assert not torch.allclose(states[0], states[2], atol=1e-2)


def test_moved_norms_come_before_the_blocks_that_read_them(wavlm):
    family = Family("pre-norm", "wav2vec2", "moved_norms", 0, PRE_NORM)
    own, given = make_start(family, wavlm, 0, "moved_norms").model.state_dict(), wavlm.state_dict()
    # Pairs of a name in the pre-norm model and the name of the norm whose output the same block read in the teacher.
    names = ["layers.0.layer_norm", "layers.0.final_layer_norm", "layers.1.layer_norm", "layers.1.final_layer_norm"]
    names += ["layers.2.layer_norm", "layers.2.final_layer_norm", "layer_norm"]
    chain = ["layer_norm"] + [
        f"layers.{layer}.{norm}" for layer in range(3) for norm in ("layer_norm", "final_layer_norm")
    ]
    for name, source in zip(names, chain, strict=True):
        assert torch.equal(own[f"encoder.{name}.weight"], given[f"encoder.{source}.weight"])
        assert torch.equal(own[f"encoder.{name}.bias"], given[f"encoder.{source}.bias"])
    assert not torch.equal(own["encoder.layer_norm.weight"], given["encoder.layer_norm.weight"])


def test_new_weights_are_those_of_the_seed(wavlm):
    first, again, other = (make_start(FAMILIES["hubert"], wavlm, seed, "new").model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    name = "encoder.layers.0.attention.q_proj.weight"
    assert not torch.equal(first[name], other[name])


def test_every_second_is_equally_frequent_and_none_is_held_out(audio):
    options = arguments(audio, train_crop_seconds=1.0)
    split = SplitAudio(options.dataset_name, Wav2Vec2FeatureExtractor(), 2.0, 3)
    clips = training_clips(split, options)
    # Clip 4 is too short to be among those of which one in three is held out.
    assert clip_names(split.held_out_clips) == ["0-1-0.wav", "3-1-0.wav"]
    assert sorted(clips["seconds"]) == [3.0] * 6 + [8.0] * 8
    clips = training_clips(split, arguments(audio, train_crop_seconds=1.0, train_on_words=True))
    words = [name for name in clip_names(clips) if "nohash" in name]
    assert len(clips) == 14 + 4 and sorted(words) == [f"{speaker}_nohash_0.wav" for speaker in "aabc"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ["hubert", "wav2vec"]}, "no family 'wav2vec'; choose from hubert, wav2vec2"),
        ({"start": "copy"}, "no start 'copy'; choose from copied"),
        ({"train_on_words": True}, "Give `speech_commands`"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        FamilyArguments(teacher="", dataset_name="", **options)


def test_models_are_trained_saved_and_not_made_again(audio, teacher, monkeypatch):
    def start(*further):
        command = f"family_teachers --teacher {teacher} --dataset_name {audio / 'speech'} --output_dir {audio / 'out'}"
        command += " --held_out_crop_seconds 0.25 --train_crop_seconds 0.1 --final_steps 8 --final_learning_rate 0.01"
        monkeypatch.setattr("sys.argv", [*command.split(), *"--use_cpu --report_to none".split(), *further])
        family_teachers.main()

    start("--families", "wav2vec2-prenorm")
    out = audio / "out"
    result = json.loads((out / "raw" / "wav2vec2-prenorm.json").read_text())
    assert result["loss"] < result["start"]["loss"] and len(result["cosine"]) == 4
    assert result["settings"]["distillation_layers"] == [0, 1, 2, 3] and result["settings"]["seed"] == 42 + 200
    model = AutoModel.from_pretrained(out / "wav2vec2-prenorm")
    assert type(model).__name__ == "Wav2Vec2Model" and model.config.layerdrop == tiny_stock("wavlm").config.layerdrop
    assert (out / "wav2vec2-prenorm" / "preprocessor_config.json").exists()
    written = (out / "raw" / "wav2vec2-prenorm.json").stat().st_mtime_ns
    start("--families", "wav2vec2-prenorm", "hubert")
    assert (out / "raw" / "wav2vec2-prenorm.json").stat().st_mtime_ns == written
    table = (out / "family_teachers.md").read_text()
    rows = ["WavLM (teacher)", FAMILIES["hubert"].label, FAMILIES["wav2vec2-prenorm"].label]
    assert [table.index(f"| {row} |") for row in rows] == sorted(table.index(f"| {row} |") for row in rows)
    summary = json.loads((out / "family_teachers.json").read_text())
    assert [row["row"] for row in summary["results"]] == ["teacher", "hubert", "wav2vec2-prenorm"]
    assert "history" not in summary["results"][1]
    with pytest.raises(ValueError, match="`start` was 'moved_norms' and is 'new'"):
        start("--families", "wav2vec2-prenorm", "--start", "new")


def test_every_family_has_a_start_of_its_own():
    assert {family.start for family in FAMILIES.values()} <= set(STARTS)
    assert len({(family.start, family.seed) for family in FAMILIES.values()}) == len(FAMILIES)
