"""mome.data.test_sets: names of test sets, and the list of those that were made."""

import argparse
import json
from multiprocessing import get_context
from pathlib import Path

import pytest

from mome.common.marks import OtherSettings
from mome.data import test_sets as sets

# In the order of tables: name, words, tasks.
NAMES = [
    ("test", "test, clean", "avsr asr vsr"),
    ("test_swapaudio", "test, audio of another utterance", "avsr"),
    ("test_swapvideo", "test, video of another utterance", "avsr"),
    ("test_babble_snr10", "test, babble at 10 dB", "avsr asr"),
    ("test_babble_snr-5", "test, babble at -5 dB", "avsr asr"),
    ("test_noise_snr2.5", "test, noise at 2.5 dB", "avsr asr"),
    ("test_noisex_snr0", "test, noisex at 0 dB", "avsr asr"),
    ("test_blur1", "test, lips at 1/2 resolution", "avsr vsr"),
    ("test_blur3", "test, lips at 1/8 resolution", "avsr vsr"),
    ("test_babble_snr-5_drop2", "test, babble at -5 dB, 40 % of lip frames dropped", "avsr"),
    ("test_other_set", "test_other_set, clean", "avsr asr vsr"),
    ("test_other_set_babble_snr0", "test_other_set, babble at 0 dB", "avsr asr"),
    (
        "test_other_set_occlusion1",
        "test_other_set, patch of 33 % width on 40 % of lip frames",
        "avsr vsr",
    ),
]


def test_names_words_tasks_and_order():
    for name, words, tasks in NAMES:
        parsed = sets.parse(name)
        assert parsed.name == name
        assert parsed.describe() == words
        assert parsed.tasks == tuple(tasks.split())
    ordered = sorted(sorted(name for name, _, _ in NAMES), key=lambda n: sets.parse(n).order)
    assert ordered == [name for name, _, _ in NAMES]
    assert sets.noisy("test", "babble", sets.snr("5.0")).name == "test_babble_snr5"
    assert sets.corrupted("test_babble_snr-5", "drop", 2).name == "test_babble_snr-5_drop2"


def test_names_that_mean_something_else_are_refused():
    with pytest.raises(ValueError, match=r"'test_babble_snr5\.0' is called 'test_babble_snr5'"):
        sets.parse("test_babble_snr5.0")
    with pytest.raises(ValueError, match=r"'my_blur1' is the name of a copy .*rename the set"):
        sets.noisy("my_blur1", "babble", 0)
    with pytest.raises(ValueError, match="lips of test_drop1 are corrupted already"):
        sets.corrupted("test_drop1", "blur", 1)
    for word in ("loud", "", "nan", "inf"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not an SNR in dB"):
            sets.snr(word)


def add(dump: Path, number: int) -> None:
    sets.add_to_list(dump, {sets.noisy("test", "babble", number): {"seed": number}})


def test_the_list_is_merged_also_by_several_writers(tmp_path):
    assert sets.read_list(tmp_path) == {}
    with get_context("spawn").Pool(2) as pool:
        pool.starmap(add, [(tmp_path, number) for number in range(8)])
    add(tmp_path, 3)
    names = [f"test_babble_snr{number}" for number in reversed(range(8))]
    assert sets.read_list(tmp_path) == {name: {"seed": int(name[-1])} for name in names}
    assert list(json.loads((tmp_path / "test_sets.json").read_text())) == names
    again = {sets.noisy("test", "babble", 3): {"seed": 4}}
    with pytest.raises(OtherSettings, match=r"test_babble_snr3 was made .*\n  seed: was 3, is 4"):
        sets.claim(tmp_path, again)
    assert sets.settings_of(tmp_path, "test_babble_snr3") == {"seed": 3}
    assert sets.source_of(tmp_path, "test") != sets.source_of(tmp_path, "test_babble_snr3")
    sets.claim(tmp_path, again, force=True)
    assert "test_babble_snr3" not in sets.read_list(tmp_path)
    sets.claim(tmp_path, {sets.noisy("test", "babble", 2): {"seed": 2}}, force=True)
    assert "test_babble_snr2" not in sets.read_list(tmp_path)
    (tmp_path / "test_sets.json").write_text("[]")
    with pytest.raises(ValueError, match=r"test_sets\.json cannot be read .*run stage 3 again"):
        sets.read_list(tmp_path)


def select(dump: Path, *options: str, tasks: str = "avsr asr vsr") -> list[str]:
    parser = argparse.ArgumentParser()
    sets.add_selection_arguments(parser)
    args = parser.parse_args(["--dump", str(dump), *options])
    return [each.name for each in sets.select(args, tasks.split())]


def test_sets_are_found_by_what_is_asked_for(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test/utt2num_frames").touch()
    assert select(tmp_path) == ["test"]
    copies = ["test_swapvideo", "test_babble_snr-5", "test_babble_snr10", "test_music_snr-5"]
    copies += [f"test{noise}_drop{n}" for noise in ("", "_babble_snr-5") for n in (1, 2, 3)]
    for name in copies:
        source = sets.source_of(tmp_path, sets.parse(name).source)
        sets.add_to_list(tmp_path, {sets.parse(name): {"source": source}})
    assert select(tmp_path, "--snrs", "-5.0") == ["test", *copies[:2], copies[3]]
    assert select(tmp_path, "--snrs", "10", "--kinds", "babble")[-1] == "test_babble_snr10"
    assert select(tmp_path, "--snrs", "-5", tasks="vsr") == ["test"]
    assert select(tmp_path, "--snrs", "-5", tasks="asr") == ["test", copies[1], copies[3]]
    corrupt = ["--corruptions", "drop", "--corrupt_sets", "test", "test_babble_snr-5"]
    assert select(tmp_path, *corrupt) == ["test", "test_swapvideo", *copies[4:]]
    assert select(tmp_path, *corrupt, tasks="vsr") == ["test", *copies[4:7]]
    sets.add_to_list(tmp_path, {sets.noisy("test", "babble", -5): {"source": "another"}})
    with pytest.raises(ValueError, match="babble_snr-5 is a copy of another test than there is"):
        select(tmp_path, "--snrs", "-5")
    with pytest.raises(ValueError, match="drop1 is a copy of another test_babble_snr-5 than"):
        select(tmp_path, *corrupt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--snrs", "0"],
            "test_babble_snr0 .*: stage 3 makes it, with --snrs 0 --test_noise babble",
        ),
        (["--snrs", "5", "--kinds", "music"], "--snrs 5 --test_noise music --musan <folder>"),
        (
            ["--snrs", "5", "--kinds", "noisex"],
            "test_noisex_snr5 .*--test_noise noisex --noisex <file or folder>",
        ),
        (["--corruptions", "drop"], "test_drop1 .*--corruptions drop --corrupt_sets test$"),
        (["--test_sets", "other"], "other is not prepared: stage 2 does it, --test_sets other"),
    ],
)
def test_a_set_that_was_not_made_names_what_makes_it(tmp_path, options, message):
    (tmp_path / "test").mkdir()
    (tmp_path / "test/utt2num_frames").touch()
    with pytest.raises(ValueError, match=message):
        select(tmp_path, *options)
