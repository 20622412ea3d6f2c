"""What `prepare_for_inference_` exchanges: layers for ones that only compute, and do it faster."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

from .fourier_conv import FourierConv1d
from .gated import GatedConv1d, GatedLinear, plain_layer
from .matmul_feature_encoder import MatmulFeatureEncoder


def make_layers_plain_(model: nn.Module) -> None:
    """Makes layers that could have gates, or have a parametrized weight, torch's own; outputs stay the same to the bit."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            # `remove_parametrizations` would change the class that copies of the model share.
            if isinstance(child, GatedLinear | GatedConv1d) or parametrize.is_parametrized(child, "weight"):
                setattr(module, name, plain_layer(child))


def make_layers_fast_(base_model: nn.Module) -> None:
    """Exchanges what is faster in another form on a CPU; outputs stay the same to rounding.

    Args:
        base_model: With plain layers.
    """
    base_model.feature_extractor = MatmulFeatureEncoder(base_model.feature_extractor, base_model.config)
    position_conv = base_model.encoder.pos_conv_embed
    position_conv.conv = FourierConv1d(position_conv.conv)
    for layer in base_model.encoder.layers:
        layer.attention.may_go_head_by_head = True
