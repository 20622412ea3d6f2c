"""The exchange of layers for faster ones that `prepare_for_inference_` makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils import parametrize

from .fourier_conv import FourierConv1d
from .gated import GatedConv1d, GatedLinear, plain_layer
from .matmul_feature_encoder import MatmulFeatureEncoder


if TYPE_CHECKING:
    from .pretrained import PrunableModelMixin


def make_layers_plain_(model: nn.Module) -> None:
    """Exchanges layers that could have gates or have a parametrized weight for torch's own; outputs stay bitwise equal."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            # `remove_parametrizations` would change the class that copies of the model share.
            has_special_weight = isinstance(child, GatedLinear | GatedConv1d) or parametrize.is_parametrized(
                child, "weight"
            )
            if has_special_weight and isinstance(child, nn.Linear | nn.Conv1d):
                setattr(module, name, plain_layer(child))


def make_layers_fast_(base_model: PrunableModelMixin) -> None:
    """Exchanges layers for forms that are faster on a CPU; outputs stay the same to rounding.

    Args:
        base_model: Prunable base model whose layers are torch's own.
    """
    feature_encoder = MatmulFeatureEncoder(base_model.feature_extractor, base_model.config)
    base_model.add_module("feature_extractor", feature_encoder)
    position_conv = base_model.encoder.pos_conv_embed
    # The short kernels of data2vec-audio stay as they are.
    if isinstance(conv := getattr(position_conv, "conv", None), nn.Conv1d):
        position_conv.add_module("conv", FourierConv1d(conv))
    for layer in base_model.encoder.layers:
        layer.attention.may_go_head_by_head = True
