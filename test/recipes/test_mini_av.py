"""The generated corpus: sentences, speech, faces, files."""

import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import data as mini_av
import numpy as np
import pytest
from espeak import RATE, Phoneme, Voice, speak
from face import random_identity, render
from recipe_options import recipe_options
from sentences import GRID, MODES, TEMPLATES, distinct_sentences, open_vocabulary
from visemes import mouth_shapes

from mome.analysis.dry_run import report
from mome.data.video import read_video, video_info
from mome.encoders.visual import VisualEncoder
from mome.lips.landmarks import FaceTracker
from mome.tasks.config import parse, read_config

ROOT = Path(__file__).parents[2]
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
ESPEAK = DOWNLOADS / "espeak"
LANDMARKS = DOWNLOADS / "dlib/shape_predictor_68_face_landmarks.dat"


def test_the_grammar_and_the_open_vocabulary_are_as_large_as_promised():
    assert np.prod([len(words) for words in GRID]) > 100_000
    assert 50 <= len({word for words in GRID for word in words}) <= 100
    assert len(open_vocabulary()) >= 1500
    said = set(" ".join(distinct_sentences(4000, np.random.default_rng(0), "open")).split())
    assert said <= open_vocabulary()
    assert len(said) > 1400
    assert len(TEMPLATES) >= 10
    with pytest.raises(ValueError, match="grammar has"):
        distinct_sentences(10**6, np.random.default_rng(0))
    with pytest.raises(ValueError, match="closed"):
        distinct_sentences(1, np.random.default_rng(0), "closed")


@pytest.mark.parametrize("mode", MODES)
def test_sets_share_neither_speakers_nor_sentences(mode):
    clips = mini_av.plan({"train": 400, "valid": 30, "test": 60}, 0, mode)
    assert clips == mini_av.plan({"train": 400, "valid": 30, "test": 60}, 0, mode)
    assert clips != mini_av.plan({"train": 400, "valid": 30, "test": 60}, 1, mode)
    assert len({clip.sentence for clip in clips}) == 490
    assert len({str(clip.path(Path())) for clip in clips}) == 490
    for what in ("speaker", "identity_seed"):
        values = {
            split: {getattr(clip, what) for clip in clips if clip.split == split}
            for split in mini_av.SPLITS
        }
        assert not values["train"] & values["valid"]
        assert not values["train"] & values["test"]
        assert not values["valid"] & values["test"]
    variants = [mini_av.TRAIN_VARIANTS, mini_av.VALID_VARIANTS, mini_av.TEST_VARIANTS]
    assert len(set().union(*variants)) == sum(map(len, variants))


def say(word: str) -> tuple[list[Phoneme], np.ndarray]:
    """Phonemes of a word, and how far the lips are open 100 times a second."""
    speech, phonemes = speak(ESPEAK, word, Voice("en-us+m1", 175, 50, 50))
    return phonemes, mouth_shapes(phonemes, np.arange(0, len(speech) / RATE, 0.01))[:, 0]


def test_the_mouth_shows_what_is_said():
    # The lips close while p and m are held, and are open in the vowels between them.
    for word, consonant in (("papa", "p"), ("mama", "m")):
        phonemes, opening = say(word)
        assert [phoneme.ipa for phoneme in phonemes][::2] == [consonant] * 2
        for phoneme in phonemes:
            held = opening[int(100 * phoneme.start) + 1 : int(100 * phoneme.end) + 1]
            if phoneme.ipa == consonant:
                assert held.max() < 0.05, word
            else:
                assert held.max() > 0.25, word
    assert say("car")[1].max() > 2 * say("see")[1].max()
    # p, b and m look alike: the same closure, within the timing that the synthesis gives them.
    closures = [float(say(word)[1].mean()) for word in ("pie", "buy", "my")]
    assert max(closures) - min(closures) < 0.35 * np.mean(closures)


def test_speech_does_not_depend_on_what_was_said_before():
    voice = Voice("en+klatt", 190, 40, 40)
    first = speak(ESPEAK, "bin blue by a two now", voice)
    speak(ESPEAK, "lay red at b one please", Voice("en-us+m1", 175, 50, 50))
    again = speak(ESPEAK, "bin blue by a two now", voice)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]


def test_real_landmarks_are_found_in_generated_faces():
    tracker = FaceTracker(LANDMARKS, detect_every=1)
    found = total = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        _, phonemes = speak(ESPEAK, "place blue at table two", Voice("en-us+f1", 180, 50, 50))
        shapes = mouth_shapes(phonemes, np.arange(0, 1.6, 0.04))
        for frame in render(random_identity(rng), shapes, rng):
            total += 1
            found += bool(tracker.detect(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)))
    assert found >= 0.99 * total


