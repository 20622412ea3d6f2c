"""What users do with a saved model: pipelines, CTC fine-tuning, LoRA."""

import json
import logging

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoFeatureExtractor,
    AutoModelForCTC,
    Trainer,
    TrainingArguments,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    pipeline,
)

from hf_prunable import load_prunable
from tests.helpers.fresh_processes import ragged
from tests.helpers.tiny_models import FAMILIES, tiny_emptied, tiny_inputs, tiny_prunable


RATE = 16000
LETTERS = "|abcdefgh"
KINDS = {
    "dense": lambda family, head, **config: tiny_prunable(family, head=head, **config),
    "pruned": lambda family, head, **config: ragged(family, head, **config),
    "emptied": lambda family, head, **config: tiny_emptied(family, head=head, **config),
}
EVERY_ENCODER = pytest.mark.parametrize(("family", "kind"), [(family, kind) for family in FAMILIES for kind in KINDS])
# Everything random that training does, so that the loss says what was learned.
QUIET = {
    "layerdrop": 0.0,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "apply_spec_augment": False,
}


def noise(samples=2000, seed=0):
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def saved(model, folder):
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def add_tokenizer(folder):
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", *LETTERS])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    tokenizer.save_pretrained(folder)
    return tokenizer


@torch.no_grad()
def run(model, folder, audio):
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    return model(**extractor(audio, sampling_rate=RATE, return_tensors="pt"))


@EVERY_ENCODER
def test_audio_classification_pipeline(tmp_path, caplog, family, kind):
    names = {0: "yes", 1: "no", 2: "maybe"}
    model = KINDS[kind](family, "classification", id2label=names, label2id={v: k for k, v in names.items()})
    folder = saved(model, tmp_path)
    with caplog.at_level(logging.WARNING, "transformers"):
        classify = pipeline("audio-classification", model=str(folder))
    found = {entry["label"]: entry["score"] for entry in classify(noise())}
    probabilities = run(model, folder, noise()).logits[0].softmax(-1)
    assert found == pytest.approx(
        {names[number]: value.item() for number, value in enumerate(probabilities)}, abs=1e-5
    )
    assert "not supported" not in caplog.text
    several = classify([noise(), noise(3000, seed=1)], batch_size=1, top_k=1)
    assert [len(entries) for entries in several] == [1, 1]


@EVERY_ENCODER
def test_speech_recognition_pipeline(tmp_path, caplog, family, kind):
    model = KINDS[kind](family, "ctc", vocab_size=len(LETTERS) + 2)
    # Random weights might say nothing but blanks and spaces.
    model.lm_head.bias.data -= torch.tensor([10.0, 10.0, 1.0] + [0.0] * (len(LETTERS) - 1))
    folder = saved(model, tmp_path)
    tokenizer = add_tokenizer(folder)
    with caplog.at_level(logging.WARNING, "transformers"):
        recognize = pipeline("automatic-speech-recognition", model=str(folder))
    expected = tokenizer.decode(run(model, folder, noise()).logits[0].argmax(-1))
    assert expected and recognize(noise())["text"] == expected
    assert "not supported" not in caplog.text
    words = recognize(noise(), return_timestamps="word")["chunks"]
    assert " ".join(word["text"] for word in words) == " ".join(expected.split())


@EVERY_ENCODER
def test_feature_extraction_pipeline(tmp_path, family, kind):
    """transformers has it for text; a feature extractor in the tokenizer's place makes it one for audio."""
    model = KINDS[kind](family, "base")
    folder = saved(model, tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    extract = pipeline("feature-extraction", model=str(folder), tokenizer=extractor, return_tensors=True)
    features = extract(noise(), tokenize_kwargs={"sampling_rate": RATE})
    torch.testing.assert_close(features, run(model, folder, noise()).last_hidden_state, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "kind"), [("wavlm", "pruned"), ("hubert", "dense"), ("wav2vec2", "emptied")])
