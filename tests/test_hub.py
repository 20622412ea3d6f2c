"""Pushing to the Hub and loading from it, over HTTP, from processes of their own."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable import truncate
from hf_prunable.finetuning.classifier import FinetuningArguments
from hf_prunable.hub import HubPush, PushError, published_files, push_folder
from hf_prunable.reporting.model_card_parts import save_card
from hf_prunable.runtime.files import write_text_atomically
from tests.helpers.fresh_processes import ragged
from tests.helpers.hub_server import HubServer
from tests.helpers.model_cards import pruning_card
from tests.helpers.processes import helper_command, with_root
from tests.helpers.speech_files import tone, write
from tests.helpers.tiny_models import tiny_inputs, tiny_prunable
from tests.reporting.test_pruning_report import make_report


PRUNED, STOCK = "org/wavlm-pruned-28pct", "org/wavlm-words"
PUBLISHED = {
    "README.md",
    "config.json",
    "model.safetensors",
    "modeling_hf_prunable.py",
    "other_weights.safetensors",
    "preprocessor_config.json",
    "pruning_report.json",
    "shape.png",
}
# What runs leave behind and nobody else is to see.
STATE = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "settings.json")
NESTED_STATE = ("checkpoint-5/model.safetensors", "checkpoint-5/config.json", "runs/events.out.tfevents.1")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A pruned model as `run_prune.py` leaves it, among a run's state; a truncated stock one; inputs."""
    root = tmp_path_factory.mktemp("hub")
    pruned, words = root / "pruned", root / "words"
    model = ragged("wavlm")
    model.save_pretrained(pruned)
    make_report().save(pruned)
    save_card(pruning_card(make_report(model_name=str(root), dataset_name="org/speech"), "wavlm-pruned-28pct"), pruned)
    save_file({"final_proj.bias": torch.zeros(2)}, pruned / "other_weights.safetensors")
    (pruned / "shape.png").write_bytes(b"\x89PNG with a picture in it")
    truncate(tiny_prunable("wavlm", head="classification"), 2).save_pretrained(words)
    for folder in (pruned, words):
        Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    for name in (*STATE, *NESTED_STATE):
        (pruned / name).parent.mkdir(exist_ok=True)
        (pruned / name).write_bytes(b"state")
    save_file(tiny_inputs(batch_size=2, samples=600), root / "inputs")
    write(pruned / "clip.wav", tone(0.1))
    return root


def run_jobs(hub, home, jobs):
    """Does jobs of `hub_process.py` and returns what came of each."""
    home.mkdir()
    (home / "jobs").write_text(json.dumps([{"name": name, **job} for name, job in jobs.items()]))
    command = [*helper_command("hub_process"), str(home / "jobs"), str(home)]
    environment = with_root(hub.environment(home / "cache"))
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: json.loads((home / f"{name}.json").read_text()) for name in jobs}


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        hub.add_user("ada", "hf_ada", orgs=("org",))
        hub.add_user("eve", "hf_eve")
        hub.add_user("ron", "hf_ron", role="read", orgs=("org",))
        hub.add_repository("org/taken", {"pytorch_model.bin": b"weights", "README.md": b"# Mine"})
        hub.add_repository("org/public", {})
        hub.broken_uploads.update({"org/unlucky": 1, "org/broken-upload": 1000})
        hub.broken_commits.update({"org/broken-commit": 1})
        yield hub


