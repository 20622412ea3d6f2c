"""Measurement of error curves: how the loss grows when units of one kind are removed from one layer."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers.utils import logging

from ..modeling.gated import GatedConv1d, GatedLinear
from ..modeling.pretrained import PrunableModelMixin
from ..pruning.distillation import default_layers, layer_loss
from .blocks import AttentionBlock, FeedForwardBlock, add_output
from .config import OneShotConfig
from .convolutions import ConvolutionStatistics, write_channels_
from .head_rotation import rotate_queries_and_keys_, rotate_values_and_outputs_
from .loss_estimate import LossEstimate, UnitCurve, make_curve
from .refit import RidgeProblem, present_solution, write_solution_
from .selection import Elimination, batch_size, eliminate
from .statistics import NormalEquations, equations_of, sum_over_processes_
from .streams import Stream, paired_streams


# Inputs that are removed at once, as a fraction of a layer's inputs. Curves need less precision than the selection.
CURVE_BATCH = 1 / 50
# Smallest error that a price is computed from, as a fraction of the error without any unit. Units that do nothing, as in
# a masked model, have none.
SMALLEST_ERROR = 1e-7


class DownstreamLoss:
    """Loss of a model when the hidden states of one of its layers are replaced.

    The loss is the mean of `layer_loss` over the layers of `default_layers`, without projections; the input of the first
    layer stands for layer 0.

    Args:
        student: Base model in evaluation mode.
        teacher: Base model with the same number of layers, in evaluation mode.
        clips: Audio of shape (clips, samples).
        batch_size: Number of clips that are computed at once.
    """

    def __init__(self, student: PrunableModelMixin, teacher: PrunableModelMixin, clips: torch.Tensor, batch_size: int):
        self.student, self.num_layers = student, student.config.num_hidden_layers
        self.layers = default_layers(self.num_layers)
        self.targets: dict[int, torch.Tensor] = {}
        stream, teacher_stream = paired_streams(student, teacher, clips, batch_size)
        for number, states in self._run(teacher, 0, teacher_stream):
            self.targets[number] = states
        # Losses of the student as it is, by layer.
        self.present = self._losses(0, stream)

    def square_growth(self, layer_idx: int, stream: Stream) -> list[float]:
        """Returns by how much the squared loss of each compared layer is above that of the student as it was.

        Args:
            layer_idx: Index of the first layer that is computed.
            stream: Input of that layer on the same clips.
        """
        losses = self._losses(layer_idx, stream)
        present = self.present
        return [losses[layer] ** 2 - present[layer] ** 2 if layer in losses else 0.0 for layer in self.layers]

    def _losses(self, layer_idx: int, stream: Stream) -> dict[int, float]:
        """Returns the mean loss over the clips of all processes, by number of the layer."""
        losses = {}
        for number, states in self._run(self.student, layer_idx, stream):
            values = [layer_loss(*pair).double() for pair in zip(states, self.targets[number], strict=True)]
            total = torch.stack((torch.stack(values).sum(), values[0].new_tensor(len(values))))
            sum_over_processes_(total)
            losses[number] = float(total[0] / total[1])
        return losses

    def _run(self, model: PrunableModelMixin, layer_idx: int, stream: Stream) -> Iterator[tuple[int, torch.Tensor]]:
        """Runs the layers from an index on and yields the hidden states that the loss reads, by number of the layer."""
        position_bias = stream.position_bias
        states = stream.states
        if layer_idx == 0:
            yield 0, states
        for index in range(layer_idx, self.num_layers):
            outputs = []
            next_bias = position_bias
            for batch in states.split(stream.batch_size):
                output, next_bias = model.encoder.layers[index](batch, None, position_bias)
                outputs.append(output)
            states, position_bias = torch.cat(outputs), next_bias
            if index + 1 == self.num_layers and index + 1 in self.layers:
                yield index + 1, model.encoder.normalize_last(states)
            elif index + 1 in self.layers:
                yield index + 1, states


class CurveMeasurement:
    """Measures the curves of all blocks of a student.

    Args:
        student: Base model without gates, in evaluation mode and float32; it is not changed.
        teacher: Base model as for `LayerwisePruning`.
        clips: This process's calibration clips, of shape (clips, samples).
        price_clips: Number of these clips, from the first, that prices are measured on.
        units: Kinds of units to prune.
        config: Settings.
    """

    def __init__(
        self,
        student: PrunableModelMixin,
        teacher: PrunableModelMixin,
        clips: torch.Tensor,
        price_clips: int,
        units: Sequence[str],
        config: OneShotConfig,
    ):
        # Rotated in place, which leaves the outputs as they are.
        self.student, self.teacher, self.units, self.config = copy.deepcopy(student), teacher, units, config
        self.clips, self.price_clips = clips, price_clips
        self.loss = DownstreamLoss(self.student, teacher, clips[:price_clips], config.batch_size)
        streams = paired_streams(self.student, teacher, clips, config.batch_size)
        self.stream, self.teacher_stream = streams

    def estimate(self) -> LossEstimate:
        """Measures the curves of all kinds of units in all layers that have such units."""
        found: list[UnitCurve] = self._convolution_curves() if "conv" in self.units else []
        layers = range(self.student.config.num_hidden_layers)
        for layer_idx in logging.tqdm(layers, desc="Prices"):
            layer_input = self._layer_input()
            found += self._attention_curves(layer_idx, layer_input)
            found += self._feed_forward_curves(layer_idx, layer_input)
        return LossEstimate(tuple(self.loss.present[layer] for layer in self.loss.layers), tuple(found))

    def _convolution_curves(self) -> list[UnitCurve]:
        found = []
        statistics = ConvolutionStatistics(self.student, self.teacher, self.clips, self.config)
        for reader_idx in range(1, len(self.student.feature_extractor.conv_layers)):
            reader = self.student.feature_extractor.conv_layers[reader_idx].conv
            problem = statistics.problem(reader_idx)
            num_inputs, width = reader.in_channels, reader.kernel_size[0]
            batch = batch_size(num_inputs, CURVE_BATCH)
            elimination = eliminate(problem, [num_inputs], [1], batch, width)
            order, growth = elimination.removed, elimination.increments
            num_removed = self._price_units(growth)
            kept = Elimination(order[:num_removed], growth[:num_removed]).kept(num_inputs)
            with restored(reader):
                write_channels_(reader, kept, problem)
                stream = Stream(self.student, self.clips[: self.price_clips], self.config.batch_size)
                square_growth = self.loss.square_growth(0, stream)
            found.append(make_curve(reader_idx - 1, "conv", order, growth, num_removed, square_growth))
        return found

    def _attention_curves(self, layer_idx: int, layer_input: Stream) -> list[UnitCurve]:
        block = AttentionBlock(self.student.encoder.layers[layer_idx])
        teacher_block = AttentionBlock(self.teacher.encoder.layers[layer_idx])
        attention = block.attention
        found = []
        if "qk" in self.units and attention.q_proj is not None:
            energies = rotate_queries_and_keys_(attention, map(block.before, self.stream.batches()))
            found.append(self._query_curve(layer_idx, attention.q_proj, torch.cat(energies), layer_input))
        equations = equations_of(block.output_layer, self.student)
        states, teacher_states = [], []
        position_bias = self.stream.position_bias
        sums = self.teacher_stream.attention_sums(teacher_block)
        for batch, teacher_sums in zip(self.stream.batches(), sums, strict=True):
            features, self.stream.position_bias = block.features(batch, position_bias)
            equations.add(features, teacher_sums - batch)
            states.append(block.normalize(add_output(batch, features, block.output_layer)))
            teacher_states.append(teacher_block.normalize(teacher_sums))
        equations.reduce_()
        if "vo" in self.units and isinstance(block.output_layer, GatedLinear):
            rotate_values_and_outputs_(attention, equations)
            found.append(self._output_curve(layer_idx, "vo", block.output_layer, equations, layer_input))
        self.stream.replace(states)
        self.teacher_stream.replace(teacher_states)
        return found

    def _feed_forward_curves(self, layer_idx: int, layer_input: Stream) -> list[UnitCurve]:
        block = FeedForwardBlock(self.student.encoder.layers[layer_idx])
        teacher_block = FeedForwardBlock(self.teacher.encoder.layers[layer_idx])
        equations = equations_of(block.output_layer, self.student)
        states, teacher_states = [], []
        sums = self.teacher_stream.feed_forward_sums(teacher_block)
        for batch, teacher_sums in zip(self.stream.batches(), sums, strict=True):
            features = block.features(batch)
            equations.add(features, teacher_sums - batch)
            states.append(block.adapt(block.normalize(add_output(batch, features, block.output_layer))))
            teacher_states.append(teacher_block.adapt(teacher_block.normalize(teacher_sums)))
        equations.reduce_()
        self.stream.replace(states)
        self.teacher_stream.replace(teacher_states)
        if "int" not in self.units or not isinstance(block.output_layer, GatedLinear):
            return []
        return [self._output_curve(layer_idx, "int", block.output_layer, equations, layer_input)]

    def _layer_input(self) -> Stream:
        """Returns the present input of a layer on the clips of the prices."""
        stream = copy.copy(self.stream)
        stream.states = stream.states[: self.price_clips]
        return stream

    def _query_curve(
        self, layer_idx: int, queries: GatedLinear, energies: torch.Tensor, layer_input: Stream
    ) -> UnitCurve:
        order = energies.argsort(stable=True)
        growth = energies[order]
        closed = order[: self._price_units(growth.tolist())]
        with restored(queries):
            queries.weight.data[closed] = 0
            queries.bias.data[closed] = 0
            square_growth = self.loss.square_growth(layer_idx, layer_input)
        return make_curve(layer_idx, "qk", order.tolist(), growth.tolist(), len(closed), square_growth)

    def _output_curve(
        self, layer_idx: int, unit: str, output_layer: GatedLinear, equations: NormalEquations, layer_input: Stream
    ) -> UnitCurve:
        problem = RidgeProblem.of(equations, present_solution(output_layer), self.config.ridge)
        num_inputs = output_layer.in_features
        elimination = eliminate(problem, [num_inputs], [0], batch_size(num_inputs, CURVE_BATCH))
        order, growth = elimination.removed, elimination.increments
        num_removed = self._price_units(growth)
        kept = Elimination(order[:num_removed], growth[:num_removed]).kept(num_inputs).to(self.student.device)
        with restored(output_layer):
            write_solution_(output_layer, kept, problem.solve(kept))
            square_growth = self.loss.square_growth(layer_idx, layer_input)
        return make_curve(layer_idx, unit, order, growth, num_removed, square_growth)

    def _price_units(self, growth: list[float]) -> int:
        """Returns the number of removals that a price is measured with: more than asked for if these change nothing."""
        num_units = max(1, round(len(growth) * self.config.price_fraction))
        errors = list(itertools.accumulate(growth))
        while num_units < len(growth) and errors[num_units - 1] < SMALLEST_ERROR * errors[-1]:
            num_units += 1
        return num_units


@contextmanager
def restored(layer: GatedLinear | GatedConv1d) -> Iterator[None]:
    """Restores the parameters of a layer when the block ends."""
    saved = {name: parameter.data.clone() for name, parameter in layer.named_parameters()}
    try:
        yield
    finally:
        for name, parameter in layer.named_parameters():
            parameter.data = saved[name]
