"""The last steps of a run: report, pictures and card in the folder of the saved model, and the reload check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..modeling.pretrained import PrunableModelMixin
from ..runtime.auto_classes import AUDIO_CLASSIFICATION, BASE_MODEL
from .eval_results import save_eval_results
from .finetuning_report import FULL, FinetuningReport
from .footprint import Footprint, weight_files
from .layer_pictures import draw_fidelity, draw_prices
from .measurement import INPUT_SEED
from .method_texts import has_curve, has_prices
from .model_card_address import repository_name
from .model_card_overview import SavedModel
from .model_card_parts import (
    CONFUSION_PICTURE,
    CURVE_PICTURE,
    FIDELITY_PICTURE,
    PRICES_PICTURE,
    SHAPE_PICTURE,
    save_card,
)
from .pictures import draw_confusion, draw_shape, draw_sparsity_curve
from .pruning_card import pruning_card
from .pruning_report import DENSE, PRUNED, PruningReport
from .reload import MemoryCheck, verify_reload
from .truncation_card import truncation_card


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
        name: Name of the model, unless it has a repository.
        repo_id: Id of its repository on the Hub; `None` if there is none.
        auto_class: Name of the Auto class of the saved head.

    Raises:
        RuntimeError: If the model does not load in a fresh process, or computes other values there.
    """
    report.results.footprint = _check_reload(
        model,
        folder,
        auto_class,
        report.inputs.sampling_rate,
        {DENSE: report.inputs.model_name, PRUNED: str(folder)},
        report.results.latency[PRUNED].clip_seconds,
    )
    report.save(folder)
    draw_shape(model.config.shape, model.config, folder / SHAPE_PICTURE)
    if has_curve(report):
        draw_sparsity_curve(report.results.history, folder / CURVE_PICTURE, report.sizes.measure)
    if has_prices(report):
        draw_prices(report.results.rounds, folder / PRICES_PICTURE)
    if report.results.fidelity is not None:
        draw_fidelity(report.results.fidelity, folder / FIDELITY_PICTURE, report.inputs.reference)
    saved_model = SavedModel.of(model, folder, auto_class)
    save_card(pruning_card(report, repository_name(repo_id or name), saved_model, source=repo_id), folder)


def publish_finetuning(
    report: FinetuningReport, model: PrunableModelMixin, folder: Path, name: str, repo_id: str | None = None
) -> None:
    """Writes report, picture and card into the folder of a fine-tuned classifier, and checks that the model reloads.

    Args:
        report: Complete record of the run; `model` is its last variant, trained with the first seed.
        model: Model in memory, as it was saved.
        folder: Folder that the model was saved to, with the picture of its layer profile.
        name: Name of the model, unless it has a repository.
        repo_id: Id of its repository on the Hub; `None` if there is none.

    Raises:
        RuntimeError: If the model does not load in a fresh process, or computes other values there.
    """
    variants = report.results.variants
    # Of two variants, the second is saved, and the first is as large as the base checkpoint.
    sources = {variant: str(folder) for variant in variants} | (
        {FULL: report.inputs.model_name} if len(variants) > 1 else {}
    )
    inputs = report.inputs
    footprints = _check_reload(model, folder, AUDIO_CLASSIFICATION, inputs.sampling_rate, sources, inputs.clip_seconds)
    for variant, footprint in footprints.items():
        variants[variant].footprint = footprint
    report.save(folder)
    predictions = report.results.saved_variant.results[0].predictions
    draw_confusion(report.results.references, predictions, report.inputs.class_names, folder / CONFUSION_PICTURE)
    save_eval_results(report, folder)
    saved_model = SavedModel.of(model, folder, AUDIO_CLASSIFICATION)
    save_card(truncation_card(report, repository_name(repo_id or name), saved_model, source=repo_id), folder)


def _check_reload(
    model: PrunableModelMixin,
    folder: Path,
    auto_class: str,
    sampling_rate: int,
    sources: Mapping[str, str],
    clip_seconds: float,
) -> dict[str, Footprint]:
    """Checks that a saved model reloads, and measures models in the process that it reloads in.

    Args:
        model: Model in memory, as it was saved.
        folder: Folder that the model was saved to.
        auto_class: Name of the Auto class of the saved head.
        sampling_rate: Sampling rate of the audio in Hz.
        sources: Folders or Hub ids of the models to measure, by name.
        clip_seconds: Length in seconds of the clip that memory is measured on.

    Returns:
        Footprints by the models' names.
    """
    input_values = torch.randn(
        CHECKED_CLIPS, CHECKED_SECONDS * sampling_rate, generator=torch.Generator().manual_seed(INPUT_SEED)
    )
    model.cpu().eval()
    with torch.inference_mode():
        hidden_states = model(input_values.to(model.dtype), output_hidden_states=True).hidden_states
    memory_check = MemoryCheck(list(sources.values()), round(clip_seconds * sampling_rate))
    reloaded = verify_reload(folder, input_values, hidden_states, auto_class, memory_check=memory_check)
    return {
        name: Footprint(weight_files(source), reloaded.memory.get(source), clip_seconds)
        for name, source in sources.items()
    }