@pytest.fixture(scope="module")
def pushed(hub, root):
    # A card is rewritten for the repository that its folder is pushed to.
    pruned, copy = str(root / "pruned"), str(shutil.copytree(root / "pruned", root / "copied"))

    def folder(repo_id, token="hf_ada", folder=copy, **job):
        return {"do": "push_folder", "folder": folder, "repo_id": repo_id, "token": token, **job}

    def check(*repo_ids, token="hf_ada", **job):
        return {"do": "check", "repo_ids": dict(enumerate(repo_ids)), "token": token, **job}

    jobs = {
        "check": check("model", "org/model"),
        "check-no-token": check("org/model", token=None),
        "check-bad-token": check("org/model", token="hf_nobody"),
        "check-read-only": check("org/model", token="hf_ron"),
        "check-no-member": check("org/model", token="hf_eve"),
        "check-taken": check("org/model", "org/taken"),
        "check-no-name": check("org/my model"),
        "check-no-connection": check("org/model", endpoint="http://127.0.0.1:9"),
        "pruned": folder(PRUNED, folder=pruned, private=True),
        "again": folder(PRUNED, folder=pruned),
        "stock": folder(STOCK, folder=str(root / "words")),
        "taken": folder("org/taken"),
        "public": folder("org/public", private=True),
        "no-right": folder("org/model", token="hf_eve"),
        "no-token": folder("org/model", token=None),
        "unlucky": folder("org/unlucky"),
        "broken-upload": folder("org/broken-upload"),
        "broken-commit": folder("org/broken-commit"),
        "broken-commit-again": folder("org/broken-commit"),
        "by-method": {"do": "push_model", "folder": pruned, "repo_id": "org/by-method", "how": "push_to_hub"},
        "by-saving": {
            "do": "push_model",
            "folder": pruned,
            "repo_id": "org/by-saving",
            "how": "save_pretrained",
            "copy": str(root / "saved"),
        },
        "ladder": {
            "do": "push_output",
            "folder": str(root),
            "repo_ids": {"pruned": "other/forbidden", "words": "ada/words"},
            "private": True,
        },
    }
    for job in jobs.values():
        job.setdefault("token", "hf_ada")
    return run_jobs(hub, root / "pushing", jobs)


def value(results, name):
    assert "error" not in results[name], results[name]["trace"]
    return results[name]["value"]


def error(results, name, kind="PushError"):
    assert results[name].get("error") == kind, results[name]
    return results[name]["message"]


def test_one_commit_holds_the_folder_file_by_file(hub, root, pushed):
    repository = hub.repositories[PRUNED]
    assert value(pushed, "pruned") == repository.head.oid
    assert repository.private
    assert repository.files == {name: (root / "pruned" / name).read_bytes() for name in PUBLISHED}
    assert [commit.title for commit in repository.commits] == ["initial commit", "Upload model with hf_prunable"]
    # The second push found nothing to change.
    assert value(pushed, "again") == repository.head.oid


def test_a_run_s_state_never_leaves_the_machine(hub, root, pushed):
    assert value(pushed, "pruned")
    assert all((root / "pruned" / name).is_file() for name in (*STATE, *NESTED_STATE))
    everywhere = {path for repository in hub.repositories.values() for path in repository.files}
    assert not everywhere.intersection((*STATE, *NESTED_STATE))
    assert b"state" not in hub.large.values()


def test_the_card_names_the_repository_that_it_was_pushed_to(hub, pushed):
    card = hub.repositories[PRUNED].files["README.md"].decode()
    assert card.count(f'from_pretrained("{PRUNED}"') == 4 and '("wavlm-pruned-28pct"' not in card
    value(pushed, "unlucky")
    # The folder was made, and pushed before, under other names.
    card = hub.repositories["org/unlucky"].files["README.md"].decode()
    assert card.count('from_pretrained("org/unlucky"') == 4 and "\n# unlucky\n" in card
    assert "\n- name: unlucky\n" in card and "\nhf-prunable export org/unlucky model.onnx\n" in card
    assert "wavlm-pruned" not in card


def test_truncated_models_are_plain_stock_repositories(hub, root, pushed):
    value(pushed, "stock")
    assert hub.repositories[STOCK].files.keys() == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert not hub.repositories[STOCK].private
    config = json.loads(hub.repositories[STOCK].files["config.json"])
    assert config["model_type"] == "wavlm" and "auto_map" not in config


@pytest.mark.parametrize("name", ["by-method", "by-saving"])
def test_push_to_hub_of_a_model_brings_the_shim(hub, root, pushed, name):
    value(pushed, name)
    repository = hub.repositories[f"org/{name}"]
    assert repository.files.keys() == {"README.md", "config.json", "model.safetensors", "modeling_hf_prunable.py"}
    for file in ("model.safetensors", "modeling_hf_prunable.py", "config.json"):
        assert repository.files[file] == (root / "pruned" / file).read_bytes()
    assert len(repository.commits) == 2


