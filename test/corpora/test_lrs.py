"""LRS2 and LRS3: texts, segments, cutting, and both recipes on tiny corpora in their layouts."""

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import data as mini_av
import numpy as np
import pytest
import soundfile
import yaml
from espnet2.utils.nested_dict_action import NestedDictAction
from media import let_workers_crash, quick_detector, talking_head, write_clip
from sentences import distinct_sentences

from mome.bin import prepare_media
from mome.bin.prepare_media import main as prepare_main
from mome.corpora import lrs
from mome.corpora.lrs import Clip, Word, normalise_text, read_text, read_words, segment_words
from mome.data.audio import read_audio
from mome.data.exclusions import kind_of
from mome.data.kaldi import read_scp, read_segments, validate_data_dir, write_scp
from mome.data.video import read_lips, read_video, write_lips
from mome.lips import extract, preparation

ROOT = Path(__file__).parents[2]
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
LANDMARKS = DOWNLOADS / "dlib/shape_predictor_68_face_landmarks.dat"


def recipe_module(name: str):
    """local/data.py of a recipe."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "egs" / name / "local/data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_file(text: str, words: list[Word] = (), frames: int = 0) -> str:
    """A text file as the corpora have it; with ``frames`` face boxes, as LRS3."""
    lines = [f"Text:  {text}", "Conf:  4"]
    if frames:
        lines += ["Ref:   UGtFXtnWME4", "", "FRAME \tX \tY \tW \tH"]
        lines += [f"{i:06d} \t0.40 \t0.20 \t0.10 \t0.20" for i in range(frames)]
    if words:
        lines += ["", "WORD START END ASDSCORE"]
        lines += [f"{word.text} {word.start:.2f} {word.end:.2f} 6.3" for word in words]
    return "\n".join(lines) + "\n"


def spread(text: str, seconds: float) -> list[Word]:
    """Words of equal length that fill a clip."""
    words = text.split()
    step = seconds / len(words)
    return [Word(w, round(i * step, 2), round((i + 0.9) * step, 2)) for i, w in enumerate(words)]


# Texts and segments.


def test_texts_are_read(tmp_path):
    path = tmp_path / "00001.txt"
    words = [Word("SO", 0.11, 0.28), Word("{NS}", 0.3, 0.5), Word("IT'S", 0.5, 0.8)]
    path.write_text(text_file("SO {NS} IT'S", words, frames=3))
    assert read_text(path) == "SO {NS} IT'S"
    assert read_words(path) == words
    path.write_text(text_file("SO", frames=2))
    assert read_words(path) == []
    path.write_bytes(b"Text:  CAF\xe9\n")
    assert read_text(path) == "CAFé"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_texts_with_a_byte_order_mark_are_read(tmp_path, encoding):
    """As editors on Windows save them."""
    path = tmp_path / "00001.txt"
    words = [Word("GRÜN", 0.11, 0.28), Word("ROT", 0.3, 0.5)]
    content = text_file("GRÜN ROT", words).replace("\n", "\r\n")
    path.write_bytes(content.encode(encoding))
    assert read_text(path) == "GRÜN ROT"
    assert read_words(path) == words


def test_text_is_normalised():
    text = "IT’S {NS} THE [LAUGHTER]  11TH O'CLOCK <UNK>"
    assert normalise_text(text) == "it's the 11th o'clock"
    assert normalise_text(text, "keep") == "it's ns the laughter 11th o'clock unk"
    assert normalise_text("{LG} }") == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty txt"),
        ("Conf:  4\n", "no line Text:"),
        ("Text:  A\n\nWORD START END ASDSCORE\nA 0.1\n", r"no word with its times \(line 4\)"),
        ("Text:  A\n\nWORD START END ASDSCORE\nA 0.1 x 1\n", r"its times \(line 4\)"),
        ("Text:  A\n\nWORD START END ASDSCORE\nA 2 1 1\n", r"go backwards \(line 4\)"),
        ("Text:  A\n\nWORD START END ASDSCORE\nA 1 2 1\nB 0 3 1\n", r"backwards \(line 5\)"),
    ],
)
def test_bad_texts_are_named(tmp_path, content, message):
    path = tmp_path / "00001.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"00001\.txt: .*{message}"):
        read_text(path), read_words(path)


def test_words_may_begin_at_once_take_no_time_or_end_together(tmp_path):
    """As long as they do not go backwards, by their ends neither."""
    path = tmp_path / "00001.txt"
    words = [Word("A", 0, 0), Word("B", 0, 0.5), Word("C", 0.4, 0.5)]
    path.write_text(text_file("A B C", words))
    assert read_words(path) == words
    path.write_text(text_file("A B", [Word("A", 0, 0.5), Word("B", 0.1, 0.4)]))
    with pytest.raises(ValueError, match="backwards"):
        read_words(path)


def random_words(rng: np.random.Generator, longest: float = 1.0) -> tuple[list[Word], float]:
    """Words at random times in hundredths of a second, and the length of their recording."""
    gaps = rng.choice([0.0, 0.05, 0.3, 0.7], int(rng.integers(1, 60)))
    lengths = np.round(rng.uniform(0.05, longest, len(gaps)), 2)
    ends = np.cumsum(gaps + lengths)
    words = [
        Word(f"w{i}", round(float(end - length), 2), round(float(end), 2))
        for i, (end, length) in enumerate(zip(ends, lengths, strict=True))
    ]
    return words, words[-1].end + float(rng.uniform(0, 0.5))


@pytest.mark.parametrize("split", ["length", "pause"])
def test_segments_hold_every_word_once_in_order(split):
    rng = np.random.default_rng(0)
    pieces = longs = 0
    for trial in range(400):
        words, duration = random_words(rng, longest=1.0 if trial % 2 else 9.0)
        chunks = [c for c in segment_words(words, duration, 8.0, split) if c.words]
        assert [w for chunk in chunks for w in chunk.words] == words
        for chunk in chunks:
            assert 0 <= chunk.start <= chunk.words[0].start
            assert chunk.words[-1].end <= chunk.end <= duration + 1e-9
            # What is longer than a segment is one word; at pauses, AV-HuBERT sets no limit.
            if split == "length" and chunk.end - chunk.start > 8.0:
                assert len(chunk.words) == 1
                longs += 1
        for one, other in pairwise(chunks):
            assert one.end <= other.start + 1e-9
        pieces += len(chunks)
    assert pieces > 800
    assert longs > 100 or split == "pause"


def by_auto_avsr(words: list[Word], num_frames: int) -> list[tuple[str, int, int]]:
    """Its rule word by word: the words, first and last frame of all segments, by number.

    A segment is closed by the word that ends 16 s after its start or later; a recording in one
    piece is not cut. It stops at a recording whose first word ends after 16 s, which the segment
    without words before it stands for.
    """
    found, spoken, begin, last = [], [], 0.0, 0.0
    for word in words:
        if word.end < begin + 16:
            spoken.append(word.text)
        else:
            found.append((" ".join(spoken), begin, last))
            begin, spoken = word.start, [word.text]
        last = word.end
    found.append((" ".join(spoken), begin, last))
    if len(found) == 1:
        return [(found[0][0], 0, num_frames)]
    return [(text, int(start * 25), int(end * 25)) for text, start, end in found]


def by_av_hubert(words: list[Word], num_frames: int) -> list[tuple[str, int, int]]:
    """Its rule word by word, as `by_auto_avsr`; times pass through a file, in thousandths."""
    if words[-1].end < 15:
        return [(" ".join(word.text for word in words), 0, num_frames)]
    sentences = []
    for word in words:
        if sentences and not word.start - sentences[-1][-1].end > 0.4:
            sentences[-1].append(word)
        else:
            sentences.append([word])
    found = []
    for place, sentence in enumerate(sentences):
        start, end = 0.0, 24.0 * 3600
        if place > 0:
            start = (sentence[0].start + sentences[place - 1][-1].end) / 2
        if place + 1 < len(sentences):
            end = (sentence[-1].end + sentences[place + 1][0].start) / 2
        first, last = (int(float(f"{time:.3f}") * 25) for time in (start, end))
        found.append((" ".join(word.text for word in sentence), first, min(last, num_frames)))
    return found


def talk(rng: np.random.Generator) -> tuple[list[Word], int]:
    """Words of a talk of some ten seconds to two minutes, some of them long, and its frames."""
    count = int(rng.integers(20, 250))
    gaps = rng.choice(
        [0, 0.05, 0.2, 0.4, 0.41, 0.6, 3], count, p=[0.6, 0.2, 0.1, 0.03, 0.03, 0.03, 0.01]
    )
    lengths = np.where(rng.random(count) < 0.003, 17.0, np.round(rng.uniform(0.1, 0.5, count), 2))
    ends = np.cumsum(gaps + lengths) + rng.choice([0.0, 0.3, 16.5], p=[0.5, 0.4, 0.1])
    words = [
        Word(f"W{place}", round(float(end - length), 2), round(float(end), 2))
        for place, (end, length) in enumerate(zip(ends, lengths, strict=True))
    ]
    return words, int(np.ceil((words[-1].end + rng.uniform(0, 0.5)) * 25))


@pytest.mark.parametrize(("split", "rule"), [("pause", by_av_hubert), ("length", by_auto_avsr)])
def test_segments_are_those_of_the_predecessors_with_their_numbers(split, rule):
    """By its number a crop of theirs is found: words and frames must be those of that number."""
    rng = np.random.default_rng(1)
    segments = longer = 0
    for _ in range(2000):
        words, num_frames = talk(rng)
        expected = dict(enumerate(rule(words, num_frames)))
        if split == "length" and len(expected) == 1:
            # A silent end is cut off; its crop, which is longer, is refused.
            expected[0] = (*expected[0][:2], min(num_frames, 400))
        chunks = enumerate(segment_words(words, num_frames / 25, 16.0, split))
        found = {
            number: (" ".join(word.text for word in chunk.words), *lrs.frames_of(chunk, num_frames))
            for number, chunk in chunks
        }
        assert found == expected
        segments += len(found)
        longer += sum(last - first > 400 for _, first, last in found.values())
    assert segments > 5000
    assert longer > 200


@pytest.mark.parametrize(("split", "numbers"), [("pause", "0 1 2"), ("length", "00 01 02")])
def test_what_is_too_long_is_named_and_keeps_its_number(tmp_path, split, numbers):
    video = tmp_path / "pretrain/anna/00001.mp4"
    video.parent.mkdir(parents=True)
    write_clip(video, num_frames=500, size=16, audio=False)
    words = [Word("A", 0.5, 2.0), Word("B", 3.0, 14.0), Word("C", 15.0, 16.0), Word("D", 16.1, 19)]
    video.with_suffix(".txt").write_text(text_file("A B C D", words))
    part = lrs.make_utterances(Clip("pretrain", "anna", "00001", video), True, 7.0, split, "drop")
    first, long, last = numbers.split()
    assert [u.id for u in part.utterances] == [f"anna_00001_{first}", f"anna_00001_{last}"]
    assert part.excluded == [(f"pretrain/anna/00001_{long}", "longer than 7 s")]


@pytest.mark.parametrize(("gap", "cut"), [(0.39, False), (0.41, True)])
def test_pauses_of_more_than_two_fifths_of_a_second_are_cut_in_their_middle(gap, cut):
    words = [Word("a", 0.5, 1.0), Word("b", 1.0 + gap, 3.0), Word("c", 14.0, 15.0)]
    ends = [chunk.end for chunk in segment_words(words, 15.5, 16.0, "pause")]
    assert ends == [*[pytest.approx(1.0 + gap / 2)] * cut, 8.5, 15.5]
    # AV-HuBERT writes the middle in thousandths.
    close = [Word("a", 0.5, 1.0022), Word("b", 2.0, 3.0), Word("c", 3.0, 15.0)]
    assert segment_words(close, 15.5, 16.0, "pause")[0].end == 1.501
    # One that ends a little earlier stays whole.
    words[-1] = Word("c", 14.0, 14.99)
    assert [c.words for c in segment_words(words, 15.5, 16.0, "pause")] == [tuple(words)]


def write_clips(root: Path, numbers: Sequence[str]) -> list[Clip]:
    """Clips of trainval with their texts, all of one speaker."""
    clips = []
    for number in numbers:
        video = root / "trainval/anna" / f"{number}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        write_clip(video)
        video.with_suffix(".txt").write_text(text_file("PLACE RED"))
        clips.append(Clip("trainval", "anna", number, video))
    return clips


def test_no_exception_of_one_clip_stops_a_part(tmp_path, monkeypatch):
    """Whatever is raised for a clip, with whatever text, is a reason of one line."""
    clips = write_clips(tmp_path, ("00001", "00002", "00003"))
    unknown = clips[1].video.read_bytes().replace(b"avc1", b"XXXX")
    clips[1].video.write_bytes(unknown)
    real = lrs.video_info

    def info(path):
        if path == clips[2].video:
            raise RuntimeError("of a kind\nthat nobody expects")
        return real(path)

    monkeypatch.setattr(lrs, "video_info", info)
    # Processes of their own know nothing of what is replaced here.
    monkeypatch.setattr(lrs, "map_items", lambda make, items, *_, **__: list(map(make, items)))
    options = argparse.Namespace(max_seconds=16.0, split="length", marks="drop", nj=1)
    part = lrs.prepare_part(clips, options)
    assert [utterance.id for utterance in part.utterances] == ["anna_00001"]
    assert part.excluded == [
        ("trainval/anna/00002", "mp4: video in a codec that FFmpeg does not know; convert it"),
        ("trainval/anna/00003", "RuntimeError: of a kind that nobody expects"),
    ]


def test_no_exception_in_cutting_one_clip_stops_a_part(tmp_path, monkeypatch):
    (clip,) = write_clips(tmp_path, ("00001",))

    def normalise_text(*_):
        raise RuntimeError("of a kind\nthat nobody expects")

    monkeypatch.setattr(lrs, "normalise_text", normalise_text)
    part = lrs.make_utterances(clip, False, 16.0, "length", "drop")
    assert part.excluded == [("trainval/anna/00001", "RuntimeError: of a kind that nobody expects")]


def test_a_clip_that_crashes_its_decoder_is_excluded(tmp_path, monkeypatch):
    clips = write_clips(tmp_path, ("00001", "crash", "00003"))
    let_workers_crash(tmp_path, monkeypatch)
    options = argparse.Namespace(max_seconds=16.0, split="length", marks="drop", nj=2)
    part = lrs.prepare_part(clips, options)
    assert [utterance.id for utterance in part.utterances] == ["anna_00001", "anna_00003"]
    ((name, reason),) = part.excluded
    assert name == "trainval/anna/crash"
    assert reason.startswith("mp4: its process crashed or was killed")


@pytest.mark.parametrize(("end", "kept"), [(0.9, True), (1.2, True), (1.21, False), (9.0, False)])
def test_words_may_end_a_fifth_of_a_second_after_their_recording(tmp_path, end, kept):
    video = tmp_path / "pretrain/anna/00001.mp4"
    video.parent.mkdir(parents=True)
    write_clip(video, num_frames=25)
    words = [Word("PLACE", 0.1, 0.5), Word("RED", 0.6, end)]
    video.with_suffix(".txt").write_text(text_file("PLACE RED", words))
    clip = Clip("pretrain", "anna", "00001", video)
    part = lrs.make_utterances(clip, True, 16.0, "length", "drop")
    assert len(part.utterances) == kept
    reason = ("pretrain/anna/00001_00", "words beyond the end of the recording")
    assert part.excluded == [reason] * (not kept)


@pytest.mark.parametrize("split", ["length", "pause"])
@pytest.mark.parametrize("time", ["inf", "1e308"])
def test_a_word_at_no_time_of_a_recording_costs_its_segment_alone(tmp_path, time, split):
    """As a damaged byte may have it, which ended stage 1."""
    video = tmp_path / "pretrain/anna/00001.mp4"
    video.parent.mkdir(parents=True)
    write_clip(video, num_frames=25, size=16, audio=False)
    words = f"{lrs.TIMINGS}\nPLACE 0.1 0.5 6.3\nRED {time} {time} 6.3\n"
    video.with_suffix(".txt").write_text(f"Text:  PLACE RED\n\n{words}")
    part = lrs.make_utterances(Clip("pretrain", "anna", "00001", video), True, 16.0, split, "drop")
    assert [utterance.text for utterance in part.utterances] == ["place"]
    number = "01" if split == "length" else "1"
    reason = "words beyond the end of the recording"
    assert part.excluded == [(f"pretrain/anna/00001_{number}", reason)]


def test_capitals_blanks_and_texts_without_words(tmp_path):
    """Of a folder named John Smith and files CLIP 1.MP4, as other systems copy them."""
    folder = tmp_path / "test/John Smith"
    folder.mkdir(parents=True)
    for number, text in enumerate(("PLACE RED", "...", "{NS} '", "SET")):
        write_clip(folder / "a.mp4", num_frames=25, size=16, audio=False)
        (folder / "a.mp4").rename(folder / f"clip {number}.{'mp4' if number else 'MP4'}")
        (folder / f"clip {number}.{'txt' if number else 'TXT'}").write_text(text_file(text))
    (folder / "clip 4.Txt").touch()
    with pytest.raises(FileNotFoundError, match=r"trainval holds no <speaker>/<number>\.mp4"):
        lrs.find_clips(tmp_path, "trainval")
    clips, alone = lrs.find_clips(tmp_path, "test")
    assert [clip.name for clip in clips] == [f"test/John Smith/clip {n}" for n in range(4)]
    words = ["prepare", "--corpus", tmp_path, "--out", tmp_path / "out", "--nj", "1"]
    parser, _ = lrs.make_parser("", "x")
    args = parser.parse_args([str(word) for word in (*words, "--max_excluded", "0.7")])
    part = lrs.prepare_part(clips, args)
    part.excluded += alone
    lrs.write_set(tmp_path / "out", [part], args)
    ids = {"John_Smith_clip_0": "place red", "John_Smith_clip_3": "set"}
    assert read_scp(tmp_path / "out/text") == ids
    assert read_scp(tmp_path / "out/utt2spk") == dict.fromkeys(ids, "John_Smith")
    assert validate_data_dir(tmp_path / "out") == []
    reasons = dict.fromkeys((1, 2), "no words") | {4: "txt without mp4"}
    expected = {f"test/John_Smith/clip_{n}": reason for n, reason in reasons.items()}
    assert read_scp(tmp_path / "out/excluded") == expected


def test_a_name_that_cannot_be_written_costs_its_clip_alone(tmp_path):
    """Such as one that another system wrote in Latin-1."""
    folder = tmp_path / "test/anna"
    folder.mkdir(parents=True)
    for name in (b"00001", b"caf\xe9", b"a\nb", b"\xef\xbb\xbf2"):
        for suffix in (".mp4", ".txt"):
            (folder / os.fsdecode(name + suffix.encode())).touch()
    (folder / os.fsdecode(b"alone\xe9.txt")).touch()
    clips, odd = lrs.find_clips(tmp_path, "test")
    assert [clip.number for clip in clips] == ["00001"]
    assert dict(odd) == {
        "test/anna/caf\udce9": "its name is not UTF-8; rename it",
        "test/anna/a\nb": "its name has a line break; rename it",
        "test/anna/\ufeff2": "its name has a byte order mark; rename it",
        "test/anna/alone\udce9": "txt without mp4",
    }
    parser, _ = lrs.make_parser("", "x")
    words = ["prepare", "--corpus", "c", "--out", "o", "--max_excluded", "0.8"]
    kept = lrs.Utterance("anna_00001", clips[0], "a", 0.0, 1.0, True)
    lrs.write_set(tmp_path / "out", [lrs.Part([kept], odd)], parser.parse_args(words))
    assert (tmp_path / "out/excluded").read_bytes().count(b"\n") == 4
    assert list(read_scp(tmp_path / "out/text")) == ["anna_00001"]


@pytest.mark.parametrize(("limit", "noted"), [(2.9, True), (3.0, False)])
def test_a_sentence_stays_whole_and_is_noted_if_it_is_long(tmp_path, limit, noted):
    video = tmp_path / "test/anna/00001.mp4"
    video.parent.mkdir(parents=True)
    write_clip(video, num_frames=75, size=16, audio=False)
    clip = Clip("test", "anna", "00001", video)
    video.with_suffix(".txt").write_text(text_file("PLACE {NS} RED"))
    part = lrs.make_utterances(clip, False, limit, "length", "drop")
    (utterance,) = part.utterances
    assert (utterance.id, utterance.text) == ("anna_00001", "place red")
    assert (utterance.start, utterance.end, utterance.whole) == (0, 3, True)
    assert part.notes == ["whole, though longer than 2.9 s"] * noted
    video.with_suffix(".txt").write_text(text_file("{NS}"))
    part = lrs.make_utterances(clip, False, limit, "length", "drop")
    assert part.excluded == [("test/anna/00001", "no words")]
    assert lrs.make_utterances(clip, False, limit, "length", "keep").utterances[0].text == "ns"


def test_words_without_times_or_other_words_with_them_are_told(tmp_path):
    video = tmp_path / "pretrain/anna/00001.mp4"
    video.parent.mkdir(parents=True)
    write_clip(video, num_frames=75, size=16, audio=False)
    clip = Clip("pretrain", "anna", "00001", video)

    def cut():
        return lrs.make_utterances(clip, True, 16.0, "length", "drop")

    words = [Word("PLACE", 0.1, 0.5), Word("RED", 0.6, 0.9)]
    for text, notes in (("PLACE {NS} RED", 0), ("PLACE A RED", 1)):
        video.with_suffix(".txt").write_text(text_file(text, words))
        part = cut()
        assert [utterance.text for utterance in part.utterances] == ["place red"]
        note = "text and word timings disagree; the timed words are taken"
        assert part.notes == [note] * notes
    video.with_suffix(".txt").write_text(text_file("PLACE RED"))
    assert cut().excluded == [("pretrain/anna/00001", f"no words after '{lrs.TIMINGS}'")]


def cut_clip(folder: Path, words: list[Word], max_seconds: float, frames: int) -> lrs.Part:
    """What becomes of a clip of pretrain/ with these words."""
    video = folder / "pretrain/anna/00001.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    write_clip(video, num_frames=frames, size=16, audio=False)
    text = text_file(" ".join(word.text for word in words), words)
    video.with_suffix(".txt").write_text(text)
    clip = Clip("pretrain", "anna", "00001", video)
    return lrs.make_utterances(clip, True, max_seconds, "length", "drop")


def test_what_is_left_out_of_a_recording_in_segments(tmp_path):
    """A word of one moment or without a letter; one that fills a segment to the frame is kept."""
    words = [Word("A", 0.0, 0.4), Word("B", 1.01, 1.03), Word("'", 2.1, 2.2), Word("C", 4.0, 5.0)]
    part = cut_clip(tmp_path, words, 1.0, frames=150)
    assert part.excluded == [
        ("pretrain/anna/00001_01", "shorter than a frame"),
        ("pretrain/anna/00001_02", "no words"),
    ]
    assert [(u.text, u.start, u.end, u.whole) for u in part.utterances] == [
        ("a", 0.0, 0.4, False),
        ("c", 4.0, 5.0, False),
    ]
    assert part.notes == []


def test_the_last_word_of_a_segment_may_not_end_beyond_the_recording(tmp_path):
    words = [Word("A", 0.0, 0.3), Word("B", 0.3, 0.5), Word("C", 0.6, 1.21)]
    part = cut_clip(tmp_path, words, 7.0, frames=25)
    reason = "words beyond the end of the recording"
    assert part.excluded == [("pretrain/anna/00001_00", reason)]


def test_a_clip_of_another_rate_is_as_long_as_its_frames_at_25_a_second(tmp_path):
    """31 frames at 30 a second are 1.033 s: 26 frames."""
    video = tmp_path / "test/anna/00001.mp4"
    video.parent.mkdir(parents=True)
    write_clip(video, num_frames=31, fps=30, size=16, audio=False)
    video.with_suffix(".txt").write_text(text_file("PLACE RED"))
    clip = Clip("test", "anna", "00001", video)
    (utterance,) = lrs.make_utterances(clip, False, 16.0, "length", "drop").utterances
    assert utterance.end == 26 / 25
    assert len(read_video(video, grey=True, rate=25)) == 26


def test_an_id_that_was_there_before_is_a_duplicate_in_whatever_part():
    clips = [Clip(part, "anna", "1", Path("1.mp4")) for part in ("test", "main", "pretrain")]
    parts = [
        lrs.Part([lrs.Utterance(id, clip, "a", 0, 1, True) for id in ids.split()])
        for clip, ids in zip(clips, ("x y", "y z z", "z x w"), strict=True)
    ]
    lrs.drop_duplicates(parts)
    assert [[u.id for u in part.utterances] for part in parts] == [["x", "y"], ["z"], ["w"]]
    assert parts[0].excluded == []
    assert parts[1].excluded == [
        ("main/anna/1", "duplicate id (of test/anna/1)"),
        ("main/anna/1", "duplicate id (of main/anna/1)"),
    ]
    assert [reason for _, reason in parts[2].excluded] == [
        "duplicate id (of main/anna/1)",
        "duplicate id (of test/anna/1)",
    ]


def test_a_set_is_written_and_told(tmp_path, capsys):
    """A hundred hours of a recording in segments; then a test set of one clip in their place."""
    parser, _ = lrs.make_parser("", "x")
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "required" in capsys.readouterr().err
    words = ["prepare", "--corpus", "c", "--out", "o", "--max_excluded", "0.5"]
    args = parser.parse_args([*words, "--test_max_excluded", "0.6"])
    clip = Clip("pretrain", "anna b", "1", Path("1.mp4"))
    cut = [
        lrs.Utterance("anna_b_1_00", clip, "a", 0.0, 180000.0, False),
        lrs.Utterance("anna_b_1_01", clip, "b", 180000.0, 360000.0, False),
    ]
    parts = [lrs.Part(cut, [], ["seldom", "often"]), lrs.Part(notes=["often"])]
    lrs.write_set(tmp_path, parts, args)
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"{tmp_path}: note on 2: often", f"{tmp_path}: note on 1: seldom"]
    assert said[2] == f"{tmp_path}: 2 utterances, 100.00 h, 0 excluded"
    assert read_scp(tmp_path / "segments") == {
        "anna_b_1_00": "pretrain_anna_b_1 0.00 180000.00",
        "anna_b_1_01": "pretrain_anna_b_1 180000.00 360000.00",
    }
    for name in ("wav.scp", "video.scp"):
        assert read_scp(tmp_path / name) == {"pretrain_anna_b_1": "1.mp4"}
    assert read_scp(tmp_path / "utt2dur")["anna_b_1_01"] == "180000.00"
    assert read_scp(tmp_path / "spk2utt") == {"anna_b": "anna_b_1_00 anna_b_1_01"}
    assert not (tmp_path / "official_size").exists()
    # Whole clips have no segments, and those that were excluded are clips of the test set, too.
    whole = lrs.Utterance("anna_b_1", clip, "a", 0.0, 1.0, True)
    for size, warned in ((2, False), (3, True)):
        lrs.write_set(tmp_path, [lrs.Part([whole], [("test/c/1", "why")])], args, size)
        warning = f"{tmp_path}: warning: 2 clips, where the corpus' test set has 3"
        assert (warning in capsys.readouterr().out.splitlines()) == warned
        assert (tmp_path / "official_size").read_text() == f"{size}\n"
    assert read_scp(tmp_path / "wav.scp") == {"anna_b_1": "1.mp4"}
    assert read_scp(tmp_path / "utt2spk") == {"anna_b_1": "anna_b"}
    assert not (tmp_path / "segments").exists()


def test_what_stage_1_left_out_may_be_in_a_list_for_stage_2(tmp_path):
    """By the ids of utterances, though stage 1 names clips; whatever editor saved the tables."""
    args = argparse.Namespace(max_excluded=0.9)
    kept = lrs.Utterance("anna_1", Clip("trainval", "anna", "1", Path()), "a", 0.0, 1.0, True)
    left_out = [
        ("pretrain/anna b/2_03", "no words"),
        ("trainval/c/1", "mp4 without txt"),
        ("pretrain/d/5", "no words after the table"),  # with all its parts
    ]
    lrs.write_set(tmp_path / "train", [lrs.Part([kept], left_out)], args)
    speakers = tmp_path / "train/utt2spk"
    speakers.write_text(speakers.read_text(), encoding="utf-8-sig")
    listed = ["anna_1", "anna_b_2_03", "c_1", "d_5", "d_5_07"]
    prepare_media.check_unwanted(tmp_path / "list", listed, tmp_path / "train")
    with pytest.raises(
        SystemExit, match=r"2 of 7 utterances are in no set of .*: anna_1_02, anna_b"
    ):
        prepare_media.check_unwanted(
            tmp_path / "list", [*listed, "anna_b_2_04", "anna_1_02"], tmp_path / "train"
        )


# Cutting.


def test_frames_are_cut_exactly_in_one_pass(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    write_clip(path, num_frames=30)
    whole = read_video(path, grey=True)
    spans = [(25, 40), (0, 30), (7, 19), (0, 1), (29, 30), (30, 40), (8, 10)]
    decoded = []
    real = extract.iter_video

    def counted(*arguments):
        for frame in real(*arguments):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(extract, "iter_video", counted)
    parts = dict(extract.read_spans(path, spans))
    assert len(decoded) == 30
    for place, span in enumerate(spans):
        if span == (30, 40):
            assert "ends before frame 30, where a segment begins" in str(parts[place])
        else:
            np.testing.assert_array_equal(np.stack(parts[place]), whole[slice(*span)])
    # What comes after the last part is not decoded, and a part is there as soon as it is read.
    decoded.clear()
    order = [(place, len(decoded)) for place, _ in extract.read_spans(path, [(3, 12), (1, 4)])]
    assert order == [(1, 4), (0, 12)]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    parts = dict(extract.read_spans(path, [(0, 2), (1, 30)]))
    np.testing.assert_array_equal(np.stack(parts[0]), whole[:2])
    assert "truncated" in str(parts[1])


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A data folder with a recording in segments; each frame's brightness; the sound."""
    root = tmp_path_factory.mktemp("recording")
    rng = np.random.default_rng(0)
    brightness = 0.6 + 0.4 * rng.permutation(60) / 59
    frames = (talking_head(60, 224) * brightness[:, None, None, None]).astype(np.uint8)
    video = root / "pretrain/anna/00001.mp4"
    video.parent.mkdir(parents=True)
    write_clip(video, frames)
    sound = np.round(rng.normal(0, 0.1, 60 * 640) * 32768).clip(-32768, 32767).astype(np.int16)
    soundfile.write(root / "sound.flac", sound, 16000)
    data = root / "data"
    write_scp(data / "video.scp", {"rec": video})
    write_scp(data / "wav.scp", {"rec": root / "sound.flac"})
    segments = {"anna_00001_00": "rec 0.00 0.80", "anna_00001_01": "rec 0.84 2.40"}
    write_scp(data / "segments", segments)
    write_scp(data / "text", dict.fromkeys(segments, "place red"))
    write_scp(data / "utt2spk", dict.fromkeys(segments, "anna"))
    write_scp(data / "spk2utt", {"anna": " ".join(segments)})
    assert validate_data_dir(data, check_media=True) == []
    return data, brightness, sound


