"""Copies the model card of a finished run, with its pictures, to `model_cards/`.

python -m model_cards.collect_card OUTPUT_DIR
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from hf_prunable.reporting.finetuning_report import FinetuningReport
from hf_prunable.reporting.model_card_parts import CARD_FILE
from hf_prunable.reporting.pruning_report import PruningReport
from hf_prunable.runtime.files import staged_directory


MODEL_CARDS = Path(__file__).resolve().parents[1] / "model_cards"
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)/]+)\)")


def collect_card(folder: Path, model_cards: Path = MODEL_CARDS) -> Path:
    """Copies a model card and the pictures that it shows.

    Args:
        folder: Output folder of a finished run.
        model_cards: Parent folder of the cards.

    Returns:
        Folder of the card, named after the output folder.

    Raises:
        ValueError: If the output folder has no card or no report, or a card of this name exists.
    """
    folder = folder.resolve()
    if not (folder / CARD_FILE).is_file():
        raise ValueError(f"{folder} holds no card. Give the output folder of a finished run.")
    if not any((folder / report.FILE_NAME).is_file() for report in (PruningReport, FinetuningReport)):
        raise ValueError(f"{folder} holds a card, but no report of a run with the values of the card.")
    with staged_directory(model_cards / folder.name) as staging:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
        for name in (CARD_FILE, *PICTURE.findall(text)):
            shutil.copyfile(folder / name, staging / name)
    return model_cards / folder.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Output folder of a finished run.")
    collect_card(parser.parse_args().folder)


if __name__ == "__main__":
    main()
