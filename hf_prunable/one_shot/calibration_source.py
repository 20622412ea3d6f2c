"""Calibration audio of a pruning run, which is read once and serves every part of a method."""

from __future__ import annotations

from ..data.calibration_audio import CalibrationAudio, CropRequest, read_calibration_audio
from ..pruning.training_data import TrainingData
from .arguments import OneShotArguments


class CalibratedMethod:
    """Part of a pruning method that takes statistics of calibration audio.

    Attributes:
        source: Calibration audio of the run.
    """

    source: CalibrationSource

    @property
    def calibration(self) -> CalibrationAudio | None:
        """Audio that statistics are taken from, known after `read_input`."""
        return self.source.audio


class CalibrationSource:
    """Crops of a run's training clips, and the settings of statistics from them.

    Args:
        options: Options of the audio and of the statistics.
        seed: Random seed of the run.

    Attributes:
        request: Number, length and random seed of the crops.
        config: Settings of the statistics.

    Raises:
        ValueError: If options are out of range.
    """

    def __init__(self, options: OneShotArguments, seed: int):
        self.config = options.config(seed)
        self.request = CropRequest(options.calibration_clips, options.calibration_seconds, seed)
        self._audio: CalibrationAudio | None = None

    def read(self, data: TrainingData) -> CalibrationAudio:
        """Reads the audio in the first call, and returns it.

        Args:
            data: Clips of the run.

        Raises:
            ValueError: If the training clips hold too little audio.
        """
        if self._audio is None:
            self._audio = read_calibration_audio(data.train_clips, data.feature_extractor, self.request)
        return self._audio

    @property
    def audio(self) -> CalibrationAudio:
        """The audio; `read` must have been called."""
        assert self._audio is not None
        return self._audio

    def describe(self) -> str:
        """Returns number and length of the crops as the end of a stage's name."""
        return f"with statistics of {self.request.num_crops:,} clips of {self.request.seconds:g} s"
