"""Speech Commands by its own lists."""

import pytest
from speech_files import tone, write

from hf_prunable.speech_commands import load_speech_commands


@pytest.fixture
def archive(tmp_path):
    for name in ("yes/aa_nohash_0", "yes/aa_nohash_1", "yes/bb_nohash_0", "no/bb_nohash_0", "no/cc_nohash_0"):
        write(tmp_path / f"{name}.wav", tone(0.1))
    write(tmp_path / "_background_noise_" / "pink_noise.wav", tone(0.1))
    write(tmp_path / "yes" / "._aa_nohash_0.wav", tone(0.1))
    (tmp_path / "validation_list.txt").write_text("yes/bb_nohash_0.wav\nno/bb_nohash_0.wav\n")
    (tmp_path / "testing_list.txt").write_text("no/cc_nohash_0.wav\n")
    return tmp_path


def test_speech_commands_follow_the_lists(archive):
    def rows(split, **options):
        dataset = load_speech_commands(archive, split, **options)
        assert not dataset.features["audio"].decode
        for row in dataset:
            assert row["audio"]["path"].startswith(str(archive / row["word"] / row["speaker"]))
        return list(zip(dataset["word"], dataset["speaker"], strict=True))

    assert rows("train") == [("yes", "aa"), ("yes", "aa")]
    assert rows("validation") == [("no", "bb"), ("yes", "bb")]
    assert rows("test") == [("no", "cc")]
    assert rows("validation", words=["yes"]) == [("yes", "bb")]


def test_speech_commands_errors(archive):
    with pytest.raises(ValueError, match="split is 'dev'; it must be 'train', 'validation' or 'test'"):
        load_speech_commands(archive, "dev")
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        load_speech_commands(archive / "nowhere", "train")
    with pytest.raises(ValueError, match="no folder for maybe; there are no, yes"):
        load_speech_commands(archive, "train", words=["yes", "maybe"])
    with pytest.raises(ValueError, match="give a list of words"):
        load_speech_commands(archive, "train", words="yes")
    with pytest.raises(ValueError, match="no clip in the split 'test' for these words"):
        load_speech_commands(archive, "test", words=["yes"])
    with open(archive / "testing_list.txt", "a") as file:
        file.write("no/dd_nohash_0.wav\ntree/dd_nohash_0.wav\n")
    with pytest.raises(FileNotFoundError, match=r"2 of 3 clips in testing_list\.txt.*no/dd_nohash_0\.wav, tree/dd"):
        load_speech_commands(archive, "test")
    write(archive / "yes" / "noname.wav", tone(0.1))
    with pytest.raises(ValueError, match=r"yes/noname\.wav: the file name does not tell the speaker"):
        load_speech_commands(archive, "train")
    (archive / "testing_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"testing_list\.txt: there is no such list"):
        load_speech_commands(archive, "train")
