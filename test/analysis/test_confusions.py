"""Confusions against hand-counted sentences and against a slow search of all alignments."""

import re
from collections import Counter

import numpy as np
import pytest

from mome.analysis.confusions import align, confusions
from mome.analysis.wer import score
from mome.bin.confusions import main

REFERENCES = {
    "s1_a": "bin blue at f two now",
    "s1_b": "lay red in f nine soon",
    "s1_c": "set white with s zero again",
    "s1_d": "place green by {NS} x one Please.",
    "s1_e": "bin blue",
}
HYPOTHESES = {
    "s1_a": "bin blue at s two now",  # f -> s
    "s1_b": "lay red in s nine",  # f -> s, soon deleted
    "s1_c": "set set white with f zero again",  # set inserted, s -> f
    "s1_d": "place green by one please",  # x deleted
    "s1_e": "now bin red",  # now inserted, blue -> red
}


def test_hand_counted_sentences():
    found = confusions(REFERENCES, HYPOTHESES)
    assert (found.utterances, found.usual_utterances) == (5, 4)
    assert [(p.substitutions, p.deletions) for p in found.places] == [
        *((0, 0),) * 3,
        (3, 1),
        (0, 0),
        (0, 1),
    ]
    assert [p.error_rate for p in found.places] == [0, 0, 0, 100, 0, 25]
    assert found.places[3].words == {"f": 2, "s": 1, "x": 1}
    assert found.ranked_pairs() == [
        ("f", "s", 2, 100.0),
        ("blue", "red", 1, 50.0),
        ("s", "f", 1, 100.0),
    ]
    assert found.deleted == {"soon": 1, "x": 1}
    assert found.inserted == {"set": 1, "now": 1}
    assert found.inserted_usual == 1
    assert found.taken_for("x") == [(None, 1)]
    assert found.taken_for("bin") == []
    # The numbers of errors are those of the word error rate.
    rate = score(REFERENCES, HYPOTHESES)
    assert found.pairs.total() == rate.substitutions == 4
    assert found.deleted.total() == rate.deletions
    assert found.inserted.total() == rate.insertions
    assert found.words.total() == rate.words


def test_of_two_lengths_as_frequent_the_shorter_is_the_usual_one():
    texts = {"a": "bin blue now", "b": "bin blue"}
    assert len(confusions(texts, texts).places) == 2


def test_an_empty_hypothesis_deletes_every_word():
    assert align("bin blue", "") == [("bin", None), ("blue", None)]
    found = confusions({"a": "bin blue"}, {"a": "..."})
    assert [p.error_rate for p in found.places] == [100, 100]
    assert found.ranked_pairs() == []


def test_utterances_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="1 utterances have no hypothesis, the first is s1_a"):
        confusions(REFERENCES, {u: text for u, text in HYPOTHESES.items() if u != "s1_a"})


def all_alignments(reference: list[str], hypothesis: list[str]) -> list[tuple[int, list]]:
    """Every alignment with its errors, by trying all of them."""
    if not reference and not hypothesis:
        return [(0, [])]
    found = []
    if reference and hypothesis:
        step = reference[0], hypothesis[0]
        rest = all_alignments(reference[1:], hypothesis[1:])
        found += [(n + (step[0] != step[1]), [step, *steps]) for n, steps in rest]
    if reference:
        rest = all_alignments(reference[1:], hypothesis)
        found += [(n + 1, [(reference[0], None), *steps]) for n, steps in rest]
    if hypothesis:
        rest = all_alignments(reference, hypothesis[1:])
        found += [(n + 1, [(None, hypothesis[0]), *steps]) for n, steps in rest]
    return found


def test_counts_equal_those_of_a_search_of_all_alignments():
    rng = np.random.default_rng(0)
    references, hypotheses, steps = {}, {}, {}
    for number in range(300):
        reference = [str(word) for word in rng.choice(list("abcdefgh"), 4)]
        hypothesis = []
        for word in reference:
            kept = [word] if rng.random() < 0.7 else [str(rng.choice(list("abcdefgh")))]
            hypothesis += kept * (rng.random() < 0.85)
            hypothesis += [str(rng.choice(list("abcdefgh")))] * (rng.random() < 0.08)
        every = all_alignments(reference, hypothesis)
        fewest = min(n for n, _ in every)
        best = [each for n, each in every if n == fewest]
        assert align(" ".join(reference), " ".join(hypothesis)) in best
        if len(best) == 1:  # with several, which one is counted is jiwer's choice
            utterance = f"u{number:03}"
            references[utterance] = " ".join(reference)
            hypotheses[utterance] = " ".join(hypothesis)
            steps[utterance] = best[0]
    assert len(references) > 150
    found = confusions(references, hypotheses)
    every = [step for each in steps.values() for step in each]
    assert found.pairs == Counter(s for s in every if None not in s and s[0] != s[1])
    assert found.deleted == Counter(given for given, said in every if said is None)
    assert found.inserted == Counter(said for given, said in every if given is None)
    assert found.inserted_usual == found.inserted.total() > 0
    for place, counted in enumerate(found.places):
        there = [[s for s in each if s[0] is not None][place] for each in steps.values()]
        assert counted.words == Counter(given for given, _ in there)
        assert counted.deletions == sum(said is None for _, said in there) > 0
        wrong = sum(said not in (None, given) for given, said in there)
        assert counted.substitutions == wrong > 0
    for word, _, count, share in found.ranked_pairs():
        occurrences = sum(text.split().count(word) for text in references.values())
        assert share == pytest.approx(100 * count / occurrences)


