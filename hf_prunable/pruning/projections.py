"""Projections from a student's hidden states to its teacher's, which are trained with the student and then thrown away."""

from __future__ import annotations

from torch import nn


# Projections from student to teacher: none, one for layer 0 and one for all others, or one for each layer.
NO_PROJECTIONS, SHARED, EACH = PROJECTIONS = ("none", "shared", "each")
# Stands for the projections that `default_projections` returns.
AUTO = "auto"


def default_projections(student_size: int, teacher_size: int, form: str = "layers") -> str:
    """Returns the projections that are used if none are chosen.

    Projections are thrown away after training, and with them what the student has learned only behind them. So there are
    none where hidden states can be compared directly.

    Args:
        student_size: Hidden size of the student.
        teacher_size: Hidden size of the teacher.
        form: Form of the distillation, "layers" or "predictions".
    """
    if form == "predictions":
        return EACH
    return NO_PROJECTIONS if student_size == teacher_size else SHARED


def resolve_projections(kind: str, student_size: int, teacher_size: int, form: str = "layers") -> str:
    """Returns the projections of a distillation: those that were chosen, or the default for "auto".

    Args:
        kind: "none", "shared", "each" or "auto".
        student_size: Hidden size of the student.
        teacher_size: Hidden size of the teacher.
        form: Form of the distillation, "layers" or "predictions".

    Raises:
        ValueError: If they do not exist, or do not fit sizes or form.
    """
    kind = default_projections(student_size, teacher_size, form) if kind == AUTO else kind
    if kind not in PROJECTIONS:
        raise ValueError(
            f"`distillation_projections` is {kind!r}; choose from {', '.join(map(repr, (AUTO, *PROJECTIONS)))}."
        )
    if form == "predictions" and kind != EACH:
        raise ValueError(
            f"`distillation_projections` is {kind!r}, but the student's last layer cannot predict several layers of the "
            f"teacher through one map. With the form 'predictions', choose {EACH!r}."
        )
    if kind == NO_PROJECTIONS and student_size != teacher_size:
        raise ValueError(
            f"`distillation_projections` is {kind!r}, but the hidden size of the student is {student_size} and that of the "
            f"teacher {teacher_size}. Choose {SHARED!r}, one projection for all layers but the first, or {EACH!r}, one for "
            "each layer."
        )
    return kind


def group_of(layer: int, kind: str) -> str:
    """Returns the name of the projection that the hidden states of a layer pass.

    Args:
        layer: Layer index of the student.
        kind: "shared" or "each".
    """
    return SHARED if kind == SHARED and layer > 0 else f"layer_{layer}"


def identity_projection(student_size: int, teacher_size: int) -> nn.Linear:
    """Returns a linear layer that starts as the identity, or with other widths as its upper left part.

    Args:
        student_size: Hidden size of the student.
        teacher_size: Hidden size of the teacher.
    """
    projection = nn.Linear(student_size, teacher_size)
    nn.init.eye_(projection.weight)
    nn.init.zeros_(projection.bias)
    return projection
