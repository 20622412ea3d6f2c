"""What the models of the three families share: construction, gates, and the contract of saving and loading."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils.output_capturing import OutputRecorder

from ..runtime.messages import first_names
from .attention import PrunableAttention
from .encoder import PrunableEncoder, PrunableEncoderLayer
from .feature_encoder import PrunableFeatureEncoder
from .gated import GatedConv1d, GatedMixin, OutputBias
from .gates import HardConcreteGate
from .inference import make_layers_fast_, make_layers_plain_
from .shape import PrunedShape
from .units import DEFAULT_UNITS, UNITS


# Parameters that are there because of the shape; an adapter in a layer is not, and a head has names of its own.
SHAPED_PARAMETER = re.compile(r"(encoder\.layers\.\d+\.(?!adapter_layer)|feature_extractor\.conv_layers\.)")


def check_weights(source: Any, wrong: dict[str, Collection[str]]) -> None:
    """Stops for weights that configuration and checkpoint disagree about.

    Args:
        source: Of the checkpoint.
        wrong: Names of weights by what is wrong with them.

    Raises:
        ValueError: If there are any.
    """
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {first_names(sorted(names))}" for kind, names in wrong.items() if names)
        raise ValueError(
            f"Configuration and weights of {str(source)!r} disagree. Weights {found}. Give a checkpoint whose "
            "config.json and weights were saved together."
        )


if TYPE_CHECKING:
    # What the mixin is mixed into.
    from transformers import PreTrainedModel as _Base
else:
    _Base = object


class PrunableModelMixin(_Base):
    """The part of a prunable model that is the same in every family and under every head."""

    stock_class: ClassVar[type[PreTrainedModel]]
    _supports_sdpa = True
    _no_split_modules = ["PrunableEncoderLayer"]
    _keep_in_fp32_modules_strict = ["log_alpha"]
    _can_record_outputs = {
        "hidden_states": PrunableEncoderLayer,
        "attentions": OutputRecorder(PrunableAttention, index=1, layer_name="encoder"),
    }

    def _build_encoder(
        self,
        feature_projection: nn.Module,
        position_conv: nn.Module,
        make_attention: Callable[[Any, PrunedShape, int], PrunableAttention],
        make_attention_adapter: Callable[[Any], nn.Module] | None = None,
    ) -> None:
        """Sets the modules of a base model under their stock names."""
        config, shape = self.config, self.config.shape
        self.feature_extractor = PrunableFeatureEncoder(config, shape.conv_channels)
        self.feature_projection = feature_projection
        if config.mask_time_prob > 0.0 or config.mask_feature_prob > 0.0:
            self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size))
        self.encoder = PrunableEncoder(config, shape, position_conv, make_attention, make_attention_adapter)
        if config.gates is not None:
            self._add_gates(**config.gates)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PrunableAttention):
            module.init_weights()
        elif isinstance(module, HardConcreteGate):
            init.constant_(module.log_alpha, module.initial_log_alpha)
        elif isinstance(module, OutputBias):
            init.zeros_(module.bias)
        elif hasattr(module, "layer_weights"):
            # Of a weighted sum; transformers 5.23 sets HuBERT's alone, and leaves the others as the memory was.
            init.constant_(module.layer_weights, 1.0 / len(module.layer_weights))

    def get_input_embeddings(self) -> nn.Module:
        """The module that takes the waveform in: what LoRA under gradient checkpointing and torchao ask a model for."""
        return self.base_model.feature_extractor.input_layer

    def attach_gates(
        self, units: tuple[str, ...] = DEFAULT_UNITS, ste: bool = True, initial_drop_rate: float = 0.05
    ) -> None:
        """Puts a hard-concrete gate on every unit of the kinds named.

        Args:
            units: Of "mha" (attention blocks), "head", "qk" and "vo" (query/key and value/output dimensions of each
                head), "ffn" (feed-forward blocks), "int" (intermediate units) and "conv" (convolution channels).
            ste: Whether gradients pass the gates' hard limits.
            initial_drop_rate: Where all gates start, between 0 and 1.

        Raises:
            ValueError: If a unit is unknown or cannot be pruned exactly in this model, or the model has gates or was
                prepared for inference.
        """
        if self.config.gates is not None:
            raise ValueError(
                f"The model already has gates on {tuple(self.config.gates['units'])}. "
                "Call `detach_gates()` or `compact(model)` first."
            )
        unknown = sorted(set(units) - set(UNITS))
        if unknown or not units:
            raise ValueError(f"Unknown units {unknown}: choose one or more of {', '.join(UNITS)}.")
        if not 0 < initial_drop_rate < 1:
            raise ValueError(f"`initial_drop_rate` must be between 0 and 1, but is {initial_drop_rate}.")
        self._check_not_prepared()
        settings = {"units": list(units), "ste": ste, "initial_drop_rate": initial_drop_rate}
        self.base_model._add_gates(**settings)
        self.config.gates = settings

    def _add_gates(self, units: list[str], ste: bool, initial_drop_rate: float) -> None:
        device = self.device

        def make_gate(num_gates: int) -> HardConcreteGate:
            gate = HardConcreteGate(num_gates, ste=ste, initial_drop_rate=initial_drop_rate)
            # In the model's mode: a new module trains, and would be sampled in a model that is in use.
            return gate.to(device).train(self.training)

        self.feature_extractor.attach_gates(tuple(units), make_gate)
        for layer in self.encoder.layers:
            layer.attention.attach_gates(tuple(units), make_gate)
            layer.feed_forward.attach_gates(tuple(units), make_gate)

    def detach_gates(self) -> None:
        """Takes all gates off again and leaves the weights as they are."""
        for module in self.modules():
            if isinstance(module, GatedMixin):
                module.remove_gates()
        self.config.gates = None

    def named_gates(self) -> Iterator[tuple[str, HardConcreteGate]]:
        """Names and gates, in a fixed order; the last part of a name is the kind of unit."""
        for name, module in self.named_modules():
            if isinstance(module, HardConcreteGate):
                yield name, module

    def set_gate_noise(self, seed: int | None, index: int = 0) -> None:
        """Makes the gates' noise a function of a seed and a micro-batch index, whatever the process and its state.

        Args:
            seed: Of the run; `None` returns to a fresh draw in every forward pass.
            index: Number of the micro-batch, counted over all processes.
        """
        generator = torch.Generator()
        if seed is not None:
            generator.manual_seed(int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint32)[0]))
        for _, gate in self.named_gates():
            gate.set_noise(None if seed is None else torch.rand(gate.num_gates, generator=generator))

    @torch.no_grad()
    def prepare_for_inference_(self, standard_layers_only: bool = False) -> PreTrainedModel:
        """Makes the model faster to use, in place and in memory only.

        Layers that could have gates become torch's own, which tools such as dynamic quantisation look for, and the
        position convolution's weight norm is folded. On a CPU, convolutions then become matrix products and products of
        spectra; outputs stay the same to rounding. The names of the weights change: the model can no longer be saved by
        `save_pretrained`, get gates, or train its convolutions.

        Args:
            standard_layers_only: Leave the convolutions, for tools that export a model. Outputs stay the same to the
                bit, as they do on another device than the CPU.

        Returns:
            The model, in evaluation mode.

        Raises:
            ValueError: If the model has gates, or was prepared before.
        """
        if self.config.gates is not None:
            raise ValueError(
                "A model with gates is still to be pruned. Prepare the one that `compact(model)` returns."
            )
        self._check_not_prepared()
        make_layers_plain_(self)
        if not standard_layers_only and self.device.type == "cpu":
            make_layers_fast_(self.base_model)
        return self.eval()

    def _check_not_prepared(self) -> None:
        if not any(isinstance(module, GatedConv1d) for module in self.base_model.feature_extractor.modules()):
            raise ValueError(
                "The model was changed by `prepare_for_inference_()`, and can no longer be pruned, saved or prepared "
                "again. Load its checkpoint again."
            )

    @property
    def is_stock(self) -> bool:
        """Whether a stock class can express this model: no gates, and nothing missing from the layers it has."""
        return self.config.gates is None and self.config.shape.is_dense(self.config)

    def to_stock(self) -> PreTrainedModel:
        """The same model as a stock class, sharing this one's tensors.

        Raises:
            ValueError: If the model has gates or a shape that the stock class cannot express.
        """
        if not self.is_stock:
            raise ValueError(
                f"{self.stock_class.__name__} cannot express this model: it has gates or is narrower than its "
                "configuration's widths. Save it as it is; AutoModel loads it with `import hf_prunable`."
            )
        with torch.device("meta"):
            stock = self.stock_class(self.config.to_stock())
        stock.load_state_dict(self.state_dict(), assign=True)
        # What saving a quantised model asks for.
        stock.hf_quantizer = getattr(self, "hf_quantizer", None)
        return stock.train(self.training)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args, output_loading_info: bool = False, **kwargs
    ) -> Any:
        """As in transformers, but a pruned checkpoint whose weights do not fit its shape is an error, not a warning.

        Raises:
            ValueError: If parameters that the shape stands for are missing from the checkpoint, or left over, or a file of
                weights is damaged.
        """
        try:
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        except SafetensorError as error:
            raise ValueError(
                f"The weights of {str(pretrained_model_name_or_path)!r} are damaged: {error}. Fetch them again "
                "(`force_download=True`, from the Hub), or ask who made them."
            ) from error
        if model.config.pruned_shape is not None:
            wrong = {"missing": info["missing_keys"], "without a place": info["unexpected_keys"]}
            check_weights(
                pretrained_model_name_or_path,
                {
                    kind: [key for key in keys if SHAPED_PARAMETER.search(key) and not key.endswith("log_alpha")]
                    for kind, keys in wrong.items()
                },
            )
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> None:
        """Writes the model so that `AutoModel` loads it.

        A model that a stock class can express is written as a stock checkpoint, which needs nothing of this library.
        Any other comes with a one-line module for `trust_remote_code=True`.

        Args:
            save_directory: A folder, made where it is missing.
            **kwargs: Passed to transformers' `save_pretrained`.

        Raises:
            ValueError: If the model was prepared for inference.
        """
        self._check_not_prepared()
        # The original format would bring the weight norm's old key names back.
        kwargs.setdefault("save_original_format", False)
        if self.is_stock:
            return self.to_stock().save_pretrained(save_directory, **kwargs)
        # The configuration brings the module.
        return super().save_pretrained(save_directory, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Does nothing: `save_pretrained` writes the shim itself, and transformers' copy would break the package."""


class PrunableHeadMixin(PrunableModelMixin):
    """A stock head around a prunable base model."""

    base_class: ClassVar[type[PreTrainedModel]]

    def __init__(self, config: PreTrainedConfig, *args, **kwargs):
        config = self.config_class.from_stock(config)
        # The stock head brings its stock base model, which is replaced. Loading builds both without memory. It is built
        # with the one attention that every stock model has; the prunable base model checks what was asked for.
        requested, config._attn_implementation = config._attn_implementation, "eager"
        super().__init__(config, *args, **kwargs)
        config._attn_implementation = requested
        setattr(self, self.base_model_prefix, self.base_class(config))
        self.post_init()
