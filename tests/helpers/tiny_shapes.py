"""Shape files of tiny models."""

from benchmarks.shape_files import ShapeFile
from hf_prunable import AttentionShape, LayerShape, PrunedShape
from tests.helpers.tiny_models import tiny_config


TINY = "tiny-wavlm"
# Rows of a benchmark of `tiny_shape`.
ROWS = ["stock", "dense", "dense prepared", f"ragged-{TINY}", f"ragged-{TINY} prepared"]


def tiny_shape(name="ragged", family="wavlm", **changes):
    """A shape of a tiny model with heads of different widths, an empty attention and a removed layer."""
    layers = (
        LayerShape(AttentionShape((0, 1, 3), (1, 5, 0), (3, 6, 2)), 11),
        LayerShape(AttentionShape((), (), ()), 7),
        LayerShape(None, None),
    )
    values = {
        "name": f"{name}-{TINY}",
        "model": TINY,
        "config": tiny_fields(family),
        "source": "made up",
        "units": ["qk", "vo", "int", "conv"],
        "measure": "parameters",
        "target": 0.5,
        "shape": PrunedShape((5, 9, 20), layers),
    }
    return ShapeFile(**values | changes)


def tiny_fields(family="wavlm", **overrides):
    """Fields of a tiny model's stock configuration that differ from the defaults."""
    fields = tiny_config(family, **overrides).to_diff_dict()
    del fields["transformers_version"]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
