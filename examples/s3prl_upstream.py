"""A pruned, truncated or stock model as an upstream of s3prl, with the hidden states of every layer.

    pip install s3prl "torch<2.9" "torchaudio<2.9"
    python examples/s3prl_upstream.py -m train -u hf_prunable -k wavlm-pruned -d speech_commands -c config.yaml -n words

All options are those of s3prl's run_downstream.py; `-k` is a folder or a Hub id. The hidden states are those that
transformers returns: the input of the first layer, and what each layer gives.

s3prl 0.4.18 calls functions that torchaudio dropped in 2.9. Its wheel has no configurations of tasks: take the one from its
repository, and name it with `-c`. Speech Commands needs `pip install catalyst` and the library of sox (libsox-dev) too.
"""

from __future__ import annotations

import math
from typing import Any

import huggingface_hub
import torch
from torch import nn
from transformers import AutoFeatureExtractor, AutoModel

# Importing the package registers pruned models with the Auto classes.
from hf_prunable.truncation.clip_batches import padding_changes_features, plan_batches


NAME = "hf_prunable"


class UpstreamExpert(nn.Module):
    """What s3prl's runner makes of `-u` and `-k`.

    Args:
        ckpt: Folder or Hub id of a checkpoint with its feature extractor.
        model_config: Not used; the checkpoint has its own.
        **kwargs: What the runner gives to other upstreams.
    """

    def __init__(self, ckpt: str, model_config: str | None = None, **kwargs: Any):
        super().__init__()
        self.feature_extractor = AutoFeatureExtractor.from_pretrained(ckpt)
        self.model = AutoModel.from_pretrained(ckpt)

    def get_downsample_rates(self, key: str | None = None) -> int:
        """Samples a frame."""
        return math.prod(self.model.config.conv_stride)

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        """Hidden states 0 to n of clips.

        Clips share a batch only where padding does not change their frames.

        Args:
            wavs: Of shape (samples,) each, at the feature extractor's sampling rate.

        Returns:
            "hidden_states": one tensor for each, of shape (clips, frames of the longest, hidden size), with zeros after
            the end of shorter clips where they did not share a batch.
        """
        lengths = [len(waveform) for waveform in wavs]
        equal_lengths = padding_changes_features(self.model, self.feature_extractor)
        order, parts = [], []
        for batch in plan_batches(lengths, len(wavs), equal_lengths):
            inputs = self.feature_extractor(
                [wavs[number].detach().cpu().numpy() for number in batch],
                sampling_rate=self.feature_extractor.sampling_rate,
                padding=True,
                return_tensors="pt",
            )
            outputs = self.model(**inputs.to(self.model.device), output_hidden_states=True)
            parts.append(outputs.hidden_states)
            order += batch
        frames = max(part[0].shape[1] for part in parts)
        place = torch.tensor(order, device=self.model.device).argsort()
        return {
            "hidden_states": [
                torch.cat([nn.functional.pad(state, (0, 0, 0, frames - state.shape[1])) for state in states])[place]
                for states in zip(*parts, strict=True)
            ]
        }


def main() -> None:
    # s3prl 0.4.18 imports two names that huggingface_hub dropped in 1.0, for a push that `hf_prunable.hub` does.
    for name in ("HfFolder", "Repository"):
        if not hasattr(huggingface_hub, name):
            setattr(huggingface_hub, name, None)
    from s3prl import hub, run_downstream

    setattr(hub, NAME, UpstreamExpert)
    run_downstream.main()


if __name__ == "__main__":
    main()