def test_clips_are_deterministic_and_their_streams_fit(tmp_path):
    arguments = ["--num_train", "1", "--num_valid", "1", "--num_test", "1", "--nj", "1"]
    for name in ("one", "two"):
        mini_av.main(
            ["download", "--out", str(tmp_path / name), "--espeak", str(ESPEAK), *arguments]
        )
    clips = sorted((tmp_path / "one").rglob("*.mp4"))
    assert len(clips) == 3
    for clip in clips:
        other = tmp_path / "two" / clip.relative_to(tmp_path / "one")
        np.testing.assert_array_equal(read_video(clip), read_video(other))
        assert video_info(clip).fps == 25
        with av.open(str(clip)) as container:
            audio = container.streams.audio[0]
            assert audio.rate == RATE
            wave = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio)])
        # AAC pads to whole packets of 1,024 samples.
        assert abs(len(wave) / RATE - len(read_video(clip)) / 25) < 0.13
        assert clip.with_suffix(".txt").read_text().startswith("Text:  ")
    with pytest.raises(SystemExit, match="remove the folder"):
        mini_av.main(
            ["download", "--out", str(tmp_path / "one"), "--espeak", str(ESPEAK), "--num_train"]
            + ["2", "--num_valid", "1", "--num_test", "1"]
        )


def test_a_text_without_words_is_named(tmp_path):
    path = tmp_path / "00001.txt"
    path.write_text("Text:  \nConf:  5\n")
    with pytest.raises(ValueError, match=r"00001\.txt: no words"):
        mini_av.read_transcript(path)


def test_the_quick_preset_has_the_models_of_the_whole_recipe():
    def run(*options):
        command = [ROOT / "egs/mini_av/run.sh", *options, "--dry_run", "true"]
        return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)

    quick = run("--preset", "quick")
    assert quick.returncode == 0, quick.stderr
    assert "GPU memory of training" in quick.stdout
    given = recipe_options("mini_av")
    options = ["--config", str(ROOT / "egs/mini_av" / given["train_config"])]
    options += ["--decoder_conf", f"lm={given['lm']}"]
    options += ["--audio_encoder_conf", f"model={given['audio_model']}"]
    whole = report(parse(options))
    assert quick.stdout.splitlines()[1:] == whole.splitlines()[1:]  # but for the name
    assert "--preset 'fast': there are full, quick and open" in run("--preset=fast").stderr


def test_the_open_preset_has_sentences_and_folders_of_its_own():
    given, whole = recipe_options("mini_av", "--preset", "open"), recipe_options("mini_av")
    assert given["download_opts"].split() == ["--mode", MODES[1]]
    for folder in ("corpus", "datadir", "dumpdir", "expdir"):
        assert given[folder] != whole.get(folder, folder.removesuffix("dir"))
    for config in ("video_config", "projector_config", "train_config"):
        assert given.get(config) == whole.get(config)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (["--hours", "2", "--", "--snrs", "-5 0"], ["--snrs", "-5 0"]),
        (["--hours", "2"], []),
    ],
)
def test_experiments_are_those_of_the_open_preset(given, options):
    """The words with which experiments.sh calls the runner, found without running it."""
    script = 'exec() { printf "%s\\0" "$@"; }; . "$0"'
    command = ["bash", "-c", script, str(ROOT / "egs/mini_av/experiments.sh"), *given]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, _, module, *words = printed.removesuffix("\0").split("\0")
    assert module == "mome.bin.run_experiments"
    place = words.index("--")
    preset = recipe_options("mini_av", "--preset", "open")
    runner = ["--expdir", preset["expdir"], "--dumpdir", preset["dumpdir"], "--hours", "2"]
    assert (words[:place], words[place + 1 :]) == (runner, ["--preset", "open", *options])


def test_the_lip_encoder_is_the_same_in_all_trainings():
    """Its weights fit crops that are reduced otherwise, too, and mean nothing there."""
    conf = ROOT / "egs/mini_av/conf"
    shapes = set()
    trained = [read_config(path) for path in [*conf.glob("*.yaml"), *conf.glob("quick/*.yaml")]]
    # Others are lists of experiments, which change a training.
    for given in [one["video_encoder_conf"] for one in trained if "experiments" not in one]:
        encoder = VisualEncoder(**{**given, "dtype": "float32"})
        sizes = tuple((name, tuple(p.shape)) for name, p in encoder.named_parameters())
        shapes.add((encoder.shrink, sizes))
    assert len(shapes) == 1


def test_the_command_line_explains_itself():
    result = subprocess.run(
        [sys.executable, str(ROOT / "egs/mini_av/local/data.py"), "download", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--mode" in result.stdout
