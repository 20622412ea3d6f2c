"""Facts about a model by which a run recognises that it is the same one, with the same weights."""

from __future__ import annotations

from transformers import PreTrainedConfig, PreTrainedModel, Wav2Vec2FeatureExtractor

from ..runtime.digests import json_digest, tensors_digest


# Configuration fields that do not change what the model computes.
NOT_OF_THE_MODEL = ("_name_or_path", "architectures", "transformers_version")
# Drawn anew at each loading where a checkpoint lacks it.
MASK_EMBEDDING = "masked_spec_embed"


def computing_fields(config: PreTrainedConfig) -> dict[str, object]:
    """Returns the fields of a configuration that can change what the model computes.

    Args:
        config: Configuration of a model.
    """
    return {name: value for name, value in config.to_dict().items() if name not in NOT_OF_THE_MODEL}


def identify_model(
    model: PreTrainedModel, feature_extractor: Wav2Vec2FeatureExtractor | None = None
) -> dict[str, int | str]:
    """Returns facts about a model as it is loaded, whatever files it was loaded from.

    The digest of the weights sees names, dtypes, shapes and all values, except those of the mask embedding.

    Args:
        model: Model on any device.
        feature_extractor: Feature extractor of its checkpoint; `None` if the run does not use it.

    Returns:
        "parameters", their number; digests "weights", "configuration" and, if given, "feature extractor".
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(MASK_EMBEDDING)}
    facts: dict[str, int | str] = {
        "parameters": model.num_parameters(),
        "weights": tensors_digest(tensors),
        "configuration": json_digest(computing_fields(model.config)),
    }
    return (
        facts if feature_extractor is None else facts | {"feature extractor": json_digest(feature_extractor.to_dict())}
    )
