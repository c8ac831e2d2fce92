"""Word error rates against jiwer on the whole set, and the chance baselines."""

import json
import re
import resource

import jiwer
import numpy as np
import pytest

from mome.analysis.decoded import load_scores
from mome.analysis.wer import guess, score
from mome.bin import score as score_bin
from mome.common.marks import OtherSettings
from mome.data import test_sets
from mome.data.kaldi import write_scp
from mome.data.text import normalise

REFERENCES = {"a": "set the red book", "b": "bin blue now", "c": "lay green"}
HYPOTHESES = {"a": "set a red red book", "b": "bin now", "c": "lay green"}


def test_counts_equal_jiwer_on_the_whole_set():
    result = score(REFERENCES, HYPOTHESES)
    names = list(REFERENCES)
    whole = jiwer.process_words([REFERENCES[n] for n in names], [HYPOTHESES[n] for n in names])
    assert (result.substitutions, result.deletions, result.insertions) == (
        whole.substitutions,
        whole.deletions,
        whole.insertions,
    )
    assert result.wer == pytest.approx(100 * whole.wer)
    assert (result.words, result.utterances) == (9, 3)
    assert result.low <= result.wer <= result.high
    assert score(REFERENCES, REFERENCES).high == 0


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        wrong = rng.random((80, 5)) < 0.2
        references = {str(i): "a b c d e" for i in range(80)}
        hypotheses = {
            str(i): " ".join("x" if w else "abcde"[j] for j, w in enumerate(row))
            for i, row in enumerate(wrong)
        }
        result = score(references, hypotheses, seed=trial)
        covered += result.low <= 20 <= result.high
    assert 51 <= covered <= 60


def test_case_marks_and_punctuation_do_not_count():
    assert normalise("It’s {NS} A-B, <unk> ok.") == "it's a b ok"


@pytest.mark.parametrize(
    ("text", "scored"),
    [
        ("हिन्दी भाषा।", "हिन्दी भाषा"),  # vowels are marks on consonants
        ("สวัสดี", "สวัสดี"),
        ("İSTANBUL'DA IŞIK", "istanbul'da işik"),
        ("cafe\u0301, déjà", "café déjà"),  # an accent beside its letter is composed
        ("m\u0302a", "m\u0302a"),  # one that has no composed letter stays with its own
        ("می\u200cخواهم", "میخواهم"),  # a joiner is not seen
        ("\ufeffone two", "one two"),  # nor is a byte order mark
        ("ok ☺\ufe0f \u0301a", "ok a"),  # marks without a letter are none of a word
        ("l’été — «oui»", "l'été oui"),
        ("{LÄRM} <UNK> ja_nein", "ja nein"),
    ],
)
def test_words_of_every_script_are_kept(text, scored):
    assert normalise(text) == scored


def test_composed_and_decomposed_letters_are_the_same():
    assert score({"u": "cafe\u0301 İzmir"}, {"u": "CAF\u00c9 izmir"}).wer == 0
    assert score({"u": "हिन्दी भाषा"}, {"u": "हिन्द भाषा"}).wer == 50


def test_character_errors_are_counted_over_the_whole_set():
    """Two of 9 characters and none of 4, blanks included: 2 of 13."""
    result = score({"a": "set a red", "b": "blue"}, {"a": "sat a re", "b": "blue"})
    assert result.cer == pytest.approx(100 * 2 / 13)
    assert score(REFERENCES, REFERENCES).cer == 0


def test_transcripts_of_lrs_are_scored_as_auto_avsr_does():
    """Its distance is that of the words of lower-cased texts; numbers and apostrophes are as is."""
    texts = {
        "a": "IT'S THE 11TH OF THE '90S O'CLOCK",
        "b": "CAN'T DO 2 THINGS",
        "c": "I WON A 100 TIMES",
    }
    hypotheses = {
        "a": "its the eleventh of '90s o'clock",
        "b": "can't do two things now",
        "c": "i won a 100 times",
    }
    for utterance, text in texts.items():
        reference, hypothesis = text.lower().split(), hypotheses[utterance].lower().split()
        row = list(range(len(hypothesis) + 1))
        for i, word in enumerate(reference, start=1):
            previous, row[0] = row[0], i
            for j, other in enumerate(hypothesis, start=1):
                best = min(previous + (word != other), row[j] + 1, row[j - 1] + 1)
                previous, row[j] = row[j], best
        found = score({"u": text}, {"u": hypotheses[utterance]})
        assert found.wer == pytest.approx(100 * row[-1] / len(reference))


