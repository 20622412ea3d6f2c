"""Pruning of a model to a given shape, layer by layer: rotate, select, refit, reconstruct."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from transformers.utils import logging

from ..modeling.attention import KeptHeads, PrunableAttention
from ..modeling.encoder import KeptLayer, PrunableEncoderLayer
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.shape import AttentionShape, PrunedShape
from ..modeling.units import AttentionUnits
from ..pruning.decisions import Cut
from .blocks import AttentionBlock, FeedForwardBlock, add_output
from .calibration import check_clips, check_models, own_clips
from .config import OneShotConfig
from .convolutions import ConvolutionStatistics, write_channels_
from .head_rotation import rotate_queries_and_keys_, rotate_values_and_outputs_
from .reconstruction import FrameSample, reconstruct_feed_forward_
from .refit import RidgeProblem, present_solution, write_solution_
from .selection import batch_size, eliminate
from .statistics import NormalEquations, equations_of, sum_over_processes_
from .streams import Stream, paired_streams


# Inputs that are removed at once, as a fraction of a layer's inputs: one by one, wide layers would take minutes each.
SELECTION_BATCH = 1 / 200


class LayerwisePruning:
    """Prunes a model to a shape so that each block brings the residual stream back to the teacher's.

    Two residual streams, the student's and the teacher's, are carried from block to block. A block reads what the layers
    pruned so far make of the audio; its target is what takes the student's stream to the teacher's.

    Args:
        student: Base model without gates, in evaluation mode and float32. Its weights are changed in place.
        teacher: Base model with at least as many layers and equal hidden size, in evaluation mode and float32.
        clips: This process's clips, of shape (clips, samples).
        config: Settings.
    """

    def __init__(
        self,
        student: PrunableModelMixin,
        teacher: PrunableModelMixin,
        clips: torch.Tensor,
        config: OneShotConfig,
    ):
        self.student, self.teacher, self.config = student, teacher, config
        self.clips = clips
        # Set by `prune_`.
        self.stream: Stream
        self.teacher_stream: Stream
        self.sample: FrameSample

    def prune_(self, shape: PrunedShape) -> Cut:
        """Prunes all layers.

        Args:
            shape: Shape of the result. Each width is at most the present one.

        Returns:
            What stays of the student, whose remaining weights are final.
        """
        channels = self._prune_convolutions_(shape.conv_channels)
        streams = paired_streams(self.student, self.teacher, self.clips, self.config.batch_size)
        self.stream, self.teacher_stream = streams
        num_clips = sum_over_processes_(torch.tensor(len(self.clips), device=self.student.device))
        num_frames = self.stream.states.shape[1]
        self.sample = FrameSample(int(num_clips), num_frames, self.config.seed, self.student.device)
        kept = []
        layers = zip(self.student.encoder.layers, self.teacher.encoder.layers, shape.layers, strict=False)
        for layer, teacher_layer, layer_shape in logging.tqdm(layers, total=len(shape.layers), desc="Layers"):
            attention = self._prune_attention_(layer, teacher_layer, layer_shape.attention)
            intermediate = self._prune_feed_forward_(layer, teacher_layer, layer_shape.intermediate)
            kept.append(KeptLayer(attention, intermediate))
        return Cut(channels, kept)

    def _prune_convolutions_(self, channels: Sequence[int]) -> list[torch.Tensor]:
        """Selects the channels of each convolution and refits the next one; returns their indices."""
        present = self.student.config.shape.conv_channels
        if tuple(channels) == tuple(present):
            return [torch.arange(count) for count in present]
        statistics = ConvolutionStatistics(self.student, self.teacher, self.clips, self.config)
        kept = []
        for reader_idx, count in enumerate(channels[:-1], start=1):
            reader = self.student.feature_extractor.conv_layers[reader_idx].conv
            problem = statistics.problem(reader_idx)
            batch = batch_size(reader.in_channels, SELECTION_BATCH)
            elimination = eliminate(problem, [reader.in_channels], [count], batch, reader.kernel_size[0])
            kept.append(elimination.kept(reader.in_channels))
            write_channels_(reader, kept[-1], problem)
        return [*kept, torch.arange(channels[-1])]

    def _prune_attention_(
        self, layer: PrunableEncoderLayer, teacher_layer: PrunableEncoderLayer, shape: AttentionShape | None
    ) -> KeptHeads | None:
        block, teacher_block = AttentionBlock(layer), AttentionBlock(teacher_layer)
        if shape is None:
            block.output_layer = None
        elif block.attention.q_proj is not None:
            rotate_queries_and_keys_(block.attention, map(block.before, self.stream.batches()))
            self._close_queries_(block.attention, shape)
        equations = equations_of(block.output_layer, self.student)
        contexts: list[torch.Tensor] = []
        teacher_states = []
        position_bias = self.stream.position_bias
        sums = self.teacher_stream.attention_sums(teacher_block)
        for states, teacher_sums in zip(self.stream.batches(), sums, strict=True):
            features, self.stream.position_bias = block.features(states, position_bias)
            equations.add(features, teacher_sums - states)
            contexts.append(features)
            teacher_states.append(teacher_block.normalize(teacher_sums))
        self.teacher_stream.replace(teacher_states)
        kept = None
        if shape is not None and block.output_layer is not None:
            kept, change = self._refit_attention_(block, shape, equations.reduce_())
            contexts = [features @ change.to(features.dtype) for features in contexts]
        pairs = zip(self.stream.batches(), contexts, strict=True)
        self.stream.replace([block.normalize(add_output(*pair, block.output_layer)) for pair in pairs])
        return kept

    def _refit_attention_(
        self, block: AttentionBlock, shape: AttentionShape, equations: NormalEquations
    ) -> tuple[KeptHeads | None, torch.Tensor]:
        """Rotates values, selects their dimensions and refits the output projection.

        Returns:
            What stays of the block, and the matrix that contexts were multiplied with by the rotation.
        """
        attention, output_layer = block.attention, block.output_layer
        assert attention.shape is not None and output_layer is not None
        present = attention.shape.value_output
        change = torch.zeros(0, 0, dtype=torch.float64, device=self.student.device)
        if present:
            _, change = rotate_values_and_outputs_(attention, equations)
        problem = RidgeProblem.of(equations, present_solution(output_layer), self.config.ridge)
        widths = self._widths(attention.shape, shape, shape.value_output)
        elimination = eliminate(problem, present, widths, batch_size(sum(present), SELECTION_BATCH))
        columns = elimination.kept(sum(present))
        write_solution_(output_layer, columns.to(self.student.device), problem.solve(columns.to(self.student.device)))
        return attention.kept_heads(self._open_units(attention.shape, shape, columns)), change

    @staticmethod
    def _widths(present: AttentionShape, shape: AttentionShape, wanted: Sequence[int]) -> list[int]:
        """Returns the wanted width of each present head, 0 for a removed one."""
        by_head = dict(zip(shape.heads, wanted, strict=True))
        return [by_head.get(head, 0) for head in present.heads]

    def _close_queries_(self, attention: PrunableAttention, shape: AttentionShape) -> None:
        """Sets the queries of dimensions behind the wanted width to 0, which removes them from the scores."""
        if attention.q_proj is None or attention.shape is None:
            return
        widths = self._widths(attention.shape, shape, shape.query_key)
        start = 0
        for present, wanted in zip(attention.shape.query_key, widths, strict=True):
            attention.q_proj.weight.data[start + wanted : start + present] = 0
            attention.q_proj.bias.data[start + wanted : start + present] = 0
            start += present

    def _open_units(self, present: AttentionShape, shape: AttentionShape, columns: torch.Tensor) -> AttentionUnits:
        """Returns 1 for the units that stay: the first query/key dimensions of each head, and the selected columns."""
        queries = self._widths(present, shape, shape.query_key)
        value_output = torch.zeros(sum(present.value_output))
        value_output[columns] = 1
        return AttentionUnits(
            torch.ones(()),
            torch.ones(len(present.heads)),
            tuple(
                (torch.arange(width) < wanted).float()
                for width, wanted in zip(present.query_key, queries, strict=True)
            ),
            value_output.split(present.value_output),
        )

    def _prune_feed_forward_(
        self, layer: PrunableEncoderLayer, teacher_layer: PrunableEncoderLayer, width: int | None
    ) -> torch.Tensor | None:
        block, teacher_block = FeedForwardBlock(layer), FeedForwardBlock(teacher_layer)
        if width is None:
            block.output_layer = None
        equations = equations_of(block.output_layer, self.student)
        targets = []
        sums = self.teacher_stream.feed_forward_sums(teacher_block)
        for states, teacher_sums in zip(self.stream.batches(), sums, strict=True):
            if block.output_layer is not None:
                equations.add(block.features(states), teacher_sums - states)
            targets.append(teacher_block.normalize(teacher_sums))
        self.teacher_stream.replace(targets)
        kept = None
        if width is not None and block.output_layer is not None:
            kept = self._refit_feed_forward_(block, width, equations.reduce_())
            if len(kept) and self.config.reconstruction_steps:
                streams = (self.stream.states, self.teacher_stream.states)
                reconstruct_feed_forward_(block, kept, *streams, self.sample, self.config)
        self.teacher_stream.replace([teacher_block.adapt(states) for states in self.teacher_stream.batches()])
        sums = self.stream.feed_forward_sums(block)
        self.stream.replace([block.adapt(block.normalize(states)) for states in sums])
        return None if kept is None else kept.cpu()

    def _refit_feed_forward_(self, block: FeedForwardBlock, width: int, equations: NormalEquations) -> torch.Tensor:
        """Selects intermediate units, refits the output layer, and returns the indices of the units that stay."""
        present, output_layer = block.feed_forward.intermediate or 0, block.output_layer
        assert output_layer is not None
        problem = RidgeProblem.of(equations, present_solution(output_layer), self.config.ridge)
        elimination = eliminate(problem, [present], [width], batch_size(present, SELECTION_BATCH))
        kept = elimination.kept(present).to(self.student.device)
        write_solution_(output_layer, kept, problem.solve(kept))
        return kept


@torch.no_grad()
def refit_(
    small: PrunableModelMixin,
    teacher: PrunableModelMixin,
    clips: torch.Tensor,
    *,
    config: OneShotConfig | None = None,
) -> None:
    """Refits the output layers of a pruned model to a teacher by least squares, in place; its shape stays.

    Serves any pruned model, whatever made its shape: gates, uniform widths, another tool. Each block's output layer is
    fitted to what takes the model's residual stream to the teacher's. Feed-forward blocks are then reconstructed by
    `config.reconstruction_steps` gradient steps each.

    Args:
        small: Base or head model without gates, on any device.
        teacher: Base or head model with equal hidden size and at least as many layers.
        clips: Audio of shape (clips, samples), normalised as the models want it; the same in all processes.
        config: Settings.

    Raises:
        ValueError: If the models do not fit, or the audio cannot serve.
    """
    config = OneShotConfig() if config is None else config
    check_models(small, teacher)
    check_clips(clips, small, config.allow_few_frames)
    student, reference = (copy.deepcopy(model.base_model).float().eval() for model in (small, teacher))
    reference = reference.to(student.device)
    LayerwisePruning(student, reference, own_clips(clips), config).prune_(student.config.shape)
    small.base_model.load_state_dict(student.state_dict())
