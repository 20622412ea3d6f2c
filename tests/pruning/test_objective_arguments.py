"""Options of a pruning run that were renamed."""

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


def test_without_the_deprecated_name_nothing_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ObjectiveArguments().distillation_projections == "auto"
