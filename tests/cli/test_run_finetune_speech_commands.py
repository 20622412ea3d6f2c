"""run_finetune_speech_commands.py from checkpoint and clips to a classifier that plain transformers loads."""

import json
import shutil

import datasets
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForAudioClassification, Wav2Vec2FeatureExtractor, pipeline

from hf_prunable.cli import finetune_speech_commands as run_finetune
from hf_prunable.finetuning.arguments import TruncationArguments
from hf_prunable.finetuning.classifier import FinetuningArguments
from hf_prunable.finetuning.training_clock import TrainingClock
from tests.helpers.speech_files import RATE, tone, write, write_speech_commands
from tests.helpers.tiny_models import FAMILIES, tiny_stock


FILES = {
    "README.md",
    "config.json",
    "confusion.png",
    "layer_profile.png",
    "model.safetensors",
    "preprocessor_config.json",
    "report.json",
}
FREQUENCIES = {"no": 300.0, "up": 700.0, "yes": 1500.0}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Words that differ in pitch, of speakers with twelve clips each."""
    root = tmp_path_factory.mktemp("clips")
    names = [f"{word}/{speaker}_nohash_{take}" for word in FREQUENCIES for speaker in "abc" for take in range(6)]
    write_speech_commands(
        root,
        names,
        validation=[name for name in names if name.endswith("_4")],
        test=[name for name in names if name.endswith("_5")],
    )
    generator = np.random.default_rng(0)
    for name in names:
        word = name.split("/")[0]
        noise = 0.05 * generator.standard_normal(RATE // 10)
        write(root / f"{name}.wav", tone(0.1, frequency=FREQUENCIES[word]) + noise)
    return root


@pytest.fixture
def run(clips, tmp_path):
    def finetune(family="wavlm", output_dir=tmp_path / "out", run=run_finetune.finetune, **changes):
        model = tmp_path / f"dense-{family}"
        if not model.exists():
            tiny_stock(family, conv_stride=(20, 4, 2), mask_time_prob=0.0, mask_feature_prob=0.0).save_pretrained(
                model
            )
            Wav2Vec2FeatureExtractor().save_pretrained(model)
        options = {"profile_clips": 60, "n_neighbors": 5, "num_permutations": 2}
        training = {"num_train_epochs": 1, "use_cpu": True, "disable_tqdm": True, "logging_steps": 1}
        for name, value in changes.items():
            (options if name in TruncationArguments.__dataclass_fields__ else training)[name] = value
        return run(
            TruncationArguments(str(model), options.pop("dataset_name", str(clips)), **options),
            FinetuningArguments(output_dir=str(output_dir), **training),
        )

    return finetune


@pytest.mark.parametrize("family", FAMILIES)
def test_a_truncated_classifier(run, tmp_path, family):
    folder = run(family, truncate=1)
    assert {path.name for path in folder.iterdir()} == FILES
    model = AutoModelForAudioClassification.from_pretrained(folder)
    assert not type(model).__name__.startswith("Prunable") and model.config.num_hidden_layers == 1
    recognized = pipeline("audio-classification", model=str(folder))(tone(1.0))
    assert {answer["label"] for answer in recognized} == {"no", "up", "yes"}
    assert {path.name for path in tmp_path.iterdir()} == {f"dense-{family}", "out"}


def test_a_comparison(run):
    folder = run(truncate=1, compare=True, seeds=[1, 2], num_train_epochs=2)
    report = json.loads((folder / "report.json").read_text())
    inputs, results = report["inputs"], report["results"]
    assert inputs["class_names"] == ["no", "up", "yes"]
    assert inputs["num_clips"] == {"train": 36, "validation": 9, "test": 9}
    full, truncated = results["variants"]["full"], results["variants"]["truncated"]
    assert (full["num_layers"], truncated["num_layers"]) == (3, 1)
    assert truncated["num_parameters"] < full["num_parameters"]
    assert [result["seed"] for result in truncated["results"]] == [1, 2]
    assert all(len(result["predictions"]) == 9 and result["epochs"] == 2 for result in truncated["results"])
    assert len(results["difference"]["by_seed"]) == 2
    profiles = report["layers"]["profiles"]
    assert set(profiles) == {"pretrained", "fine-tuned"} and set(profiles["pretrained"]) == {"word", "speaker"}
    card = (folder / "README.md").read_text()
    saved_bytes = (folder / "model.safetensors").stat().st_size
    assert truncated["footprint"]["files"] == {"num_bytes": saved_bytes, "dtype": "float32"}
    assert full["footprint"]["files"]["num_bytes"] > saved_bytes and full["footprint"]["peak_bytes"] > 0
    assert "| Memory |" in card
    assert "| Transformer layers | 3 | 1 |" in card and "All transformer layers after layer 1 of 3." in card
    assert report["provenance"]["machine"] in card
    for picture in ("confusion.png", "layer_profile.png"):
        assert imread(folder / picture).std() > 0.03


def test_the_record_is_filled_stage_by_stage(run, tmp_path):
    recipe = run(run=run_finetune.FinetuningRecipe, truncate=2, compare=True)
    assert not list(tmp_path.glob("out*"))
    recipe.setup()
    report = recipe.report
    assert report.inputs.num_layers == 3 and report.layers.choice.num_layers == 2
    assert list(report.layers.profiles) == ["pretrained"] and report.results.variants == {}
    trained = recipe.train()
    assert {name: variant.model.config.num_hidden_layers for name, variant in trained.items()} == recipe.depths
    assert recipe.depths == {"full": 3, "truncated": 2} and report.results.variants == {}
    assert recipe.evaluate(trained) is report
    assert list(report.results.variants) == ["full", "truncated"] and report.results.saved_variant.num_layers == 2
    assert list(report.layers.profiles) == ["pretrained", "fine-tuned"]
    assert not (tmp_path / "out").exists()
    recipe.save(report, trained)
    assert (tmp_path / "out").exists() and not recipe.folder.working_dir.exists()


def test_the_depth_is_chosen_by_convexity(run):
    report = json.loads((run() / "report.json").read_text())
    layers = report["layers"]
    choice, values = (
        layers["choice"],
        layers["profiles"]["pretrained"]["word"]["labels"]["word"]["convexity"]["values"],
    )
    assert choice["criterion"] == "convexity" and list(report["results"]["variants"]) == ["truncated"]
    assert values[choice["best_layer"]] == max(values[1:])
    least = choice["best_score"] - choice["standard_error"]
    assert choice["num_layers"] == next(layer for layer in (1, 2, 3) if values[layer] >= least)


@pytest.mark.parametrize(
    "options",
    [
        {"task": "speaker", "min_clips_per_speaker": 12, "truncate": "2"},
        {"truncate": "none", "weighted_layers": True},
        {"truncate": 2, "weighted_layers": True, "freeze_base_model": True},
        {"truncate": 2, "freeze_feature_encoder": False},
    ],
)
def test_other_tasks_and_heads(run, tmp_path, options):
    folder = run(**options)
    report = json.loads((folder / "report.json").read_text())
    weights = AutoModelForAudioClassification.from_pretrained(folder)
    if options.get("task") == "speaker":
        assert report["inputs"]["class_names"] == ["a", "b", "c"]
    if options.get("weighted_layers"):
        depth = 3 if options["truncate"] == "none" else 2
        assert weights.layer_weights.shape == (depth + 1,) and weights.config.num_hidden_layers == depth
    dense = AutoModel.from_pretrained(tmp_path / "dense-wavlm").state_dict()
    same = {name for name, tensor in weights.wavlm.state_dict().items() if torch.equal(tensor, dense[name])}
    convolutions = {name for name in dense if name.startswith("feature_extractor")}
    assert (same == weights.wavlm.state_dict().keys()) == options.get("freeze_base_model", False)
    assert (same >= convolutions) == options.get("freeze_feature_encoder", True)


@pytest.fixture(scope="module")
def own_clips(clips, tmp_path_factory):
    """The words as anybody's clips: folders of classes, and a table of them with the speakers, without lists."""
    root = tmp_path_factory.mktemp("own")
    lines = ["path,kind,speaker"]
    for word in FREQUENCIES:
        shutil.copytree(clips / word, root / word)
        lines += [f"{word}/{file.name},{word},{file.name[0]}" for file in sorted((root / word).iterdir())]
    (root / "clips.csv").write_text("\n".join(lines) + "\n")
    return root


