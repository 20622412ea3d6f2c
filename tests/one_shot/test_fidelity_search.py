"""The smallest model that keeps a target: measured, and with one removal more it misses it."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_prunable.modeling.size import UnitCounts
from hf_prunable.one_shot.fidelity_search import FidelitySearch, FoundSize
from hf_prunable.one_shot.one_shot_pruning import OneShotPruning, least_shape
from hf_prunable.one_shot.search_files import SearchFiles
from hf_prunable.pruning.fidelity import Fidelity, measure_fidelity
from hf_prunable.pruning.targets import FidelityTarget
from tests.helpers.one_shot_models import FAST, make_clips
from tests.helpers.tiny_models import FAMILIES, tiny_prunable


CLIPS, HELD_OUT = make_clips(), make_clips(4, seed=7)
FAST = replace(FAST, curve_clips=8, price_clips=4)


class Measurement:
    """Fidelity on held-out clips, with all models that were measured."""

    def __init__(self, teacher):
        self.teacher, self.models = teacher, []

    def __call__(self, model):
        self.models.append(model)
        return measure_fidelity(model, self.teacher, [{"input_values": HELD_OUT}])


def start(target, family="hubert", files=None, **options):
    pruning = OneShotPruning(tiny_prunable(family), CLIPS, config=FAST, **options)
    measure = Measurement(pruning.teacher)
    return FidelitySearch(pruning, target, measure, files), measure


def shape(model):
    return model.config.shape


def least_size(pruning):
    """Size of the smallest shape that a pruning can reach."""
    config = pruning.model.config
    return pruning.measure.count(config, UnitCounts.of(least_shape(config, pruning.units, pruning.stock_shape)))


def order_of_round(pruning):
    return pruning.order(max(0.73 * pruning.size(), least_size(pruning)))


@pytest.mark.parametrize(
    "target", [FidelityTarget(0.004), FidelityTarget(0.02), FidelityTarget(None, 0.9995)], ids=str
)
@pytest.mark.parametrize("family", FAMILIES)
def test_with_one_removal_more_the_target_is_missed(family, target):
    search, measure = start(target, family)
    dense_size = search.pruning.size()
    found = search.run()
    best = search.pruning.model
    # The model that is returned was measured itself.
    assert any(model is best for model in measure.models)
    assert found.met == target.value(measure(best)) and target.is_met(measure(best))
    assert found.sparsity == 1 - best.num_parameters() / dense_size > 0.1
    assert found.target is target and found.num_candidates == sum(len(entry.measured) for entry in search.candidates)
    # Again from the model before the last round, in the same order.
    last = search.candidates[-1]
    kept = max((c.num_removals for c in last.measured if target.is_met(c.fidelity)), default=0)
    again = OneShotPruning(tiny_prunable(family), CLIPS, config=FAST)
    for entry in search.candidates[:-1]:
        again.model = again.pruned(order_of_round(again).shape_after(entry.largest))
    order = order_of_round(again)
    same, smaller = (again.pruned(order.shape_after(kept + extra)) for extra in (0, 1))
    assert kept == 0 or shape(same) == shape(best)
    assert smaller.num_parameters() < best.num_parameters()
    fidelity = measure(smaller)
    assert not target.is_met(fidelity) and found.one_more == target.value(fidelity)


def test_a_limit_that_is_hit_exactly_is_kept():
    """The loss of a model found, as the limit, finds it again; a hair less does not."""
    search, _ = start(FidelityTarget(0.02))
    found = search.run()
    exact, _ = start(FidelityTarget(found.met))
    assert exact.run().met == found.met
    below, _ = start(FidelityTarget(math.nextafter(found.met, 0)))
    other = below.run()
    assert other.sparsity != found.sparsity and other.met < found.met


@pytest.mark.parametrize("options", [{}, {"units": ("int",)}, {"stock_shape": True}], ids=str)
def test_a_target_so_lax_that_the_smallest_shape_keeps_it(options):
    search, _ = start(FidelityTarget(50.0), **options)
    smallest = least_size(search.pruning)
    found = search.run()
    assert search.pruning.size() == smallest and found.one_more is None
    assert "Nothing is left that the units of the run could remove." in found.describe()


def test_a_target_that_the_model_misses_as_it_is(monkeypatch):
    pruning = OneShotPruning(tiny_prunable("hubert"), CLIPS, teacher=tiny_prunable("hubert", seed=5), config=FAST)
    monkeypatch.setattr(pruning, "order", lambda size: pytest.fail("nothing may be pruned"))
    measure = Measurement(pruning.teacher)
    loss = measure(pruning.model).distillation_loss
    message = f"`target_loss` asks for a distillation loss of at most 0.01, but .* the model has {loss:.6g}"
    with pytest.raises(ValueError, match=message):
        FidelitySearch(pruning, FidelityTarget(0.01), measure).run()
    with pytest.raises(ValueError, match="`target_similarity` asks for .* of at least 0.99, but"):
        FidelitySearch(pruning, FidelityTarget(None, 0.99), measure).run()


class ToyOrder:
    """Each removal takes one unit of size 1."""

    curves = ()

    def __init__(self, size):
        self.num_removals = size - 10

    def size_after(self, num_removals):
        return 10 + self.num_removals - num_removals

    def removals_to(self, max_size):
        return next(n for n in range(self.num_removals + 1) if self.size_after(n) <= max_size)

    def shape_after(self, num_removals):
        return self.size_after(num_removals)


class ToyMeasure:
    def sparsity(self, config, size):
        return 1 - size / 300

    def count(self, config, size):
        return size


class ToyModel:
    def __init__(self, size):
        self.size, self.config = size, None


class ToyPruning:
    """Models that are their size."""

    measure, units, stock_shape = ToyMeasure(), (), False

    def __init__(self):
        self.model = ToyModel(300)

    def size(self):
        return self.model.size

    def counts(self, model):
        return model.size

    def order(self, max_size):
        return ToyOrder(self.model.size)

    def pruned(self, shape):
        return ToyModel(shape)


@given(data=st.data())
@settings(max_examples=60)
def test_values_that_rise_and_fall(data):
    """What is returned was measured and keeps the target; the one with one removal more was measured and misses it."""
    values = {300: 0.0}

    def measure(model):
        if model.size not in values:
            values[model.size] = data.draw(st.floats(0, 0.03) | st.just(math.nan))
        return Fidelity([1.0], [0.0], values[model.size], 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_prunable.one_shot.round_files.PruningRound.after", record_of_size)
        patch.setattr("hf_prunable.one_shot.fidelity_search.least_shape", lambda *parts: 10)
        patch.setattr("hf_prunable.one_shot.fidelity_search.UnitCounts.of", lambda shape: shape)
        search = FidelitySearch(ToyPruning(), FidelityTarget(0.02), measure)
        found = search.run()
    size = search.pruning.model.size
    assert values[size] <= 0.02 and found.met == values[size]
    if found.one_more is None:
        assert size == 10
    else:
        assert not values[size - 1] <= 0.02
        assert found.one_more == values[size - 1] or math.isnan(found.one_more)


def record_of_size(pruning, model, order):
    """A record that only has the sparsity."""
    return type("Record", (), {"sparsity": 1 - model.size / 300})


def interrupted(search, num_candidates):
    """Runs a search that ends with an exception before a candidate is measured."""
    measure, counts = search._measure, []

    def counting(model):
        counts.append(None)
        # The first measurement is that of the model as it is.
        if len(counts) == num_candidates + 2:
            raise KeyboardInterrupt
        return measure(model)

    search._measure = counting
    with pytest.raises(KeyboardInterrupt):
        search.run()


def test_an_interrupted_search_goes_on_to_the_bit(tmp_path):
    target = FidelityTarget(0.02)
    (tmp_path / "whole").mkdir()
    whole, _ = start(target, files=SearchFiles(tmp_path / "whole"))
    found = whole.run()
    plain, _ = start(target)
    assert plain.run() == found
    assert found.num_candidates > 4 and len(whole.records) > 1
    # Before the first candidate, in the second round, between two candidates of the last, and before the last of all.
    for num_candidates in (0, 1, 3, found.num_candidates - 1):
        folder = tmp_path / str(num_candidates)
        folder.mkdir()
        interrupted(start(target, files=SearchFiles(folder))[0], num_candidates)
        again, measure = start(target, files=SearchFiles(folder))
        assert again.run() == found and again.records == whole.records and again.candidates == whole.candidates
        # The model as it is, and what was missing.
        assert len(measure.models) == 1 + found.num_candidates - num_candidates
        for name, tensor in whole.pruning.model.state_dict().items():
            assert torch.equal(again.pruning.model.state_dict()[name], tensor), name
    finished, measure = start(target, files=SearchFiles(tmp_path / "whole"))
    finished.pruning.order = lambda size: pytest.fail("all candidates are known")
    assert finished.run() == found and len(measure.models) == 1
    for name, tensor in whole.pruning.model.state_dict().items():
        assert torch.equal(finished.pruning.model.state_dict()[name], tensor), name


def test_a_model_whose_measurement_was_not_written_is_measured_again(tmp_path):
    target = FidelityTarget(0.02)
    search, _ = start(target, files=SearchFiles(tmp_path))
    found = search.run()
    rounds = SearchFiles(tmp_path).load_rounds()
    kept = [candidate for candidate in rounds[-1].measured if target.is_met(candidate.fidelity)]
    rounds[-1].measured = rounds[-1].measured[: rounds[-1].measured.index(kept[-1])]
    SearchFiles(tmp_path).save_rounds(rounds)
    again, _ = start(target, files=SearchFiles(tmp_path))
    assert again.run() == found


def test_what_was_found_in_words():
    found = FoundSize(FidelityTarget(0.02), 0.0199, 0.6123, 0.02003, 9)
    assert found.describe() == (
        "Asked for the smallest model with a distillation loss of at most 0.02 on held-out audio: with 61.23 % removed, it "
        "is 0.0199, measured. With one removal more, it is 0.02003."
    )
