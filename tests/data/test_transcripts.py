"""Transcripts: unknown characters, and transcripts that are longer than the frames of their clips."""

import json

import pytest
import torch
from datasets import Dataset
from transformers import Wav2Vec2CTCTokenizer

from hf_prunable.data import transcripts
from hf_prunable.data.arguments import Speech, leave_out_transcripts
from hf_prunable.data.audio import audio_dataset
from hf_prunable.data.labels import LabelEncoding
from hf_prunable.data.transcripts import check_characters, encode_transcripts, select_transcripts


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(transcripts.logger, "warning", lines.append)
    return lines


def make_tokenizer(folder, tokens, **options):
    (folder / "vocab.json").write_text(json.dumps({token: token_id for token_id, token in enumerate(tokens)}))
    return Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), **options)


@pytest.fixture
def tokenizer(tmp_path):
    return make_tokenizer(tmp_path, ["<pad>", "<unk>", "|", "A", "B"])


def clips_of(texts, seconds=1.0):
    return audio_dataset([f"{row}.wav" for row in range(len(texts))], text=texts, seconds=[seconds] * len(texts))


def test_the_wrong_case_is_refused_with_share_and_characters(tokenizer, tmp_path):
    with pytest.raises(
        ValueError, match="100 % of the characters in the column 'text' .*: 'b', 'a'. Write .*case: A B"
    ):
        check_characters(tokenizer, ["ab b", "b"], "text", 5)
    with pytest.raises(ValueError, match="50 % of the characters"):
        check_characters(tokenizer, ["AB", "ab"], "text", 5)
    lower = make_tokenizer(tmp_path, ["<pad>", "<unk>", "|", "A", "B"], do_lower_case=True)
    check_characters(lower, ["ab b"], "text", 5)


def test_single_unknown_characters_are_named(tokenizer, warnings):
    check_characters(tokenizer, ["A B"] * 3, "text", 5)
    assert warnings == []
    check_characters(tokenizer, ["ABAB ABAB ABAB ABAB", "ABÄ-"], "text", 5)
    assert "10 % of the characters" in warnings[0] and "'Ä', '-'" in warnings[0]


@pytest.mark.parametrize("labels", [[12, 7], [1.5], [True], [["A"]], ["A", 3]])
def test_what_is_no_text_is_refused(tokenizer, labels):
    with pytest.raises(
        ValueError, match=r"CTC needs text, and the column 'text' holds (int|float|bool|list)\. .*label_col"
    ):
        check_characters(tokenizer, labels, "text", 5)


def test_tokens_beyond_the_head_are_refused(tokenizer):
    check_characters(tokenizer, ["A"], "text", 4)
    with pytest.raises(ValueError, match="token ids up to 4, and the model's head has 4 outputs"):
        check_characters(tokenizer, ["AB"], "text", 4)


@pytest.mark.parametrize("num_frames", [4, 5, 6])
@pytest.mark.parametrize("text", ["ABAB", "AABB", "A B", "BBB"])
def test_transcripts_longer_than_the_frames_have_an_infinite_loss(tokenizer, warnings, text, num_frames):
    clips = clips_of(["A", text])
    usable, skipped = select_transcripts(clips, "text", tokenizer, lambda seconds: round(num_frames * seconds))
    labels = encode_transcripts(tokenizer, [text])
    scores = torch.zeros(num_frames, 1, 5).log_softmax(-1)
    loss = torch.nn.functional.ctc_loss(scores, labels, torch.tensor([num_frames]), torch.tensor([labels.shape[1]]))
    assert (len(usable) == 2) == bool(loss.isfinite())
    if len(usable) == 1:
        assert skipped.counts == {"with a transcript longer than the clip's frames": 1}
        assert "1 of 2 clips cannot be used" in warnings[0] and "1.wav" in warnings[0]


def test_transcripts_without_a_known_character_are_left_out(tokenizer, tmp_path, warnings):
    usable, skipped = select_transcripts(clips_of(["A", "b b", "AC", "|"]), "text", tokenizer, lambda _: 50)
    assert usable["text"][:] == ["A", "AC"]
    assert skipped.counts == {"with a transcript without a known character": 2}
    # The tokenizer adds a symbol for unknown characters, but does not use it: encoding "AC" fails.
    without_symbol = make_tokenizer(tmp_path, ["<pad>", "|", "A", "B"])
    usable, skipped = select_transcripts(clips_of(["A", "AC"]), "text", without_symbol, lambda _: 50)
    assert usable["text"][:] == ["A"] and "no symbol" in str(skipped)


def test_nothing_that_fits(tokenizer):
    with pytest.raises(
        ValueError, match="No clip with a transcript is left: 2 of 2 clips .* longer than the clip's frames"
    ):
        select_transcripts(clips_of(["AB", "BA"]), "text", tokenizer, lambda _: 1)


def test_both_parts_of_the_speech_are_selected(tokenizer):
    speech = Speech(clips_of(["A", "AB" * 9, "B"]), clips_of(["AB" * 9, "A"]), {"empty": 2})
    labels = LabelEncoding("AutoModelForCTC", "text", len, tokenizer=tokenizer)
    selected = leave_out_transcripts(speech, labels, lambda _: 5)
    assert selected.train_clips["text"][:] == ["A", "B"] and selected.held_out_clips["text"][:] == ["A"]
    assert selected.num_skipped == {"empty": 2, "with a transcript longer than the clip's frames": 2}
    classes = LabelEncoding("AutoModelForAudioClassification", "text", len)
    assert leave_out_transcripts(speech, classes, lambda _: 5) is speech
    assert isinstance(selected.train_clips, Dataset)
