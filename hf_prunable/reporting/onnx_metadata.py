"""Metadata of an ONNX file: what a program that has only the file must know about audio, frames and origin."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.feature_extraction_auto import get_feature_extractor_config
from transformers.utils import logging

from .. import __version__
from ..modeling.checkpoint_files import find_checkpoint_file
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import SAMPLING_RATE
from .pruning_report import PruningReport
from .public_text import published_name


logger = logging.get_logger(__name__)

# Added to the variance by transformers' `Wav2Vec2FeatureExtractor`.
NORMALIZATION_EPSILON = 1e-7


def describe_audio(model_dir: str | Path) -> dict[str, str]:
    """Returns the metadata of the audio that a checkpoint takes, from its feature extractor.

    Args:
        model_dir: Folder or Hub id of the checkpoint.

    Returns:
        "sampling_rate" in Hz, 16000 without a feature extractor; and with one "do_normalize" ("true" or "false") and
        "normalization_epsilon".

    Raises:
        ValueError: If the sampling rate is not an integer above 0.
    """
    settings = get_feature_extractor_config(model_dir)
    if not settings:
        logger.warning(
            f"{str(model_dir)!r} has no preprocessor_config.json, so that the ONNX file does not say whether audio is "
            f"normalised, and its sampling rate is taken to be {SAMPLING_RATE} Hz."
        )
        return {"sampling_rate": str(SAMPLING_RATE)}
    sampling_rate = settings.get("sampling_rate", SAMPLING_RATE)
    if not isinstance(sampling_rate, int) or sampling_rate < 1:
        raise ValueError(
            f"The preprocessor_config.json of {str(model_dir)!r} has the sampling rate {sampling_rate!r}; it must be an "
            "integer above 0, in Hz."
        )
    return {
        "sampling_rate": str(sampling_rate),
        "do_normalize": json.dumps(bool(settings.get("do_normalize", True))),
        "normalization_epsilon": str(NORMALIZATION_EPSILON),
    }


def describe_frames(config: PreTrainedConfig) -> dict[str, str]:
    """Returns the metadata of the frames that the convolutions make.

    Args:
        config: Stock or prunable configuration.

    Returns:
        "frame_stride" and "frame_length" in samples: frame i sees the samples from i * frame_stride on, frame_length of
        them, which is also the shortest clip; "feature_norm", which is "group" if a norm runs over the whole clip.
    """
    length = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        length = (length - 1) * stride + kernel
    return {
        "frame_stride": str(math.prod(config.conv_stride)),
        "frame_length": str(length),
        "feature_norm": config.feat_extract_norm,
    }


def describe_origin(model_dir: str | Path) -> dict[str, str]:
    """Returns the metadata of where a checkpoint comes from, without local folders.

    Args:
        model_dir: Folder or Hub id of the checkpoint.

    Returns:
        "source", the name of the checkpoint; and of a result of `hf-prunable prune`, "base_model" and "method".
    """
    inputs = _report_inputs(model_dir)
    entries = {"base_model": inputs.get("model_name"), "method": inputs.get("method")}
    return {
        "source": published_name(str(model_dir), is_folder=Path(model_dir).is_dir()),
        **{key: published_name(value) for key, value in entries.items() if isinstance(value, str)},
    }


def _report_inputs(model_dir: str | Path) -> dict[str, Any]:
    """Returns the inputs of the pruning run that made a checkpoint; empty without a readable report."""
    path = find_checkpoint_file(str(model_dir), PruningReport.FILE_NAME)
    if path is None:
        return {}
    try:
        return dict(json.loads(Path(path).read_text(encoding="utf-8"))["inputs"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        logger.warning(
            f"{PruningReport.FILE_NAME} of {str(model_dir)!r} is left out of the ONNX file's metadata: {error!r}"
        )
        return {}


def onnx_metadata(
    model: PrunableModelMixin, model_dir: str | Path, auto_class: str, hidden_states: Mapping[int, str]
) -> dict[str, str]:
    """Returns all metadata of an ONNX file.

    Args:
        model: Model that is exported.
        model_dir: Folder or Hub id of its checkpoint.
        auto_class: Name of the Auto class of its head.
        hidden_states: Names of the outputs that are hidden states, by index.

    Returns:
        Texts by name: those of `describe_audio`, `describe_frames` and `describe_origin`, "frames_per_second",
        "model_type", "auto_class", "num_layers", "hf_prunable_version", and "hidden_states" as JSON.
    """
    audio, frames = describe_audio(model_dir), describe_frames(model.config)
    return {
        **audio,
        **frames,
        "frames_per_second": f"{int(audio['sampling_rate']) / int(frames['frame_stride']):g}",
        "model_type": model.config.stock_config_class.model_type,
        "auto_class": auto_class,
        "num_layers": str(model.config.num_hidden_layers),
        "hidden_states": json.dumps(hidden_states),
        **describe_origin(model_dir),
        "hf_prunable_version": __version__,
    }