def test_checks_before_the_work(pushed):
    # Without a namespace, it is the user's.
    assert value(pushed, "check") == {"0": "ada/model", "1": "org/model"}
    for name, message in {
        "check-no-token": "no token found.*hf auth login",
        "check-bad-token": "Invalid user token. The token from HF_TOKEN environment variable is invalid",
        "check-read-only": "the token of ron is read-only",
        "check-no-member": "eve is not a member of 'org' and can only write to eve",
        "check-taken": "the repository org/taken contains pytorch_model.bin. Give the name of a new or an empty one",
        "check-no-name": "Repo id must use alphanumeric chars.*'org/my model'",
        "check-no-connection": "Connection refused",
    }.items():
        text = error(pushed, name)
        assert re.search(message, text, re.DOTALL), text
        assert "A push to org/m" in text and "`hf-prunable push`" in text


def test_a_repository_with_other_files_is_left_alone(hub, pushed):
    message = error(pushed, "taken")
    assert "it contains pytorch_model.bin, which would stay beside the model" in message
    assert hub.repositories["org/taken"].files == {"pytorch_model.bin": b"weights", "README.md": b"# Mine"}


def test_what_is_to_be_private_is_not_pushed_in_public(hub, pushed):
    assert "it is public, but a private one was requested" in error(pushed, "public")
    assert not hub.repositories["org/public"].files


def test_without_right_or_token_nothing_is_made(hub, root, pushed):
    message = error(pushed, "no-right")
    assert f"{root / 'copied'} was not pushed to org/model: " in message
    assert "You don't have the rights to create a model under the namespace 'org'" in message
    assert "Invalid username or password" in error(pushed, "no-token")
    assert "org/model" not in hub.repositories


def test_an_upload_that_is_cut_off_is_tried_again(hub, pushed):
    value(pushed, "unlucky")
    assert hub.broken_uploads["org/unlucky"] == 0
    assert hub.repositories["org/unlucky"].files == hub.repositories[PRUNED].files | {
        "README.md": hub.repositories["org/unlucky"].files["README.md"]
    }


def test_a_connection_that_breaks_leaves_no_half_made_model(hub, pushed):
    assert "was not pushed to org/broken-upload: Error while uploading" in error(pushed, "broken-upload")
    assert not hub.repositories["org/broken-upload"].files
    assert "was not pushed to org/broken-commit: " in error(pushed, "broken-commit")
    # And the same push later makes a whole one.
    value(pushed, "broken-commit-again")
    repository = hub.repositories["org/broken-commit"]
    assert len(repository.commits) == 2 and repository.files.keys() == PUBLISHED


def test_one_part_that_fails_does_not_keep_the_others_back(hub, root, pushed):
    message = error(pushed, "ladder")
    assert f"`hf-prunable push {root / 'pruned'} other/forbidden --private`" in message
    assert message.endswith(f"The finished output is kept in {root}.")
    assert "ada/words" not in message and hub.repositories["ada/words"].private
    assert "model.safetensors" in hub.repositories["ada/words"].files


# Loading


def edited(files, change):
    config = json.loads(files["config.json"])
    change(config)
    return files | {"config.json": json.dumps(config).encode()}


def _future(config):
    config["pruned_shape"] |= {"format_version": 2}


def _many_layers(config):
    config["num_hidden_layers"] = 10**9


def _many_layers_and_no_shape(config):
    config |= {"num_hidden_layers": 10**9, "pruned_shape": None}


def _wide(config):
    config["intermediate_size"] = config["pruned_shape"]["layers"][0]["intermediate"] = 10**12


