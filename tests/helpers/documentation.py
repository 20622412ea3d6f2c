"""Pages of the documentation, and a scratch folder in which their blocks run.

Blocks run as they are written. What stands behind their names is small:

- A Hub id is a folder of that name in the scratch folder, which `from_pretrained` finds before it asks the Hub.
- `recordings`, `speech_commands` (also as `.tar.gz`), `clips.parquet`, `calls.csv` and `clip.wav` are noise, with labels
  where the text says so.
- Commands that train are cut short by the options in `SHORT`, which come last and so override those of the page.
- `hf-prunable` and `python` are scripts in the scratch folder's `bin`. A block of `hf-prunable` alone can run in the
  process of the test instead, which saves the start of a process for each command.
"""

import shlex
import subprocess
import sys
import unittest
import unittest.mock
from pathlib import Path

import datasets
import numpy as np
import torch
import yaml
from sybil import Document
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from hf_prunable import PrunableHubertForCTC, PrunableWavLMModel, compact
from hf_prunable.cli.main import main
from tests.helpers.processes import ROOT
from tests.helpers.speech_files import RATE, pack, write, write_speech_commands


PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
# Languages of fenced blocks: those that run, and those that cannot.
RUN, SHOWN = ("bash", "python", "yaml"), ("text",)

_QUIET = "--use_cpu true --disable_tqdm true --report_to none --logging_steps 1"
_STEPS = f"--max_steps 2 {_QUIET}"
_CROPS = "--per_device_train_batch_size 2 --crop_seconds 0.5 --latency_seconds 0.3"
_CALIBRATION = "--calibration_clips 10 --calibration_seconds 0.5 --reconstruction_steps 2"
_PRUNE = f"{_STEPS} --final_steps 1 {_CROPS}"
_ONE_SHOT = f"{_QUIET} {_CROPS} --shortest_crop_seconds 0.3 {_CALIBRATION}"
# Options that cut a command short, by the words that the command starts with; the first that fits counts.
SHORT = {
    "hf-prunable demo": f"--num_clips 8 {_ONE_SHOT} --rounds 2 --allow_few_frames true",
    "hf-prunable prune outputs/recipe.yaml": f"{_ONE_SHOT} --rounds 2 --allow_few_frames true --final_steps 1",
    "hf-prunable prune --method one_shot": _ONE_SHOT,
    "hf-prunable prune examples/recipes/standard.yaml": f"{_ONE_SHOT} --final_steps 1",
    "hf-prunable tradeoff": f"--use_cpu true --disable_tqdm true --crop_seconds 0.5 {_CALIBRATION}",
    "hf-prunable prune --method magnitude": f"{_QUIET} {_CROPS}",
    "hf-prunable prune": _PRUNE,
    "hf-prunable finetune-speech-commands": f"{_STEPS} --seeds 42 --num_permutations 2 --min_clips_per_speaker 5",
    "hf-prunable export": "--check_seconds 0.5 --latency_seconds 0.3",
    "python examples/finetune_ctc.py": _STEPS,
    "python examples/finetune_lora.py": _STEPS,
    "python examples/export_and_quantize.py": "--seconds 0.3",
}

# WavLM and HuBERT base at a hundredth of the size: the frame rate is theirs, and 72 % of the parameters can go.
_SIZES = {
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "intermediate_size": 192,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 16,
}
_WAVLM, _CTC, _WHISPER = "microsoft/wavlm-base-plus", "facebook/hubert-large-ls960-ft", "openai/whisper-tiny"
_WORDS, _SPEAKERS, _TAKES = ("down", "no", "up", "yes"), "abcde", 5
# Takes that are not for training.
_LISTS = {"validation": 3, "test": 4}


