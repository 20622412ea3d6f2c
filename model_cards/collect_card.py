"""Copies the card of a finished run, with its pictures, into `model_cards/`.

python -m model_cards.collect_card OUTPUT_DIR
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from hf_prunable.reporting.finetuning_report import REPORT_FILE as FINETUNING_REPORT
from hf_prunable.reporting.model_card_parts import CARD_FILE
from hf_prunable.reporting.pruning_report import REPORT_FILE as PRUNING_REPORT
from hf_prunable.runtime.files import staged_directory


MODEL_CARDS = Path(__file__).resolve().parents[1] / "model_cards"
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)/]+)\)")


def collect_card(folder: Path, model_cards: Path = MODEL_CARDS) -> Path:
    """Copies a card and the pictures that it shows.

    Args:
        folder: The output of a run.
        model_cards: Where cards are kept.

    Returns:
        The card's folder, named after the output.

    Raises:
        ValueError: If there is no card, or no report that it could be made from, or a card of this name is kept already.
    """
    folder = folder.resolve()
    if not (folder / CARD_FILE).is_file():
        raise ValueError(f"{folder} holds no card. Give the output folder of a finished run.")
    if not any((folder / report).is_file() for report in (PRUNING_REPORT, FINETUNING_REPORT)):
        raise ValueError(f"{folder} holds a card, but no report of a run with the figures in it.")
    with staged_directory(model_cards / folder.name) as staging:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
        for name in (CARD_FILE, *PICTURE.findall(text)):
            shutil.copyfile(folder / name, staging / name)
    return model_cards / folder.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="The output of a run.")
    collect_card(parser.parse_args().folder)


if __name__ == "__main__":
    main()
