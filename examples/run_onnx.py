"""Runs an ONNX file of `hf-prunable export` with numpy, soundfile and onnxruntime alone: whole, in windows, or as audio comes.

pip install numpy soundfile onnxruntime
python run_onnx.py wavlm-pruned.onnx recordings/a.flac --window_seconds 30 --overlap_seconds 1 --output a.npz
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import onnxruntime
import soundfile


class OnnxEncoder:
    """A model that was exported without an attention mask, with what its metadata say on audio and frames.

    Args:
        path: ONNX file.
        num_threads: Number of CPU threads; 0 for all cores.
    """

    def __init__(self, path: str, num_threads: int = 0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input_name = self.session.get_inputs()[0].name
        self.outputs = [output.name for output in self.session.get_outputs()]
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "do_normalize" not in metadata or len(self.session.get_inputs()) > 1:
            raise ValueError(
                f"{path} takes a mask, or does not say whether audio is normalised. Export the model again, without a mask and "
                "with its preprocessor_config.json beside it."
            )
        self.normalizes = metadata["do_normalize"] == "true"
        self.epsilon = float(metadata["normalization_epsilon"])
        self.sampling_rate = int(metadata["sampling_rate"])
        self.frame_stride, self.frame_length = int(metadata["frame_stride"]), int(metadata["frame_length"])

    def read(self, path: str) -> np.ndarray:
        """Reads an audio file as mono samples, float32.

        Args:
            path: File in a format of soundfile.

        Raises:
            ValueError: If the sampling rate is not that of the model.
        """
        samples, sampling_rate = soundfile.read(path, dtype="float32", always_2d=True)
        if sampling_rate != self.sampling_rate:
            raise ValueError(
                f"{path} has {sampling_rate} Hz; the model takes {self.sampling_rate}. Resample it first."
            )
        return samples.mean(axis=1)

    def normalize(self, samples: np.ndarray) -> np.ndarray:
        """Scales samples to mean 0 and variance 1, if the model was trained so."""
        return self._scale(samples, samples.mean(), samples.var())

    def _scale(self, samples: np.ndarray, mean: float, variance: float) -> np.ndarray:
        if not self.normalizes:
            return samples
        return ((samples - mean) / np.sqrt(variance + self.epsilon)).astype(np.float32)

    def run(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the model on normalised samples.

        Args:
            samples: Samples of shape (samples,), at least `frame_length` of them.

        Returns:
            Outputs by name; hidden states have the shape (frames, hidden size).
        """
        if len(samples) < self.frame_length:
            raise ValueError(f"The clip has {len(samples)} samples; the model needs {self.frame_length} or more.")
        outputs = self.session.run(None, {self.input_name: samples[None]})
        return {name: output[0] for name, output in zip(self.outputs, outputs, strict=True)}

    def whole(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Normalises a clip and runs the model on all of it. Returns as `run` does."""
        return self.run(self.normalize(samples))

    def in_windows(
        self, samples: np.ndarray, window_seconds: float = 30.0, overlap_seconds: float = 1.0
    ) -> dict[str, np.ndarray]:
        """Runs the model on windows of a recording and joins the frames from the middle of each.

        The recording is normalised as a whole. Windows begin at multiples of the frame stride, so that the number of frames is
        that of the whole recording.

        Args:
            samples: Samples of shape (samples,).
            window_seconds: Length of a window in seconds.
            overlap_seconds: Context in seconds on each side of a window whose frames are left out.

        Returns:
            Frames of each output, as `run` returns them.

        Raises:
            ValueError: If a length is negative, or nothing is left of a window without its context.
        """
        _check_not_negative(window_seconds=window_seconds, overlap_seconds=overlap_seconds)
        samples = self.normalize(samples)
        num_frames, window = self.count_frames(len(samples)), self._frames_in(window_seconds)
        overlap = self._frames_in(overlap_seconds)
        step = window - 2 * overlap
        if step < 1:
            raise ValueError(
                f"Nothing is left of a window of {window_seconds:g} s without {overlap_seconds:g} s on each side. Give longer "
                "windows or less overlap."
            )
        if num_frames <= window:
            return self.run(samples)
        parts = []
        for first in range(0, num_frames, step):
            # Windows at both ends are as long as the others.
            start = min(max(first - overlap, 0), num_frames - window)
            parts.append(self._kept(samples, start, start + window, first, min(first + step, num_frames)))
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def stream(
        self, chunks: Iterable[np.ndarray], context_seconds: float = 10.0, lookahead_seconds: float = 0.5
    ) -> Iterator[dict[str, np.ndarray]]:
        """Runs the model on audio as it comes.

        Audio is normalised by mean and variance of all that was heard so far. Each chunk costs a pass over context, chunk and
        lookahead; its frames come one lookahead late.

        Args:
            chunks: Samples of shape (samples,), of any lengths.
            context_seconds: Length in seconds of the audio before new frames that the model sees again.
            lookahead_seconds: Length in seconds of the audio after new frames that is waited for.

        Yields:
            New frames of each output, as `run` returns them; all together, they are as many as those of the whole.

        Raises:
            ValueError: If a length is negative.
        """
        _check_not_negative(context_seconds=context_seconds, lookahead_seconds=lookahead_seconds)
        context, lookahead = self._frames_in(context_seconds), self._frames_in(lookahead_seconds)
        # Samples from frame `start` on; frames before `done` have been returned.
        samples, start, done = np.zeros(0, np.float32), 0, 0
        count, total, squares = 0, 0.0, 0.0
        # `None` ends the audio.
        for chunk in chain(chunks, [None]):
            if chunk is not None:
                samples = np.concatenate([samples, chunk])
                count, total = count + len(chunk), total + chunk.sum(dtype=float)
                squares += np.square(chunk, dtype=float).sum()
            heard = start + self.count_frames(len(samples))
            ready = heard if chunk is None else heard - lookahead
            if ready <= done:
                continue
            mean = total / count
            scaled = self._scale(samples, mean, squares / count - mean**2)
            yield self._kept(scaled, 0, heard - start, done - start, ready - start)
            done = ready
            dropped = max(done - context - start, 0)
            samples, start = samples[dropped * self.frame_stride :], start + dropped

    def count_frames(self, num_samples: int) -> int:
        """Returns the number of frames of a clip; 0 if it is too short for one.

        Args:
            num_samples: Length of the clip in samples.
        """
        return max((num_samples - self.frame_length) // self.frame_stride + 1, 0)

    def _frames_in(self, seconds: float) -> int:
        return round(seconds * self.sampling_rate / self.frame_stride)

    def _kept(self, samples: np.ndarray, start: int, end: int, first: int, last: int) -> dict[str, np.ndarray]:
        """Runs frames `start` to `end`, without the end, and returns the frames `first` to `last` of them."""
        # As a whole clip, the last window has the samples that do not make up another frame.
        stop = end * self.frame_stride + self.frame_length - 1
        outputs = self.run(samples[start * self.frame_stride : stop])
        for name, output in outputs.items():
            if len(output.shape) < 2 or len(output) != end - start:
                raise ValueError(
                    f"{name} does not have one vector for each frame, and can only be run on a whole clip."
                )
        return {name: output[first - start : last - start] for name, output in outputs.items()}


def _check_not_negative(**lengths: float) -> None:
    for name, seconds in lengths.items():
        if seconds < 0:
            raise ValueError(f"`{name}` is {seconds:g}; it must be 0 or more.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs an ONNX file of `hf-prunable export` on a recording.")
    parser.add_argument("model", help="ONNX file")
    parser.add_argument("audio", help="audio file")
    parser.add_argument("--window_seconds", type=float, help="length of a window in seconds; by default one of all")
    parser.add_argument(
        "--overlap_seconds", type=float, default=1.0, help="context on each side of a window in seconds"
    )
    parser.add_argument("--output", help="file for the outputs, in numpy's .npz format")
    arguments = parser.parse_args()
    try:
        encoder = OnnxEncoder(arguments.model)
        samples = encoder.read(arguments.audio)
        if arguments.window_seconds is None:
            outputs = encoder.whole(samples)
        else:
            outputs = encoder.in_windows(samples, arguments.window_seconds, arguments.overlap_seconds)
    except (ValueError, soundfile.LibsndfileError) as error:
        parser.error(str(error))
    for name, output in outputs.items():
        print(f"{name}: {' x '.join(map(str, output.shape))}")
    if arguments.output:
        np.savez(arguments.output, **outputs)


if __name__ == "__main__":
    main()