def make_scratch(folder: Path, short: bool = True) -> Path:
    """Fills a folder with the checkpoints and the audio that the pages name.

    Args:
        folder: New folder.
        short: Whether the commands of `SHORT` are cut short.
    """
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    _write_commands(folder / "bin", SHORT if short else {})
    wavlm = PrunableWavLMModel(PrunableWavLMModel.config_class(**_SIZES)).eval()
    _save(wavlm.to_stock(), folder / _WAVLM)
    wavlm.attach_gates()
    _save(compact(wavlm, target_sparsity=0.5), folder / "wavlm-pruned")
    ctc = PrunableHubertForCTC(PrunableHubertForCTC.config_class(**_SIZES, vocab_size=5, ctc_zero_infinity=True))
    _save(ctc.to_stock(), folder / _CTC)
    vocabulary = {token: number for number, token in enumerate(("<pad>", "<unk>", "|", "A", "B"))}
    (folder / "vocab.json").write_text(str(vocabulary).replace("'", '"'))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None).save_pretrained(folder / _CTC)
    _save_other_models(folder)
    _write_audio(folder)
    recipe = {"model_name_or_path": _WAVLM, "dataset_name": "recordings", "output_dir": "pruned-by-recipe"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def run_blocks(page: Path, scratch: Path, environment: dict[str, str], in_process: bool = True) -> list[str]:
    """Runs the blocks of a page in order.

    Args:
        page: Markdown file.
        scratch: Working folder of the blocks, as `make_scratch` makes it; also this process's working folder.
        environment: Environment of shell blocks.
        in_process: Whether blocks of `hf-prunable` alone run in this process.

    Returns:
        The reasons of the blocks that were not run.

    Raises:
        SybilFailure: If a shell block fails.
    """

    def run_shell(example) -> str | None:
        commands = [shlex.split(line) for line in example.parsed.replace("\\\n", " ").splitlines()]
        if in_process and all(command[:1] == ["hf-prunable"] for command in commands):
            return next((error for error in map(_run_in_process, commands) if error), None)
        return run_in_shell(example.parsed, scratch, environment)

    parsers = [
        CodeBlockParser("bash", run_shell),
        CodeBlockParser("python", PythonEvaluator()),
        CodeBlockParser("yaml", lambda example: _write_recipe(example.parsed, scratch)),
        SkipParser(),
    ]
    reasons = []
    for example in Document.parse(str(page), *parsers):
        try:
            example.evaluate()
        except unittest.SkipTest as skipped:
            reasons.append(str(skipped))
    return reasons


def run_in_shell(script: str, folder: Path, environment: dict[str, str]) -> str | None:
    """Runs a script in bash, up to the first command that fails.

    Args:
        script: Commands.
        folder: Working folder.
        environment: Environment, whose `PATH` is searched after the folder `bin` in `folder`.

    Returns:
        Script and output if it failed, `None` if it did not.
    """
    environment = {**environment, "PATH": f"{folder / 'bin'}:{environment['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", script]
    completed = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return None if completed.returncode == 0 else f"{script}\n{completed.stdout[-5000:]}"


def _run_in_process(words: list[str]) -> str | None:
    """Runs a command of this package, cut short, and returns it with its exit status if it failed."""
    command = f"{shlex.join(words)} "
    words = [
        *words,
        *next((options for start, options in SHORT.items() if command.startswith(f"{start} ")), "").split(),
    ]
    with unittest.mock.patch.object(sys, "argv", words):
        try:
            main(words[1:])
        except SystemExit as end:
            return f"{shlex.join(words)}\nexit status {end.code}" if end.code else None
    return None


def _write_recipe(text: str, folder: Path) -> None:
    """Writes a block whose first line is a comment with its name, such as "# recipe.yaml"."""
    (folder / text.split("\n", 1)[0].removeprefix("#").strip()).write_text(text)


def _write_commands(folder: Path, options: dict[str, str]) -> None:
    """Scripts that start the commands of this repository with this Python, and append options to them."""
    folder.mkdir()
    for program, start in {"hf-prunable": "-m hf_prunable", "python": ""}.items():
        cases = "".join(
            f'"{words.split(maxsplit=1)[1]} "*) set -- "$@" {appended};;\n'
            for words, appended in options.items()
            if words.split()[0] == program
        )
        script = folder / program
        script.write_text(
            f'#!/bin/bash\ncase "$* " in\n{cases}esac\nexec {shlex.quote(sys.executable)} {start} "$@"\n'
        )
        script.chmod(0o755)


def _save(model, folder: Path) -> None:
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)


def _save_other_models(folder: Path) -> None:
    """Saves ContentVec's layout without a feature extractor, and Whisper with encoder and decoder, which hears a second."""
    contentvec = HubertModel(HubertConfig(**(_SIZES | {"num_hidden_layers": 12})))
    contentvec.final_proj = torch.nn.Linear(_SIZES["hidden_size"], _SIZES["classifier_proj_size"])
    contentvec.save_pretrained(folder / "contentvec")
    layers = {f"{part}_{kind}": 4 for part in ("encoder", "decoder") for kind in ("layers", "attention_heads")}
    widths = {
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "d_model": 48,
        "vocab_size": 60,
        "max_source_positions": 50,
    }
    tokens = {name: 0 for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")}
    WhisperModel(WhisperConfig(**layers, **widths, **tokens)).save_pretrained(folder / _WHISPER)
    WhisperFeatureExtractor(chunk_length=1).save_pretrained(folder / _WHISPER)


def _write_audio(folder: Path) -> None:
    generator = np.random.default_rng(0)

    def noise(seconds: float) -> np.ndarray:
        return 0.1 * generator.standard_normal(round(seconds * RATE))

    for name in "abcdefghijkl":
        write(folder / "recordings" / f"{name}.flac", noise(1.2))
    rows = "".join(f"{name}.flac,A B\n" for name in "abcdefghijkl")
    (folder / "recordings" / "metadata.csv").write_text(f"file_name,text\n{rows}")
    write(folder / "clip.wav", noise(1.0))

    names = [f"{word}/{speaker}_nohash_{take}" for word in _WORDS for speaker in _SPEAKERS for take in range(_TAKES)]
    lists = {split: [name for name in names if name.endswith(str(take))] for split, take in _LISTS.items()}
    clips = write_speech_commands(folder / "speech_commands", names, **lists)
    for name in names:
        write(clips / f"{name}.wav", noise(1.0))
    pack(clips, folder / "speech_commands_v0.02.tar.gz")
    columns = {
        "audio": [{"path": None, "bytes": (clips / f"{name}.wav").read_bytes()} for name in names],
        "word": [name.split("/")[0] for name in names],
        "speaker": [name.split("/")[1][0] for name in names],
    }
    dataset = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    dataset.to_parquet(folder / "clips.parquet")
    rows = [f"speech_commands/{name}.wav,{name.split('/')[0]},{name.split('/')[1][0]},here" for name in names]
    (folder / "calls.csv").write_text("\n".join(["path,call,bird,site", *rows]) + "\n")