def test_missing_utterances_and_empty_references_are_named():
    with pytest.raises(ValueError, match="no hypothesis, the first is c"):
        score(REFERENCES, {"a": "", "b": ""})
    with pytest.raises(ValueError, match="no reference, the first is d"):
        score(REFERENCES, HYPOTHESES | {"d": "x"})
    with pytest.raises(ValueError, match="a: the reference has no words"):
        score({"a": "..."}, {"a": "x"})


@pytest.mark.parametrize(
    ("said", "heard", "errors", "characters"),
    [
        ("今天天气很好", "今天天汽很好", 1, 6),  # one character of six, and not the whole sentence
        ("今天 天气 很好", "今天天气很 好", 0, 6),  # blanks count nothing
        ("打开wifi吧", "打开wife", 2, 4),  # words of another script are words
        ("สวัสดีครับ", "สวัสดีครบ", 1, 10),
        ("きょうは、いい天気。", "きょうわいい天気", 1, 8),
    ],
)
def test_characters_are_scored_where_words_have_no_blanks_between(said, heard, errors, characters):
    result = score({"a": said, "b": said}, {"a": heard, "b": said})
    assert result.unit == "character"
    assert (result.substitutions + result.deletions + result.insertions) == errors
    assert result.words == 2 * characters
    assert result.wer == pytest.approx(100 * errors / (2 * characters))
    assert result.low <= result.wer <= result.high
    if "wifi" not in said:
        assert result.cer == pytest.approx(result.wer)


def test_words_are_scored_where_they_have_blanks_between():
    for text in ("오늘 날씨가 좋다", "привет мир", "नमस्ते दुनिया", "play 天 now please"):
        result = score({"a": text}, {"a": text})
        assert (result.unit, result.words) == ("word", len(text.split()))


def test_chance_knows_the_training_texts_alone():
    train = ["bin blue now", "bin red now", "set blue again"]
    guesses = guess(train, {"u": "bin blue now", "v": "set red again"})
    assert guesses["most frequent words"].wer == pytest.approx(50)
    assert guesses["random training sentence"].utterances == 2
    # Without blanks between words they are guessed character by character.
    guesses = guess(["今天好", "今日坏", "明天坏"], {"u": "今天坏"})
    assert guesses["most frequent words"].unit == "character"
    assert guesses["most frequent words"].wer == 0


def decoded(tmp_path, pair: str, text: str, name: str = "test", **changes) -> None:
    """A decoded condition, with its references."""
    folder = tmp_path / "exp/decode/avsr" / name / pair
    folder.mkdir(parents=True)
    (folder / "text").write_text(text)
    settings = {"weights": "0" * 64, "beam": 2, "max_new_tokens": 8, "length_penalty": 0.0}
    settings |= {"test_set": test_sets.settings_of(tmp_path / "dump", name), **changes}
    how = {"settings": settings, "weights": "exp/valid.acc.best.pth"}
    how |= {"command": "decode", "unfinished": 1}
    (folder / "decode.json").write_text(json.dumps(how))
    (tmp_path / "dump" / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "dump" / name / "text").write_text("a one\nb two\n")


