"""The plan of a run and the estimates of the time that is left."""

import logging

import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from hf_prunable.runtime.training_plan import Audio, Stage, TimeEstimate, TrainingPlan, format_duration


CLIPS = Audio([1.5, 3598.5], 7)
STAGES = {"stage_1": Stage("learn the gates", 400), "stage_2": Stage("train the pruned model", 150)}


@pytest.fixture
def messages(caplog):
    caplog.set_level(logging.INFO, logger="hf_prunable")
    logging.getLogger("hf_prunable").propagate = True

    def read():
        shown = [record.getMessage() for record in caplog.records if record.name.endswith("training_plan")]
        caplog.clear()
        return shown

    return read


def make_plan(tmp_path, audio=CLIPS, **options):
    args = TrainingArguments(
        str(tmp_path / "out"), per_device_train_batch_size=3, gradient_accumulation_steps=2, **options
    )
    return TrainingPlan(STAGES, args, audio, "out")


def test_the_plan(tmp_path):
    assert make_plan(tmp_path, use_cpu=True).describe().splitlines() == [
        f"Device: CPU, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}",
        "Stage 1: learn the gates, 400 steps of 6 clips",
        "Stage 2: train the pruned model, 150 steps of 6 clips",
        "Audio:  2 clips for training (60 min), 7 for evaluation",
        "Output: out",
    ]


def test_the_plan_of_a_stream(tmp_path):
    assert "a stream of clips for training, 7 for evaluation" in make_plan(tmp_path, Audio(None, 7)).describe()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told_what_to_do(tmp_path):
    assert make_plan(tmp_path).describe().splitlines()[-1].startswith("No GPU was found")


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (5400, "1 h 30 min"),
        (47.4 * 3600, "47 h 24 min"),
        (48 * 3600, "2 days 0 h"),
        (100 * 3600, "4 days 4 h"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


class Steps:
    """The steps of a stage as the Trainer reports them, with a clock of their own."""

    def __init__(self, tmp_path, stage_idx, max_steps, first=0, is_first_process=True):
        self.now = 1000.0
        self.estimate = TimeEstimate(list(STAGES.values()), stage_idx, clock=lambda: self.now)
        self.args = TrainingArguments(str(tmp_path / "out"), use_cpu=True)
        self.state = TrainerState(
            max_steps=max_steps, global_step=first, is_world_process_zero=is_first_process, is_local_process_zero=True
        )
        self.estimate.on_train_begin(self.args, self.state, TrainerControl())

    def run(self, steps, seconds):
        for _ in range(steps):
            self.now += seconds
            self.state.global_step += 1
            self.estimate.on_step_end(self.args, self.state, TrainerControl())


def test_the_first_estimate_comes_after_some_steps(tmp_path, messages):
    steps = Steps(tmp_path, 0, 400)
    assert messages() == ["Stage 1 of 2: learn the gates, 400 steps."]
    # The first step takes long and does not count.
    steps.run(1, 500.0)
    steps.run(19, 1.0)
    assert messages() == []
    steps.run(1, 1.0)
    assert messages() == [
        "1.00 s per step: about 6 min left in this stage, 2 min in those after it at the same speed, 9 min in all."
    ]


def test_the_first_estimate_comes_after_some_time(tmp_path, messages):
    steps = Steps(tmp_path, 1, 150)
    messages()
    steps.run(3, 15.0)
    assert messages() == ["15.00 s per step: about 37 min left in this stage."]


def test_estimates_are_refined(tmp_path, messages):
    steps = Steps(tmp_path, 0, 1000)
    steps.run(1000, 2.0)
    assert [message.split(",")[0] for message in messages()[1:]] == [
        "2.00 s per step: about 33 min left in this stage",
        "2.00 s per step: about 30 min left in this stage",
        "2.00 s per step: about 25 min left in this stage",
        "2.00 s per step: about 17 min left in this stage",
        "2.00 s per step: about 8 min left in this stage",
    ]


def test_a_quick_stage_is_not_full_of_estimates(tmp_path, messages):
    steps = Steps(tmp_path, 0, 100)
    steps.run(100, 0.01)
    assert len(messages()) == 2


def test_a_resumed_stage(tmp_path, messages):
    steps = Steps(tmp_path, 0, 400, first=300)
    assert messages() == ["Stage 1 of 2: learn the gates, 400 steps, from step 300 on."]
    steps.run(21, 1.0)
    assert messages()[0].startswith("1.00 s per step: about 79 s left in this stage")


def test_other_processes_are_silent(tmp_path, messages):
    steps = Steps(tmp_path, 0, 100, is_first_process=False)
    steps.run(100, 5.0)
    assert messages() == []


def test_the_trainer_calls_it(tmp_path, messages):
    class Clips(Dataset):
        def __len__(self):
            return 32

        def __getitem__(self, index):
            return {"x": torch.ones(2)}

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, x):
            return {"loss": (x * self.weight).sum()}

    plan = make_plan(tmp_path, use_cpu=True, max_steps=30, remove_unused_columns=False, disable_tqdm=True)
    trainer = Trainer(Model(), plan.args, train_dataset=Clips(), callbacks=[plan.callback("stage_2")])
    trainer.train()
    announced, estimate = messages()
    assert announced == "Stage 2 of 2: train the pruned model, 30 steps."
    assert estimate.endswith("left in this stage.")
