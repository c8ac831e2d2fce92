"""mome.data.exclusions: reasons that are the same but for their file count together."""

import pytest

from mome.data.exclusions import (
    check_excluded,
    count_excluded,
    leave_out,
    print_reasons,
    write_excluded,
)
from mome.data.video import reason_of

SAME = [
    ("does not exist", ["data/a b.mp4 does not exist", "/x/y.wav does not exist"]),
    (
        "audio and video differ in length: N s and N s",
        ["a/1.mp4: audio and video differ in length: 1.20 s and 0.48 s"] * 2
        + ["b 2/1.mp4: audio and video differ in length: 3.00 s and 10.48 s"],
    ),
    (
        "mp4: corrupt or truncated file; copy it again",
        [
            f"mp4: corrupt or truncated file ({why}); copy it again"
            for why in ("End", "Invalid data")
        ],
    ),
    ("duplicate id", ["duplicate id (of test/a/1)", "duplicate id (of test/b/2)"]),
    ("RuntimeError: of a kind", ["a.mp4: RuntimeError: of a kind"]),
    (
        "RuntimeError: no message",
        [reason_of(RuntimeError()), f"a.mp4: {reason_of(RuntimeError())}"],
    ),
    ("ValueError: no message", [reason_of(ValueError(" ")), "data/a.mp4: ValueError: no message"]),
    ("no reason is given", ["", " ", "\t"]),
    ("(too loud)", [" (too loud)"]),
    ("list.txt:", ["list.txt: ", "list.txt: "]),
    ("no words", ["data/test/text: no words", "no words"]),
]


def test_reasons_count_together(capsys):
    excluded = [(f"u{n}", why) for n, why in enumerate(w for _, whys in SAME for w in whys)]
    print_reasons(excluded)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted(f"  excluded {len(whys)}: {kind}" for kind, whys in SAME)
    counts = [int(line.split()[1].rstrip(":")) for line in lines]
    assert counts == sorted(counts, reverse=True)


def test_lists_are_counted_and_limits_hold(tmp_path):
    assert count_excluded(tmp_path / "excluded") is None
    write_excluded(tmp_path, [("b", "no words"), ("a", "x y"), ("b", "no face")])
    assert (tmp_path / "excluded").read_text() == "a x y\nb no face\nb no words\n"
    assert count_excluded(tmp_path / "excluded") == 3
    # A name of a file may hold what else ends a line, in text.
    write_excluded(tmp_path, [("b\u2028c\x0bd", "no words"), ("a\x85", "no face")])
    assert count_excluded(tmp_path / "excluded") == 2
    # It may also be no UTF-8, or have a line break.
    write_excluded(tmp_path, [("caf\udce9", "c\nd/caf\udce9.mp4: its name")])
    assert (tmp_path / "excluded").read_text() == "caf\\udce9 c d/caf\\udce9.mp4: its name\n"
    check_excluded(tmp_path, 1, 9, 0.1, "--max_excluded", "as it is")
    with pytest.raises(
        SystemExit, match=r"2 of 11 .* more than --x 0\.1 allows; .*--x <share> \(y\)"
    ):
        check_excluded(tmp_path, 2, 9, 0.1, "--x", "y")
    with pytest.raises(SystemExit, match="2 of 2 utterances are excluded"):
        check_excluded(tmp_path, 2, 0, 1.0, "--x", "y")


def test_stage_1_lists_says_and_limits_what_it_leaves_out(tmp_path, capsys):
    excluded = [("a", "a.mp4: no words"), ("b", "b.mp4: no words")]
    leave_out(tmp_path, excluded, 8, 0.2, hours=1.5)
    assert (tmp_path / "excluded").read_text() == "a a.mp4: no words\nb b.mp4: no words\n"
    said = f"{tmp_path}: 8 utterances, 1.50 h, 2 excluded\n  excluded 2: no words\n"
    assert capsys.readouterr().out == said
    remedy = r"more than --test_max_excluded 0 .*--prepare_opts \"--test_max_excluded <share>\""
    with pytest.raises(SystemExit, match=remedy):
        leave_out(tmp_path, excluded, 8, 0.0, test=True)
    assert capsys.readouterr().out.startswith(f"{tmp_path}: 8 utterances, 2 excluded\n")
