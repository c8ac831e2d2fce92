"""What the page shows, without the page."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mome.data.augment import snr_of
from mome.data.video import MediaError
from mome.demo import markup
from mome.demo.reading import encode, find_noises, read, transcribe_at, with_noise
from mome.lips.detectors import load_tracker
from mome.transcribe.choice import finest
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber
from mome.transcribe.transcript import Segment, Word

ROOT = Path(__file__).parents[2]
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
LANDMARKS = DOWNLOADS / "dlib" / "shape_predictor_68_face_landmarks.dat"
OPTIONS = Options(beam=1, max_new_tokens=8)


@pytest.fixture(scope="module")
def transcribe(packed) -> Transcriber:
    return Transcriber.load(packed, tracker=load_tracker(str(LANDMARKS)))


@pytest.mark.parametrize(
    ("name", "streams", "tasks", "note"),
    [
        ("both.mp4", {"speech", "lips"}, ["avsr", "asr", "vsr"], None),
        ("silent.mp4", {"lips"}, ["vsr"], "no sound: lips alone"),
        ("sound.wav", {"speech"}, ["asr"], "no video: sound alone"),
        ("faceless.mp4", {"speech"}, ["asr"], "no face was found: sound alone"),
    ],
)
def test_what_is_there_is_read_and_what_is_not_is_named(
    transcribe, clips, name, streams, tasks, note
):
    recording = read(transcribe, clips / name, OPTIONS)
    assert {stream for clip in recording.clips for stream in clip.streams} == streams
    assert recording.notes == ([] if note is None else [note])
    encoded = {task: encode(transcribe, recording, task) for task in ("avsr", "asr", "vsr")}
    assert [task for task, of_task in encoded.items() if of_task is not None] == tasks
    best = {task: finest(task, transcribe.model.pairs) for task in tasks}
    rows = {
        task: transcribe_at(transcribe, recording, encoded[task], best[task], OPTIONS)
        for task in tasks
    }
    seconds = sum(clip.end - clip.start for clip in recording.clips)
    for task in tasks:
        assert rows[task].seconds > 0
        kinds = {"avsr": {"audio", "video"}, "asr": {"audio"}, "vsr": {"video"}}[task]
        assert set(rows[task].tokens) == kinds
        # Both encoders give 12.5 tokens a second at their finest rates, 4 and 2.
        for count in rows[task].tokens.values():
            assert count == pytest.approx(12.5 * seconds, abs=1)
        assert len(rows[task].segments) == len(recording.clips)


def test_what_cannot_be_read_is_named(transcribe, clips):
    with pytest.raises(MediaError, match=r"notes .*corrupt or truncated file"):
        read(transcribe, clips / "notes ${1}{{x}}.txt", OPTIONS)


def test_only_the_beginning_of_a_long_recording_is_read(transcribe, clips, tmp_path):
    rate, quiet = 16000, np.zeros(16000)
    speech, _ = soundfile.read(clips / "sound.wav")
    soundfile.write(tmp_path / "long.wav", np.concatenate([speech, quiet, speech, quiet]), rate)
    whole = read(transcribe, tmp_path / "long.wav", OPTIONS)
    assert len(whole.clips) == 2
    part = read(transcribe, tmp_path / "long.wav", OPTIONS, max_seconds=2.5)
    assert len(part.clips) == 1
    assert part.notes[-1] == f"only the first {part.clips[0].end:g} s are read"
    assert len(read(transcribe, tmp_path / "long.wav", OPTIONS, max_seconds=0.1).clips) == 1


def test_noise_has_its_ratio_over_all_segments_and_leaves_the_lips(transcribe, clips, tmp_path):
    recording = read(transcribe, clips / "both.mp4", OPTIONS)
    rng = np.random.default_rng(1)
    (tmp_path / "hum").mkdir()
    soundfile.write(tmp_path / "hum" / "a.wav", rng.normal(0, 0.1, 4000), 16000)
    noises = find_noises([tmp_path / "hum"], [tmp_path])
    assert list(noises) == ["speech-shaped", "hum"]
    for kind in noises:
        noisy = with_noise(recording, -5, kind, noises)
        assert snr_of(recording.joined("speech"), noisy.joined("speech")) == pytest.approx(-5)
        assert np.array_equal(recording.joined("lips"), noisy.joined("lips"))
        again = with_noise(recording, -5, kind, noises)
        assert np.array_equal(noisy.joined("speech"), again.joined("speech"))
    soundfile.write(tmp_path / "hum" / "a.wav", np.zeros(4000), 16000)
    with pytest.raises(MediaError, match=r"a\.wav: the noise is empty or silent"):
        with_noise(recording, -5, "hum", noises)


def test_noises_of_musan_are_found_and_what_is_missing_is_named(clips, tmp_path):
    folder = tmp_path / "musan" / "noise" / "free"
    folder.mkdir(parents=True)
    shutil.copy(clips / "sound.wav", folder / "n.wav")
    assert find_noises([], [tmp_path]) == {"speech-shaped": [], "noise": [folder / "n.wav"]}
    with pytest.raises(ValueError, match="nowhere is no recording of noise"):
        find_noises([tmp_path / "nowhere"], [tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty is no recording of noise, and no folder with"):
        find_noises([tmp_path / "empty"], [tmp_path])


def test_doubtful_words_are_marked_and_nothing_is_taken_for_markup():
    words = [Word("bin", 0.9), Word("<b>${x}{{y}}", 0.31)]
    html = markup.words_of(Segment(0, 1, "", 0.6, words, "asr", "a4"))
    assert html.startswith("bin <mark>&lt;b&gt;")
    assert html.endswith("<sub>0.31</sub></mark>")
    assert not re.search(r"[${}]", html)


def test_the_page_says_what_the_model_was_trained_on_and_cannot_do(transcribe):
    html = markup.about(transcribe.info)
    assert "nothing &lt;at all&gt; (0.25 h)." in html
    assert "will fail on them" in html
    assert "62.5" in markup.measured(transcribe.info)
    assert "Nothing was measured" in markup.measured({})