def test_tables_of_a_folder(tmp_path):
    decoded(tmp_path, "a4_v2", "a one\nb two\n")
    decoded(tmp_path, "a16_v5", "a one\nb\n")
    decoded(tmp_path, "a4_v2", "a one\nb two\n", "test_babble_snr-5")
    (tmp_path / "train").write_text("x one\ny three\n")
    arguments = ["--expdir", str(tmp_path / "exp"), "--dump", str(tmp_path / "dump")]
    score_bin.main([*arguments, "--train_text", str(tmp_path / "train")])
    scores = json.loads((tmp_path / "exp/scores.json").read_text())
    assert scores["avsr/test/a4_v2"]["wer"] == 0
    assert scores["avsr/test/a16_v5"]["deletions"] == 1
    assert scores["avsr/test/a16_v5"]["wer"] == 50
    assert scores["avsr/test/a16_v5"]["cer"] == pytest.approx(100 * 3 / 6)
    table = re.sub(" +", " ", (tmp_path / "exp/RESULTS.md").read_text())
    assert table.index("a4_v2") < table.index("a16_v5")
    assert table.index("test, clean") < table.index("test, babble at -5 dB")
    assert "| avsr | test | a16_v5 | 50.00 | 50.00 | 0 | 1 | 0 | 2 | 2 | 1 | 0 |" in table
    assert (
        "Beam 2, at most 8 new tokens. Weights: `valid.acc.best.pth`, SHA-256 000000000000."
        in table
    )
    assert "chance: most frequent words" in table
    assert "- Set `test`: 2 of 2 utterances; what stage 1 excludes is not listed.\n" in table
    first, second = (tmp_path / "dump/test" / name for name in ("excluded_stage1", "excluded"))
    first.write_text("")
    score_bin.main(arguments)
    assert "- Set `test`: 2 of 2 utterances.\n" in (tmp_path / "exp/RESULTS.md").read_text()
    first.write_text("test/anna/00001 empty txt\ntest/anna/00001 duplicate id\n")
    second.write_text("c no face\n")
    score_bin.main(arguments)
    said = f"stage 1 excludes 2, see {first}; stage 2 excludes 1, see {second}."
    table = (tmp_path / "exp/RESULTS.md").read_text()
    assert f"- Set `test`: 2 of 5 utterances; {said}\n" in table
    detectors = tmp_path / "dump/test/detectors"
    detectors.write_text("a whole_picture\nb dlib\n")
    score_bin.main(arguments)
    said = said[:-1] + f"; in 1 no face is found and the whole picture read, see {detectors}."
    assert said in (tmp_path / "exp/RESULTS.md").read_text()
    for size, told in ((5, ""), (1321, "; the corpus has 1321 in this set")):
        (tmp_path / "dump/test/official_size").write_text(f"{size}\n")
        score_bin.main(arguments)
        table = (tmp_path / "exp/RESULTS.md").read_text()
        assert f"see {second}{told}; in 1 no face" in table
    (tmp_path / "exp/decode").rename(tmp_path / "exp/decode_x")
    score_bin.main([*arguments, "--decode_tag", "x"])
    assert (tmp_path / "exp/RESULTS_x.md").exists()
    with pytest.raises(SystemExit, match="exp/decode holds no transcripts"):
        score_bin.main(arguments)


@pytest.mark.parametrize("file", ["text", "utt2num_frames", "sources"])
def test_no_table_is_of_a_set_that_has_changed_since(tmp_path, file):
    folder = tmp_path / "dump/test"
    folder.mkdir(parents=True)
    for name in ("text", "utt2num_frames", "sources"):
        (folder / name).write_text("a one\nb two\n")
    decoded(tmp_path, "a4_v2", "a one\nb two\n")
    score_bin.collect(tmp_path / "exp/decode", tmp_path / "dump")
    text = tmp_path / "exp/decode/avsr/test/a4_v2/text"
    text.write_text("a one\n")
    arguments = ["--expdir", str(tmp_path / "exp"), "--dump", str(tmp_path / "dump")]
    with pytest.raises(SystemExit, match="avsr/test/a4_v2"):
        score_bin.main(arguments)
    text.write_text("a one\nb two\n")
    (folder / file).write_text("a one\nb 2\n")
    with pytest.raises(OtherSettings, match=r'"content": .* is .*"content": '):
        score_bin.collect(tmp_path / "exp/decode", tmp_path / "dump")
    # A set without the list of its sources is that of an earlier version.
    (folder / "sources").unlink()
    assert test_sets.settings_of(tmp_path / "dump", "test") == {"prepared": "absent"}


