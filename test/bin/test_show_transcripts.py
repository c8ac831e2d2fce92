"""mome.bin.show_transcripts: what is red in the picture, and how large it is."""

import cv2
import numpy as np
import pytest

from mome.analysis.confusions import align
from mome.bin.show_transcripts import (
    BASE_LINE,
    FONT,
    GAP,
    LIMIT,
    LINE_HEIGHT,
    MARGIN,
    TEXT_WIDTH,
    Shown,
    draw_sentence,
    draw_within,
    main,
    parse_condition,
)
from mome.data.kaldi import write_scp
from mome.data.pictures import CAPTION_HEIGHT, text_width
from mome.data.video import read_lips, write_lips

REFERENCES = {
    "s1_a": "bin blue at f two now",
    "s1_b": "lay red in g nine soon",
    "s1_c": "set white with p zero again",
}
CONDITIONS = ("vsr v2", "avsr a16_v5")


def clip(seed: int, noise: int = 0) -> np.ndarray:
    """A mouth that opens and closes, uint8 (12, 96, 96), with noise if wanted."""
    rng = np.random.default_rng(seed)
    frames = np.full((12, 96, 96), 140 + 10 * seed, np.uint8)
    for time, frame in enumerate(frames):
        cv2.ellipse(frame, (48, 55), (24, 3 + 2 * (time % 6)), 0, 0, 360, 40, -1)
    return (frames + rng.integers(0, noise + 1, frames.shape)).clip(0, 255).astype(np.uint8)


def folders(tmp_path, hypotheses: dict[str, dict[str, str]]) -> list[str]:
    """A set with crops, its transcripts for each condition, and the program's arguments."""
    dump = tmp_path / "dump/test"
    write_scp(dump / "text", REFERENCES)
    for number, utterance in enumerate(REFERENCES):
        write_lips(dump / f"lips/{utterance}.mp4", clip(number))
    write_scp(dump / "lip.scp", {u: dump / f"lips/{u}.mp4" for u in REFERENCES})
    for condition in CONDITIONS:
        folder = tmp_path / "exp/decode" / condition.replace(" ", "/test/")
        write_scp(folder / "text", REFERENCES | hypotheses.get(condition, {}))
    output = ["--output", str(tmp_path / "picture.png"), "--conditions", *CONDITIONS]
    return ["--expdir", str(tmp_path / "exp"), "--dump", str(tmp_path / "dump"), *output]


def is_red(picture: np.ndarray) -> np.ndarray:
    """Where a picture is red, bool (H, W)."""
    blue, _, red = np.moveaxis(picture.astype(int), 2, 0)
    return red - blue > 60


def line_top(row: int, line: int) -> int:
    """Top of a line of an utterance in a picture without title; line 0 is the reference."""
    header = MARGIN + LINE_HEIGHT + MARGIN
    block = CAPTION_HEIGHT + 96 + (1 + len(CONDITIONS)) * LINE_HEIGHT + MARGIN
    return header + row * block + CAPTION_HEIGHT + 96 + line * LINE_HEIGHT


def word_span(words: list[str], place: int) -> slice:
    """Columns of the picture where a word of a line may have ink."""
    indent = max(text_width(f"{label}:", FONT) for label in ("reference", *CONDITIONS)) + GAP
    start = MARGIN + indent + sum(text_width(word, FONT) + GAP for word in words[:place])
    return slice(start - 2, start + text_width(words[place], FONT) + 3)


def test_red_is_what_is_wrong_and_nothing_else(tmp_path, capsys):
    hypotheses = {
        "vsr v2": {"s1_a": "bin blue at s two now", "s1_c": "set white with p zero"},
        "avsr a16_v5": {"s1_c": "set white now with p zero again"},
    }
    main(folders(tmp_path, hypotheses))
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'picture.png'}, ")
    picture = cv2.imread(str(tmp_path / "picture.png"))
    assert (tmp_path / "picture.png").stat().st_size <= LIMIT
    red = is_red(picture)
    # Row and line in the picture, the words that stand there, the place of the red one.
    for row, line, words, place in (
        (0, 1, "bin blue at s two now", 3),
        (2, 1, "set white with p zero again", 5),
        (2, 2, "set white now with p zero again", 2),
    ):
        top = line_top(row, line)
        here = slice(top, top + LINE_HEIGHT), word_span(words.split(), place)
        assert red[here].any(), words
        red[here] = False
    assert not red.any()
    # The deleted word has a stroke from its beginning to its end, the wrong one has none.
    for row, words, place, struck in (
        (2, "set white with p zero again".split(), 5, True),
        (0, "bin blue at s two now".split(), 3, False),
    ):
        stroke = is_red(picture)[line_top(row, 1) + BASE_LINE - 4, word_span(words, place)]
        assert (stroke.sum() >= text_width(words[place], FONT)) == struck
    # Every line has ink, and the first crop is the clip's first frame.
    for row, utterance in enumerate(REFERENCES):
        for line in range(1 + len(CONDITIONS)):
            assert picture[line_top(row, line) :][:LINE_HEIGHT].min() < 100
        top = line_top(row, 0) - 96
        first = read_lips(tmp_path / f"dump/test/lips/{utterance}.mp4")[0]
        crop = picture[top : top + 96, MARGIN : MARGIN + 96]
        assert np.array_equal(crop, np.repeat(first[..., None], 3, axis=2))