def prepare(data: Path, dump: Path, *options) -> None:
    arguments = ["--data", data, "--dump", dump, "--landmarks", LANDMARKS, *options]
    prepare_main([str(argument) for argument in arguments])


def test_segments_of_a_recording_are_cut_at_their_frames(tmp_path, recording, monkeypatch):
    data, brightness, sound = recording
    read = []
    # In this process, where what is read can be counted.
    monkeypatch.setattr(
        prepare_media, "map_items", lambda work, items, *_, **__: [work(item) for item in items]
    )
    for module, name in ((extract, "iter_video"), (preparation, "read_audio")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real: read.append(a[0]) or real(*a))
    prepare(data, tmp_path)
    # Both segments come from one pass over the video and one over the sound.
    assert read == [read_scp(data / name)["rec"] for name in ("video.scp", "wav.scp")]
    assert validate_data_dir(tmp_path, check_media=True, tolerance=0.001) == []
    for utterance, span in (("anna_00001_00", (0, 20)), ("anna_00001_01", (21, 60))):
        lips = read_lips(read_scp(tmp_path / "lip.scp")[utterance])
        assert len(lips) == span[1] - span[0]
        # The flicker of the recording tells which frame is which.
        seen = lips.mean((1, 2))
        assert np.corrcoef(seen, brightness[slice(*span)])[0, 1] > 0.98
        heard = read_audio(read_scp(tmp_path / "wav.scp")[utterance])
        np.testing.assert_array_equal(
            np.round(heard * 32768), sound[span[0] * 640 : span[1] * 640].astype(float)
        )
    assert read_scp(tmp_path / "utt2num_frames") == {"anna_00001_00": "20", "anna_00001_01": "39"}
    # Other segments of the same names are made anew.
    other = tmp_path / "other"
    shutil.copytree(data, other)
    segments = {"anna_00001_00": "rec 0.04 0.84", "anna_00001_01": "rec 0.84 2.40"}
    write_scp(other / "segments", segments)
    prepare(other, tmp_path)
    heard = read_audio(read_scp(tmp_path / "wav.scp")["anna_00001_00"])
    np.testing.assert_array_equal(np.round(heard * 32768), sound[640 : 21 * 640].astype(float))


