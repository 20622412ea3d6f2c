"""The part of a prunable model that all families share: construction, gates, saving and loading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils.output_capturing import OutputRecorder

from .attention import PrunableAttention
from .checkpoint_weights import check_found, check_left_over
from .configuration import PrunableConfigMixin
from .encoder import MakeAdapter, MakeAttention, PrunableEncoder, PrunableEncoderLayer
from .feature_encoder import PrunableFeatureEncoder
from .gated import GatedConv1d, GatedMixin, OutputBias
from .gates import HardConcreteGate, check_gates
from .inference import make_layers_fast_, make_layers_plain_
from .other_libraries import check_no_adapters, check_own_layers, complete_state_dict
from .units import DEFAULT_UNITS, check_gate_settings


if TYPE_CHECKING:
    # What the mixin is mixed into.
    from transformers import PreTrainedModel as _Base
else:
    _Base = object


class PrunableModelMixin(_Base):
    """Attributes and methods that every prunable model adds to the stock one, whatever its family and head."""

    stock_class: ClassVar[type[PreTrainedModel]]
    config: PrunableConfigMixin
    config_class: ClassVar[type[PrunableConfigMixin]]
    # Modules of a base model.
    feature_extractor: PrunableFeatureEncoder
    feature_projection: nn.Module
    encoder: PrunableEncoder
    _supports_sdpa = True
    # A position convolution computes its weight from parts that must be on one device.
    _no_split_modules = [
        "PrunableEncoderLayer",
        *(f"{family}PositionalConvEmbedding" for family in ("WavLM", "Hubert", "Wav2Vec2")),
    ]
    _keep_in_fp32_modules_strict = ["log_alpha"]
    _can_record_outputs = {
        "hidden_states": PrunableEncoderLayer,
        "attentions": OutputRecorder(PrunableAttention, index=1, layer_name="encoder"),
    }

    if TYPE_CHECKING:

        @property
        def base_model(self) -> PrunableModelMixin: ...

    def _build_encoder(
        self,
        feature_projection: nn.Module,
        position_conv: nn.Module,
        make_attention: MakeAttention,
        make_attention_adapter: MakeAdapter | None = None,
    ) -> None:
        """Sets the modules of a base model under their stock names.

        Args:
            feature_projection: Feature projection of the family.
            position_conv: Position convolution of the family.
            make_attention: Makes the attention block of a layer.
            make_attention_adapter: Makes the adapter of a layer, for models whose layers have one.
        """
        config, shape = self.config, self.config.shape
        self.feature_extractor = PrunableFeatureEncoder(config, shape.conv_channels)
        self.feature_projection = feature_projection
        if config.has_mask_embedding:
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
        elif isinstance(weights := getattr(module, "layer_weights", None), nn.Parameter):
            # The weights of a sum of hidden states. transformers 5.23 initialises HuBERT's alone.
            init.constant_(weights, 1.0 / len(weights))

    def get_input_embeddings(self) -> nn.Module:
        """Returns the module that takes the waveform in; peft under gradient checkpointing and torchao ask for it."""
        return self.base_model.feature_extractor.input_layer

    def get_output_embeddings(self) -> None:
        """Returns `None`, as stock speech models do; otherwise peft would leave the CTC head out of "all-linear"."""

    def __setattr__(self, name: str, value: Any) -> None:
        # peft sets this attribute when it attaches adapters.
        if name == "peft_config":
            self._check_not_prepared()
        super().__setattr__(name, value)

    def embed_frames(self, input_values: torch.Tensor) -> torch.Tensor:
        """Returns the input of the first layer, `hidden_states[0]`, without SpecAugment.

        Args:
            input_values: Audio without padding, of shape (batch, samples).

        Returns:
            Hidden states of shape (batch, frames, hidden size).
        """
        base = self.base_model
        projected = base.feature_projection(base.feature_extractor(input_values).transpose(1, 2))
        # Some families return the normalised features too.
        return base.encoder.embed_positions(projected[0] if isinstance(projected, tuple) else projected)

    def attach_gates(
        self, units: tuple[str, ...] = DEFAULT_UNITS, ste: bool = True, initial_drop_rate: float = 0.05
    ) -> None:
        """Puts a hard-concrete gate on every unit of some kinds.

        Args:
            units: Kinds of units: "mha" (attention blocks), "head", "qk" and "vo" (query/key and value/output dimensions
                of each head), "ffn" (feed-forward blocks), "int" (intermediate units), "conv" (convolution channels).
            ste: Whether gradients pass the gates' hard limits unchanged (straight-through estimator).
            initial_drop_rate: Initial value of 1 - sigmoid(log_alpha) of all gates, between 0 and 1.

        Raises:
            ValueError: If a kind is unknown or cannot be pruned exactly in this model, or the model has gates already, was
                prepared for inference, or has adapters or offloaded weights.
        """
        if self.config.gates is not None:
            raise ValueError(
                f"The model already has gates on {tuple(self.config.gates['units'])}. "
                "Call `detach_gates()` or `compact(model)` first."
            )
        check_gate_settings(units, ste, initial_drop_rate)
        self._check_not_prepared()
        check_own_layers(self)
        settings: dict[str, Any] = {"units": list(units), "ste": ste, "initial_drop_rate": initial_drop_rate}
        self.base_model._add_gates(**settings)
        self.config.gates = settings

    def _add_gates(self, units: list[str], ste: bool, initial_drop_rate: float) -> None:
        device = self.device

        def make_gate(num_gates: int) -> HardConcreteGate:
            gate = HardConcreteGate(num_gates, ste=ste, initial_drop_rate=initial_drop_rate)
            # A new module is in training mode, and its gates would be sampled in a model in evaluation mode.
            return gate.to(device).train(self.training)

        self.feature_extractor.attach_gates(tuple(units), make_gate)
        for layer in self.encoder.layers:
            layer.attention.attach_gates(tuple(units), make_gate)
            layer.feed_forward.attach_gates(tuple(units), make_gate)

    def detach_gates(self) -> None:
        """Removes all gates and leaves the weights as they are."""
        for module in self.modules():
            if isinstance(module, GatedMixin):
                module.remove_gates()
        self.config.gates = None

    def named_gates(self) -> Iterator[tuple[str, HardConcreteGate]]:
        """Yields names and gates, in a fixed order; the last part of a name is the kind of unit."""
        for name, module in self.named_modules():
            if isinstance(module, HardConcreteGate):
                yield name, module

    def set_gate_noise(self, seed: int | None, index: int = 0) -> None:
        """Makes the gates' noise a function of a seed and a micro-batch index, independent of the process and its state.

        Args:
            seed: Random seed of the run, 0 or more; `None` samples anew in every forward pass.
            index: Index of the micro-batch over all processes, from 0.
        """
        generator = torch.Generator()
        if seed is not None:
            generator.manual_seed(int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint32)[0]))
        for _, gate in self.named_gates():
            gate.set_noise(None if seed is None else torch.rand(gate.num_gates, generator=generator))

    @torch.no_grad()
    def prepare_for_inference_(self, standard_layers_only: bool = False) -> PreTrainedModel:
        """Makes inference faster, in place and in memory only.

        Layers that could have gates become torch's own, which tools such as dynamic quantisation look for, and the
        position convolution's weight norm is folded. On a CPU, convolutions become matrix products and products of
        spectra, and outputs stay the same to rounding. The names of the weights change: the model can no longer be saved
        by `save_pretrained`, get gates or adapters, or train its convolutions.

        Args:
            standard_layers_only: Whether to leave the convolutions as they are, for tools that export a model. Outputs
                then stay the same to the bit, as they do on devices other than a CPU.

        Returns:
            The model, in evaluation mode.

        Raises:
            ValueError: If the model has gates, adapters or offloaded weights, or was prepared before.
        """
        if self.config.gates is not None:
            raise ValueError(
                "A model with gates is still to be pruned. Prepare the one that `compact(model)` returns."
            )
        self._check_not_prepared()
        check_own_layers(self)
        make_layers_plain_(self)
        if not standard_layers_only and self.device.type == "cpu":
            make_layers_fast_(self.base_model)
        return self.eval()

    def _check_not_prepared(self) -> None:
        if not any(isinstance(module, GatedConv1d) for module in self.base_model.feature_extractor.modules()):
            raise ValueError(
                "The model was changed by `prepare_for_inference_()`, and can no longer be pruned, adapted, saved or "
                "prepared again. Load its checkpoint again."
            )

    @property
    def is_stock(self) -> bool:
        """Whether a stock class can express this model: without gates, with whole heads and one feed-forward width."""
        return self.config.gates is None and self.config.shape.stock_fields(self.config) is not None

    def to_stock(self) -> PreTrainedModel:
        """Returns the same model as a stock class; both share their tensors, except for offloaded ones.

        Raises:
            ValueError: If the model has adapters, gates or a shape that the stock class cannot express.
        """
        if not self.is_stock:
            raise ValueError(
                f"{self.stock_class.__name__} cannot express this model: it has gates, heads that are not whole, or layers of "
                "different widths. Save it as it is; AutoModel loads it with `import hf_prunable`."
            )
        check_no_adapters(self)
        with torch.device("meta"):
            stock = self.stock_class(self.config.to_stock())
        stock.load_state_dict(complete_state_dict(self), assign=True)
        # transformers reads it when it saves a quantised model.
        quantizer: Any = getattr(self, "hf_quantizer", None)
        stock.hf_quantizer = quantizer
        return stock.train(self.training)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args, output_loading_info: bool = False, **kwargs
    ) -> Any:
        """Loads a checkpoint as transformers does, but raises an error if the weights do not fit the shape.

        Args:
            pretrained_model_name_or_path: Folder or Hub id of the checkpoint.
            *args: Passed to transformers' `from_pretrained`.
            output_loading_info: Whether to return transformers' loading info beside the model.
            **kwargs: Passed to transformers' `from_pretrained`.

        Raises:
            ValueError: If weights of the encoder are missing or left over; if a file of weights is damaged, or gates have
                values that are not finite.
        """
        try:
            loaded: Any = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        except SafetensorError as error:
            raise ValueError(
                f"The weights of {str(pretrained_model_name_or_path)!r} are damaged: {error}. Fetch them again "
                "(`force_download=True`, from the Hub), or ask who made them."
            ) from error
        except UnpicklingError as error:
            raise ValueError(
                f"The weights of {str(pretrained_model_name_or_path)!r} are a pickle that holds more than tensors, which is "
                "not loaded. Ask for weights as safetensors."
            ) from error
        model, info = loaded
        check_left_over(model, pretrained_model_name_or_path, info, kwargs)
        check_gates(model.named_gates())
        return loaded if output_loading_info else model

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: Any) -> Any:
        """Checks which weights were found, before transformers makes memory for the others."""
        source = load_config.pretrained_model_name_or_path
        check_found(model, source, loading_info, load_config.ignore_mismatched_sizes)
        return PreTrainedModel._finalize_model_loading(model, load_config, loading_info)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Writes the model so that `AutoModel` loads it.

        A model that a stock class can express is written as a stock checkpoint, which loads without this library. Any
        other is written with a one-line module for `trust_remote_code=True`. Of a model that got its adapters by
        `add_adapter`, transformers writes the adapters alone.

        Args:
            save_directory: Output folder; it is created if missing.
            *args: Passed to transformers' `save_pretrained`.
            **kwargs: Passed to transformers' `save_pretrained`.

        Raises:
            ValueError: If the model was prepared for inference, or is the one inside a `PeftModel`.
        """
        self._check_not_prepared()
        if not self._hf_peft_config_loaded:
            check_no_adapters(self)
        # The original format has the weight norm's old key names.
        kwargs.setdefault("save_original_format", False)
        if self.is_stock and not self._hf_peft_config_loaded:
            self.to_stock().save_pretrained(save_directory, *args, **kwargs)
            return
        # The configuration writes the module.
        super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Does nothing: the configuration writes the module itself, and transformers would copy package files instead."""


class PrunableHeadMixin(PrunableModelMixin):
    """A stock head around a prunable base model."""

    base_class: ClassVar[type[PreTrainedModel]]
    # The stock heads ignore `num_items_in_batch`: their loss is that of a micro-batch, and the Trainer has to divide it by
    # the number of micro-batches of a step.
    accepts_loss_kwargs = False

    def __init__(self, config: PreTrainedConfig, *args, **kwargs):
        config = self.config_class.from_stock(config)
        # The stock head builds its stock base model, which is replaced; loading builds both without memory. It is built
        # with "eager", the one attention that every stock model has; the prunable base model checks the requested one.
        requested, config._attn_implementation = config._attn_implementation, "eager"
        checkpoints_gradients = getattr(config, "gradient_checkpointing", False)
        super().__init__(config, *args, **kwargs)
        config._attn_implementation = requested
        if checkpoints_gradients:
            # The stock base model has taken this request out of the configuration.
            config.gradient_checkpointing = True
        setattr(self, self.base_model_prefix, self.base_class(config))
        self.post_init()
