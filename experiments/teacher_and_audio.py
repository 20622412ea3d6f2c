"""Options of teacher and audio that comparisons of students share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


FOLDERS = ("teacher", "dataset_name", "speech_commands")


@dataclass(kw_only=True)
class TeacherAndAudioArguments:
    """Teacher, audio of calibration and evaluation."""

    teacher: str | None = field(default=None, metadata={"help": "Folder or Hub id of the dense checkpoint."})
    dataset_name: str | None = field(
        default=None, metadata={"help": "Folder of audio for training, calibration and held-out crops."}
    )
    speech_commands: str | None = field(
        default=None, metadata={"help": "Folder of the extracted Speech Commands archive, for words and speakers."}
    )
    num_crops: int = field(default=200, metadata={"help": "Number of calibration crops of rows with statistics."})
    crop_seconds: float = field(default=4.0, metadata={"help": "Length of held-out and calibration crops in seconds."})
    held_out_every: int = field(
        default=5, metadata={"help": "Number of file names, in sorted order, of which the first one is held out."}
    )
    report_only: bool = field(
        default=False, metadata={"help": "Write tables and pictures of existing results without making students."}
    )

    def folders(self) -> tuple[str, str, str]:
        """Returns the folders of teacher, audio and Speech Commands.

        Raises:
            ValueError: If one is not given.
        """
        if missing := [name for name in FOLDERS if not getattr(self, name)]:
            raise ValueError(
                f"{', '.join(f'`--{name}`' for name in missing)} must be given, except with `--report_only`."
            )
        assert self.teacher and self.dataset_name and self.speech_commands
        return self.teacher, self.dataset_name, self.speech_commands

    def settings(self, names: Sequence[str]) -> dict[str, Any]:
        """Collects settings of model and data. Folders are compared by name, so that machines may differ.

        Args:
            names: Names of the options.
        """
        values = {name: getattr(self, name) for name in names}
        return {name: Path(value).name if name in FOLDERS and value else value for name, value in values.items()}
