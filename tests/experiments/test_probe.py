"""The command of the linear probes."""

import json

from experiments import probe
from tests.helpers.speech_files import write_speech_commands


def test_words_and_speakers_of_a_checkpoint(teacher, tmp_path, monkeypatch, capsys):
    clips = [f"{word}/{speaker}_nohash_{take}" for word in ("no", "yes") for speaker in "abcde" for take in (0, 1)]
    write_speech_commands(tmp_path, clips, ["no/a_nohash_0"], ["no/b_nohash_0"], seconds=0.15)
    monkeypatch.setattr("sys.argv", ["probe", "--models", teacher, "--speech_commands", str(tmp_path)])
    probe.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["model"] == teacher
    # All clips are the same tone.
    assert 0 <= result["words"] <= 0.5 and 0 <= result["speakers"] <= 0.2
