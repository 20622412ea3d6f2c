"""The command `hf-prunable demo`: prunes the small model of this package one-shot, on synthetic speech, without the Hub.

hf-prunable demo
hf-prunable demo --output_dir first_run --target_sparsity 0.5
"""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from ..data.synthetic_speech import make_speech
from ..runtime.command_parser import CommandParser
from ..runtime.console import console_output
from ..runtime.files import check_output_directory, staged_directory, write_text_atomically
from ..runtime.user_errors import user_errors
from . import prune


PROGRAM = "hf-prunable demo"
DEMO_FILES = Path(__file__).resolve().parents[1] / "demo"
TEACHER, RECIPE, SPEECH, PRUNED = "wavlm-mini", "recipe.yaml", "speech", "wavlm-mini-pruned"


def make_parser() -> CommandParser:
    """Returns the parser of the command's own options."""
    parser = CommandParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [--option value ...]",
        description="Synthesises speech and prunes the small WavLM of this package one-shot, by statistics of that speech and\n"
        "without training, to 50 % and 28 % of its parameters: a few minutes on a CPU, without the Hub.",
        epilog="All other options are those of `hf-prunable prune`, such as `--target_sparsity 0.5`.",
    )
    parser.add_argument(
        "--output_dir",
        type=lambda name: Path(name).expanduser(),
        metavar="FOLDER",
        default=Path("outputs"),
        help="folder of speech, teacher, recipe and pruned models",
    )
    parser.add_argument("--num_clips", type=int, default=600, help="number of clips that are synthesised")
    return parser


def write_teacher_and_recipe(output_dir: Path) -> Path:
    """Copies the teacher, unless it is there from an earlier demo, and writes the recipe.

    Args:
        output_dir: Folder of the demo.

    Returns:
        The recipe.

    Raises:
        FileExistsError: If the folder holds another teacher.
        ValueError: If the folder of the pruned models is not empty.
    """
    check_output_directory(output_dir / PRUNED)
    teacher, recipe = output_dir / TEACHER, output_dir / RECIPE
    _copy_teacher(teacher)
    paths = {"model_name_or_path": teacher, "dataset_name": output_dir / SPEECH, "output_dir": output_dir / PRUNED}
    lines = yaml.safe_dump({name: str(path) for name, path in paths.items()}, sort_keys=False)
    write_text_atomically(recipe, (DEMO_FILES / RECIPE).read_text(encoding="utf-8") + lines)
    return recipe


def _copy_teacher(folder: Path) -> None:
    if not folder.exists():
        with staged_directory(folder) as staging:
            shutil.copytree(DEMO_FILES / TEACHER, staging, dirs_exist_ok=True)
    names = [path.name for path in (DEMO_FILES / TEACHER).iterdir()]
    same, _, _ = filecmp.cmpfiles(DEMO_FILES / TEACHER, folder, names, shallow=False)
    if len(same) < len(names):
        raise FileExistsError(
            f"{folder} exists and is not the demo's teacher. Delete it or give another `output_dir`."
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the demo's files and prunes its teacher.

    Args:
        arguments: Options of the demo and of `hf-prunable prune`; `None` for those of this process.
    """
    options, prune_options = make_parser().parse_known_args(arguments)
    with console_output(), user_errors(PROGRAM):
        prune_arguments = [str(write_teacher_and_recipe(options.output_dir)), *prune_options]
        # Wrong options are reported before the speech is made.
        prune.make_parser().parse(prune_arguments)
        make_speech(options.output_dir / SPEECH, options.num_clips)
    prune.main(prune_arguments)


if __name__ == "__main__":
    main()
