"""The facts of a saved model that its card shows at a glance, and the table of models to choose from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCardData
from transformers.models.auto.feature_extraction_auto import get_feature_extractor_config

from ..modeling.pretrained import PrunableModelMixin
from ..runtime.auto_classes import AUDIO_CLASSIFICATION, BASE_MODEL, CTC
from ..runtime.project import PACKAGE, project_url
from ..runtime.tables import markdown_table
from .model_card_parts import dataset_text, link
from .provenance import Provenance
from .public_text import escape_markdown
from .run_report import RunInputs


THIS_MODEL = "**this\u00a0model**"
UNIT = re.compile(r"(?<=\d) (?=[a-zA-Z])")


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A saved model, as far as its card describes it.

    Attributes:
        auto_class: Name of the Auto class of the saved head.
        is_stock: Whether the model loads without hf_prunable.
        sampling_rate: Sampling rate of the audio in Hz.
        normalizes: Whether the feature extractor scales each clip to zero mean and unit variance.
        samples_per_frame: Number of samples from one frame to the next.
        num_hidden_states: Number of hidden states.
        hidden_size: Dimensions of a hidden state.
    """

    auto_class: str
    is_stock: bool
    sampling_rate: int
    normalizes: bool
    samples_per_frame: int
    num_hidden_states: int
    hidden_size: int

    @classmethod
    def of(cls, model: PrunableModelMixin, folder: Path, auto_class: str) -> SavedModel:
        """Describes a model.

        Args:
            model: Model in memory, as it was saved.
            folder: Folder that it was saved to, with its feature extractor.
            auto_class: Name of the Auto class of the saved head.
        """
        feature_extractor = get_feature_extractor_config(folder)
        return cls(
            auto_class=auto_class,
            is_stock=model.is_stock,
            sampling_rate=feature_extractor["sampling_rate"],
            normalizes=feature_extractor["do_normalize"],
            samples_per_frame=math.prod(model.config.conv_stride),
            num_hidden_states=model.config.num_hidden_layers + 1,
            hidden_size=model.config.hidden_size,
        )

    @property
    def input_text(self) -> str:
        """What the model takes."""
        scaled = ", scaled to zero mean and unit variance by the feature extractor" if self.normalizes else ""
        return f"one channel of audio at {self.sampling_rate:,} Hz{scaled}"

    @property
    def output_text(self) -> str:
        """What the model returns."""
        frames = f"{self.sampling_rate / self.samples_per_frame:g} frames per second"
        return {
            BASE_MODEL: f"{self.num_hidden_states} hidden states of {self.hidden_size} dimensions, {frames}",
            CTC: f"scores of the tokenizer's symbols, {frames}",
            AUDIO_CLASSIFICATION: "scores of the classes, once per clip",
        }.get(self.auto_class, f"that of {self.auto_class}, from {frames}")

    @property
    def libraries_text(self) -> str:
        """What the model needs to load."""
        return "transformers" if self.is_stock else f"transformers with {PACKAGE}"


def facts_table(
    inputs: RunInputs, provenance: Provenance, model: SavedModel, method: str, card_data: ModelCardData
) -> str:
    """Formats what a stranger asks first as a Markdown table; what is not known is left out.

    Args:
        inputs: Inputs of the run.
        provenance: Software and hardware of the run.
        model: Saved model.
        method: Method that made the model, as Markdown.
        card_data: Front matter with the license.
    """
    version = provenance.versions.get(PACKAGE)
    rows = {
        "Method": method,
        "Audio": inputs.dataset_name and dataset_text(inputs.dataset_name),
        "Input": model.input_text,
        "Output": model.output_text,
        "Loads with": model.libraries_text,
        "License": _license(card_data),
        "Made with": f"[{PACKAGE}]({project_url()}){f' {version}' if version else ''}",
    }
    return markdown_table(
        ("Base\u00a0model", link(inputs.model_name)), [(name, text) for name, text in rows.items() if text], "ll"
    )


def _license(card_data: ModelCardData) -> str:
    name, address = card_data.license_name or card_data.license, card_data.license_link
    if not isinstance(name, str):
        return ""
    name = escape_markdown(name)
    return f"[{name}]({address})" if address and "://" in address and " " not in address else name


def overview_table(models: Mapping[str, Mapping[str, str]]) -> str:
    """Formats models side by side, a row each, so that quality, speed and size can be weighed.

    Args:
        models: Cells by column title of each model, as Markdown. A column without any cell is left out.
    """
    titles = dict.fromkeys(title for cells in models.values() for title, cell in cells.items() if cell)
    # A number and its unit stay on one line.
    rows = [(name, *(UNIT.sub("\u00a0", cells.get(title, "")) for title in titles)) for name, cells in models.items()]
    return markdown_table(("", *titles), rows)
