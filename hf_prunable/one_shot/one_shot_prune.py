"""The public function of one-shot pruning."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import Wav2Vec2FeatureExtractor

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import MAC_SECONDS, choose_target
from ..modeling.units import DEFAULT_UNITS
from ..pruning.fidelity import measure_fidelity
from ..pruning.targets import fidelity_target
from .config import OneShotConfig
from .fidelity_search import FidelitySearch
from .one_shot_pruning import OneShotPruning


if TYPE_CHECKING:
    from datasets import Dataset

# Crops of a data set that statistics are taken from, and their length in seconds.
NUM_CROPS, CROP_SECONDS = 200, 4.0


def one_shot_prune(  # noqa: PLR0913 - public keywords, as the docstring says
    model: PrunableModelMixin,
    clips: torch.Tensor | Dataset,
    *,
    target_sparsity: float | Sequence[float] | None = None,
    target_macs: float | Sequence[float] | None = None,
    mac_seconds: float = MAC_SECONDS,
    target_loss: float | None = None,
    target_similarity: float | None = None,
    held_out: torch.Tensor | None = None,
    units: Sequence[str] = DEFAULT_UNITS,
    teacher: PrunableModelMixin | None = None,
    rounds: int | None = None,
    stock_shape: bool = False,
    feature_extractor: Wav2Vec2FeatureExtractor | None = None,
    config: OneShotConfig | None = None,
) -> Any:
    """Prunes a model without training it: minutes of statistics on some audio.

    In rounds, each block's share of the size is measured; heads are rotated, their dimensions and the intermediate units
    selected by optimal brain surgeon, output layers refitted, and feed-forward blocks reconstructed one by one. The
    concept page `docs/concepts/one_shot.md` has the formulas. All options are keywords, hence their number.

    Args:
        model: Base or head model without gates, dense or pruned before; it is not changed. On a GPU, all is computed
            there.
        clips: Audio of shape (clips, samples), normalised as the model wants it, of which 200 clips of 4 s are a good
            start; or a data set with a column `audio`, from which that many crops are cut. In a distributed run, the same
            in all processes, which share the work.
        target_sparsity: Fraction of the original dense encoder's parameters to remove, between 0 and 1; or several in
            ascending order.
        target_macs: Fraction of its multiply-accumulates to remove; instead of `target_sparsity`.
        mac_seconds: Length in seconds of the clip that multiply-accumulates are counted for.
        target_loss: Largest distillation loss allowed on `held_out`: finds the smallest model that keeps it.
        target_similarity: Smallest mean cosine similarity of the hidden states allowed on `held_out`, between 0 and 1;
            instead of `target_loss`.
        held_out: Audio for targets by fidelity, of shape (clips, samples), normalised likewise; none of it in `clips`.
        units: Kinds of units to prune: "qk", "vo" (query/key and value/output dimensions of each head), "int"
            (intermediate units), "conv" (convolution channels, where no norm runs over channels).
        teacher: Base or head model whose hidden states are to be kept; `None` for those of the model.
        rounds: Number of rounds to the last target, 1 or more; by default each leaves about 73 % of the model. More
            rounds take longer and keep more. Targets by fidelity take rounds of that size alone.
        stock_shape: Whether to restrict the result to what a stock class can express, one feed-forward width for all
            layers: `save_pretrained` then writes a stock checkpoint, which loads without this library.
        feature_extractor: Feature extractor of the model; needed for a data set.
        config: Settings that seldom need a change.

    Returns:
        A model of the same class and dtype; a list of models for several targets.

    Raises:
        ValueError: If there is not one target, one cannot be reached, the model misses a target by fidelity as it is, or
            model, teacher or audio cannot serve.
    """
    sizes, measure = choose_target(_as_list(target_sparsity), _as_list(target_macs), mac_seconds)
    target = fidelity_target(target_loss, target_similarity, **{measure.option: sizes}, rounds=rounds)
    if sizes is None and target is None:
        raise ValueError(
            "Give one target: `target_sparsity=0.72` leaves 28 % of the parameters; `target_macs`, `target_loss` and "
            "`target_similarity` stand for others."
        )
    if target is not None and not (isinstance(held_out, torch.Tensor) and held_out.dim() == 2 and len(held_out)):
        raise ValueError(
            "A target by fidelity is measured on audio that is not used for pruning: give `held_out`, a tensor of shape "
            "(clips, samples)."
        )
    config = OneShotConfig() if config is None else config
    audio = clips if isinstance(clips, torch.Tensor) else _crops(clips, feature_extractor, config.seed)
    pruning = OneShotPruning(
        model, audio, units=units, measure=measure, teacher=teacher, stock_shape=stock_shape, config=config
    )
    if sizes is not None:
        models = [_finished(small, model) for small in pruning.run(sizes, rounds)]
        is_single = isinstance(target_sparsity, int | float) or isinstance(target_macs, int | float)
        return models[0] if is_single else models
    assert target is not None and held_out is not None
    batches = [{"input_values": batch.to(model.device).float()} for batch in held_out.split(config.batch_size)]
    FidelitySearch(pruning, target, lambda small: measure_fidelity(small, pruning.teacher, batches)).run()
    return _finished(pruning.model, model)


def _crops(dataset: Any, feature_extractor: Wav2Vec2FeatureExtractor | None, seed: int) -> torch.Tensor:
    """Cuts crops out of a data set.

    Args:
        dataset: Data set with a column `audio`.
        feature_extractor: Feature extractor of the model.
        seed: Random seed of the crops.

    Raises:
        ValueError: If this is no data set, or there is no feature extractor.
    """
    if not hasattr(dataset, "column_names") or feature_extractor is None:
        raise ValueError(
            f"`clips` is a {type(dataset).__name__} and `feature_extractor` a {type(feature_extractor).__name__}. Give a "
            "tensor of shape (clips, samples), or a data set with the feature extractor of the model."
        )
    # Imported here: loading and pruning a model by a tensor needs no `datasets`.
    from ..data.calibration_audio import CropRequest, read_calibration_audio
    from ..data.speech_dataset import scan_speech_dataset

    usable, _ = scan_speech_dataset(dataset, sampling_rate=feature_extractor.sampling_rate, min_seconds=CROP_SECONDS)
    return read_calibration_audio(usable, feature_extractor, CropRequest(NUM_CROPS, CROP_SECONDS, seed)).waveforms


def _finished(small: PrunableModelMixin, model: PrunableModelMixin) -> PrunableModelMixin:
    """Returns a pruned model in the dtype and mode of the given one."""
    finished: Any = copy.deepcopy(small)
    return finished.to(model.dtype).train(model.training)


def _as_list(target: float | Sequence[float] | None) -> list[float] | None:
    """Returns targets as a list, a single one as a list of one."""
    if target is None:
        return None
    return list(target) if isinstance(target, Sequence) else [target]
