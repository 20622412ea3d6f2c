"""The settings of convexity: defaults in one place, checked, and overridden by keyword arguments."""

import inspect
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from hf_prunable import ConvexityConfig, graph_convexity, layer_convexity, profile_features
from hf_prunable.finetuning.arguments import TruncationArguments
from hf_prunable.truncation.convexity_config import CRITERIA


def test_defaults_are_those_of_the_publications():
    config = ConvexityConfig()
    assert (config.n_neighbors, config.max_pairs, config.seed) == (10, 5000, 42)
    assert (config.num_permutations, config.criteria, config.batch_size) == (20, CRITERIA, 8)


def test_every_field_is_documented():
    for setting in fields(ConvexityConfig):
        assert f"        {setting.name}: " in ConvexityConfig.__doc__ and setting.metadata["help"]


def test_options_and_functions_have_no_defaults_of_their_own():
    options = TruncationArguments("model", "data")
    assert options.convexity_config() == ConvexityConfig()
    own_fields = TruncationArguments.__dataclass_fields__
    for name in ("n_neighbors", "max_pairs", "num_permutations"):
        setting = ConvexityConfig.__dataclass_fields__[name]
        assert (own_fields[name].default, own_fields[name].metadata) == (setting.default, setting.metadata)
    for function in (graph_convexity, profile_features, layer_convexity):
        assert (
            not {setting.name for setting in fields(ConvexityConfig)} & inspect.signature(function).parameters.keys()
        )


@pytest.mark.parametrize("max_pairs", [30, None])
def test_options_make_the_config(max_pairs):
    options = TruncationArguments("model", "data", n_neighbors=3, max_pairs=max_pairs, num_permutations=0)
    assert options.convexity_config() == ConvexityConfig(n_neighbors=3, max_pairs=max_pairs, num_permutations=0)
    with pytest.raises(ValueError, match="`max_pairs` is 1; give 2 or more"):
        TruncationArguments("model", "data", max_pairs=1)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"n_neighbors": 0}, r"`n_neighbors` is 0; give 1 or more\."),
        ({"max_pairs": 1}, r"`max_pairs` is 1; give 2 or more, or None for all pairs\."),
        ({"seed": -1}, r"`seed` is -1; give 0 to 4294967295\."),
        ({"seed": 2**32}, r"`seed` is 4294967296; give 0 to 4294967295\."),
        ({"num_permutations": -1}, r"`num_permutations` is -1; give 0 or more\."),
        ({"batch_size": 0}, r"`batch_size` is 0; give 1 or more\."),
        ({"criteria": "probe"}, "criteria is 'probe'; give a list of some of convexity, probe, neighbourhood_hit"),
        ({"criteria": ["probe", "size"]}, r"criteria is \['probe', 'size'\]; give a list of some of convexity"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ConvexityConfig(**values)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"n_neighbors": "10"}, "`n_neighbors` is '10'; give an integer"),
        ({"n_neighbors": None}, "`n_neighbors` is None; give an integer"),
        ({"max_pairs": 1e3}, "`max_pairs` is 1000.0; give an integer, or None for all pairs"),
    ],
)
def test_other_types_are_refused(values, message):
    with pytest.raises(TypeError, match=message):
        ConvexityConfig(**values)


def test_equal_settings_are_equal_and_cannot_change():
    config = ConvexityConfig(n_neighbors=np.int64(5), criteria=["probe"])
    assert config == ConvexityConfig(n_neighbors=5, criteria=("probe",)) and type(config.n_neighbors) is int
    assert hash(config) == hash(ConvexityConfig(n_neighbors=5, criteria=("probe",)))
    with pytest.raises(FrozenInstanceError):
        config.n_neighbors = 6


def test_keyword_arguments_override_single_fields():
    config = ConvexityConfig(n_neighbors=5, seed=7)
    assert ConvexityConfig.from_call(config, {}) == config
    assert ConvexityConfig.from_call(config, {"seed": 8}) == ConvexityConfig(n_neighbors=5, seed=8)
    assert ConvexityConfig.from_call(None, {"max_pairs": None}) == ConvexityConfig(max_pairs=None)
    with pytest.raises(ValueError, match="`n_neighbors` is 0"):
        ConvexityConfig.from_call(config, {"n_neighbors": 0})
    with pytest.raises(TypeError, match="no setting 'k', 'size'.* are n_neighbors, max_pairs, .*batch_size"):
        ConvexityConfig.from_call(config, {"k": 3, "seed": 1, "size": 2})
    with pytest.raises(TypeError, match="no setting 'batch_size'.* are seed"):
        ConvexityConfig.from_call(config, {"batch_size": 3}, ["seed"])