def test_nothing_is_red_where_all_is_right(tmp_path):
    # Marks, case and punctuation are no errors: they are not scored.
    arguments = folders(tmp_path, {"vsr v2": {"s1_a": "Bin blue, at F two {NS} now."}})
    main([*arguments, "--title", "all right"])
    picture = cv2.imread(str(tmp_path / "picture.png"))
    assert not is_red(picture).any()
    main(arguments)
    # A title takes a band of its own.
    assert len(picture) > len(cv2.imread(str(tmp_path / "picture.png")))


def test_utterances_are_named_or_drawn_by_a_seed(tmp_path, capsys):
    arguments = folders(tmp_path, {})
    main([*arguments, "--utterances", "s1_c", "s1_a", "--columns", "2"])
    assert capsys.readouterr().out.endswith("kB: s1_c s1_a\n")
    # Lines of text have their room even beside few crops.
    assert cv2.imread(str(tmp_path / "picture.png")).shape[1] == TEXT_WIDTH + 2 * MARGIN
    drawn = []
    for seed in (*range(6), 0):
        main([*arguments, "--rows", "1", "--seed", str(seed)])
        drawn.append(capsys.readouterr().out.split()[-1])
    assert drawn[0] == drawn[-1]
    assert len(set(drawn)) > 1


def test_long_sentences_go_on_in_the_next_line():
    words = ["wonderful"] * 20
    right = [(word, word) for word in words]
    picture = draw_sentence("vsr v2:", [*right, ("wonderful", None)], 60, 400)
    per_line = (400 - 60 + GAP) // (text_width("wonderful", FONT) + GAP)
    assert len(picture) == -(-21 // per_line) * LINE_HEIGHT
    red = is_red(picture)
    assert red[-LINE_HEIGHT:].any()
    assert not red[:-LINE_HEIGHT].any()


def shown(count: int) -> list[Shown]:
    steps = {"vsr v2": align("bin blue", "bin red")}
    return [Shown(f"u{n}", clip(n % 5, noise=60), "bin blue", steps) for n in range(count)]


def test_a_picture_that_is_too_large_gets_fewer_then_smaller_crops():
    data, columns, scale = draw_within(shown(2), 12)
    assert (columns, scale) == (12, 1)
    fewer, columns, scale = draw_within(shown(2), 12, limit=len(data) // 2)
    assert len(fewer) <= len(data) // 2
    assert 4 <= columns < 12
    assert scale == 1
    smaller, columns, scale = draw_within(shown(2), 12, limit=len(data) // 5)
    assert len(smaller) <= len(data) // 5
    assert scale < 1
    picture = cv2.imdecode(np.frombuffer(smaller, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == max(TEXT_WIDTH, columns * round(96 * scale)) + 2 * MARGIN
    with pytest.raises(ValueError, match=r"2 utterances take .* kB even with 4 crops each at 50% "):
        draw_within(shown(2), 12, limit=1000)


def test_the_program_says_what_it_left_out(tmp_path, capsys):
    arguments = folders(tmp_path, {})
    for number, utterance in enumerate(REFERENCES):
        frames = np.random.default_rng(number).integers(0, 256, (25, 96, 96), dtype=np.uint8)
        write_lips(tmp_path / f"dump/test/lips/{utterance}.mp4", frames)
    main([*arguments, "--columns", "16"])
    assert "of 16 crops each at 100% of their size" in capsys.readouterr().out
    assert (tmp_path / "picture.png").stat().st_size <= LIMIT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--conditions", "vsr v5"], r"vsr/test/v5/text does not exist; stage 5 .* decoded are v2"),
        (["--conditions", "v2"], r"the condition 'v2' must look like \"vsr v2\""),
        (["--conditions", "vsr fast"], r"rate pair 'fast' must look like a4_v2"),
        (["--set", "valid"], r"dump/valid/lip.scp does not exist; stage 2 writes it"),
        (["--utterances", "s1_a", "s9_x"], r"s9_x: not in lip.scp"),
        (["--columns", "0"], r"--rows and --columns are at least 1"),
    ],
)
def test_what_is_missing_is_named(tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        main([*folders(tmp_path, {}), *options])
    assert not (tmp_path / "picture.png").exists()


def test_utterances_without_a_text_are_named(tmp_path):
    arguments = folders(tmp_path, {})
    write_scp(tmp_path / "exp/decode/vsr/test/v2/text", {"s1_a": "bin"})
    with pytest.raises(SystemExit, match="vsr v2, test: 2 utterances have no hypothesis"):
        main(arguments)
    write_scp(tmp_path / "dump/test/text", {"s1_a": "bin"})
    with pytest.raises(SystemExit, match=r"s1_b, s1_c: not in .*dump/test/text"):
        main(arguments)


def test_conditions_are_read_as_they_are_written():
    for text in CONDITIONS:
        assert str(parse_condition(text)) == text
