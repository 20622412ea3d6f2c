"""What is published of commands, names and paths: no folder, no user, no credential."""

import getpass
import json
from pathlib import Path

import pytest
import yaml

from hf_prunable.reporting.public_text import HIDDEN, code_span, command_line, escape_markdown, published_name


TOKEN = "hf_" + "aB3" * 11


@pytest.mark.parametrize(
    "arguments",
    [["--hub_token", "hf_x"], ["--hub_token=hf_x"], ["--hub-token", "hf_x"], ["--hub_tok", "hf_x"]],
)
def test_the_command_is_shown_without_its_token(arguments):
    command = command_line(["/srv/run.py", "--push_to_hub", *arguments, "--output_dir", "my models"])
    assert "hf_x" not in command
    assert command.startswith("python run.py --push_to_hub --hub") and command.endswith("--output_dir 'my models'")


def test_the_command_is_shown_without_the_folders_of_a_machine():
    command = command_line(
        ["run.py", "--dataset_name", "/home/ada/speech", "--output_dir=/srv/out/words", "--seed", "1"]
    )
    assert command == "python run.py --dataset_name speech --output_dir=words --seed 1"
    command = command_line(["run.py", "--model_name_or_path", "org/model", "--dataset_name", "data/speech"])
    assert command == "python run.py --model_name_or_path org/model --dataset_name data/speech"


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_recipe_is_written_out_in_the_command(tmp_path, suffix):
    recipe = {
        "ste": False,
        "max_steps": 7,
        "seeds": [1, 2],
        "hub_token": "hf_x",
        "task": None,
        "output_dir": "my models",
    }
    path = tmp_path / f"recipe.{suffix}"
    path.write_text(json.dumps(recipe) if suffix == "json" else yaml.safe_dump(recipe, sort_keys=False))
    assert command_line(["run.py", str(path)]) == (
        "python run.py --ste false --max_steps 7 --seeds 1 2 --hub_token ... --task none --output_dir 'my models'"
    )


@pytest.mark.parametrize(
    "value, shown",
    [
        ("../../ada/x", "x"),
        ("./x", "x"),
        ("a/../../ada/x", "x"),
        ("~ada/x", "x"),
        ("~/x/", "x"),
        ("~ada", HIDDEN),
        ("..", HIDDEN),
        ("../..", HIDDEN),
        ("/home/ada", HIDDEN),
        ("/home/ada/", HIDDEN),
        ("/Users/ada", HIDDEN),
        ("/home/ada/x", "x"),
        ("file:///home/ada/x", "x"),
        ("file:///home/ada", HIDDEN),
        ("https://ada:secret@host/x", "x"),
        ("https://ada:secret@host/x?token=secret#ada", "x"),
        ("https://ada:secret@host", HIDDEN),
        ("ada:secret@host", HIDDEN),
        ("s3://key:secret@bucket/ada/x", "x"),
        ("C:\\Users\\ada\\x", "x"),
        ("C:\\Users\\ada", HIDDEN),
        ("\\\\server\\ada\\x", "x"),
        ("recordings/of/ada", "ada"),
        ("file:///srv/my%20clips", "my clips"),
        ("file:/home/ada", HIDDEN),
        ("/home/./ada", HIDDEN),
        ("//home/ada", HIDDEN),
        ("/home/ada/../ada", HIDDEN),
        ("../../home/ada", HIDDEN),
        ("/mnt/home/ada", HIDDEN),
        ("/gpfs/users/ada", HIDDEN),
        ("d:\\users\\ada", HIDDEN),
        ("ada@host:clips", HIDDEN),
        ("ada@host:/data/x", "x"),
        ("https://host/x;sid=secret", "x"),
        ("host/x?token=secret", "x"),
        ("https://host/a%2Fx%3Ftoken%3Dsecret", "x"),
        ("https://:secret@host", HIDDEN),
        ("clips\udcff", "clips\\udcff"),
        ("/srv/clips\udcff", "clips\\udcff"),
        (TOKEN, HIDDEN),
        (f"my_{TOKEN}", HIDDEN),
        *((prefix + "aB3" * 12, HIDDEN) for prefix in ("ghs_", "glpat-", "sk-", "api_org_", "AIza", "xoxb-")),
        ("AKIA" + "ABCD" * 4, HIDDEN),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIi", HIDDEN),
        ("hf_prunable_wavlm_base_28pct", "hf_prunable_wavlm_base_28pct"),
        ("wav2vec2-sk-with-a-long-name", "wav2vec2-sk-with-a-long-name"),
        (f"a={TOKEN}", HIDDEN),
        ("org/model", "org/model"),
        ("my models", "my models"),
        ("5e-05", "5e-05"),
        ("two\nlines", "two lines"),
    ],
)
def test_what_is_shown_of_a_value(value, shown):
    assert published_name(value) == shown
    command = command_line(["run.py", "--dataset_name", value, f"--model_name_or_path={value}"])
    assert "secret" not in command and TOKEN not in command and "\n" not in command
    assert ("ada" in command) == (shown == "ada")


def test_local_folders_that_look_like_ids_are_local(tmp_path, monkeypatch):
    (tmp_path / "ada" / "clips").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert published_name("ada/clips") == "clips" and published_name("ada/model") == "ada/model"
    assert command_line(["run.py", "--output_dir", "ada/model"]) == "python run.py --output_dir model"


def test_home_and_user_are_hidden(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "people" / "ada"))
    (tmp_path / "people" / "ada").mkdir(parents=True)
    (tmp_path / "link").symlink_to(Path.home())
    for value in (str(Path.home()), str(tmp_path / "link"), f"/data/{getpass.getuser()}"):
        assert published_name(value) == HIDDEN


@pytest.mark.parametrize("option", ["--hub_token", "--api_key", "--wandb-api-key", "--password", "--client_secret"])
def test_credentials_by_the_name_of_their_option(option):
    assert command_line(["run.py", option, "xyz", f"{option}=xyz"]) == f"python run.py {option} ... {option}=..."


def test_an_option_about_tokens_is_no_credential():
    assert command_line(["run.py", "--num_tokens", "7"]) == "python run.py --num_tokens 7"


def test_markdown_is_escaped():
    assert escape_markdown("wavlm_base-28pct (v2)") == "wavlm_base-28pct (v2)"
    assert escape_markdown("*a* _b_ [c](d)\n<e>") == r"\*a\* \_b\_ \[c\](d) \<e\>"
    assert code_span("plain") == "`plain`" and code_span("a`b") == "``a`b``" and code_span("`") == "`` ` ``"


def test_a_user_without_a_home_or_a_name(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert published_name("/srv/clips") == "clips"
