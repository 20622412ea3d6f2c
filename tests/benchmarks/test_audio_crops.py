"""The benchmark of crops on a recording of a minute."""

from benchmarks import audio_crops
from benchmarks.audio_crops import PARTS, WHOLE, Recording
from hf_prunable.data import crops


def test_parts_are_read_where_the_format_allows_it(tmp_path, monkeypatch):
    decoded = []
    decode = crops.decode_audio
    monkeypatch.setattr(
        crops, "decode_audio", lambda audio, rate: decoded.append(audio["path"]) or decode(audio, rate)
    )
    for recording, expected in ((Recording("FLAC", "PCM_16", 8000), 3), (Recording("MP3", "MPEG_LAYER_III", 8000), 5)):
        path = recording.write(str(tmp_path), minutes=1)
        rows = [audio_crops.measure(path, 0.5, number, decoding) for number, decoding in ((3, WHOLE), (2, PARTS))]
        assert decoded.count(path) == expected
        assert all(row["crops_per_second"] > 0 and row["peak_bytes"] >= 0 for row in rows)


def test_the_table_names_each_recording():
    row = {"crops_per_second": 0.1234, "peak_bytes": 300 * 2**20}
    recordings = {str(recording): {WHOLE: row, PARTS: row} for recording in audio_crops.RECORDINGS}
    table = audio_crops.format_crops({"recordings": recordings, "crop_seconds": 2.0, "minutes": 60, "machine": "M"})
    assert "| FLAC PCM_16, 44100 Hz, 2 channels | 0.123 | 300 | 0.123 | 300 |" in table
    assert "Crops of 2 s from recordings of 60 minutes." in table
