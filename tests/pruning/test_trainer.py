"""Training: what is optimised at which rate, which noise and order it sees, and when it stops."""

import copy

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import PreTrainedModel, TrainerCallback, Wav2Vec2FeatureExtractor

from hf_prunable.data.batches import CropCollator
from hf_prunable.data.crops import CropReader
from hf_prunable.data.streaming import SpeechStream, StreamedClips
from hf_prunable.modeling.gates import LOG_ALPHA_RANGE
from hf_prunable.modeling.units import PAPER_UNITS
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.compaction import compact
from hf_prunable.pruning.constraint import Lagrangian
from hf_prunable.pruning.decisions import deterministic_sparsity
from hf_prunable.pruning.distillation import Distillation
from hf_prunable.pruning.expected_size import expected_sparsity
from hf_prunable.pruning.objective import PruningObjective
from hf_prunable.pruning.student import NOISE_OFF
from hf_prunable.pruning.trainer import PruningTrainer
from tests.helpers.speech_files import RATE, wav_bytes
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, randomize_, tiny_prunable
from tests.helpers.training_logs import losses_of, step_entries


every_family = pytest.mark.parametrize("family", FAMILIES)
both_orders = pytest.mark.parametrize("norm_order", NORM_ORDERS)
DENSE_HEAD = {"heads": [0, 1, 2, 3], "query_key": [6] * 4, "value_output": [6] * 4}


class Clips(torch.utils.data.Dataset):
    """Random clips that note in which order they are asked for."""

    def __init__(self, count, samples=300, bad=None):
        self.values = torch.randn(count, samples, generator=torch.Generator().manual_seed(5))
        if bad is not None:
            self.values[bad, 7] = float("nan")
        self.asked = []

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        self.asked.append(index)
        return {"input_values": self.values[index]}