def test_segments_that_cannot_be_cut_are_named(tmp_path, recording):
    data = tmp_path / "data"
    shutil.copytree(recording[0], data)
    names = [f"anna_00001_0{i}" for i in range(4)]
    places = ["0 0.8", "2.0 2.9", "2.6 3.0", "1.0 1.01"]
    write_scp(data / "segments", {u: f"rec {p}" for u, p in zip(names, places, strict=True)})
    write_scp(data / "text", dict.fromkeys(names, "place red"))
    write_scp(data / "utt2spk", dict.fromkeys(names, "anna"))
    write_scp(data / "spk2utt", {"anna": " ".join(names)})
    found = validate_data_dir(data, check_media=True)
    assert found == ["rec: 2.40 s long, but a segment ends at 3.00 s"]
    prepare(data, tmp_path / "dump", "--max_excluded", "0.8")
    excluded = read_scp(tmp_path / "dump/excluded")
    assert list(excluded) == names[1:]
    assert "10 frames for a segment of 22" in excluded[names[1]]
    assert "ends before frame 65" in excluded[names[2]]
    assert "shorter than a frame" in excluded[names[3]]


def test_a_truncated_recording_costs_all_its_segments(tmp_path, recording):
    data = tmp_path / "data"
    shutil.copytree(recording[0], data)
    video = Path(read_scp(data / "video.scp")["rec"])
    content = video.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) // 2])
    write_scp(data / "video.scp", {"rec": cut})
    write_scp(data / "wav.scp", {"rec": cut})
    with pytest.raises(SystemExit, match="2 of 2 utterances are excluded"):
        prepare(data, tmp_path / "dump")
    excluded = read_scp(tmp_path / "dump/excluded").values()
    assert all("cut.mp4: truncated" in reason for reason in excluded)