@pytest.fixture(scope="module")
def loaded(hub, root, pushed):
    files = hub.repositories[PRUNED].files
    weights = files["model.safetensors"]
    hub.add_repository("org/future", edited(files, _future))
    hub.add_repository("org/many-layers", edited(files, _many_layers))
    hub.add_repository("org/many-layers-dense", edited(files, _many_layers_and_no_shape))
    hub.add_repository("org/wide", edited(files, _wide))
    hub.add_repository("org/truncated-weights", files | {"model.safetensors": weights[:-100]})
    hub.add_repository("org/tampered-weights", files | {"model.safetensors": b"\xff" * 8 + weights[8:]})
    card = b"---\nlicense: other\nlicense_name: mine\nlicense_link: https://example.org\n---\n# Text"
    hub.add_repository("org/with-card", {"README.md": card})
    hub.add_repository("org/broken-card", {"README.md": b"---\nlicense: [\n---\n"})
    tasks = [{"id": "words", "config": "v2", "split": "test"}, {"id": "other", "config": "v2", "split": "train"}]
    hub.add_repository("datasets/org/benchmark", {"eval.yaml": json.dumps({"tasks": tasks}).encode()})
    hub.add_repository("datasets/org/broken", {"eval.yaml": b"[]"})

    def load(repo_id, mode, **job):
        return {"do": "load", "repo_id": repo_id, "mode": mode, "inputs": str(root / "inputs"), **job}

    snippet = re.search(r"```python\n(.*?)```", files["README.md"].decode(), re.DOTALL)[1]
    jobs = {
        "import": load(PRUNED, "import"),
        "trust": load(PRUNED, "trust"),
        "neither": load(PRUNED, "neither"),
        "blocked": load(PRUNED, "blocked"),
        "no-token": load(PRUNED, "import", token=None),
        "stock": load(STOCK, "stock", auto="AutoModelForAudioClassification"),
        "by-method": load("org/by-method", "trust"),
        "snippet": {"do": "execute", "code": snippet, "folder": str(root / "pruned")},
        **{name: load(f"org/{name}", "import") for name in DAMAGED},
        **{f"license-{name}": {"do": "card_license", "model": f"org/{name}"} for name in LICENSES},
        "benchmarks": {
            "do": "benchmark",
            "arguments": [["org/benchmark", "v2"], ["org/benchmark"], ["org/broken"], ["org/none"]],
        },
    }
    # No feature extractor was pushed with it.
    jobs["by-method"]["extractor"] = PRUNED
    for job in jobs.values():
        job.setdefault("token", "hf_ada")
    return run_jobs(hub, root / "loading", jobs)


DAMAGED = {
    "future": "format version 2.*pip install --upgrade hf_prunable",
    "many-layers": "`num_hidden_layers` is 1000000000, and 0 to 960 are supported",
    "many-layers-dense": "`num_hidden_layers` is 1000000000, and 0 to 960 are supported",
    "wide": "`intermediate_size` is .*, and 1 to 65536 are supported",
    "truncated-weights": "The weights of 'org/truncated-weights' are damaged: .*`force_download=True`",
    "tampered-weights": "The weights of 'org/tampered-weights' are damaged: .*`force_download=True`",
}
LICENSES = ("with-card", "broken-card", "public", "nowhere")


@pytest.mark.parametrize("mode", ["import", "trust"])
def test_a_stranger_loads_the_pruned_model(root, loaded, mode):
    result = value(loaded, mode)
    assert result == {
        "class": "PrunableWavLMModel",
        "extractor": "Wav2Vec2FeatureExtractor",
        "wrong": {},
        "imported": True,
    }
    assert_states(root, mode, ragged("wavlm"))


def assert_states(root, name, model):
    with torch.inference_mode():
        expected = model(**load_file(root / "inputs"), output_hidden_states=True).hidden_states
    states = load_file(root / "loading" / f"{name}.states")
    assert len(states) == len(expected)
    assert all(torch.equal(states[str(number)], state) for number, state in enumerate(expected))


def test_what_was_pushed_by_the_model_s_own_method_loads(root, loaded):
    assert value(loaded, "by-method")["class"] == "PrunableWavLMModel"
    assert_states(root, "by-method", ragged("wavlm"))


def test_with_neither_import_nor_trust_the_error_says_what_to_do(loaded):
    message = error(loaded, "neither", "ValueError")
    assert (
        f"The repository {PRUNED} contains custom code which must be executed to correctly load the model" in message
    )
    assert f"You can inspect the repository content at https://hf.co/{PRUNED}" in message
    assert "Please pass the argument `trust_remote_code=True` to allow custom code to be run." in message


def test_where_the_package_is_missing_the_error_names_it(loaded):
    assert "pip install hf_prunable" in error(loaded, "blocked", "ImportError")


def test_a_private_model_asks_for_a_token(loaded):
    message = error(loaded, "no-token", "OSError")
    assert "private repository" in message and "hf auth login" in message


def test_a_truncated_model_loads_where_the_package_is_not_installed(root, loaded):
    result = value(loaded, "stock")
    assert (result["class"], result["wrong"], result["imported"]) == ("WavLMForSequenceClassification", {}, False)
    model = truncate(tiny_prunable("wavlm", head="classification"), 2).to_stock()
    assert_states(root, "stock", model)


