"""What the model cards of all runs share: front matter, the snippet, the licence of the base model, the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError, HTTPError, RemoteEntryNotFoundError
from huggingface_hub.utils import validate_repo_id
from transformers.utils import logging

from ..runtime.auto_classes import AUDIO_CLASSIFICATION, BASE_MODEL, CTC
from ..runtime.files import write_text_atomically


logger = logging.get_logger(__name__)

CARD_FILE = "README.md"
# Where the Hub looks for results on benchmarks.
EVAL_RESULTS_FOLDER = ".eval_results"
TEMPLATE = Path(__file__).with_name("model_card_template.md")
# The Hub's names of tasks.
PIPELINE_TAGS = {
    BASE_MODEL: "feature-extraction",
    CTC: "automatic-speech-recognition",
    AUDIO_CLASSIFICATION: "audio-classification",
}
# The Hub's model tree knows "finetune", "adapter", "quantized" and "merge". The weights left are the base model's,
# trained on in the same precision; "quantized" would list the model among changes of the precision.
BASE_MODEL_RELATION = "finetune"
IMPORT = "import hf_prunable  # registers the pruned models with the Auto classes\n"
SNIPPET = """\
import soundfile
import torch
from transformers import AutoFeatureExtractor, {auto_class}

feature_extractor = AutoFeatureExtractor.from_pretrained("{source}")
model = {auto_class}.from_pretrained("{source}")

waveform, sampling_rate = soundfile.read("clip.wav")  # one channel, at the rate of the feature extractor
inputs = feature_extractor(waveform, sampling_rate=sampling_rate, return_tensors="pt")
with torch.inference_mode():
    outputs = model(**inputs)
{last_line}"""
SOURCE = re.compile(r'(?<=from_pretrained\(")[^"]+(?="\))')


def save_card(card: ModelCard, folder: Path) -> None:
    """Writes a card where the Hub looks for it."""
    write_text_atomically(folder / CARD_FILE, str(card).rstrip() + "\n")


def address_card(folder: Path, repo_id: str) -> None:
    """Lets the snippet of a folder's card load the model from a repository; a folder without a card stays without."""
    path = folder / CARD_FILE
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        addressed = SOURCE.sub(lambda _: repo_id, text)
        if addressed != text:
            write_text_atomically(path, addressed)


def hub_id(name: str) -> str | None:
    """A name where it can only be an id on the Hub, and `None` where it is that of a local file or folder."""
    if Path(name).expanduser().exists():
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def license_fields(model_name: str) -> dict[str, str]:
    """The license of a model, as its card states it.

    Args:
        model_name: A folder or a Hub id.

    Returns:
        Of `license`, `license_name` and `license_link` those that there are: none where there is no card, or it cannot be
        read.
    """
    folder = Path(model_name).expanduser()
    try:
        if folder.is_dir() and not (folder / CARD_FILE).is_file():
            return {}
        card = ModelCard.load(folder / CARD_FILE if folder.is_dir() else model_name, ignore_metadata_errors=True)
    except RemoteEntryNotFoundError:
        return {}
    except (HTTPError, OSError, ValueError, yaml.YAMLError) as error:
        # The model is made, and is not to be lost because of this.
        logger.warning(f"The card of {model_name!r} cannot be read, and so the new card names no license: {error}")
        return {}
    names = ("license", "license_name", "license_link")
    return {name: card.data.get(name) for name in names if card.data.get(name) is not None}


def front_matter(
    name: str,
    model_name: str,
    dataset_name: str | None,
    auto_class: str,
    tags: Sequence[str],
    results: list[EvalResult],
    **fields: Any,
) -> ModelCardData:
    """What the Hub reads of a card.

    Args:
        name: Of the model.
        model_name: Of the base model, whose license is this one's too. Only what is on the Hub is named here.
        dataset_name: Of the training clips; likewise.
        auto_class: Of the kind of head.
        tags: Beside that of this library.
        results: What was measured; without any there is no `model-index`.
        **fields: Further fields.
    """
    base_model = hub_id(model_name)
    dataset = dataset_name and hub_id(dataset_name)
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=PIPELINE_TAGS[auto_class],
        base_model=base_model,
        base_model_relation=base_model and BASE_MODEL_RELATION,
        tags=["hf_prunable", *tags],
        datasets=[dataset] if dataset else None,
        **({"model_name": name, "eval_results": results} if results else {}),
        **license_fields(model_name),
        **fields,
    )


def render_card(card_data: ModelCardData, **sections: Any) -> ModelCard:
    """Fills the template.

    Args:
        card_data: See `front_matter`.
        **sections: What the template names.
    """
    return ModelCard.from_template(card_data, template_path=str(TEMPLATE), **sections)


def usage(auto_class: str, source: str, is_stock: bool) -> dict[str, str]:
    """The card's first snippet, and what there is to say about it.

    Args:
        auto_class: Of the kind of head.
        source: What the snippet loads.
        is_stock: Whether plain transformers loads it.
    """
    last_line = "print(outputs.last_hidden_state.shape)" if auto_class == BASE_MODEL else "print(outputs.logits.shape)"
    if auto_class == AUDIO_CLASSIFICATION:
        last_line = "print(model.config.id2label[outputs.logits.argmax().item()])"
    snippet = SNIPPET.format(auto_class=auto_class, source=source, last_line=last_line)
    if is_stock:
        return {"snippet": snippet, "loading": "It is a stock checkpoint, which needs nothing but transformers."}
    return {
        "snippet": IMPORT + snippet,
        "loading": (
            "Its layers have widths of their own, which the classes of transformers cannot express: `pip install hf_prunable` "
            "first. With `trust_remote_code=True` the import may be left out."
        ),
    }


def link(name: str) -> str:
    """A model in Markdown: a link to the Hub, or the name of a local folder without where it lies."""
    repo_id = hub_id(name)
    return f"`{Path(name).name}`" if repo_id is None else f"[{repo_id}](https://huggingface.co/{repo_id})"


def dataset_fields(name: str) -> dict[str, str]:
    """Fields of an `EvalResult`; what is no data set of the Hub goes by the Trainer's name for a folder of audio."""
    repo_id = hub_id(name)
    return {"dataset_name": repo_id or Path(name).name, "dataset_type": repo_id or "audiofolder"}


def data_line(name: str | None, skipped: dict[str, int]) -> str | None:
    """What a model was trained on, and how many clips of it were left out, by cause."""
    if name is None:
        return None
    repo_id = hub_id(name)
    shown = f"`{Path(name).name}`" if repo_id is None else f"[{repo_id}](https://huggingface.co/datasets/{repo_id})"
    left_out = "; ".join(f"{count} {cause}" for cause, count in skipped.items())
    return f"Audio: {shown}" + (f", without {left_out}." if left_out else ".")


def software_lines(versions: dict[str, str], commit: str | None) -> list[str | None]:
    """Libraries with their versions, and the commit of this one, where they are known."""
    libraries = ", ".join(f"{library} {version}" for library, version in versions.items())
    return [libraries and f"Versions: {libraries}.", commit and f"Source of hf_prunable: commit {commit}."]


def inherited_limits(model_name: str) -> str:
    """That the base model's limits stay."""
    return f"Limits and biases of {link(model_name)} are this model's too, and removing parts of it may add to them."


def bullets(*lines: str | None) -> str:
    """A list in Markdown of those lines that there are."""
    return "\n".join(f"- {line}" for line in lines if line)