def folders(tmp_path, rates, tag=""):
    """A decoded set, the hypotheses above at every rate pair, and the program's arguments."""
    (tmp_path / "dump/test").mkdir(parents=True)
    (tmp_path / "dump/test/text").write_text("".join(f"{u} {t}\n" for u, t in REFERENCES.items()))
    for pair in rates:
        folder = tmp_path / f"exp/decode{tag}/vsr/test" / pair
        folder.mkdir(parents=True)
        (folder / "text").write_text("".join(f"{u} {t}\n" for u, t in HYPOTHESES.items()))
    dump = str(tmp_path / "dump")
    return ["--expdir", str(tmp_path / "exp"), "--dump", dump, "--task", "vsr", "--set", "test"]


def test_tables_of_a_folder(tmp_path, capsys):
    arguments = folders(tmp_path, ["v10", "v2"])
    output = tmp_path / "out/confusions.md"
    main([*arguments, "--output", str(output)])
    table = re.sub(" +", " ", output.read_text())
    assert capsys.readouterr().out == f"{output}: vsr v2, v10 of test\n"
    assert table.startswith("# Confusions: VSR, test, clean\n")
    assert table.index("## v2\n") < table.index("## v10\n")
    assert "WER 30.8 %" in table  # 8 errors in 26 words
    assert "over the 4 of 5 sentences whose usual length is 6 words; 1 words are inserted" in table
    assert "| 4 | f s x | 100.0 | 3 | 1 |" in table
    assert "| 6 | again now please soon | 25.0 | 0 | 1 |" in table
    assert "| f | s | 2 | 100.0 |\n| blue | red | 1 | 50.0 |\n| s | f | 1 | 100.0 |" in table
    assert "| f | 2 | 0.0 | s 2 |\n| s | 1 | 0.0 | f 1 |\n| x | 1 | 0.0 | (deleted) 1 |" in table
    main([*arguments, "--rates", "v10", "--top", "1"])
    printed = capsys.readouterr().out
    assert "## v2" not in printed
    assert "(the 1 most frequent of 3)" in printed
    assert not re.search(r"\| blue +\| red", printed)


def test_without_errors_or_letters_tables_are_left_out(tmp_path, capsys):
    arguments = folders(tmp_path, ["v2"], "_x")
    for path in (tmp_path / "dump/test/text", tmp_path / "exp/decode_x/vsr/test/v2/text"):
        path.write_text("s1_a bin blue\n")
    main([*arguments, "--decode_tag", "x"])
    printed = capsys.readouterr().out
    assert "No word is taken for another." in printed
    assert "Single letters" not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "valid"], r"dump/valid/text does not exist; stage 2 writes it"),
        (["--set", "test_babble_snr0"], r"test_babble_snr0/text does not exist; stage 3 writes it"),
        (["--rates", "v5"], r"vsr/test/v5/text does not exist; stage 5 writes it; decoded are v2"),
        (["--task", "asr"], r"exp/decode/asr/test holds no transcripts; stage 5 writes them"),
        (["--decode_tag", "x"], r"exp/decode_x/vsr/test holds no transcripts; stage 5"),
        (["--rates", "fast"], r"rate pair 'fast' must look like a4_v2"),
    ],
)
def test_what_is_missing_is_named(tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        main([*folders(tmp_path, ["v2"]), *options])


def test_a_transcript_of_other_utterances_is_named(tmp_path):
    arguments = folders(tmp_path, ["v2"])
    (tmp_path / "exp/decode/vsr/test/v2/text").write_text("s1_a bin\n")
    with pytest.raises(SystemExit, match=r"vsr v2: 4 utterances have no hypothesis.*decode again"):
        main(arguments)
