"""Parts that the model cards of all runs share: front matter, license, links, and the file itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HTTPError, RemoteEntryNotFoundError
from transformers.utils import logging

from ..runtime.auto_classes import AUDIO_CLASSIFICATION, BASE_MODEL, CTC
from ..runtime.files import write_text_atomically
from .provenance import Provenance
from .public_text import code_span, hub_id, published_name
from .run_report import RunInputs


logger = logging.get_logger(__name__)

CARD_FILE = "README.md"
# Folder of benchmark results: https://huggingface.co/docs/hub/eval-results
EVAL_RESULTS_FOLDER = ".eval_results"
TEMPLATE = Path(__file__).with_name("model_card_template.md")
# Pipeline tags of the Hub: https://huggingface.co/tasks
PIPELINE_TAGS = {
    BASE_MODEL: "feature-extraction",
    CTC: "automatic-speech-recognition",
    AUDIO_CLASSIFICATION: "audio-classification",
}
# The relations of the Hub's model tree are "finetune", "adapter", "quantized" and "merge". The remaining weights are
# trained further in the same precision, which is nearest to fine-tuning.
BASE_MODEL_RELATION = "finetune"
LICENSE_FIELDS = ("license", "license_name", "license_link")
# Files of the pictures that a card shows.
SHAPE_PICTURE, CURVE_PICTURE, FIDELITY_PICTURE = "shape.png", "sparsity_curve.png", "fidelity.png"
PRICES_PICTURE = "prices.png"
PROFILE_PICTURE, CONFUSION_PICTURE = "layer_profile.png", "confusion.png"
# arXiv numbers by which the template chooses the entry under "Citation".
GATES_PAPER, CONVEXITY_PAPER = "2306.01385", "2408.11858"
PRUNED_TAGS = ["pruned", "structured-pruning"]


def save_card(card: ModelCard, folder: Path) -> None:
    """Writes a card to the file that the Hub shows.

    Args:
        card: Model card.
        folder: Folder of the model.
    """
    write_text_atomically(folder / CARD_FILE, str(card).rstrip() + "\n")


def license_fields(model_name: str) -> dict[str, str]:
    """Reads the license from a model's card.

    Args:
        model_name: Folder or Hub id of the model.

    Returns:
        Those of `LICENSE_FIELDS` that the card has as texts, the link without folders if it is a path; none if there is no
        card or it cannot be read.
    """
    folder = Path(model_name).expanduser()
    try:
        if folder.is_dir() and not (folder / CARD_FILE).is_file():
            return {}
        card = ModelCard.load(folder / CARD_FILE if folder.is_dir() else model_name, ignore_metadata_errors=True)
    except RemoteEntryNotFoundError:
        return {}
    except (HTTPError, OSError, ValueError, yaml.YAMLError) as error:
        # A missing license must not discard a finished model.
        logger.warning(f"The card of {model_name!r} cannot be read, so that the new card names no license: {error}")
        return {}
    found = {name: card.data.get(name) for name in LICENSE_FIELDS}
    fields = {name: value for name, value in found.items() if isinstance(value, str)}
    if "://" not in (address := fields.get("license_link", "://")):
        fields["license_link"] = published_name(address)
    return fields


def front_matter(
    name: str,
    inputs: RunInputs,
    auto_class: str,
    tags: Sequence[str],
    results: list[EvalResult],
    metrics: list[str] | None = None,
) -> ModelCardData:
    """Makes the metadata of a card. Base model and data set are named only if they are on the Hub.

    Args:
        name: Name of the model.
        inputs: Inputs of the run; the base model's license is also that of the new model.
        auto_class: Name of the Auto class of the model's head.
        tags: Tags besides that of this library.
        results: Evaluation results; without any, the card has no `model-index`.
        metrics: Names of metrics on the Hub; `None` names none.
    """
    base_model = hub_id(inputs.model_name)
    dataset = None if inputs.dataset_name is None else hub_id(inputs.dataset_name)
    base_license = license_fields(inputs.model_name)
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=PIPELINE_TAGS[auto_class],
        base_model=base_model,
        base_model_relation=base_model and BASE_MODEL_RELATION,
        tags=["hf_prunable", *tags],
        datasets=None if dataset is None else [dataset],
        model_name=name if results else None,
        eval_results=results or None,
        metrics=metrics,
        license=base_license.get("license"),
        license_name=base_license.get("license_name"),
        license_link=base_license.get("license_link"),
    )


def render_card(card_data: ModelCardData, **sections: Any) -> ModelCard:
    """Fills the template of a card.

    Args:
        card_data: Front matter, see `front_matter`.
        **sections: Values of the template's variables.
    """
    return ModelCard.from_template(card_data, template_path=str(TEMPLATE), **sections)


def link(name: str) -> str:
    """Returns a model as Markdown: a link to the Hub, or the last component of a local path."""
    repo_id = hub_id(name)
    return code_span(published_name(name)) if repo_id is None else f"[{repo_id}](https://huggingface.co/{repo_id})"


def dataset_text(name: str) -> str:
    """Returns a data set as Markdown: a link to the Hub, or the last component of a local path."""
    repo_id = hub_id(name)
    return (
        code_span(published_name(name))
        if repo_id is None
        else f"[{repo_id}](https://huggingface.co/datasets/{repo_id})"
    )


def dataset_name_and_type(name: str) -> tuple[str, str]:
    """Returns name and type of the data set of an `EvalResult`; local data has the Trainer's type "audiofolder"."""
    repo_id = hub_id(name)
    return repo_id or published_name(name), repo_id or "audiofolder"


def data_line(inputs: RunInputs) -> str | None:
    """Returns a line on the training audio and the clips left out, by cause; `None` for data without a name."""
    if inputs.dataset_name is None:
        return None
    skipped = "; ".join(f"{count} {cause}" for cause, count in inputs.num_skipped.items())
    return f"Audio: {dataset_text(inputs.dataset_name)}" + (f"; clips left out: {skipped}." if skipped else ".")


def software_lines(provenance: Provenance) -> list[str | None]:
    """Returns a line on library versions and a line on the commit of hf_prunable; `None` for what is not known."""
    libraries = ", ".join(f"{library} {version}" for library, version in provenance.versions.items())
    commit = provenance.commit
    return [libraries and f"Versions: {libraries}.", commit and f"hf_prunable source: commit {commit}."]


def inherited_limits(model_name: str) -> str:
    """Returns a line on the limits of the base model."""
    return f"The limits and biases of {link(model_name)} apply to this model too; removing parts of a model can increase them."


def bullets(*lines: str | None) -> str:
    """Returns a Markdown list of the lines that are neither `None` nor empty."""
    return "\n".join(f"- {line}" for line in lines if line)