@pytest.mark.parametrize(
    ("names", "ids", "others"),
    [
        (("pretrain/anna/00001_00", "pretrain/anna/00001_01"), "00 01", "0 1"),  # Auto-AVSR
        (
            ("short-pretrain/anna/00001_0", "short-pretrain/anna/00001_1"),
            "0 1",
            "00 01",
        ),  # AV-HuBERT
    ],
)
def test_crops_of_segments_are_found_by_their_predecessors_names(
    tmp_path, recording, names, ids, others
):
    def data_of(numbers):
        """The recording with segments of these numbers."""
        data = tmp_path / f"data {numbers}"
        shutil.copytree(recording[0], data)
        new = dict(zip(read_scp(data / "text"), numbers.split(), strict=True))
        for file in ("segments", "text", "utt2spk"):
            table = read_scp(data / file)
            write_scp(data / file, {f"anna_00001_{new[u]}": table[u] for u in table})
        return data

    crops, data = tmp_path / "crops", data_of(ids)
    paths = [crops / f"{name}.mp4" for name in names]
    for path, length in zip(paths, (20, 39), strict=True):
        write_lips(path, np.full((length, 96, 96), 128, np.uint8))
    # The crop of the whole recording must not be taken for that of a segment.
    write_lips(crops / "pretrain/anna/00001.mp4", np.full((60, 96, 96), 128, np.uint8))
    prepare(data, tmp_path / "dump", "--lip_dir", crops)
    assert list(read_scp(tmp_path / "dump/lip.scp").values()) == [str(path) for path in paths]
    for length, kept in ((37, 1), (38, 2), (40, 2), (41, 1)):
        write_lips(paths[1], np.full((length, 96, 96), 128, np.uint8))
        prepare(data, tmp_path / "dump", "--lip_dir", crops, "--max_excluded", "0.5")
        assert len(read_scp(tmp_path / "dump/lip.scp")) == kept
    (reason,) = read_scp(tmp_path / "dump/excluded").values()
    assert reason == f"{paths[1]}: 41 frames for a segment of 39"
    # The numbers of one rule are no names of the other's crops.
    with pytest.raises(SystemExit, match="2 of 2 utterances are excluded"):
        prepare(data_of(others), tmp_path / "other", "--lip_dir", crops)


