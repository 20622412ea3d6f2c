"""The part of a prunable configuration that all families share."""

from __future__ import annotations

import inspect
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from .field_limits import check_fields
from .shape import PrunedShape
from .size import UnitCounts, count_parameters
from .units import check_gate_settings


# The module through which `trust_remote_code=True` finds the classes if this library was not imported.
SHIM_MODULE = "modeling_hf_prunable"
SHIM_FILE = f"{SHIM_MODULE}.py"
# Arguments of `attach_gates`.
GATE_SETTINGS = ("units", "ste", "initial_drop_rate")


if TYPE_CHECKING:
    # What the mixin is mixed into.
    from transformers import PreTrainedConfig as _Base
else:
    _Base = object


def _is_reserved(cls: type[PreTrainedConfig], name: str) -> bool:
    """Returns whether an entry of config.json would hide an attribute of the class that is no field."""
    attribute = inspect.getattr_static(cls, name, None)
    is_settable = isinstance(attribute, property) and attribute.fset is not None
    return hasattr(cls, name) and not is_settable and name != "model_type"


class PrunableConfigMixin(_Base):
    """Fields and methods that every prunable configuration adds to the stock one of its family.

    The stock fields keep the widths of the original model. Three fields are added.

    Attributes:
        pruned_shape: Shape of the model as `PrunedShape.to_dict` returns it; `None` for a dense model.
        gates: Arguments of `attach_gates` for a model with gates; `None` for one without.
        dense_num_hidden_layers: Number of layers of the original model, if the model is truncated; otherwise `None`.
    """

    stock_config_class: ClassVar[type[PreTrainedConfig]]
    auto_classes: ClassVar[dict[str, str]]
    has_relative_position_bias: ClassVar[bool] = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Checks all fields before the stock configuration and the model work with them.

        Args:
            **kwargs: Entries of config.json that are not fields.

        Raises:
            ValueError: If a value is out of range, or an entry has the name of a method or another attribute of the class.
        """
        for name in kwargs:
            if _is_reserved(type(self), name):
                raise ValueError(
                    f"config.json has an entry {name!r}, which is the name of an attribute of {type(self).__name__}. "
                    "Remove the entry, if you trust the checkpoint."
                )
        check_fields({**{field.name: getattr(self, field.name) for field in fields(self)}, **kwargs})
        super().__post_init__(**kwargs)

    def validate_dense_num_hidden_layers(self) -> None:
        """Checks that the original model has at least the layers of this one."""
        if self.dense_num_hidden_layers is not None and self.dense_num_hidden_layers < self.num_hidden_layers:
            raise ValueError(
                f"`dense_num_hidden_layers` is {self.dense_num_hidden_layers}, but `num_hidden_layers` is "
                f"{self.num_hidden_layers}, and a truncated model has no more layers than its original."
            )

    def validate_gates(self) -> None:
        """Checks the settings of the gates."""
        if self.gates is not None:
            if sorted(self.gates) != sorted(GATE_SETTINGS):
                raise ValueError(f"`gates` must have the entries {', '.join(GATE_SETTINGS)}, but is {self.gates!r}.")
            check_gate_settings(**self.gates)

    def validate_pruned_shape(self) -> None:
        """Checks the stored shape against the original widths."""
        if self.pruned_shape is not None:
            PrunedShape.from_dict(self.pruned_shape).validate(self)

    @property
    def shape(self) -> PrunedShape:
        """Shape of the model; the full one if none is stored."""
        return PrunedShape.dense(self) if self.pruned_shape is None else PrunedShape.from_dict(self.pruned_shape)

    @property
    def has_attention_adapter(self) -> bool:
        """Whether every layer ends with an adapter (as in MMS); stock post-norm layers and those of WavLM never do."""
        return (
            self.do_stable_layer_norm
            and not self.has_relative_position_bias
            and getattr(self, "adapter_attn_dim", None) is not None
        )

    @property
    def dense_counts(self) -> UnitCounts:
        """Unit counts of the original dense model, before any pruning and truncation."""
        num_layers = self.dense_num_hidden_layers or self.num_hidden_layers
        layer = PrunedShape.dense(self).layers[0]
        return UnitCounts.of(PrunedShape(tuple(self.conv_dim), (layer,) * num_layers))

    @property
    def dense_num_parameters(self) -> int:
        """Number of parameters of the original dense encoder, which sparsity refers to."""
        return count_parameters(self, self.dense_counts)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads a stock or a prunable config.json.

        Args:
            pretrained_model_name_or_path: Folder or Hub id of the checkpoint.
            **kwargs: Passed to transformers' `get_config_dict`.

        Raises:
            ValueError: If the checkpoint has another model type.
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
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Reads the content of a config.json, as transformers' `from_dict` does.

        Args:
            config_dict: Content of the file.
            **kwargs: Passed to transformers' `from_dict`.

        Raises:
            ValueError: If a field has a wrong type or value.
        """
        try:
            return super().from_dict(config_dict, **kwargs)
        # TypeError of an entry that is named as an argument of the constructor.
        except (StrictDataclassError, TypeError) as error:
            raise ValueError(f"config.json: {error}") from error

    @classmethod
    def from_stock(cls, config: PreTrainedConfig) -> PrunableConfigMixin:
        """Returns the prunable form of a stock configuration; a prunable one is returned as it is."""
        if isinstance(config, cls):
            return config
        prunable = cls.from_dict({**config.to_dict(), "model_type": cls.model_type})
        prunable._attn_implementation = config._attn_implementation
        return prunable

    def to_stock(self) -> PreTrainedConfig:
        """Returns the stock configuration, without shape and gates.

        Its widths are those of the shape if a stock class can express it, else those of the original model.
        """
        values = self.to_dict() | (self.shape.stock_fields(self) or {})
        for name in ("pruned_shape", "gates", "auto_map", "model_type"):
            values.pop(name, None)
        if values["dense_num_hidden_layers"] is None:
            del values["dense_num_hidden_layers"]
        stock = self.stock_config_class.from_dict(values)
        # Stock WavLM has one attention implementation of its own and refuses any other.
        if not self.has_relative_position_bias:
            stock._attn_implementation = self._attn_implementation
        return stock

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Writes config.json, and the one-line module that `trust_remote_code=True` imports.

        Args:
            save_directory: Output folder; it is created if missing.
            *args: Passed to transformers' `save_pretrained`.
            **kwargs: Passed to transformers' `save_pretrained`.
        """
        auto_classes = {"AutoConfig": type(self).__name__, **self.auto_classes}
        self.auto_map = {auto: f"{SHIM_MODULE}.{name}" for auto, name in auto_classes.items()}
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        # The file holds its imports alone, which a linter in the model's repository would report as unused.
        shim = f"from hf_prunable import {', '.join(auto_classes.values())}  # noqa: F401\n"
        (folder / SHIM_FILE).write_text(shim, encoding="utf-8")
        super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Does nothing: `save_pretrained` writes the module itself, and transformers would copy package files instead."""