def test_the_table_of_a_set_without_blanks_shows_character_error_rates(tmp_path):
    decoded(tmp_path, "a4_v2", "a 今天天汽很好\nb 你好\n")
    (tmp_path / "dump/test/text").write_text("a 今天天气很好\nb 你好\n")
    arguments = ["--expdir", str(tmp_path / "exp"), "--dump", str(tmp_path / "dump")]
    score_bin.main(arguments)
    table = (tmp_path / "exp/RESULTS.md").read_text()
    assert table.startswith("# Character error rates\n\nCER in %, with the 95 %")
    assert re.search(r"\| test, clean \(CER\) +\| 12\.5 \[0\.0, 16\.7\] +\|\n", table)
    assert json.loads((tmp_path / "exp/scores.json").read_text())["avsr/test/a4_v2"]["unit"] == (
        "character"
    )


def test_a_full_disk_leaves_the_former_results(tmp_path):
    decoded(tmp_path, "a4_v2", "a one\nb two\n")
    arguments = ["--expdir", str(tmp_path / "exp"), "--dump", str(tmp_path / "dump")]
    score_bin.main(arguments)
    files = [tmp_path / "exp/RESULTS.md", tmp_path / "exp/scores.json"]
    before = [path.read_bytes() for path in files]
    decoded(tmp_path, "a16_v5", "a one\nb\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # bytes of a file
    try:
        with pytest.raises(SystemExit, match="nothing is half-written"):
            score_bin.main(arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.read_bytes() for path in files] == before
    left = {path.name for path in (tmp_path / "exp").iterdir()}
    assert left == {"RESULTS.md", "decode", "scores.json"}


@pytest.mark.parametrize(
    ("changes", "other", "message"),
    [
        ({"beam": 5}, "exp/decode/avsr/test/a16_v2", "beam: was 5, is 2"),
        (
            {"weights": "1" * 64},
            "exp/decode/avsr/test/a16_v2",
            "weights: was 111111111111, is 000000000000",
        ),
        (
            {"test_set": {"seed": 1}},
            "dump/test now",
            'test_set: was {"seed": 1}, is {"prepared": "absent"}',
        ),
    ],
)
def test_no_table_mixes_settings(tmp_path, changes, other, message):
    decoded(tmp_path, "a16_v2", "a one\nb two\n")
    decoded(tmp_path, "a4_v2", "a one\nb two\n", **changes)
    with pytest.raises(OtherSettings) as error:
        score_bin.collect(tmp_path / "exp/decode", tmp_path / "dump")
    assert str(error.value).startswith(
        f"{tmp_path}/exp/decode/avsr/test/a4_v2, unlike {tmp_path}/{other}, was made with other"
        f" settings:\n  {message}\n"
    )


BABBLE = {"seed": 0, "speakers": 30, "train_set": "train_30h", "source": "of the test set"}


def noisy_copy(tmp_path, snr: float, **settings) -> str:
    """A copy with babble that is listed and decoded; its name."""
    copy = test_sets.noisy("test", "babble", snr)
    (tmp_path / "dump").mkdir(exist_ok=True)
    test_sets.add_to_list(tmp_path / "dump", {copy: BABBLE | settings})
    decoded(tmp_path, "a4_v2", "a one\nb two\n", copy.name)
    return copy.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed: was 0, is 1"),
        ({"train_set": "train_433h"}, "train_set: was train_30h, is train_433h"),
        ({"test_babble_from": "dump/valid"}, "test_babble_from: was not given, is dump/valid"),
    ],
)
def test_no_table_mixes_noises_of_a_kind(tmp_path, changes, message):
    noisy_copy(tmp_path, 0, **changes)
    noisy_copy(tmp_path, 5)
    with pytest.raises(OtherSettings) as error:
        score_bin.collect(tmp_path / "exp/decode", tmp_path / "dump")
    assert str(error.value).startswith(
        f"{tmp_path}/dump/test_babble_snr5, unlike {tmp_path}/dump/test_babble_snr0, was made with"
        f" other settings:\n  {message}\n"
    )


