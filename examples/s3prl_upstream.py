"""Runs s3prl with a pruned, truncated or stock model as upstream, with the hidden states of all layers.

    pip install s3prl "torch<2.9" "torchaudio<2.9"
    python examples/s3prl_upstream.py -m train -u hf_prunable -k wavlm-pruned -d speech_commands -c config.yaml -n words

All options are those of s3prl's run_downstream.py; `-k` is a folder or a Hub id. The hidden states are those of
transformers: the input of the first layer and the output of each layer.

s3prl 0.4.18 calls functions that torchaudio removed in 2.9. Its wheel has no configuration files of the tasks: take that of
your task from its repository and give it with `-c`. Speech Commands also needs `pip install catalyst` and libsox-dev.
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
    """Upstream model in the form that s3prl's runner expects.

    Args:
        ckpt: Folder or Hub id of a checkpoint with its feature extractor.
        model_config: Not used; the checkpoint has a configuration.
        **kwargs: Not used; the runner gives further arguments to all upstreams.
    """

    def __init__(self, ckpt: str, model_config: str | None = None, **kwargs: Any):
        super().__init__()
        self.feature_extractor = AutoFeatureExtractor.from_pretrained(ckpt)
        self.model = AutoModel.from_pretrained(ckpt)

    def get_downsample_rates(self, key: str | None = None) -> int:
        """Returns the number of samples per frame."""
        return math.prod(self.model.config.conv_stride)

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        """Computes hidden states 0 to n of clips.

        Clips of different lengths share a batch only if padding does not change their frames.

        Args:
            wavs: Waveforms of shape (samples,), at the sampling rate of the feature extractor.

        Returns:
            "hidden_states": n + 1 tensors of shape (clips, frames of the longest clip, hidden size). Clips that were not
            padded have zeros after their end.
        """
        lengths = [len(waveform) for waveform in wavs]
        equal_lengths = padding_changes_features(self.model, self.feature_extractor)
        order, parts = [], []
        for batch in plan_batches(lengths, len(wavs), equal_lengths):
            inputs = self.feature_extractor(
                [wavs[clip].detach().cpu().numpy() for clip in batch],
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
    # s3prl 0.4.18 imports two names that huggingface_hub removed in 1.0. It uses them only to push to the Hub.
    for name in ("HfFolder", "Repository"):
        if not hasattr(huggingface_hub, name):
            setattr(huggingface_hub, name, None)
    from s3prl import hub, run_downstream

    setattr(hub, NAME, UpstreamExpert)
    run_downstream.main()


if __name__ == "__main__":
    main()
