"""What the configurations of the three families share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from transformers import PreTrainedConfig

from .shape import PrunedShape
from .size import UnitCounts, count_parameters


# Through it, `trust_remote_code=True` finds the classes where nobody has imported this library.
SHIM_MODULE = "modeling_hf_prunable"
SHIM_FILE = f"{SHIM_MODULE}.py"


# Twenty times the deepest published models of these families, which have 48.
MAX_LAYERS = 960


if TYPE_CHECKING:
    # What the mixin is mixed into.
    from transformers import PreTrainedConfig as _Base
else:
    _Base = object


class PrunableConfigMixin(_Base):
    """The part of a prunable configuration that is the same in every family.

    The stock fields keep the widths of the original model. Three fields come on top: `pruned_shape` (`None`: dense),
    `gates` (`None`: without) and `dense_num_hidden_layers`, the layers of the original model where some were cut off.
    """

    stock_config_class: ClassVar[type[PreTrainedConfig]]
    auto_classes: ClassVar[dict[str, str]]
    has_relative_position_bias: ClassVar[bool] = False

    def validate_num_hidden_layers(self) -> None:
        """Refuses what would fill the memory before any weight is looked at."""
        if not 0 <= self.num_hidden_layers <= MAX_LAYERS:
            raise ValueError(
                f"`num_hidden_layers` is {self.num_hidden_layers}, and 0 to {MAX_LAYERS} are supported. The config.json is "
                "damaged, or was made to do damage: do not use this checkpoint."
            )

    def validate_pruned_shape(self) -> None:
        """Checks the stored shape against the widths of the original model."""
        if self.pruned_shape is not None:
            PrunedShape.from_dict(self.pruned_shape).validate(self)

    @property
    def shape(self) -> PrunedShape:
        """The model's shape; the full one where none is stored."""
        return PrunedShape.dense(self) if self.pruned_shape is None else PrunedShape.from_dict(self.pruned_shape)

    @property
    def has_attention_adapter(self) -> bool:
        """Whether every layer ends with an adapter (MMS); the stock post-norm layers and WavLM's never do."""
        return (
            self.do_stable_layer_norm
            and not self.has_relative_position_bias
            and getattr(self, "adapter_attn_dim", None) is not None
        )

    @property
    def dense_counts(self) -> UnitCounts:
        """Unit counts of the original dense model, whatever was cut since."""
        num_layers = self.dense_num_hidden_layers or self.num_hidden_layers
        layer = PrunedShape.dense(self).layers[0]
        return UnitCounts.of(PrunedShape(tuple(self.conv_dim), (layer,) * num_layers))

    @property
    def dense_num_parameters(self) -> int:
        """Parameters of the original dense encoder: what sparsity is counted from."""
        return count_parameters(self, self.dense_counts)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads a stock or a prunable config.json.

        Raises:
            ValueError: If it belongs to another kind of model.
        """
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        model_type = config_dict.get("model_type", cls.model_type)
        allowed = (cls.stock_config_class.model_type, cls.model_type)
        if model_type not in allowed:
            raise ValueError(
                f"{pretrained_model_name_or_path} has model type {model_type!r}, and {cls.__name__} reads "
                f"{allowed[0]!r} and {allowed[1]!r}. Use the class of that family, if it is WavLM, HuBERT or "
                "wav2vec 2.0."
            )
        return {**config_dict, "model_type": cls.model_type}, kwargs

    @classmethod
    def from_stock(cls, config: PreTrainedConfig) -> PrunableConfigMixin:
        """The prunable form of a stock configuration; a prunable one is returned as it is."""
        if isinstance(config, cls):
            return config
        prunable = cls.from_dict({**config.to_dict(), "model_type": cls.model_type})
        prunable._attn_implementation = config._attn_implementation
        return prunable

    def to_stock(self) -> PreTrainedConfig:
        """The stock configuration of the same widths, without shape and gates."""
        values = self.to_dict()
        for name in ("pruned_shape", "gates", "auto_map", "model_type"):
            values.pop(name, None)
        if values["dense_num_hidden_layers"] is None:
            del values["dense_num_hidden_layers"]
        stock = self.stock_config_class.from_dict(values)
        # Stock WavLM has one attention of its own and refuses to be asked for another.
        if not self.has_relative_position_bias:
            stock._attn_implementation = self._attn_implementation
        return stock

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Writes config.json, and beside it the one-line module that `trust_remote_code=True` reads.

        Args:
            save_directory: A folder, made where it is missing.
            **kwargs: Passed to transformers' `save_pretrained`.
        """
        auto_classes = {"AutoConfig": type(self).__name__, **self.auto_classes}
        self.auto_map = {auto: f"{SHIM_MODULE}.{name}" for auto, name in auto_classes.items()}
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        # The file is nothing but its imports, which a linter in the model's repository would take for unused.
        shim = f"from hf_prunable import {', '.join(auto_classes.values())}  # noqa: F401\n"
        (folder / SHIM_FILE).write_text(shim, encoding="utf-8")
        super().save_pretrained(save_directory, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Does nothing: `save_pretrained` writes the shim itself, and transformers' copy would break the package."""