def test_class_folders(run, own_clips):
    folder = run(dataset_name=str(own_clips), truncate=1, compare=True)
    report = json.loads((folder / "report.json").read_text())
    inputs = report["inputs"]
    assert (inputs["task"], inputs["has_own_labels"], inputs["clip_seconds"]) == ("label", True, 0.1)
    assert inputs["class_names"] == ["no", "up", "yes"]
    assert inputs["num_clips"] == {"train": 42, "validation": 6, "test": 6}
    assert list(report["layers"]["profiles"]["pretrained"]) == ["label"]
    card = (folder / "README.md").read_text()
    assert "to classify 3 classes." in card and "trained and tested on clips of 0.1 s" in card
    assert {path.name for path in folder.iterdir()} == FILES
    assert len(pipeline("audio-classification", model=str(folder))(tone(0.1))) == 3


def test_a_table_with_groups(run, own_clips):
    columns = {"label_column": "kind", "group_column": "speaker", "profile_columns": ["speaker"]}
    recipe = run(run=run_finetune.FinetuningRecipe, dataset_name=str(own_clips / "clips.csv"), truncate=1, **columns)
    recipe.setup()
    assert [set(split["speaker"][:]) for split in recipe.data.task.splits.values()] == [{"c"}, {"b"}, {"a"}]
    profiles = recipe.report.layers.profiles["pretrained"]
    # One speaker is no class.
    assert list(profiles) == ["kind"] and profiles["kind"].labels["kind"].probe is None


