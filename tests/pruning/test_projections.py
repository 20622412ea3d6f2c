"""Projections from student to teacher: which are used by default, and which do not fit."""

import pytest

from hf_prunable.pruning.distillation import Distillation
from hf_prunable.pruning.projections import default_projections
from tests.helpers.tiny_models import tiny_prunable, tiny_stock


@pytest.mark.parametrize(
    ("teacher_size", "form", "expected"),
    [(24, "layers", "none"), (36, "layers", "shared"), (24, "predictions", "each"), (36, "predictions", "each")],
)
def test_default_projections(teacher_size, form, expected):
    assert default_projections(24, teacher_size, form) == expected
    teacher = tiny_stock("hubert", hidden_size=teacher_size)
    by_default, chosen = (
        Distillation(teacher, tiny_prunable("hubert").config, form=form, projections=kind)
        for kind in ("auto", expected)
    )
    assert by_default.groups == chosen.groups and by_default.sources == chosen.sources


@pytest.mark.parametrize(
    ("teacher_size", "form", "projections", "message"),
    [
        (
            36,
            "layers",
            "none",
            "hidden size of the student is 24 and that of the teacher 36. Choose 'shared', .* 'each'",
        ),
        (24, "predictions", "none", "With the form 'predictions', choose 'each'"),
        (24, "predictions", "shared", "With the form 'predictions', choose 'each'"),
        (24, "layers", "one", "'one'; choose from 'auto', 'none', 'shared', 'each'"),
    ],
)
def test_projections_that_do_not_fit_are_refused(teacher_size, form, projections, message):
    teacher = tiny_stock("wavlm", hidden_size=teacher_size)
    with pytest.raises(ValueError, match=message):
        Distillation(teacher, tiny_prunable("wavlm").config, form=form, projections=projections)