# The recipes.


@pytest.fixture(scope="module")
def talks(tmp_path_factory) -> list[tuple[Path, str, float]]:
    """Generated clips that any place of a corpus may take: video, sentence, seconds."""
    root = tmp_path_factory.mktemp("talks")
    sentences = distinct_sentences(18, np.random.default_rng(0))
    voices = ("en-us+m1", "en-us+f1", "en-us+m3")
    clips = []
    for number in range(12):
        # The last three are long ones, for pretrain/.
        sentence = " ".join(sentences[number:][:: 3 if number >= 9 else 18][:3])
        voice = mini_av.Voice(voices[number % 3], 190, 50, 50)
        clip = mini_av.Clip("train", f"voice{number % 3}", number, sentence, voice, number % 3)
        mini_av.make_clip(clip, root, DOWNLOADS / "espeak", 0)
        path = clip.path(root)
        clips.append((path, sentence.upper(), mini_av.video_info(path).seconds))
    return clips


def place(talk: tuple[Path, str, float], path: Path, timed: bool, frames: int = 0) -> None:
    """Put a clip into a corpus."""
    video, text, seconds = talk
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(video, path)
    words = spread(text, seconds) if timed else []
    path.with_suffix(".txt").write_text(text_file(text, words, frames))


SPEAKERS = ("00j9bKdiOjk", "0Fi83BHQsMA", "-UGtF_tnWMx")