@pytest.mark.parametrize(
    "options, message",
    [
        ({"words": ["no"]}, "`words` has no effect with labels of your own"),
        (
            {"task": "word", "label_column": "kind"},
            "`label_column` has no effect with the task 'word' of Speech Commands",
        ),
        ({"task": "label", "min_clips_per_class": 1}, "`min_clips_per_class` is 1; it must be 3 or more"),
    ],
)
def test_options_of_the_other_kind_of_data(run, own_clips, options, message):
    with pytest.raises(ValueError, match=message):
        run(dataset_name=str(own_clips), **options)


def test_keywords(run, shared_data):
    recipe = run(
        run=run_finetune.FinetuningRecipe,
        dataset_name=str(shared_data / "speech_commands"),
        task="keyword",
        truncate=1,
    )
    recipe.setup()
    assert len(recipe.report.inputs.class_names) == 12
    assert list(recipe.report.layers.profiles["pretrained"]) == ["keyword"]


def test_a_run_that_stopped_goes_on(run, monkeypatch, tmp_path):
    whole = json.loads((run(output_dir=tmp_path / "whole", truncate=2, compare=True) / "report.json").read_text())
    with monkeypatch.context() as broken:

        def stop(*args, **kwargs):
            raise KeyboardInterrupt

        broken.setattr(run_finetune, "measure_latency", stop)
        with pytest.raises(KeyboardInterrupt):
            run(truncate=2, compare=True)
    assert not (tmp_path / "out").exists()
    # The second training is done again.
    shutil.rmtree(tmp_path / "out.partial" / "truncated_seed_42")
    with pytest.raises(ValueError, match="interrupted run of other settings: `truncate` was '2' and is '1'"):
        run(truncate=1, compare=True)
    report = json.loads((run(truncate=2, compare=True) / "report.json").read_text())
    for name, variant in report["results"]["variants"].items():
        whole_variant = whole["results"]["variants"][name]
        assert variant["results"][0]["predictions"] == whole_variant["results"][0]["predictions"]
        assert variant["results"][0]["metrics"] == whole_variant["results"][0]["metrics"]


def test_a_training_that_stopped_goes_on_from_its_checkpoint(run, monkeypatch, tmp_path):
    options = {"truncate": 2, "num_train_epochs": 3, "save_strategy": "steps", "eval_strategy": "steps"}
    options |= {"save_steps": 2, "eval_steps": 2, "per_device_train_batch_size": 8, "logging_steps": 2}

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 9:
            raise KeyboardInterrupt

    def values(folder):
        (result,) = json.loads((folder / "report.json").read_text())["results"]["variants"]["truncated"]["results"]
        history = [
            {name: value for name, value in entry.items() if "runtime" not in name and "per_second" not in name}
            for entry in result["history"]
        ]
        return result["predictions"], result["metrics"], history

    whole = run(output_dir=tmp_path / "whole", **options)
    with monkeypatch.context() as broken:
        broken.setattr(TrainingClock, "on_step_begin", stop, raising=False)
        with pytest.raises(KeyboardInterrupt):
            run(**options)
    assert (tmp_path / "out.partial" / "truncated_seed_42" / "checkpoint-8").exists()
    resumed = run(**options)
    assert values(resumed) == values(whole)
    weights = [load_file(folder / "model.safetensors") for folder in (resumed, whole)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_bad_input(run):
    with pytest.raises(ValueError, match="4 layers cannot be kept; the model has layers 1 to 3"):
        # Found before the clips are read and the layers are scored.
        run(truncate=4, dataset_name="missing")
    with pytest.raises(ValueError, match="speaker"):
        run(task="speaker")
