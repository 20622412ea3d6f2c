"""The profile over the layers: each score equals that of the layer alone, from features and from audio."""

import json

import numpy as np
import pytest
from datasets import ClassLabel
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable import ConvexityConfig, choose_layer, graph_convexity, layer_convexity, profile_features
from hf_prunable.data.audio import audio_dataset
from hf_prunable.truncation.class_pairs import PointClasses
from hf_prunable.truncation.convexity_config import CRITERIA
from hf_prunable.truncation.layer_criteria import block_influence, linear_cka, probe_accuracy
from hf_prunable.truncation.layer_profile import LabelProfile
from hf_prunable.truncation.neighbor_graph import nearest_neighbor_graph, neighbourhood_hit
from hf_prunable.truncation.pooled_features import pooled_features
from tests.helpers.speech_files import write
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_prunable, tiny_stock


COUNT = 60
WORDS = [("yes", "no", "go")[number % 3] for number in range(COUNT)]
SPEAKERS = [number // 15 for number in range(COUNT)]


@pytest.fixture(scope="module")
def features():
    """Three hidden states; the words are best in the last, the speakers in the middle one."""
    generator = np.random.default_rng(0)
    words, speakers = (
        generator.standard_normal((4, 8))[np.unique(labels, return_inverse=True)[1]] for labels in (WORDS, SPEAKERS)
    )
    layers = [0 * words, 4 * speakers, 4 * words]
    return np.stack([layer + generator.standard_normal((COUNT, 8)) for layer in layers]).astype(np.float32)


@pytest.fixture(scope="module")
def profile(features):
    return profile_features(features, {"word": WORDS, "speaker": SPEAKERS}, n_neighbors=5, max_pairs=100)


def test_every_score_equals_that_of_the_layer_alone(features, profile):
    assert (profile.num_layers, profile.num_clips, list(profile.labels)) == (2, COUNT, ["word", "speaker"])
    for name, labels in (("word", WORDS), ("speaker", SPEAKERS)):
        found, classes = profile.labels[name], PointClasses.from_labels(labels, COUNT)
        for layer_idx, layer in enumerate(features):
            alone = graph_convexity(layer, labels, n_neighbors=5, max_pairs=100)
            means = np.array(list(alone.per_class.values()))
            assert found.convexity.values[layer_idx] == alone.score
            assert found.convexity.standard_errors[layer_idx] == pytest.approx(means.std(ddof=1) / len(means) ** 0.5)
            assert {key: values[layer_idx] for key, values in found.convexity.per_class.items()} == {
                str(key): value for key, value in alone.per_class.items()
            }
            hits = neighbourhood_hit(nearest_neighbor_graph(layer, 5), labels)
            of_classes = [
                np.mean([hit for hit, label in zip(hits, labels, strict=True) if label == key])
                for key in classes.names
            ]
            assert found.neighbourhood_hit.values[layer_idx] == pytest.approx(np.mean(of_classes))
            probe = found.probe.values[layer_idx], found.probe.standard_errors[layer_idx]
            assert probe == probe_accuracy(layer, classes, seed=42)
    assert profile.block_influence == block_influence(features).tolist()
    assert profile.cka == [linear_cka(layer, features[-1]) for layer in features]
    assert profile.cka[-1] == pytest.approx(1)


def test_layers_are_chosen_where_the_classes_were_put(profile):
    for criterion in ("convexity", "probe", "neighbourhood_hit"):
        assert choose_layer(profile, criterion, "word").num_layers == 2
        assert choose_layer(profile, criterion, "speaker").num_layers == 1


def test_permuted_labels_stay_in_their_band_and_real_ones_do_not(features, profile):
    shuffled = np.random.default_rng(1).permutation(WORDS).tolist()
    permuted = profile_features(features, {"word": shuffled}, criteria=["convexity"], n_neighbors=5)
    low, high = permuted.labels["word"].permuted_band()
    values = permuted.labels["word"].convexity.values
    # A 95 % band does not hold every one.
    assert sum(least <= value <= most for least, value, most in zip(low, values, high, strict=True)) >= 2
    real, (low, high) = profile.labels["word"].convexity.values, profile.labels["word"].permuted_band()
    assert len(profile.labels["word"].permuted_convexity) == 20
    assert real[2] > 2 * high[2] and low[0] - 0.05 < real[0] < high[0] + 0.05


def test_permuted_profiles_are_those_of_permuted_labels(features):
    scored = profile_features(
        features, {"word": WORDS}, criteria=["convexity"], n_neighbors=5, max_pairs=None, num_permutations=3, seed=7
    ).labels["word"]
    for number, values in enumerate(scored.permuted_convexity):
        permutation = np.random.default_rng((7, number)).permutation(COUNT)
        labels = np.empty(COUNT, dtype=object)
        labels[permutation] = WORDS
        alone = [graph_convexity(layer, labels, n_neighbors=5, max_pairs=None).score for layer in features]
        assert values == pytest.approx(alone, abs=1e-12)


def test_only_what_is_asked_for_is_computed(features, profile):
    for criterion in CRITERIA:
        one = profile_features(features, {"word": WORDS}, criteria=[criterion], n_neighbors=5, max_pairs=100)
        word = profile.labels["word"]
        expected = LabelProfile(
            convexity=word.convexity if criterion == "convexity" else None,
            permuted_convexity=word.permuted_convexity if criterion == "convexity" else None,
            probe=word.probe if criterion == "probe" else None,
            neighbourhood_hit=word.neighbourhood_hit if criterion == "neighbourhood_hit" else None,
        )
        assert one.labels["word"] == expected
        assert (one.block_influence, one.cka) == tuple(
            value if criterion == name else None
            for name, value in (("block_influence", profile.block_influence), ("cka", profile.cka))
        )


@pytest.mark.parametrize("permuted", [None, [], [[0.1, 0.2]]])
def test_a_band_needs_two_permutations(permuted):
    with pytest.raises(ValueError, match="needs two permutations.*num_permutations"):
        LabelProfile(permuted_convexity=permuted).permuted_band()


def test_the_band_holds_another_permutation_in_95_of_100_cases():
    draws = np.random.default_rng(0).normal(0.3, [0.01, 0.1], size=(4000, 21, 2))
    inside = []
    for *permuted, further in draws:
        low, high = LabelProfile(permuted_convexity=[values.tolist() for values in permuted]).permuted_band()
        inside.append((low < further) & (further < high))
    assert np.mean(inside, axis=0) == pytest.approx([0.95, 0.95], abs=0.015)


def test_a_profile_is_written_to_json_with_its_settings(profile):
    values = json.loads(json.dumps(profile.to_dict()))
    assert {name: values[name] for name in ("num_layers", "num_clips", "n_neighbors", "max_pairs", "seed")} == {
        "num_layers": 2,
        "num_clips": COUNT,
        "n_neighbors": 5,
        "max_pairs": 100,
        "seed": 42,
    }
    assert (values["num_permutations"], values["criteria"]) == (20, list(CRITERIA))
    assert values["labels"]["word"]["convexity"]["values"] == profile.labels["word"].convexity.values
    assert (values["block_influence"], values["cka"]) == (profile.block_influence, profile.cka)


def test_a_config_and_keywords_give_the_same_profile(features, profile):
    labels = {"word": WORDS, "speaker": SPEAKERS}
    config = ConvexityConfig(n_neighbors=5, max_pairs=100)
    assert profile.config == config
    assert profile_features(features, labels, config) == profile
    assert profile_features(features, labels, ConvexityConfig(max_pairs=100), n_neighbors=5) == profile
    with pytest.raises(TypeError, match="no setting 'cache_dir'.* are n_neighbors, max_pairs, seed, num_permutations"):
        profile_features(features, labels, config, cache_dir="features")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    for number in range(16):
        write(folder / f"{number:02}.flac", 0.1 * generator.standard_normal(400 + 100 * (number % 3)))
    files = sorted(folder.iterdir())
    return audio_dataset(files, word=["no", "yes"] * 8, speaker=[7] * 8 + [40] * 8)


@pytest.mark.parametrize("make", [tiny_stock, tiny_prunable])
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_audio_is_scored_by_its_pooled_features(family, norm_order, make, clips):
    model = make(family, norm_order)
    feature_extractor = Wav2Vec2FeatureExtractor(return_attention_mask=norm_order == "pre")
    options = {"n_neighbors": 3, "num_permutations": 2, "criteria": ["convexity", "cka"]}
    found = layer_convexity(model, clips, feature_extractor, labels=["word", "speaker"], **options)
    layers = pooled_features(model, feature_extractor, clips).layers
    assert found == profile_features(layers, {name: clips[name][:] for name in ("word", "speaker")}, **options)
    assert (found.num_layers, found.num_clips) == (3, 16)
    assert list(found.labels["speaker"].convexity.per_class) == ["7", "40"]


def test_labels_go_by_their_names_and_with_their_clips(clips, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    paths = [clip["audio"]["path"] for clip in clips]
    shifted = audio_dataset([tmp_path / "empty.wav", *paths], word=[1, *[0, 1] * 8]).cast_column(
        "word", ClassLabel(names=["no", "yes"])
    )
    model, feature_extractor = tiny_stock("wavlm"), Wav2Vec2FeatureExtractor(return_attention_mask=False)
    options = {"n_neighbors": 3, "criteria": ["convexity"]}
    found = layer_convexity(model, shifted, feature_extractor, **options)
    assert found == layer_convexity(model, clips, feature_extractor, **options)
    assert list(found.labels["word"].convexity.per_class) == ["no", "yes"]


def test_bad_input_is_named(features, clips):
    model, feature_extractor = tiny_stock("wavlm"), Wav2Vec2FeatureExtractor(return_attention_mask=False)
    with pytest.raises(ValueError, match="no column accent; the columns are audio, word, speaker"):
        layer_convexity(model, clips, feature_extractor, labels=["word", "accent"])
    with pytest.raises(ValueError, match="labels is the string 'word'; give a list"):
        layer_convexity(model, clips, feature_extractor, labels="word")
    with pytest.raises(ValueError, match="16 points cannot have 16 neighbours"):
        layer_convexity(model, clips, feature_extractor, n_neighbors=16)
    with pytest.raises(ValueError, match=r"criteria is \['size'\]; give a list of some of convexity, probe"):
        profile_features(features, {"word": WORDS}, criteria=["size"])
    with pytest.raises(ValueError, match=r"shape \(60, 8\); it must be \(layers \+ 1, clips, dimensions\)"):
        profile_features(features[0], {"word": WORDS})
    with pytest.raises(ValueError, match="60 points and 59 labels"):
        profile_features(features, {"word": WORDS[1:]})
