"""Which options the commands show and which they refuse."""

from dataclasses import fields

import pytest
from transformers import TrainingArguments

from hf_prunable.cli.finetune_speech_commands import make_parser as finetuning_parser
from hf_prunable.cli.prune import make_parser as pruning_parser
from hf_prunable.cli.tradeoff import make_parser as tradeoff_parser
from hf_prunable.cli.trainer_options import TRAINER_HELP


TRAINING_PARSERS = {"prune": pruning_parser, "finetune-speech-commands": finetuning_parser}
PARSERS = TRAINING_PARSERS | {"tradeoff": tradeoff_parser}


@pytest.fixture(params=PARSERS)
def parser(request):
    return PARSERS[request.param]()


def own_options(parser):
    """Options that are not the Trainer's, or have a default of ours."""
    inherited = {field.name: field for field in fields(TrainingArguments)}
    for kind in parser.dataclass_types:
        for field in fields(kind):
            if inherited.get(field.name) is not field and field.name not in parser.table.refused:
                yield field


def test_help_is_short(parser):
    lines = parser.format_help().splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 120


def test_an_option_takes_one_line_or_two(parser):
    lines = [line for line in parser.format_help().splitlines() if line.startswith("  ")]
    starts = [number for number, line in enumerate(lines) if line.startswith("  --")]
    assert all(end - start <= 2 for start, end in zip(starts, [*starts[1:], len(lines)], strict=True))


def test_every_own_option_is_in_a_group(parser):
    groups = {**parser.table.groups, **parser.table.rare_groups}
    grouped = [name for names in groups.values() for name in names]
    assert len(grouped) == len(set(grouped))
    # FSDP and DDP need it, and nobody else.
    missing = {field.name for field in own_options(parser)} - set(grouped) - {"ddp_find_unused_parameters"}
    assert not missing


def test_every_own_option_has_a_text(parser):
    for field in own_options(parser):
        assert field.metadata["help"].endswith("."), field.name


@pytest.mark.parametrize("command", TRAINING_PARSERS)
def test_help_all_shows_all_other_options(command):
    parser = TRAINING_PARSERS[command]()
    shown = parser.format_help_all()
    for field in fields(TrainingArguments):
        assert (f"--{field.name} " in shown or f"--{field.name}\n" in shown) == (
            field.name not in parser.table.refused
        )


def test_texts_belong_to_options_of_the_trainer():
    assert TRAINER_HELP.keys() <= {field.name for field in fields(TrainingArguments)}


def test_refused_options_are_not_shown(parser):
    grouped = {name for names in parser.table.groups.values() for name in names}
    assert not grouped & parser.table.refused.keys()
    assert all(advice.endswith(".") for advice in parser.table.refused.values())


def test_the_home_folder_has_a_short_name(parser, monkeypatch):
    monkeypatch.setenv("HOME", "/people/ada")
    given = ["--model_name_or_path", "~/model", "--dataset_name", "~/clips", "--output_dir", "~/out"]
    options = {name: value for part in parser.parse(given) for name, value in vars(part).items()}
    model = options["model_name_or_path"]
    if "sparsities" in options:
        model = parser.parse(given)[0].pruning([0.5]).model_name_or_path
    assert (model, options["output_dir"]) == ("/people/ada/model", "/people/ada/out")