@pytest.fixture(scope="module")
def lrs3(tmp_path_factory, talks) -> Path:
    """LRS3's layout, with defects."""
    root = tmp_path_factory.mktemp("lrs3")
    for number, talk in enumerate(talks):
        speaker = SPEAKERS[number % 3]
        part = "pretrain" if number >= 9 else "test" if speaker == SPEAKERS[2] else "trainval"
        first = 1 if part == "pretrain" else 50001
        place(talk, root / part / speaker / f"{first + number:05d}.mp4", True, frames=4)
    one = root / "trainval" / SPEAKERS[0]
    place(talks[0], one / "50020.mp4", True)
    (one / "50020.txt").write_text("")
    place(talks[0], one / "50021.mp4", True)
    (one / "50021.txt").unlink()
    (one / "50022.txt").write_text(text_file("ALONE"))
    place(talks[0], one / "50023.mp4", True)
    (one / "50023.mp4").write_bytes(talks[0][0].read_bytes()[:20000])
    place(talks[0], one / "50024.mp4", True)
    (one / "50024.txt").write_text(text_file("{NS}"))
    # The same name in test/ and trainval/.
    place(talks[2], root / "trainval" / SPEAKERS[2] / "50003.mp4", True)
    # A word that no segment can hold.
    path = root / "pretrain" / SPEAKERS[0] / "00010.txt"
    timings = [Word("AND", 0.0, 0.3), Word("THEN", 0.3, 3.5), Word("NOW", 3.6, 4.0)]
    path.write_text(text_file("AND THEN NOW", timings, frames=4))
    return root


@pytest.fixture(scope="module")
def lrs2(tmp_path_factory, talks) -> Path:
    """LRS2's layout, with defects."""
    root = tmp_path_factory.mktemp("lrs2")
    speakers = ("5535415699068794046", "6330311066473698535", "6400000000000000001")
    lists = {name: [] for name in ("train", "val", "test", "pretrain")}
    for number, talk in enumerate(talks):
        name = f"{speakers[number % 3]}/{number % 9 // 3 + 1:05d}"
        part = "pretrain" if number >= 9 else "main"
        place(talk, root / "mvlrs_v1" / part / f"{name}.mp4", part == "pretrain")
        kinds = ["train", "train", "test", "train", "train", "test", "val", "val", "train"]
        lists["pretrain" if number >= 9 else kinds[number]].append(name)
    lists["test"] = [f"{name} {mark}" for name, mark in zip(lists["test"], ("NF", "MV"))]  # noqa: B905
    lists["train"] += [lists["train"][0], f"{speakers[0]}/00099"]
    place(talks[0], root / "mvlrs_v1/main" / speakers[0] / "00090.mp4", False)
    (root / "mvlrs_v1/main" / speakers[0] / "00091.txt").write_text(text_file("ALONE"))
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


PREPARE = ["--max_seconds", "3", "--max_excluded", "0.6", "--nj", "1"]


def excluded(folder: Path) -> dict[str, str]:
    return read_scp(folder / "excluded")


def test_of_two_files_whose_suffixes_differ_in_case_none_is_taken(tmp_path):
    """Neither is known to be the right one, so the clip is left out, with the names of both."""
    folder = tmp_path / "test/anna"
    folder.mkdir(parents=True)
    names = ["1.mp4", "1.MP4", "1.txt", "2.mp4", "2.Txt", "2.txt", "3.mp4", "3.TXT"]
    for name in (*names, "3 b.mp4", "3 b.txt"):
        (folder / name).touch()
    clips, odd = lrs.find_clips(tmp_path, "test")
    assert clips == [
        Clip("test", "anna", "3", folder / "3.mp4", folder / "3.TXT"),
        Clip("test", "anna", "3 b", folder / "3 b.mp4", folder / "3 b.txt"),
    ]
    advice = "two files for one; remove or rename one of them"
    assert odd == [
        ("test/anna/1", f"{folder}/1.MP4 and {folder}/1.mp4: {advice}"),
        ("test/anna/2", f"{folder}/2.Txt and {folder}/2.txt: {advice}"),
    ]
    assert {kind_of(reason) for _, reason in odd} == {advice}


