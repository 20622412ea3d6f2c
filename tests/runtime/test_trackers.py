"""Runs of the stages in trackers, with a wandb that only notes its calls."""

import sys
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainingArguments
from transformers.integrations import TensorBoardCallback, WandbCallback
from transformers.trainer_callback import CallbackHandler, TrainerControl, TrainerState

from hf_prunable.runtime.trackers import tracked_stage


@pytest.fixture
def wandb(monkeypatch):
    calls = []
    module = SimpleNamespace(run=None, calls=calls)

    def init(**options):
        calls.append(options)
        module.run = SimpleNamespace(finish=finish)
        return module.run

    def finish():
        calls.append("finish")
        module.run = None

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_DIR", "WANDB_PROJECT", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.delenv(name, raising=False)
    return module


def trainer_of(folder, *callbacks, report_to=(), is_main=True, **options):
    args = TrainingArguments(str(folder), use_cpu=True, **options)
    args.report_to = list(report_to)
    handler = CallbackHandler(list(callbacks), None, None, None, None)
    return SimpleNamespace(
        args=args,
        callback_handler=handler,
        is_world_process_zero=lambda: is_main,
        add_callback=handler.add_callback,
        remove_callback=handler.remove_callback,
    )


def names_of_stages(folder, **options):
    names = []
    for stage in ("stage_1", "stage_2"):
        trainer = trainer_of(folder, report_to=["wandb"], **options)
        with tracked_stage(trainer, folder, stage):
            names.append(trainer.args.run_name)
    return names


def test_a_stage_goes_on_in_its_run_of_wandb(tmp_path, wandb):
    folder = tmp_path / "pruned.partial"
    first, again, other = (names_of_stages(path) for path in (folder, folder, tmp_path / "b" / "pruned.partial"))
    assert [name.rpartition("-")[0] for name in first] == ["pruned-stage_1", "pruned-stage_2"]
    assert first == again and not set(first) & set(other)
    begun = [call for call in wandb.calls if call != "finish"]
    assert wandb.calls[1::2] == ["finish"] * 6 and [call["name"] for call in begun] == [*first, *again, *other]
    assert [f"pruned-{call['id']}" for call in begun[:4]] == first + again
    for call in begun[:4]:
        assert call["dir"] == str(folder / "runs") and (folder / "runs").is_dir()
        assert call["resume"] == "allow" and call["project"] == "huggingface"


def test_what_the_user_has_chosen_is_kept(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("WANDB_PROJECT", "speech")
    names = names_of_stages(tmp_path / "pruned.partial", run_name="attempt")
    assert all(name.startswith("attempt-stage_") for name in names)
    assert (wandb.calls[0]["dir"], wandb.calls[0]["project"]) == (str(tmp_path / "mine"), "speech")
    wandb.calls.clear()
    wandb.run = own = object()
    names_of_stages(tmp_path / "pruned.partial")
    assert not wandb.calls and wandb.run is own


def test_only_the_main_process_has_runs_and_only_with_trackers(tmp_path, wandb):
    folder = tmp_path / "pruned.partial"
    names_of_stages(folder, is_main=False)
    with tracked_stage(trainer_of(folder), folder, "stage_1"):
        pass
    assert not wandb.calls and not folder.exists()


def test_nothing_is_reported_after_the_stage(tmp_path, wandb, monkeypatch):
    # A test set of fine-tuning would go to a run that is finished.
    callback = WandbCallback.__new__(WandbCallback)
    trainer = trainer_of(tmp_path, callback, report_to=["wandb"])
    with tracked_stage(trainer, tmp_path, "stage_1"):
        assert callback in trainer.callback_handler.callbacks
    assert callback not in trainer.callback_handler.callbacks


def test_points_after_the_last_checkpoint_are_drawn_once(tmp_path, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    for first, last in ((0, 5), (3, 7)):
        trainer = trainer_of(tmp_path, TensorBoardCallback(), report_to=["tensorboard"])
        handler, state = trainer.callback_handler, TrainerState(global_step=first, is_world_process_zero=True)
        with tracked_stage(trainer, tmp_path, "stage_1"):
            handler.on_train_begin(trainer.args, state, TrainerControl())
            for state.global_step in range(first + 1, last + 1):
                handler.on_log(trainer.args, state, TrainerControl(), {"loss": float(last)})
            handler.on_train_end(trainer.args, state, TrainerControl())
    points = EventAccumulator(str(tmp_path / "runs" / "stage_1")).Reload().Scalars("train/loss")
    assert [(point.step, point.value) for point in points] == [(step, 5 if step < 4 else 7) for step in range(1, 8)]
