"""Streams of speech: every clip once a pass, held-out clips never, and the same batches after an interruption."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import Audio, Dataset
from torch.utils.data import DataLoader

from hf_prunable.data.arguments import SpeechArguments, load_speech
from hf_prunable.data.audio import AudioError, decode_audio
from hf_prunable.data.crops import CropReader
from hf_prunable.data.labels import load_label_encoding
from hf_prunable.data.speech_dataset import load_speech_dataset
from hf_prunable.data.streaming import StreamedClips
from tests.helpers.speech_files import RATE, wav_bytes, write


SHARDS, CLIPS_A_SHARD = 4, 6
NUM_CLIPS = SHARDS * CLIPS_A_SHARD
SECONDS = 0.05


def save_shard(folder, number, clips):
    table = Dataset.from_dict({"audio": [{"bytes": clip, "path": None} for clip in clips]})
    folder.mkdir(exist_ok=True)
    table.cast_column("audio", Audio(decode=False)).to_parquet(folder / f"train-{number:05d}-of-{SHARDS:05d}.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips that hold nothing but their own number, in several files."""
    folder = tmp_path_factory.mktemp("stream") / "data"
    for shard in range(SHARDS):
        numbers = range(shard * CLIPS_A_SHARD, (shard + 1) * CLIPS_A_SHARD)
        save_shard(folder, shard, [wav_bytes(np.full(round(SECONDS * RATE), number / 100)) for number in numbers])
    return folder.parent


def load(folder, **options):
    options = {"held_out_clips": 3, "min_seconds": SECONDS} | options
    return load_speech(SpeechArguments(str(folder), streaming=True, **options), RATE, seed=0)


def numbers_of(items):
    return [round(float(item["waveform"][0]) * 100) for item in items]


WHOLE_CLIPS = CropReader(RATE)


def read(speech, num_batches, *, workers=0, batch_size=2, batches_read=0, reader=WHOLE_CLIPS, **options):
    """Batches as the Trainer's loader gives them."""
    clips = StreamedClips(
        replace(speech.train_clips, shuffle_buffer=8),
        reader=reader,
        batch_size=batch_size,
        **options,
    )
    clips.batches_read = batches_read
    loader = DataLoader(clips, batch_size=batch_size, collate_fn=list, num_workers=workers)
    return [batch for batch, _ in zip(loader, range(num_batches), strict=False)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_ranks_and_workers_share_the_clips(folder, num_ranks, workers):
    speech = load(folder, held_out_clips=1)
    # Four shards: two a rank with two ranks, and every third clip with three, where a second worker has a part as well.
    batches = 40 // num_ranks
    parts = [
        numbers_of(
            item for batch in read(speech, batches, rank=rank, num_ranks=num_ranks, workers=workers) for item in batch
        )
        for rank in range(num_ranks)
    ]
    assert all(len(part) == 2 * batches for part in parts)
    seen = set().union(*parts)
    assert seen == set(range(1, NUM_CLIPS))
    if workers == 0:
        shares = [set(part[: NUM_CLIPS // num_ranks - 1]) for part in parts]
        assert sum(map(len, shares)) == len(set().union(*shares)) == num_ranks * (NUM_CLIPS // num_ranks - 1)


def test_a_pass_has_every_clip_once_and_the_next_another_order(folder):
    speech = load(folder)
    held_out = [{"waveform": decode_audio(clip["audio"], RATE)} for clip in speech.held_out_clips]
    assert numbers_of(held_out) == [0, 1, 2]
    left = NUM_CLIPS - 3
    order = numbers_of(item for batch in read(speech, 2 * left, batch_size=1) for item in batch)
    first, second = order[:left], order[left:]
    assert sorted(first) == sorted(second) == list(range(3, NUM_CLIPS))
    assert first != second and first != sorted(first)
    other = numbers_of(item for batch in read(speech, left, batch_size=1, seed=1) for item in batch)
    assert other != first and sorted(other) == sorted(first)


@pytest.mark.parametrize("workers, batches_read", [(0, 1), (0, 17), (2, 2), (2, 18)])
def test_an_interrupted_run_reads_what_comes_next(folder, workers, batches_read):
    speech = load(folder)
    options = {"num_ranks": 2, "rank": 1, "workers": workers, "reader": CropReader(RATE, shortest_crop=0.25)}
    whole = read(speech, batches_read + 5, **options)
    rest = read(speech, 5, batches_read=batches_read, **options)
    for batch, again in zip(whole[batches_read:], rest, strict=True):
        assert numbers_of(batch) == numbers_of(again)
        for value in ("crop_position", "crop_fraction"):
            assert [item[value] for item in batch] == [item[value] for item in again]
    fractions = [item["crop_fraction"] for batch in whole for item in batch]
    assert len(set(fractions)) == len(fractions) and 0.25 <= min(fractions) < max(fractions) < 1


def test_clips_that_cannot_be_used_are_passed_over(tmp_path, caplog):
    good, short = wav_bytes(np.full(RATE // 10, 0.07)), wav_bytes(np.zeros(RATE // 100))
    save_shard(tmp_path / "data", 0, [good, wav_bytes(np.full(RATE // 10, 0.09)), b"no audio", short])
    speech = load(tmp_path, held_out_clips=1)
    assert numbers_of(item for batch in read(speech, 2) for item in batch) == [9] * 4
    assert "Taking the next clip instead" in caplog.text


def test_nothing_that_can_be_used(tmp_path):
    save_shard(tmp_path / "data", 0, [wav_bytes(np.ones(RATE)), b"no audio", wav_bytes(np.zeros(RATE // 100))])
    speech = load(tmp_path, held_out_clips=1)
    with pytest.raises(
        AudioError, match=r"Not one of the 3 clips that worker 0 of rank 0 reads .* shorter than 0.05 s"
    ):
        read(speech, 1)
    for count, message in (
        (0, "`held_out_clips` is 0; it must be 1 or more"),
        (3, "3 clips cannot be held out of a stream of 3"),
    ):
        with pytest.raises(ValueError, match=message):
            load(tmp_path, held_out_clips=count)


def test_what_cannot_be_streamed(tmp_path, folder):
    write(tmp_path / "a.wav", np.zeros(RATE))
    with pytest.raises(ValueError, match="is read as it is needed anyway; leave `streaming` out"):
        load_speech_dataset(tmp_path, streaming=True)
    with pytest.raises(ValueError, match="All labels are checked before training, .* Leave `streaming` out"):
        load_label_encoding("ctc", tmp_path, load(folder).train_clips)


def test_of_a_stream_only_the_held_out_clips_are_identified(folder):
    facts = load(folder).identity()
    assert list(facts) == ["held-out clips"]
    assert facts == load(folder).identity() != load(folder, held_out_clips=4).identity()


@pytest.mark.parametrize("options, count", [({"held_out_clips": 5}, 5), ({"held_out_fraction": 0.25}, NUM_CLIPS // 4)])
def test_the_same_files_can_be_read_as_a_whole(folder, options, count):
    speech = load_speech(SpeechArguments(str(folder), min_seconds=SECONDS, **options), RATE, seed=3)
    assert len(speech.held_out_clips) == count and len(speech.train_clips) == NUM_CLIPS - count
    assert speech.num_skipped == {} and list(speech.identity()) == ["held-out clips", "training clips"]