def test_lrs3_folders(tmp_path, lrs3, capsys):
    main = recipe_module("lrs3").main
    arguments = ["prepare", "--corpus", str(lrs3), "--out", str(tmp_path), *PREPARE]
    main([*arguments, "--num_valid", "2"])
    sets = {name: read_scp(tmp_path / name / "text") for name in os.listdir(tmp_path)}
    assert set(sets) == {"train_433h", "train_30h", "valid", "test"}
    assert all(validate_data_dir(tmp_path / name, check_media=True) == [] for name in sets)
    assert len(sets["test"]) == 3
    assert len(sets["valid"]) == 2
    assert len(sets["train_30h"]) == 4
    assert not set(sets["valid"]) & set(sets["train_30h"])
    assert set(sets["train_30h"]) < set(sets["train_433h"])
    cut = sorted(set(sets["train_433h"]) - set(sets["train_30h"]))
    assert len(cut) >= 6
    assert all(utterance.rpartition("_")[2] in ("00", "01", "02", "03") for utterance in cut)
    segments = read_segments(tmp_path / "train_433h/segments")
    assert all(segments[u].end - segments[u].start <= 3 for u in cut)
    # Every word of a recording of pretrain/ is in one of its segments, in order.
    lines = (lrs3 / "pretrain" / SPEAKERS[1] / "00011.txt").read_text().splitlines()
    pieces = [sets["train_433h"][u] for u in cut if u.startswith(f"{SPEAKERS[1]}_00011")]
    assert f"Text:  {' '.join(pieces).upper()}" == lines[0]
    assert not (tmp_path / "train_30h/segments").exists()
    one = f"trainval/{SPEAKERS[0]}"
    small = {
        f"{one}/50020": "txt: empty txt",
        f"{one}/50021": "mp4 without txt",
        f"{one}/50022": "txt without mp4",
        f"{one}/50023": excluded(tmp_path / "train_30h")[f"{one}/50023"],
        f"{one}/50024": "no words",
        f"trainval/{SPEAKERS[2]}/50003": f"duplicate id (of test/{SPEAKERS[2]}/50003)",
    }
    assert excluded(tmp_path / "train_30h") == small
    assert "corrupt or truncated" in small[f"{one}/50023"]
    long = {f"pretrain/{SPEAKERS[0]}/00010_01": "longer than 3 s"}
    assert excluded(tmp_path / "train_433h") == small | long
    said = capsys.readouterr().out
    assert "6 excluded" in said
    assert "test: warning: 3 clips, where the corpus' test set has 1321\n" in said
    # The validation clips follow the seed, or a list.
    main([*arguments, "--num_valid", "2", "--seed", "0"])
    assert read_scp(tmp_path / "valid/text") == sets["valid"]
    chosen = tmp_path / "valid.id"
    chosen.write_text(f"trainval/{SPEAKERS[1]}/50002\ntrainval/none/50001\n")
    main([*arguments, "--valid_list", str(chosen)])
    assert list(read_scp(tmp_path / "valid/text")) == [f"{SPEAKERS[1]}_50002"]
    assert list(excluded(tmp_path / "valid")) == ["trainval/none/50001"]
    with pytest.raises(SystemExit, match=r"6 of 10 utterances are excluded, more than --max_exc"):
        main(["prepare", "--corpus", str(lrs3), "--out", str(tmp_path), "--num_valid", "2"])
    with pytest.raises(SystemExit, match="trainval/ has 6 clips"):
        main([*arguments, "--num_valid", "6"])


def test_no_test_set_shrinks_unless_that_is_allowed(tmp_path, lrs3, lrs2):
    """A clip that stage 1 loses is one of the set's, and stage 2 counts it."""
    for name, corpus in (("lrs3", lrs3), ("lrs2", lrs2)):
        copy, out = tmp_path / name, tmp_path / f"{name}_data"
        shutil.copytree(corpus, copy)
        folder = next((copy / "test").glob("*")) if name == "lrs3" else copy
        text = next(folder.glob("*.txt"))
        if name == "lrs2":
            listed = (copy / "test.txt").read_text().split()[0]
            text = copy / "mvlrs_v1/main" / f"{listed}.txt"
        text.unlink()
        arguments = ["prepare", "--corpus", str(copy), "--out", str(out), *PREPARE]
        arguments += ["--num_valid", "2"] if name == "lrs3" else []
        total = 3 if name == "lrs3" else 2
        main = recipe_module(name).main
        with pytest.raises(SystemExit, match=rf"test: 1 of {total} utterances .*--test_max_exclud"):
            main(arguments)
        main([*arguments, "--test_max_excluded", "0.5"])
        assert "mp4 without txt" in (out / "test/excluded").read_text()
    dump = tmp_path / "dump"
    prepare(out / "test", dump, "--streams", "audio")
    assert (dump / "excluded_stage1").read_bytes() == (out / "test/excluded").read_bytes()
    (out / "test/excluded").unlink()
    prepare(out / "test", dump, "--streams", "audio")
    assert not (dump / "excluded_stage1").exists()


def test_lrs2_folders(tmp_path, lrs2, capsys):
    main = recipe_module("lrs2").main
    arguments = ["prepare", "--out", str(tmp_path), *PREPARE, "--corpus"]
    main([*arguments, str(lrs2)])
    sets = {name: read_scp(tmp_path / name / "text") for name in os.listdir(tmp_path)}
    assert set(sets) == {"train_224h", "train_29h", "valid", "test"}
    assert all(validate_data_dir(tmp_path / name, check_media=True) == [] for name in sets)
    assert [len(sets[name]) for name in ("train_29h", "valid", "test")] == [5, 2, 2]
    # A clip of main/ and one of pretrain/ have the same number, and both are there.
    assert "5535415699068794046_00001" in sets["train_224h"]
    assert "5535415699068794046_00001_00" in sets["train_224h"]
    recordings = read_scp(tmp_path / "train_224h/video.scp")
    assert "/main/" in recordings["5535415699068794046_00001"]
    assert "/pretrain/" in recordings["pretrain_5535415699068794046_00001"]
    assert excluded(tmp_path / "train_224h") == {
        "train.txt:6:5535415699068794046/00001": "duplicate id (in the list)",
        "train.txt:7:5535415699068794046/00099": "list entry without file",
    }
    assert excluded(tmp_path / "test") == {}
    said = capsys.readouterr().out
    assert "1 clips are in no list" in said
    assert "test: warning: 2 clips, where the corpus' test set has 1243\n" in said
    with pytest.raises(FileNotFoundError, match=r"test\.txt.*--lrs2 names the folder"):
        main([*arguments, str(lrs2 / "mvlrs_v1")])