def test_ctc_fine_tuning(tmp_path, family, kind):
    folder = saved(KINDS[kind](family, "ctc", vocab_size=len(LETTERS) + 2, **QUIET), tmp_path / "model")
    tokenizer = add_tokenizer(folder)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    texts = ("ab", "cad", "f", "gh")
    clips = [{"audio": noise(1200 - 100 * number, number), "text": text} for number, text in enumerate(texts)]

    def collate(examples):
        audio = [example["audio"] for example in examples]
        batch = extractor(audio, sampling_rate=RATE, padding=True, return_tensors="pt")
        labels = tokenizer([example["text"] for example in examples], padding=True, return_tensors="pt")
        batch["labels"] = labels.input_ids.masked_fill(labels.attention_mask == 0, -100)
        return batch

    model = AutoModelForCTC.from_pretrained(folder)
    model.freeze_feature_encoder()
    args = TrainingArguments(
        output_dir=tmp_path / "training",
        max_steps=40,
        learning_rate=5e-3,
        per_device_train_batch_size=4,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        remove_unused_columns=False,
    )
    trainer = Trainer(model=model, args=args, train_dataset=clips, data_collator=collate)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 40 and losses[-1] < 0.5 * losses[0]
    trainer.save_model(tmp_path / "trained")
    again = load_prunable(tmp_path / "trained", "AutoModelForCTC")
    assert again.num_parameters() == model.num_parameters()
    torch.testing.assert_close(
        run(again, folder, noise()).logits, run(model.eval(), folder, noise()).logits, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("kind", ("pruned", "emptied"))
@pytest.mark.parametrize("family", FAMILIES)
def test_lora(tmp_path, family, kind):
    folder = saved(KINDS[kind](family, "classification", num_labels=2, **QUIET), tmp_path / "model")
    model = load_prunable(folder, "AutoModelForAudioClassification")
    targets = [name for name, _ in model.named_modules() if name.endswith(("q_proj", "v_proj"))]
    # Blocks that lost their attention have nothing to adapt.
    assert 0 < len(targets) < 6
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = tiny_inputs(4, 600)
    with torch.no_grad():
        untouched = model(**inputs).logits
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    trained = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * len(targets) and all("lora_" in name for name in trained)
    with torch.no_grad():
        assert torch.equal(adapted.eval()(**inputs).logits, untouched)

    optimizer = torch.optim.Adam(trained.values(), lr=3e-2)
    labels = 1 - untouched.argmax(-1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = adapted.train()(**inputs, labels=labels).loss
        loss.backward()
        # lora_B starts at 0, so that in the first step lora_A's gradient is 0 too.
        assert all(parameter.grad is not None for parameter in trained.values())
        assert all(p.grad.abs().max() > 0 for name, p in trained.items() if "lora_B" in name)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]

    for use_reentrant in (False, True):
        adapted.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        adapted.enable_input_require_grads()
        optimizer.zero_grad()
        adapted(**inputs, labels=labels).loss.backward()
        found = {name: parameter.grad for name, parameter in trained.items()}
        adapted.gradient_checkpointing_disable()
        optimizer.zero_grad()
        adapted(**inputs, labels=labels).loss.backward()
        for name, parameter in trained.items():
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=0)

    with torch.no_grad():
        expected = adapted.eval()(**inputs).logits
        adapted.save_pretrained(tmp_path / "adapter")
        fresh = load_prunable(folder, "AutoModelForAudioClassification")
        reloaded = PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
        assert torch.equal(reloaded(**inputs).logits, expected)
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits, expected, atol=1e-5, rtol=0)
        # The merged model is one of ours again, with only the adapted weights changed.
        merged.save_pretrained(tmp_path / "merged")
        again = load_prunable(tmp_path / "merged", "AutoModelForAudioClassification")
        assert torch.equal(again(**inputs).logits, merged(**inputs).logits)
    changed = {name for name, tensor in again.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{name}.weight" for name in targets}


@pytest.mark.parametrize("head, labels", [("classification", [0, 2, 1, 1]), ("ctc", [[3, 4], [5, 6], [3, 3], [7, 4]])])
@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batches_have_the_gradient_of_one_batch(family, head, labels, tmp_path):
    """The Trainer takes a head's loss for a mean over the whole step unless it is told otherwise."""
    clips = [
        {"input_values": torch.tensor(noise(400, seed)), "labels": torch.tensor(labels[seed])} for seed in range(4)
    ]
    norms = []
    for batch_size in (4, 1):
        config = {"num_labels": 3} if head == "classification" else {"vocab_size": 10, "ctc_loss_reduction": "mean"}
        args = TrainingArguments(
            output_dir=str(tmp_path),
            use_cpu=True,
            disable_tqdm=True,
            max_steps=1,
            logging_steps=1,
            save_strategy="no",
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=4 // batch_size,
            max_grad_norm=1e6,
        )
        trainer = Trainer(tiny_prunable(family, head=head, **QUIET, **config), args, train_dataset=clips)
        trainer.train()
        norms.append(trainer.state.log_history[0]["grad_norm"])
    assert norms[1] == pytest.approx(norms[0], rel=1e-3) and norms[0] > 0
