"""The last steps of a run: report, pictures and card in the folder of the saved model, and the reload check."""

from __future__ import annotations

from pathlib import Path

import torch

from ..modeling.pretrained import PrunableModelMixin
from ..runtime.auto_classes import AUDIO_CLASSIFICATION, BASE_MODEL
from .eval_results import save_eval_results
from .finetuning_report import FinetuningReport
from .layer_pictures import draw_fidelity, draw_prices
from .method_texts import has_curve, has_prices
from .model_card import (
    CONFUSION_PICTURE,
    CURVE_PICTURE,
    FIDELITY_PICTURE,
    PRICES_PICTURE,
    SHAPE_PICTURE,
    pruning_card,
    truncation_card,
)
from .model_card_parts import save_card
from .pictures import draw_confusion, draw_shape, draw_sparsity_curve
from .pruning_report import PruningReport
from .reload import verify_reload


# Clips and seconds of the audio that a reloaded model is checked with.
CHECKED_CLIPS, CHECKED_SECONDS = 2, 1


def publish_pruning(
    report: PruningReport,
    model: PrunableModelMixin,
    folder: Path,
    name: str,
    repo_id: str | None = None,
    auto_class: str = BASE_MODEL,
) -> None:
    """Writes report, pictures and card into the folder of a pruned model, and checks that the model reloads.

    Args:
        report: Complete record of the run.
        model: Model in memory, as it was saved.
        folder: Folder that the model was saved to.
        name: Name of the model.
        repo_id: Id of its repository on the Hub; `None` if there is none.
        auto_class: Name of the Auto class of the saved head.

    Raises:
        RuntimeError: If the model does not load in a fresh process, or computes other values there.
    """
    report.save(folder)
    draw_shape(model.config.shape, model.config, folder / SHAPE_PICTURE)
    if has_curve(report):
        draw_sparsity_curve(report.results.history, folder / CURVE_PICTURE, report.sizes.measure)
    if has_prices(report):
        draw_prices(report.results.rounds, folder / PRICES_PICTURE)
    if report.results.fidelity is not None:
        draw_fidelity(report.results.fidelity, folder / FIDELITY_PICTURE, report.inputs.reference)
    card = pruning_card(report, name, repo_id=repo_id, auto_class=auto_class, is_stock=model.is_stock)
    save_card(card, folder)
    _check_reload(model, folder, auto_class, report.inputs.sampling_rate, report.inputs.seed)


def publish_finetuning(
    report: FinetuningReport, model: PrunableModelMixin, folder: Path, name: str, repo_id: str | None = None
) -> None:
    """Writes report, picture and card into the folder of a fine-tuned classifier, and checks that the model reloads.

    Args:
        report: Complete record of the run; `model` is its last variant, trained with the first seed.
        model: Model in memory, as it was saved.
        folder: Folder that the model was saved to, with the picture of its layer profile.
        name: Name of the model.
        repo_id: Id of its repository on the Hub; `None` if there is none.

    Raises:
        RuntimeError: If the model does not load in a fresh process, or computes other values there.
    """
    report.save(folder)
    predictions = report.results.saved_variant.results[0].predictions
    draw_confusion(report.results.references, predictions, report.inputs.class_names, folder / CONFUSION_PICTURE)
    save_eval_results(report, folder)
    save_card(truncation_card(report, name, repo_id=repo_id, is_stock=model.is_stock), folder)
    _check_reload(model, folder, AUDIO_CLASSIFICATION, report.inputs.sampling_rate)


def _check_reload(model: PrunableModelMixin, folder: Path, auto_class: str, sampling_rate: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    input_values = torch.randn(CHECKED_CLIPS, CHECKED_SECONDS * sampling_rate, generator=generator)
    model.cpu().eval()
    with torch.inference_mode():
        hidden_states = model(input_values.to(model.dtype), output_hidden_states=True).hidden_states
    verify_reload(folder, input_values, hidden_states, auto_class)
