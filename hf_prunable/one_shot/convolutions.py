"""Statistics of the convolutions: each one as a linear layer of its taps, whose inputs are the channels before it."""

from __future__ import annotations

import copy

import torch

from ..modeling.feature_encoder import PrunableFeatureEncoder
from ..modeling.gated import GatedConv1d
from ..modeling.pretrained import PrunableModelMixin
from .calibration import own_share
from .config import OneShotConfig
from .refit import RidgeProblem
from .statistics import NormalEquations


# Output frames of a clip that statistics are taken from, evenly spaced: neighbouring ones are nearly the same.
FRAMES_PER_CLIP = 600


class ConvolutionStatistics:
    """Regressions of the teacher's convolutions on the student's channels.

    A convolution that has lost channels before has no counterpart in the teacher for each of its channels. Its own outputs,
    as they were at first, are then the targets.

    Convolutions are computed anew for each of them, because their outputs are many times larger than the audio.

    Args:
        student: Base model whose convolutions have no norm behind the first one, in evaluation mode.
        teacher: Base model of the same family, in evaluation mode.
        clips: This process's clips, of shape (clips, samples).
        config: Settings; `curve_clips` is the number of clips that are used.
    """

    def __init__(
        self, student: PrunableModelMixin, teacher: PrunableModelMixin, clips: torch.Tensor, config: OneShotConfig
    ):
        self.student, self.teacher, self.config = student, teacher, config
        # The student's convolutions are refitted one after the other.
        self.original = copy.deepcopy(student.feature_extractor)
        self.clips = clips[: own_share(config.curve_clips)]

    def problem(self, reader_idx: int) -> RidgeProblem:
        """Returns the regression for a convolution, with its taps of all channels as inputs.

        Args:
            reader_idx: Index of the convolution, from 1.
        """
        reader = self.student.feature_extractor.conv_layers[reader_idx].conv
        width, stride = reader.kernel_size[0], reader.stride[0]
        reference = self.teacher.feature_extractor
        if reference.conv_layers[reader_idx].conv.out_channels != reader.out_channels:
            reference = self.original
        equations = NormalEquations(reader.in_channels * width, reader.out_channels, self.student.device)
        for batch in self.clips.split(self.config.batch_size):
            audio = batch.to(self.student.device, self.student.dtype)
            inputs = self._inputs(self.student.feature_extractor, audio, reader_idx)
            targets = reference.conv_layers[reader_idx].conv(self._inputs(reference, audio, reader_idx))
            step = max(1, targets.shape[-1] // FRAMES_PER_CLIP)
            taps = inputs.unfold(-1, width, stride)[:, :, ::step].transpose(1, 2).flatten(2)
            equations.add(taps, targets[..., ::step].transpose(1, 2))
        present = reader.weight.detach().double().flatten(1).T
        bias = present.new_zeros(reader.out_channels) if reader.bias is None else reader.bias.detach().double()
        solution = torch.cat((present, bias[None]))
        return RidgeProblem.of(equations.reduce_(), solution, self.config.ridge, reader.bias is not None)

    @staticmethod
    def _inputs(convolutions: PrunableFeatureEncoder, audio: torch.Tensor, reader_idx: int) -> torch.Tensor:
        states = audio[:, None]
        for layer in convolutions.conv_layers[:reader_idx]:
            states = layer(states)
        return states


def write_channels_(reader: GatedConv1d, kept: torch.Tensor, problem: RidgeProblem) -> None:
    """Refits a convolution to some of its input channels; the weights of the others become 0.

    Args:
        reader: Convolution.
        kept: Indices of the channels that stay, of shape (kept channels,).
        problem: Regression of the convolution.
    """
    kept = kept.to(reader.weight.device)
    width = reader.kernel_size[0]
    columns = (kept[:, None] * width + torch.arange(width, device=kept.device)).flatten()
    solution = problem.solve(columns)
    weight = solution[:-1].T.unflatten(1, (len(kept), width))
    reader.weight.data = torch.zeros_like(reader.weight.data)
    reader.weight.data[:, kept] = weight.to(reader.weight.dtype)
    if reader.bias is not None:
        reader.bias.data = solution[-1].to(reader.bias.dtype)