def start_recipe(name: str, corpus: Path, folder: Path, *options) -> subprocess.Popen:
    """Run the stages with tiny models in place of the real ones."""
    conf = yaml.safe_load((ROOT / f"egs/{name}/conf/train.yaml").read_text())
    adapter_conf = conf["decoder_conf"]["adapter_conf"]
    del adapter_conf["reduction"]
    adapter_conf |= {"num_routed": 3, "top_k": 2, "bottleneck": 2}
    conf["decoder_conf"]["lm_dtype"] = conf["audio_encoder_conf"]["dtype"] = "float32"
    conf["video_encoder"] = "visual"
    conf["video_encoder_conf"] = {"width": 4, "output_size": 16, "layers": 1, "heads": 2}
    conf |= {"max_epoch": 1, "num_iters_per_epoch": 2, "batch_bins": 150, "num_workers": 0}
    config = folder / "train.yaml"
    config.write_text(yaml.safe_dump(conf))
    arguments = [f"--{name}", corpus, "--datadir", folder / "data", "--dumpdir", folder / "dump"]
    arguments += [
        "--expdir",
        folder / "exp",
        "--train_config",
        config,
        "--train_opts",
        "--log_interval 1",
    ]
    arguments += ["--video_weights", "", "--nj", "1", "--beam", "2"]
    arguments += ["--noise_opts", "--num_train 1 --num_test 1 --seconds 4"]
    arguments += ["--decode_opts", "--max_new_tokens 4 --num_workers 0"]
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(
            [str(ROOT / f"egs/{name}/run.sh"), *map(str, [*arguments, *options])],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory, lrs3, lrs2, tiny_lm, tiny_whisper) -> dict[str, Path]:
    """Both recipes, side by side: the folder of each."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("lrs3", "lrs2")}
    models = ["--lm", tiny_lm, "--audio_model", tiny_whisper]
    # As the commands of RESULTS.md have it: the only noise, in training and in tests.
    noisex = folders["lrs2"] / "babble.wav"
    soundfile.write(noisex, np.random.default_rng(0).normal(0, 0.1, 61 * 16000), 16000)
    options = {
        "lrs3": ["--snrs", "0", "--prepare_opts", f"{' '.join(PREPARE)} --num_valid 2"],
        # The environment and the pretrained parts of stage 0 are those of the other run, which also
        # packs its model and reports on it.
        "lrs2": ["--stage", "1", "--stop_stage", "5", "--snrs", "0"],
    }
    options["lrs2"] += ["--prepare_opts", " ".join(PREPARE), "--detector", quick_detector()]
    options["lrs2"] += ["--noisex", noisex, "--train_noise", "noisex", "--test_noise", "noisex"]
    corpora = {"lrs3": lrs3, "lrs2": lrs2}
    processes = {
        name: start_recipe(name, corpora[name], folder, *models, *options[name])
        for name, folder in folders.items()
    }
    codes = {name: process.wait() for name, process in processes.items()}
    for name, code in codes.items():
        assert code == 0, (folders[name] / "log").read_text()[-4000:]
    return folders


@pytest.mark.parametrize("name", ["lrs3", "lrs2"])
def test_recipe(runs, name):
    folder = runs[name]
    scores = json.loads((folder / "exp/mome/scores.json").read_text())
    sets = ["test", "test_swapvideo", "test_swapaudio"]
    sets += ["test_babble_snr0" if name == "lrs3" else "test_noisex_snr0"]
    pairs = ("a4_v2", "a4_v5", "a16_v2", "a16_v5")
    expected = {f"avsr/{each}/{pair}" for each in sets for pair in pairs}
    assert {key for key in scores if not key.startswith("guess/")} == expected
    table = (folder / "exp/mome/RESULTS.md").read_text()
    assert "| test, clean " in table
    assert f"; the corpus has {1321 if name == 'lrs3' else 1243} in this set.\n" in table
    source = (
        "the end of NOISEX-92's babble.wav, seed 0"
        if name == "lrs2"
        else "up to 30 voices of `valid`"
    )
    kind = "noisex" if name == "lrs2" else "babble"
    assert f"- Noise `{kind}`: {source}" in table
    assert "Weights: `valid.epoch.ave.pth`, SHA-256 " in table
    conf = yaml.safe_load((folder / "exp/mome/config.yaml").read_text())["preprocessor_conf"]
    assert conf.get("noise_kinds") == (None if name == "lrs3" else ["noisex"])
    # Training has read segments, none longer than 3 s.
    train = "train_433h" if name == "lrs3" else "train_224h"
    frames = read_scp(folder / "dump" / train / "utt2num_frames")
    cut = {u: int(n) for u, n in frames.items() if re.search(r"_\d{5}_\d\d$", u)}
    assert len(cut) >= 6
    assert max(cut.values()) <= 75
    assert len(frames) > len(cut)


@pytest.mark.parametrize(
    "path", ["lrs3/run.sh", "lrs3/RESULTS.md", "lrs2/run.sh", "lrs2/RESULTS.md"]
)
def test_options_in_scripts_and_documents_reach_the_configuration(path):
    """A key that ESPnet misreads becomes a new one, and training goes on with the old value."""
    conf = yaml.safe_load(
        (ROOT / "egs" / path).with_name("conf").joinpath("train.yaml").read_text()
    )
    options = re.findall(r"--(\w+_conf) ([\w.=]+)", (ROOT / "egs" / path).read_text())
    assert options
    for name, value in options:
        parser = argparse.ArgumentParser()
        parser.add_argument("--conf", action=NestedDictAction, default=conf[name])
        result = parser.parse_args(["--conf", value]).conf
        assert result != conf[name], value
        assert result.keys() == conf[name].keys(), value
        if name == "decoder_conf":
            assert result["adapter_conf"].keys() == conf[name]["adapter_conf"].keys(), value


@pytest.mark.parametrize(("name", "subset"), [("lrs2", "29h"), ("lrs3", "30h")])
def test_a_subset_is_trained_in_proportion_to_its_hours(tmp_path, name, subset):
    """Its schedule is that of the whole by hours, and its folders are its own."""
    whole = yaml.safe_load((ROOT / f"egs/{name}/conf/train.yaml").read_text())
    recipe = tmp_path / "egs" / name
    recipe.mkdir(parents=True)
    shutil.copy(ROOT / "egs" / name / "run.sh", recipe)
    (tmp_path / "utils").symlink_to(ROOT / "utils")
    driver = tmp_path / "egs/TEMPLATE/avsr1/avsr.sh"
    driver.parent.mkdir(parents=True)
    driver.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    driver.chmod(0o755)
    command = [
        str(recipe / "run.sh"),
        f"--{name}",
        "/",
        "--subset",
        subset,
        "--train_opts",
        "--x 1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    given = done.stdout.splitlines()
    options = dict(zip(given[::2], given[1::2], strict=True))
    assert options["--train_set"] == f"train_{subset}"
    assert options["--dumpdir"] == f"dump/{subset}"
    # Babble of tests is that of the validation set's voices, which both subsets have.
    assert options["--test_babble_from"] == "valid"
    assert options["--expdir"] == f"exp/{subset}"
    hours = {"29h": (29, 224), "30h": (30, 433)}[subset]
    steps = whole["scheduler_conf"]["total_steps"] * hours[0] / hours[1]
    found = re.fullmatch(
        r"--num_iters_per_epoch (\d+) --scheduler_conf total_steps=(\d+) --x 1",
        options["--train_opts"],
    )
    assert int(found[2]) == whole["max_epoch"] * int(found[1]) == pytest.approx(steps, rel=0.01)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lrs3", [], "--lrs3 <folder of the corpus> is missing"),
        ("lrs3", ["--lrs3", "/", "--train_set=train_30h"], "--train_set train_30h: name --subset,"),
        ("lrs2", ["--lrs2", "/", "--train-set", "train_29h"], "train_29h: name --subset"),
        ("lrs3", ["--lrs3", "/", "--subset", "5h"], "--subset is 433h or 30h, not 5h"),
        ("lrs2", [], "--lrs2 <folder of the corpus> is missing"),
        ("lrs2", ["--lrs2", "/", "--subset", "5h"], "--subset is 224h or 29h, not 5h"),
        ("lrs2", ["--lrs2", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_wrong_calls_are_explained(name, options, message):
    command = [str(ROOT / f"egs/{name}/run.sh"), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert message in result.stderr
