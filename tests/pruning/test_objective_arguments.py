"""Options of the objective: what does not fit together, and what was renamed."""

import warnings

import pytest

from hf_prunable.pruning.objective_arguments import ObjectiveArguments


@pytest.mark.parametrize(("shares", "projections"), [(True, "shared"), (False, "each")])
def test_the_deprecated_name_of_the_projections(shares, projections):
    with pytest.warns(FutureWarning, match=f"goes in version 0.3. Give `distillation_projections` '{projections}'"):
        renamed = ObjectiveArguments(share_projections=shares)
    assert renamed == ObjectiveArguments(distillation_projections=projections)
    with pytest.warns(FutureWarning):
        ObjectiveArguments(share_projections=shares, distillation_projections=projections)
    with pytest.raises(ValueError, match=f"which is `distillation_projections` '{projections}', but that is 'none'"):
        ObjectiveArguments(share_projections=shares, distillation_projections="none")


@pytest.mark.parametrize("shortest", [0.0, -1.0, 5.1, float("nan")])
def test_shortest_crops_out_of_range(shortest):
    with pytest.raises(
        ValueError, match=rf"`shortest_crop_seconds` is {shortest}; it must be above 0 and at most .* 5.0"
    ):
        ObjectiveArguments(shortest_crop_seconds=shortest)


def test_shortest_crops_of_clips_with_labels():
    assert ObjectiveArguments(shortest_crop_seconds=1.0, crop_seconds=1.0).shortest_crop_seconds == 1
    with pytest.raises(ValueError, match="clips with labels are not cropped. Leave it out, or choose the objective"):
        ObjectiveArguments("both", task="ctc", shortest_crop_seconds=1.0)


def test_without_the_deprecated_name_nothing_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ObjectiveArguments().distillation_projections == "auto"