class Watch(TrainerCallback):
    """Calls a function at the beginning of each step, and another one at its end."""

    def __init__(self, begin=None, end=None):
        self.begin, self.end = begin, end

    def on_step_begin(self, args, state, control, **kwargs):
        if self.begin:
            self.begin(state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        if self.end:
            self.end(state.global_step)


def student_and_teacher(family="wavlm", norm_order="post", units=PAPER_UNITS, **config):
    teacher = tiny_prunable(family, norm_order, **{**NOISE_OFF, **config})
    student = copy.deepcopy(teacher)
    if units:
        student.attach_gates(units)
    return student, teacher


def make_trainer(folder, models, target=0.5, clips=None, projections="auto", **options):
    student, teacher = models
    options = {"max_steps": 4, "per_device_train_batch_size": 2, "logging_steps": 1, "save_strategy": "no"} | options
    args = PruningTrainingArguments(output_dir=str(folder), use_cpu=True, disable_tqdm=True, **options)
    lagrangian = Lagrangian() if student.config.gates else None
    if clips is None:
        clips = Clips(args.max_steps * args.per_device_train_batch_size * args.gradient_accumulation_steps)
    objective = PruningObjective(student, Distillation(teacher, student.config, projections=projections), lagrangian)
    targets = [target] if lagrangian is not None else []
    return PruningTrainer(objective, args, RATE, targets, train_dataset=clips, eval_dataset=Clips(3))


def logs_of(trainer):
    return step_entries(trainer.state.log_history)


def state_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@every_family
@both_orders
def test_parameter_groups(tmp_path, family, norm_order):
    trainer = make_trainer(
        tmp_path,
        student_and_teacher(family, norm_order),
        projections="shared",
        learning_rate=3e-4,
        gate_learning_rate=0.07,
        multiplier_learning_rate=0.005,
        weight_decay=0.1,
    )
    groups = trainer.create_optimizer().param_groups
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    weights, gates, multipliers = [{names[id(parameter)] for parameter in group["params"]} for group in groups]
    assert multipliers == {"lagrangian.lambda_1", "lagrangian.lambda_2"}
    assert gates == {f"student.{name}.log_alpha" for name, _ in trainer.model.student.named_gates()}
    assert weights == set(names.values()) - gates - multipliers - {"student.masked_spec_embed"}
    assert {"distillation.projections.layer_0.weight", "distillation.projections.shared.bias"} < weights
    assert [group["lr"] for group in groups] == [3e-4, 0.07, 0.005]
    assert [group["maximize"] for group in groups] == [False, False, True]
    assert [group["weight_decay"] for group in groups] == [0.1, 0, 0]
    # The multipliers forget faster, or the sparsity overshoots.
    assert [group["betas"] for group in groups] == [(0.9, 0.999), (0.9, 0.999), (0.9, 0.95)]


def test_without_gates_there_are_only_weights(tmp_path):
    groups = make_trainer(tmp_path, student_and_teacher(units=None)).create_optimizer().param_groups
    assert len(groups) == 1 and not groups[0]["maximize"]


def test_multipliers_ascend_and_gates_stay_in_their_range(tmp_path):
    trainer = make_trainer(tmp_path, student_and_teacher(), 0.9, max_steps=6, gate_learning_rate=4.0)
    seen = []

    def look(step):
        gates = torch.cat([gate.log_alpha.detach() for _, gate in trainer.model.student.named_gates()])
        seen.append((gates.min().item(), gates.max().item()))

    trainer.add_callback(Watch(end=look))
    trainer.train()
    low, high = (pytest.approx(limit) for limit in LOG_ALPHA_RANGE)
    assert len(seen) == 6
    assert all(LOG_ALPHA_RANGE[0] - 1e-5 <= least and most <= LOG_ALPHA_RANGE[1] + 1e-5 for least, most in seen)
    # With such steps both limits are met, so something was clamped.
    assert low in [least for least, _ in seen] and high in [most for _, most in seen]
    # The sparsity stays below the target at first: lambda_1 (s - t) and lambda_2 (s - t)^2 have to grow.
    assert trainer.model.lagrangian.lambda_1 < 0 < trainer.model.lagrangian.lambda_2


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_weights_warm_up_and_decay_while_gates_keep_their_rate(tmp_path, schedule):
    trainer = make_trainer(
        tmp_path, student_and_teacher(), max_steps=10, learning_rate=1.0e-3, lr_scheduler_type=schedule
    )
    rates = []
    trainer.add_callback(Watch(lambda step: rates.append([group["lr"] for group in trainer.optimizer.param_groups])))
    trainer.train()
    weights, gates, multipliers = zip(*rates, strict=True)
    assert set(gates) == {3.6} and set(multipliers) == {0.8}
    # A warm-up of 0.3 is 3 of 10 steps.
    assert weights[:4] == pytest.approx([0, 1e-3 / 3, 2e-3 / 3, 1e-3])
    assert list(weights[3:]) == sorted(weights[3:], reverse=True) and weights[-1] < 2e-4
    if schedule == "linear":
        assert weights[4:] == pytest.approx([1e-3 * left / 7 for left in (6, 5, 4, 3, 2, 1)])


def test_a_schedule_that_looks_at_the_loss_is_refused(tmp_path):
    trainer = make_trainer(
        tmp_path, student_and_teacher(), lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="steps"
    )
    with pytest.raises(ValueError, match="does not depend on the step alone. Choose 'linear'"):
        trainer.train()


@both_orders
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_is_a_function_of_its_seed_alone(tmp_path, norm_order, accumulation):
    models = student_and_teacher("wavlm", norm_order)

    def train(disturbance, seed=3):
        trainer = make_trainer(
            tmp_path,
            copy.deepcopy(models),
            gate_learning_rate=0.5,
            seed=seed,
            gradient_accumulation_steps=accumulation,
        )
        trainer.add_callback(Watch(lambda step: torch.manual_seed(disturbance + step)))
        trainer.train()
        return trainer

    first, second, other = train(10), train(20), train(10, seed=4)
    assert losses_of(logs_of(first)) == losses_of(logs_of(second))
    assert equal(state_of(first), state_of(second))
    assert losses_of(logs_of(first)) != losses_of(logs_of(other))
    gates = [dict(trainer.model.student.named_gates()) for trainer in (first, other)]
    assert any(not torch.equal(gate.log_alpha, gates[1][name].log_alpha) for name, gate in gates[0].items())


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_micro_batches_are_numbered_through(tmp_path, accumulation):
    models = student_and_teacher()
    calls, set_noise = [], models[0].set_gate_noise
    models[0].set_gate_noise = lambda seed, index: calls.append((seed, index)) or set_noise(seed, index)
    make_trainer(tmp_path, models, max_steps=2, seed=9, gradient_accumulation_steps=accumulation).train()
    assert calls == [(9, number) for number in range(2 * accumulation)]


def test_noise_of_a_micro_batch_depends_on_its_number():
    student, _ = student_and_teacher()
    _, gate = max(student.named_gates(), key=lambda named: named[1].num_gates)

    def noise(seed, index):
        student.set_gate_noise(seed, index)
        return gate.noise.tolist()

    assert noise(1, 2) == noise(1, 2)
    assert len({tuple(noise(*number)) for number in [(1, 2), (2, 1), (1, 3), (3, 2)]}) == 4


def test_accumulated_micro_batches_are_a_batch(tmp_path):
    models = student_and_teacher(units=None)
    ends = []
    for accumulation, batch_size in ((1, 4), (2, 2)):
        trainer = make_trainer(
            tmp_path,
            copy.deepcopy(models),
            optim="sgd",
            learning_rate=0.01,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
        )
        before = state_of(trainer)
        trainer.train()
        ends.append((state_of(trainer), losses_of(logs_of(trainer))))
        assert not equal(before, state_of(trainer))
    # The sign of a tiny difference is the gradient of an L1 loss.
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_clips_come_in_their_order(tmp_path):
    clips = Clips(8)
    trainer = make_trainer(tmp_path, student_and_teacher(), clips=clips)
    trainer.train()
    assert clips.asked == list(range(8))


def test_batch_norm_keeps_the_teachers_statistics(tmp_path):
    models = student_and_teacher("hubert", conv_pos_batch_norm=True)
    trainer = make_trainer(tmp_path, models, learning_rate=0.01)
    (norm,) = [module for module in models[0].modules() if isinstance(module, torch.nn.BatchNorm1d)]
    before = copy.deepcopy(norm)
    modes = []
    norm.register_forward_hook(lambda module, args, output: modes.append(module.training))
    trainer.train()
    assert modes == [False] * 4 and trainer.model.student.training
    for name, buffer in before.named_buffers():
        assert torch.equal(buffer, getattr(norm, name))
    assert not torch.equal(before.weight, norm.weight)


def emptied_shape(norm_order):
    """Each way in which a block can be empty, and convolutions with channels missing where they can be."""
    layers = [
        {"attention": None, "intermediate": None},
        {"attention": {"heads": [], "query_key": [], "value_output": []}, "intermediate": 0},
        {"attention": {"heads": [1, 3], "query_key": [0, 2], "value_output": [1, 6]}, "intermediate": 7},
    ]
    channels = [9, 16, 20] if norm_order == "post" else [12, 16, 20]
    return {"format_version": 1, "conv_channels": channels, "layers": layers}


@every_family
@both_orders
@pytest.mark.parametrize("form", ["dense", "gated", "compacted", "emptied", "emptied and gated", "no head left"])
def test_every_trainable_parameter_gets_a_gradient(family, norm_order, form):
    """DDP waits for those that do not."""
    units = [*PAPER_UNITS, *(["conv"] if norm_order == "post" else [])]
    student, teacher = student_and_teacher(family, norm_order, units=None)
    if form == "no head left":
        shape = emptied_shape(norm_order)
        shape["layers"][2]["attention"] = None
        student = tiny_prunable(family, norm_order, pruned_shape=shape, **NOISE_OFF)
    elif form.startswith("emptied"):
        student = tiny_prunable(family, norm_order, pruned_shape=emptied_shape(norm_order), **NOISE_OFF)
    if form in ("gated", "compacted", "emptied and gated"):
        student.attach_gates(tuple(units))
    if form == "compacted":
        student = compact(randomize_(student, seed=1), 0.6)
    lagrangian = Lagrangian() if student.config.gates else None
    objective = PruningObjective(student, Distillation(teacher, student.config), lagrangian).train()
    objective(Clips(2).values, target=0.3)["loss"].backward()
    without = [name for name, value in objective.named_parameters() if value.requires_grad and value.grad is None]
    assert without == []
    frozen = {name for name, parameter in objective.named_parameters() if not parameter.requires_grad}
    assert frozen == {"student.masked_spec_embed"}
    assert all(parameter.grad.isfinite().all() for parameter in objective.parameters() if parameter.requires_grad)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path):
    # Two clips a step: clip 5 is in the third one.
    trainer = make_trainer(
        tmp_path, student_and_teacher(), clips=Clips(8, bad=5), save_strategy="steps", save_steps=1, learning_rate=0.01
    )
    ends = []
    trainer.add_callback(Watch(end=lambda step: ends.append(state_of(trainer))))
    with pytest.raises(FloatingPointError, match="The loss is nan at step 2.*last checkpoint is untouched"):
        trainer.train()
    assert len(ends) == 2 and not equal(ends[0], ends[1])
    assert equal(state_of(trainer), ends[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-2"]
    for number, end in enumerate(ends, start=1):
        assert equal(load_file(tmp_path / f"checkpoint-{number}" / "model.safetensors"), end)
        assert all(tensor.isfinite().all() for tensor in end.values())


def streamed_clips():
    noise = torch.randn(9, 400, generator=torch.Generator().manual_seed(5)) / 10
    audio = [{"bytes": wav_bytes(clip.numpy()), "path": None} for clip in noise]
    stream = SpeechStream(
        Dataset.from_dict({"audio": audio}).to_iterable_dataset(num_shards=2), min_seconds=0.01, shuffle_buffer=4
    )
    return StreamedClips(stream, reader=CropReader(RATE), batch_size=2, seed=1)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_resumed_run_equals_one_that_was_not_interrupted(tmp_path, streamed):
    models = student_and_teacher("hubert", "pre")
    options = {"max_steps": 6, "gate_learning_rate": 0.5, "save_strategy": "steps", "save_steps": 3}
    options["gradient_accumulation_steps"] = 2

    def make():
        if not streamed:
            return make_trainer(tmp_path, copy.deepcopy(models), **options)
        trainer = make_trainer(tmp_path, copy.deepcopy(models), clips=streamed_clips(), **options)
        trainer.data_collator = CropCollator(Wav2Vec2FeatureExtractor(), 0.02)
        return trainer

    whole = make()
    whole.train()
    torch.manual_seed(77)
    resumed = make()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert losses_of(logs_of(whole)) == losses_of(logs_of(resumed))
    assert equal(state_of(whole), state_of(resumed))


@pytest.mark.parametrize("target", [pytest.param(0.25, marks=pytest.mark.slow), 0.5])
def test_the_constraint_reaches_its_target(tmp_path, target):
    trainer = make_trainer(
        tmp_path,
        student_and_teacher("wav2vec2", num_hidden_layers=2),
        target,
        Clips(300, samples=120),
        max_steps=150,
        gate_learning_rate=0.5,
        multiplier_learning_rate=0.5,
        sparsity_warmup_steps=45,
        logging_steps=50,
    )
    trainer.train()
    last = logs_of(trainer)[-1]
    assert last["target_sparsity"] == target
    # One block of so small a model is 10 % of it.
    assert last["expected_sparsity"] == pytest.approx(target, abs=0.06)
    assert last["deterministic_sparsity"] == pytest.approx(target, abs=0.06)


def test_logs_show_the_three_sparsities(tmp_path):
    trainer = make_trainer(tmp_path, student_and_teacher(), 0.4, sparsity_warmup_steps=2, gate_learning_rate=2.0)
    trainer.train()
    logs, student = logs_of(trainer), trainer.model.student
    assert [entry["target_sparsity"] for entry in logs] == pytest.approx([0.2, 0.4, 0.4, 0.4])
    assert logs[-1]["expected_sparsity"] == pytest.approx(expected_sparsity(student).item())
    assert logs[-1]["deterministic_sparsity"] == pytest.approx(deterministic_sparsity(student))
    values = torch.cat([gate.deterministic_mask() for _, gate in student.named_gates()])
    assert logs[-1]["fractional_gates"] == pytest.approx(((values > 0) & (values < 1)).float().mean().item())
    blocks = [gate.deterministic_mask() for name, gate in student.named_gates() if name.endswith(("mha", "ffn"))]
    assert logs[-1]["block_gates"] == pytest.approx(torch.cat(blocks).mean().item())
    assert logs[0]["distillation_loss"] > 0
    assert "train_loss_with_constraint" in trainer.state.log_history[-1]
    assert "train_loss" not in trainer.state.log_history[-1]
    small = make_trainer(tmp_path, student_and_teacher(units=None), max_steps=1)
    small.train()
    assert not [name for name in logs_of(small)[0] if "sparsity" in name or "gates" in name]
    assert "train_loss" in small.state.log_history[-1]
    assert logs_of(small)[0]["distillation_loss"] == pytest.approx(logs_of(small)[0]["loss"])


@pytest.mark.parametrize("steps, rate, is_warned", [(100, 0.02, True), (2000, 0.02, False), (20, None, False)])
def test_gates_without_time_to_settle_are_warned_about(tmp_path, caplog, steps, rate, is_warned):
    make_trainer(tmp_path, student_and_teacher(), max_steps=steps, gate_learning_rate=rate, clips=Clips(2))
    warnings = [record.getMessage() for record in caplog.records if "to settle" in record.getMessage()]
    assert len(warnings) == is_warned
    if is_warned:
        assert (
            "about 1.8 in the 90 steps" in warnings[0] and "Raise `gate_learning_rate` or `max_steps`" in warnings[0]
        )


@pytest.mark.parametrize("steps, rates", [(400, (0.09, 0.02)), (50_000, (0.02, 0.002))])
def test_rates_of_gates_follow_the_length_of_the_run(tmp_path, steps, rates):
    args = PruningTrainingArguments(output_dir=str(tmp_path), max_steps=steps)
    assert (args.gate_learning_rate, args.multiplier_learning_rate) == pytest.approx(rates)
    assert args.settings()["gate_learning_rate"] == args.gate_learning_rate
    assert PruningTrainingArguments(str(tmp_path), max_steps=steps, gate_learning_rate=0.5).gate_learning_rate == 0.5


def test_one_process_for_several_gpus_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(PruningTrainingArguments, "n_gpu", 4)
    with pytest.raises(ValueError, match="One process sees 4 GPUs.*torchrun --nproc_per_node 4"):
        make_trainer(tmp_path, student_and_teacher())


def test_evaluation_uses_deterministic_gates(tmp_path):
    student, teacher = student_and_teacher()
    for _, gate in student.named_gates():
        torch.nn.init.normal_(gate.log_alpha, 0, 3, generator=torch.Generator().manual_seed(gate.num_gates))
    trainer = make_trainer(tmp_path, (student, teacher), per_device_eval_batch_size=2)
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        student.train().set_gate_noise(seed, 0)
        losses.append(trainer.evaluate()["eval_loss"])
    assert losses[0] == losses[1]
    with torch.no_grad():
        small = compact(student).eval()
        expected = trainer.model.distillation(small, Clips(3).values).item()
    assert losses[0] == pytest.approx(expected, rel=1e-4) and expected > 0.1


def test_the_trainer_turns_gradient_checkpointing_on(tmp_path):
    models = student_and_teacher()
    losses = []
    for checkpointing in (False, True):
        trainer = make_trainer(
            tmp_path / str(checkpointing), copy.deepcopy(models), max_steps=2, gradient_checkpointing=checkpointing
        )
        trainer.train()
        assert trainer.model.student.is_gradient_checkpointing == checkpointing
        losses.append(losses_of(logs_of(trainer)))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("enable", ["activation_checkpointing_enable", "gradient_checkpointing_enable"])
def test_gradient_checkpointing_changes_no_gradient(enable):
    if not hasattr(PreTrainedModel, enable):
        pytest.skip(f"this version of transformers has no `{enable}`")
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        student, teacher = student_and_teacher()
        objective = PruningObjective(student, Distillation(teacher, student.config), Lagrangian()).train()
        if checkpointing:
            getattr(objective, enable)()
        student.set_gate_noise(0, 0)
        objective(torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)), 0.3)["loss"].backward()
        gradients.append({name: p.grad for name, p in objective.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.slow
def test_a_compiled_run_is_the_same_run(tmp_path):
    models = student_and_teacher()
    ends = []
    for number, compiled in enumerate(({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"})):
        trainer = make_trainer(tmp_path / str(number), copy.deepcopy(models), gate_learning_rate=0.5, **compiled)
        trainer.train()
        ends.append(losses_of(logs_of(trainer)))
    assert ends[1] == pytest.approx(ends[0], rel=1e-5)


class LabelledClips(Clips):
    """Random clips of one length, each with a class id."""

    def __getitem__(self, index):
        return super().__getitem__(index) | {"labels": torch.tensor(index % 3)}


def first_gradients(folder, batch_size, distills, task_weight):
    """The gradients of a step over four clips, in micro-batches, and what the log says of it."""
    student = tiny_prunable("wavlm", head="classification", num_labels=3, **NOISE_OFF)
    distillation = Distillation(tiny_prunable("wavlm", seed=1, **NOISE_OFF), student.config) if distills else None
    args = PruningTrainingArguments(
        output_dir=str(folder / str(batch_size)),
        use_cpu=True,
        disable_tqdm=True,
        max_steps=1,
        logging_steps=1,
        save_strategy="no",
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=4 // batch_size,
        max_grad_norm=1e6,
    )
    objective = PruningObjective(student, distillation, None, task_weight)
    clips = (LabelledClips if task_weight else Clips)(4)
    trainer = PruningTrainer(objective, args, RATE, train_dataset=clips)
    gradients = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            gradients.update(
                {name: value.grad.clone() for name, value in objective.named_parameters() if value.grad is not None}
            )

    trainer.add_callback(Keep())
    trainer.train()
    return gradients, logs_of(trainer)[0]


@pytest.mark.parametrize("distills, task_weight", [(True, 0.0), (False, 1.0), (True, 0.5)])
def test_micro_batches_have_the_gradient_of_one_batch(tmp_path, distills, task_weight):
    gradients, log = first_gradients(tmp_path, 4, distills, task_weight)
    assert ("student.classifier.weight" in gradients) == bool(task_weight) and log["grad_norm"] > 0
    for batch_size in (1, 2):
        split, split_log = first_gradients(tmp_path, batch_size, distills, task_weight)
        assert split.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(split[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
        for name in ("loss", "grad_norm"):
            assert split_log[name] == pytest.approx(log[name], rel=1e-4)