def test_the_card_s_snippet_runs(loaded):
    layers, shape = value(loaded, "snippet")
    assert layers == 3 and shape[0] == 1 and shape[2] == 24


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_repositories_are_refused(loaded, name):
    assert "error" in loaded[name]
    assert re.search(DAMAGED[name], loaded[name]["message"], re.DOTALL), loaded[name]["trace"]


def test_the_license_of_a_base_model(loaded):
    other = {"license": "other", "license_name": "mine", "license_link": "https://example.org"}
    assert [value(loaded, f"license-{name}") for name in LICENSES] == [other, {}, {}, {}]


def test_only_a_benchmark_s_own_task_gets_a_result(loaded):
    assert value(loaded, "benchmarks") == ["words", None, None, None]


# Without a connection


@pytest.fixture
def folder(root, tmp_path):
    return Path(shutil.copytree(root / "words", tmp_path / "folder"))


def test_only_whole_models_are_published(folder):
    names = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert published_files(folder) == names
    write_text_atomically(folder / "model.safetensors.index.json", json.dumps({"weight_map": {"a": "b.safetensors"}}))
    with pytest.raises(PushError, match=r"no complete model: b\.safetensors missing"):
        published_files(folder)
    (folder / "model.safetensors.index.json").unlink()
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(PushError, match=r"model\.safetensors is damaged"):
        published_files(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(PushError, match="weights as safetensors missing"):
        published_files(folder)
    (folder / "config.json").unlink()
    with pytest.raises(PushError, match=r"contains no model: there is no config\.json"):
        push_folder(folder, "org/model")


def test_results_of_benchmarks_are_published(folder):
    for name in (".eval_results/words.yaml", ".eval_results/words.txt", "logs/words.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("[]")
    assert published_files(folder)[0] == ".eval_results/words.yaml" and len(published_files(folder)) == 4


def arguments(tmp_path, **changes):
    return FinetuningArguments(output_dir=str(tmp_path / "my-words"), use_cpu=True, **changes)


def test_the_trainer_never_pushes(tmp_path):
    args = arguments(tmp_path, push_to_hub=True, hub_model_id="org/words", hub_token="hf_x", hub_private_repo=True)
    push = HubPush.take_from(args, ["sparsity-0.4", "sparsity-0.72"])
    assert args.push_to_hub is False
    assert push.repo_ids == {
        "sparsity-0.4": "org/words-sparsity-0.4",
        "sparsity-0.72": "org/words-sparsity-0.72",
    }
    assert (push.is_enabled, push.token, push.private) == (True, "hf_x", True)


def test_names_of_repositories(tmp_path):
    assert HubPush.take_from(arguments(tmp_path, push_to_hub=True)).repo_ids == {"": "my-words"}
    named = HubPush.take_from(arguments(tmp_path, hub_model_id="org/words"))
    assert named.repo_ids == {"": "org/words"} and not named.is_enabled
    # Nothing is asked of the Hub, and nothing is sent, unless it was wished for.
    named.check()
    named.push(tmp_path / "nothing")
    assert HubPush.take_from(arguments(tmp_path)).repo_ids == {}
    with pytest.raises(ValueError, match="`hub_revision` is 'try', but models are pushed to the main branch"):
        HubPush.take_from(arguments(tmp_path, hub_revision="try"))


def test_the_command_of_a_failed_push_can_be_pasted_into_a_shell(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PushError("the Hub is closed.")

    monkeypatch.setattr("hf_prunable.hub.push_folder", refuse)
    folder = tmp_path / "my model"
    with pytest.raises(PushError) as raised:
        HubPush({"": "org/words"}, True).push(folder)
    assert str(raised.value) == (
        f"the Hub is closed.\nRepeat this push with `hf-prunable push '{folder}' org/words`.\n"
        f"The finished output is kept in {folder}."
    )
    # A token that was given as an option is not part of a command that is printed.
    with pytest.raises(PushError, match="set HF_TOKEN before") as raised:
        HubPush({"": "org/words"}, True, token="hf_secret", private=True).push(folder)
    assert "hf_secret" not in str(raised.value) and "org/words --private`" in str(raised.value)
