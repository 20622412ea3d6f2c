"""Decoding: formats, channels, rates, and faults that name the file and the cause."""

import os

import numpy as np
import pytest
import soundfile

from hf_prunable.data import audio
from hf_prunable.data.audio import AudioError, count_samples, decode_audio
from tests.helpers.speech_files import RATE, tone, write, write_truncated_flac


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.wav", {"subtype": "PCM_16"}, 1e-4),
        ("a.wav", {"subtype": "FLOAT"}, 0),
        ("a.flac", {}, 1e-4),
        ("a.ogg", {}, 0.05),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}, 0.05),
        ("a.mp3", {}, 0.05),
    ],
)
def test_formats_decode_from_path_and_bytes(tmp_path, name, options, tolerance):
    samples = tone(0.5)
    item = write(tmp_path / name, samples, **options)
    decoded = decode_audio(item, RATE)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded[1000:-1000], samples[1000:-1000], atol=tolerance)
    in_memory = {"path": "not/there.wav", "bytes": (tmp_path / name).read_bytes()}
    np.testing.assert_array_equal(decode_audio(in_memory, RATE), decoded)
    assert count_samples(item, RATE) == count_samples(in_memory, RATE) == len(decoded) == len(samples)


def test_channels_are_averaged(tmp_path):
    left, right = tone(0.1), tone(0.1, frequency=1000)
    item = write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(decode_audio(item, RATE), (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_other_rates_are_converted(tmp_path, rate):
    item = write(tmp_path / "a.wav", tone(0.5, rate=rate), rate)
    decoded = decode_audio(item, RATE)
    assert decoded.dtype == np.float32
    assert count_samples(item, RATE) == len(decoded) == RATE // 2
    # The same tone, not one of another pitch; the filter needs a few samples at the ends.
    np.testing.assert_allclose(decoded[500:-500], tone(0.5)[500:-500], atol=5e-3)


def test_what_the_new_rate_cannot_hold_is_filtered_out(tmp_path):
    item = write(tmp_path / "a.wav", tone(0.5, rate=44100, frequency=15000), 44100)
    assert np.abs(decode_audio(item, RATE)[500:-500]).max() < 0.01


def test_faults_name_the_file_and_the_cause(tmp_path):
    with_nan, with_infinity = tone(0.1), tone(0.1)
    with_nan[7], with_infinity[9] = np.nan, np.inf
    (tmp_path / "text.wav").write_text("this is no audio")
    (tmp_path / "nothing.wav").touch()
    piped = write(tmp_path / "piped.flac", tone(0.1))
    header = bytearray((tmp_path / "piped.flac").read_bytes())
    # The 36 bits of STREAMINFO that hold the number of samples; 0 means unknown.
    header[21] &= 0xF0
    header[22:26] = bytes(4)
    (tmp_path / "piped.flac").write_bytes(header)
    faults = [
        (write(tmp_path / "nan.wav", with_nan, subtype="FLOAT"), r"nan\.wav: holds NaN or infinite", audio.NOT_FINITE),
        (write(tmp_path / "inf.wav", with_infinity, subtype="DOUBLE"), r"inf\.wav: holds NaN", audio.NOT_FINITE),
        (write(tmp_path / "empty.wav", np.zeros(0)), r"empty\.wav: holds no samples", audio.EMPTY),
        ({"path": str(tmp_path / "nothing.wav"), "bytes": None}, r"nothing\.wav: holds no bytes", audio.EMPTY),
        ({"path": "x.wav", "bytes": b""}, r"x\.wav: holds no bytes", audio.EMPTY),
        ({"path": str(tmp_path / "text.wav"), "bytes": None}, r"text\.wav: cannot be opened \(.+\)", audio.UNREADABLE),
        ({"path": None, "bytes": b"no audio"}, r"8 bytes without a name: cannot be opened", audio.UNREADABLE),
        ({"path": str(tmp_path / "gone.wav"), "bytes": None}, r"gone\.wav: there is no such file", audio.UNREADABLE),
        ({"path": None, "bytes": None}, "without path and bytes: nothing to decode", audio.UNREADABLE),
        (piped, r"piped\.flac: its header does not contain its length", audio.UNREADABLE),
        (None, "without path and bytes: nothing to decode", audio.UNREADABLE),
    ]
    for item, message, cause in faults:
        for function in (decode_audio, count_samples):
            with pytest.raises(AudioError, match=message) as caught:
                function(item, RATE)
            assert caught.value.cause == cause


WRITABLE = [
    (name, subtype) for name in soundfile.available_formats() for subtype in soundfile.available_subtypes(name)
]


@pytest.mark.parametrize("kind", WRITABLE, ids="-".join)
def test_every_format_is_decoded_or_a_named_fault(tmp_path, kind):
    name, subtype = kind
    rate = 8000 if subtype != "OPUS" else 48000
    samples = np.cumsum(np.random.default_rng(0).uniform(-0.01, 0.01, 2 * rate))
    path = tmp_path / "clip.bin"
    try:
        soundfile.write(path, samples, rate, format=name, subtype=subtype)
    except (soundfile.SoundFileError, ValueError):
        pytest.skip("cannot be written")
    for item in ({"path": str(path), "bytes": None}, {"path": None, "bytes": path.read_bytes()}):
        try:
            num_samples = count_samples(item, RATE)
            decoded = decode_audio(item, RATE)
        except AudioError as error:
            # Without a header, or with it in another file.
            assert name in ("RAW", "SD2") or subtype in ("DWVW_16", "DWVW_24"), error
        else:
            assert len(decoded) == num_samples >= 5800 and 0 < np.abs(decoded).max() < 2


@pytest.mark.parametrize("rate", (8000, 16000, 44100))
@pytest.mark.parametrize("channels", (1, 2))
def test_mp3_in_memory_is_decoded_as_from_a_file(tmp_path, rate, channels):
    """libsndfile loses the first bytes of MP3 in memory that begins without a tag."""
    samples = 0.1 * np.random.default_rng(0).standard_normal((rate, channels))
    soundfile.write(tmp_path / "a.mp3", samples, rate)
    item = {"path": None, "bytes": (tmp_path / "a.mp3").read_bytes()}
    decoded = decode_audio({"path": str(tmp_path / "a.mp3"), "bytes": None}, RATE)
    assert count_samples(item, RATE) == len(decoded)
    assert np.array_equal(decode_audio(item, RATE), decoded)


def test_telephony_is_decoded(tmp_path):
    item = write(tmp_path / "a.wav", tone(1.0, rate=8000), 8000, subtype="GSM610")
    decoded = decode_audio(item, RATE)
    assert count_samples(item, RATE) == len(decoded)
    np.testing.assert_allclose(decoded[1000:15000], tone(1.0)[1000:15000], atol=0.15)


def test_headers_that_promise_what_cannot_be(tmp_path):
    write(tmp_path / "a.wav", tone(0.1))
    header = (tmp_path / "a.wav").read_bytes()
    for rate in (1, 999, 768_001, 2**31 - 1):
        item = {"path": "a.wav", "bytes": header[:24] + rate.to_bytes(4, "little") + header[28:]}
        for function in (decode_audio, count_samples):
            with pytest.raises(
                AudioError, match=f"a.wav: its header gives a sampling rate of {rate} Hz; possible"
            ) as caught:
                function(item, RATE)
            assert caught.value.cause == audio.IMPOSSIBLE_RATE
    write(tmp_path / "a.flac", tone(0.1))
    header = bytearray((tmp_path / "a.flac").read_bytes())
    # The 36 bits of STREAMINFO that hold the number of samples, and the channels before them.
    header[20] |= 0x0E
    header[21:26] = header[21] | 0x0F, 255, 255, 255, 255
    with pytest.raises(AudioError, match="a.flac: cannot be decoded"):
        decode_audio({"path": "a.flac", "bytes": bytes(header)}, RATE)


def test_names_that_soundfile_refuses(tmp_path):
    write(tmp_path / "a.wav", tone(0.1))
    for name in (b"a.raw", b"\xff.wav"):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
        os.link(tmp_path / "a.wav", path)
        with pytest.raises(AudioError, match=r"(a.raw|\\udcff.wav): cannot be opened") as caught:
            decode_audio({"path": path, "bytes": None}, RATE)
        str(caught.value).encode("utf-8")


def test_floating_point_files_are_checked_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK_VALUES", 100)
    samples = np.stack([tone(0.1, rate=8000)] * 2, axis=1)
    item = write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    monkeypatch.setattr(audio, "resample_poly", lambda *_: pytest.fail("resampled"))
    assert count_samples(item, RATE) == RATE // 10
    samples[-1, 1] = np.inf
    with pytest.raises(AudioError, match="holds NaN or infinite"):
        count_samples(write(tmp_path / "b.wav", samples, 8000, subtype="DOUBLE"), RATE)


def test_damaged_body_is_an_error_only_when_decoded(tmp_path):
    item = write_truncated_flac(tmp_path / "cut.flac")
    assert count_samples(item, RATE) == RATE
    with pytest.raises(AudioError, match=r"cut\.flac: cannot be decoded \(.*lost sync"):
        decode_audio(item, RATE)
