"""Loading checkpoints as prunable models, and building a model from a configuration and its tensors."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoFeatureExtractor, PreTrainedConfig, PreTrainedModel, Wav2Vec2FeatureExtractor

from .auto import prunable_class
from .checkpoint_weights import ENCODER_PARTS, check_weights
from .field_limits import check_fields
from .pretrained import PrunableModelMixin


Model = TypeVar("Model", bound=PreTrainedModel)


def load_config(pretrained_model_name_or_path: str | Path) -> PreTrainedConfig:
    """Loads the configuration of a checkpoint.

    Args:
        pretrained_model_name_or_path: Folder or Hub id of the checkpoint.

    Raises:
        OSError: If it cannot be loaded. The message names the checkpoint, which that of transformers does not without a
            connection to the Hub.
        ValueError: If a field of config.json has a wrong type or value.
    """
    try:
        # The stock class makes a name for each label before it checks anything. A missing file is reported below.
        with suppress(OSError):
            check_fields(PreTrainedConfig.get_config_dict(pretrained_model_name_or_path)[0])
        return AutoConfig.from_pretrained(pretrained_model_name_or_path)
    except OSError as error:
        place = "" if Path(pretrained_model_name_or_path).exists() else "it is no folder here, and on the Hub: "
        raise OSError(f"The model {str(pretrained_model_name_or_path)!r} cannot be loaded: {place}{error}") from error
    # The last three for a file that holds no object, or thousands of them in each other.
    except (StrictDataclassError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"The config.json of {str(pretrained_model_name_or_path)!r}: {error}") from error


def load_feature_extractor(pretrained_model_name_or_path: str | Path) -> Wav2Vec2FeatureExtractor:
    """Loads the feature extractor of a checkpoint.

    Args:
        pretrained_model_name_or_path: Folder or Hub id of the checkpoint.

    Raises:
        OSError: If the checkpoint has none, as those of some projects.
    """
    try:
        return AutoFeatureExtractor.from_pretrained(pretrained_model_name_or_path)
    except OSError as error:
        raise OSError(
            f"There is no feature extractor (preprocessor_config.json) in {str(pretrained_model_name_or_path)!r}. Download the "
            "checkpoint to a folder, and save the one that it was trained with there, such as "
            "`Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)`; its authors say whether audio is "
            "normalised. Then give the folder."
        ) from error


def saved_auto_class(pretrained_model_name_or_path: str | Path) -> str:
    """Returns the name of the Auto class that stands for the kind of head that a checkpoint was saved with.

    Args:
        pretrained_model_name_or_path: Folder or Hub id of a stock or pruned checkpoint.

    Raises:
        ValueError: If the family is not supported, or the checkpoint names no architecture that has a prunable class.
    """
    config = load_config(pretrained_model_name_or_path)
    auto_classes = prunable_class(config).config_class.auto_classes
    for auto_class in auto_classes:
        prunable = prunable_class(config, auto_class)
        if {prunable.__name__, prunable.stock_class.__name__} & set(config.architectures or ()):
            return auto_class
    raise ValueError(
        f"{str(pretrained_model_name_or_path)!r} was saved as {config.architectures}, which has no prunable class. Choose "
        f"the kind of head with `auto_class`: {', '.join(auto_classes)}."
    )


def load_prunable(
    pretrained_model_name_or_path: str | Path, auto_class: str = "AutoModel", **kwargs: Any
) -> PrunableModelMixin:
    """Loads a stock or a pruned checkpoint as the prunable class of its family.

    Args:
        pretrained_model_name_or_path: Folder or Hub id of the checkpoint.
        auto_class: Name of the Auto class that stands for the kind of head, such as "AutoModelForCTC".
        **kwargs: Passed to `from_pretrained`.

    Raises:
        ValueError: If the family is not supported, or has no such head.
    """
    config = load_config(pretrained_model_name_or_path)
    return prunable_class(config, auto_class).from_pretrained(pretrained_model_name_or_path, **kwargs)


def load_complete(pretrained_model_name_or_path: str | Path, **kwargs: Any) -> PrunableModelMixin:
    """Loads a prunable model in float32 and checks that all weights of its encoder come from the checkpoint.

    Args:
        pretrained_model_name_or_path: Folder or Hub id of the checkpoint.
        **kwargs: Passed to `load_prunable`.

    Raises:
        ValueError: If the family is not supported, or configuration and weights disagree.
    """
    loaded: Any = load_prunable(
        pretrained_model_name_or_path,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **kwargs,
    )
    model, info = loaded
    prefix = f"{model.base_model_prefix}."
    found = {
        "missing": info["missing_keys"],
        "of another size": {name for name, *_ in info["mismatched_keys"]},
    }
    wrong: dict[str, Collection[str]] = {
        kind: [name for name in names if name.removeprefix(prefix).startswith(ENCODER_PARTS)]
        for kind, names in found.items()
    }
    check_weights(pretrained_model_name_or_path, wrong)
    return model


def build_like(model: Model, config: PreTrainedConfig, state: dict[str, torch.Tensor]) -> Model:
    """Builds a model with the class, dtype, device and training mode of another one.

    Args:
        model: Model to take class, dtype, device and mode from.
        config: Configuration of the new model.
        state: State dict of the new model, which takes over its tensors.

    Raises:
        RuntimeError: If configuration and tensors disagree.
    """
    loaded: Any = type(model).from_pretrained(
        None, config=config, state_dict=state, dtype=model.dtype, output_loading_info=True
    )
    new_model, info = loaded
    wrong = {kind: sorted(keys) for kind, keys in info.items() if keys}
    if wrong:
        raise RuntimeError(
            f"Configuration and weights disagree: {wrong}. If modules were added to the model or exchanged, such as "
            "adapters, merge them or take them off first; otherwise this is a bug in hf_prunable."
        )
    return new_model.to(model.device).train(model.training)