def test_no_table_mixes_corruptions_of_a_kind(tmp_path):
    (tmp_path / "dump").mkdir()
    for kind, strength, seed in (("drop", 1, 0), ("blur", 1, 1), ("blur", 2, 1), ("drop", 2, 0)):
        copy = test_sets.corrupted("test", kind, strength)
        made_with = {"seed": seed, "DROPPED": [0.2, 0.6], "source": "of the test set"}
        test_sets.add_to_list(tmp_path / "dump", {copy: made_with})
        decoded(tmp_path, "a4_v2", "a one\nb two\n", copy.name)
    score_bin.collect(tmp_path / "exp/decode", tmp_path / "dump")
    copy = test_sets.corrupted("test", "drop", 3)
    made_with["DROPPED"] = [0.2, 0.9]
    test_sets.add_to_list(tmp_path / "dump", {copy: made_with})
    decoded(tmp_path, "a4_v2", "a one\nb two\n", copy.name)
    with pytest.raises(OtherSettings, match=r"test_drop3, unlike .*test_drop1, .*\n  DROPPED: was"):
        score_bin.collect(tmp_path / "exp/decode", tmp_path / "dump")


def test_scores_of_another_decoding_are_not_read(tmp_path):
    """A stage 5 that was killed between the decoding and the scoring leaves those of before."""
    decoded(tmp_path, "a4_v2", "a one\nb two\n")
    exp = tmp_path / "exp"
    score_bin.main(["--expdir", str(exp), "--dump", str(tmp_path / "dump")])
    scores = load_scores(exp)
    assert scores["avsr/test/a4_v2"]["wer"] == 0
    assert "settings" not in scores["avsr/test/a4_v2"]
    how = exp / "decode/avsr/test/a4_v2/decode.json"
    before = how.read_text()
    how.write_text(before.replace('"beam": 2', '"beam": 15'))
    message = r"exp/scores\.json: avsr/test/a4_v2 is not decoded, or in another way .* stage 5"
    with pytest.raises(ValueError, match=message):
        load_scores(exp)
    how.unlink()
    with pytest.raises(ValueError, match=message):
        load_scores(exp)
    how.write_text(before)
    assert load_scores(exp) == scores
    # Earlier versions did not say, nor is there anything to compare where transcripts are not.
    (exp / "scores.json").write_text(json.dumps(scores))
    how.write_text(before.replace('"beam": 2', '"beam": 15'))
    assert load_scores(exp) == scores


def test_a_table_says_which_noise_stands_beside_which_number(tmp_path):
    dump = tmp_path / "dump"
    noisy_copy(tmp_path, 0)
    copy = test_sets.corrupted(noisy_copy(tmp_path, -5), "drop", 2)
    test_sets.add_to_list(dump, {copy: {"seed": 7, "source": "of the noisy copy"}})
    decoded(tmp_path, "a4_v2", "a one\nb two\n", copy.name)
    arguments = ["--expdir", str(tmp_path / "exp"), "--dump", str(dump)]

    def said(line: str) -> list[str]:
        score_bin.main(arguments)
        table = (tmp_path / "exp/RESULTS.md").read_text()
        return [each for each in table.splitlines() if each.startswith(line)]

    assert said("- Noise") == ["- Noise `babble`: up to 30 voices of `train_30h`, seed 0."]
    assert said("- Corrupted lips") == ["- Corrupted lips: seed 7."]
    # The recordings themselves are told by a checksum, that of their contents and ids.
    recordings = {f"babble-test-000{i}": dump / f"noise/babble/{i}.flac" for i in (0, 1)}
    write_scp(dump / "noise/test_babble.scp", recordings)
    seen = set()
    for contents in (b"01", b"10", b"0"):
        for path in recordings.values():
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
        for path, content in zip(recordings.values(), contents, strict=False):
            path.write_bytes(bytes([content]))
        seen |= set(said("- Noise"))
    told = "- Noise `babble`: up to 30 voices of `train_30h`, seed 0"
    assert f"{told}." in seen  # one of the recordings is gone
    assert len(seen) == 3
    assert all(line.startswith(told) for line in seen)
    for kind, settings, words in (
        ("music", {"seed": 3, "musan": "/data/musan"}, "MUSAN of /data/musan, seed 3."),
        ("noisex", {"seed": 4, "noisex": {"a.wav": 1}}, "the end of NOISEX-92's a.wav, seed 4."),
    ):
        copy = test_sets.noisy("test", kind, 0)
        test_sets.add_to_list(dump, {copy: settings})
        decoded(tmp_path, "a4_v2", "a one\nb two\n", copy.name)
        assert f"- Noise `{kind}`: {words}" in said("- Noise")
