"""The benchmark of crops on a recording of a minute."""

from benchmarks import audio_crops
from benchmarks.audio_crops import PARTS, WHOLE, Recording
from hf_prunable.data import audio, crops


def test_parts_are_read_where_the_format_allows_it(tmp_path, monkeypatch):
    frames = []

    def read(audio_item, sound_file, num_frames, *start):
        frames.append(num_frames)
        return read_frames(audio_item, sound_file, num_frames, *start)

    read_frames = audio.read_frames
    for module in (audio, crops):
        monkeypatch.setattr(module, "read_frames", read)
    for recording, is_seekable in (
        (Recording("FLAC", "PCM_16", 8000), True),
        (Recording("MP3", "MPEG_LAYER_III", 8000), False),
    ):
        path = recording.write(str(tmp_path), minutes=1)
        rows = [audio_crops.measure(path, 0.5, number, decoding) for number, decoding in ((1, WHOLE), (2, PARTS))]
        whole, *parts = [frames.pop(0) for _ in range(3)]
        assert whole == 60 * 8000 and all((num_frames < 8000) == is_seekable for num_frames in parts)
        assert all(row["crops_per_second"] > 0 and row["peak_bytes"] >= 0 for row in rows)


def test_the_table_names_each_recording():
    row = {"crops_per_second": 0.1234, "peak_bytes": 300 * 2**20}
    recordings = {str(recording): {WHOLE: row, PARTS: row} for recording in audio_crops.RECORDINGS}
    table = audio_crops.format_crops({"recordings": recordings, "crop_seconds": 2.0, "minutes": 60, "machine": "M"})
    assert "| FLAC PCM_16, 44100 Hz, 2 channels | 0.123 | 300 | 0.123 | 300 |" in table
    assert "Crops of 2 s from recordings of 60 minutes." in table
