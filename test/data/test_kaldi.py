"""mome.data.kaldi: files of data folders and their validation."""

import subprocess

import pytest
from media import let_workers_crash, write_clip

from mome.bin.validate_data_dir import main as validate_main
from mome.data.kaldi import (
    Segment,
    copy_data_dir,
    fix_data_dir,
    keep_only_same,
    read_scp,
    read_segments,
    spk2utt_of,
    validate_data_dir,
    write_scp,
)


def write_folder(folder, utterances=("anna_00001", "anna_00002", "bert_00001")):
    """A sound data folder, with recordings that do not exist."""
    folder.mkdir(exist_ok=True)
    lines = {
        "text": [f"{u} place red" for u in utterances],
        "utt2spk": [f"{u} {u.split('_')[0]}" for u in utterances],
        "wav.scp": [f"{u} /nowhere/{u}.flac" for u in utterances],
        "video.scp": [f"{u} /nowhere/{u}.mp4" for u in utterances],
        "utt2dur": [f"{u} 1.50" for u in utterances],
        "spk2utt": ["anna anna_00001 anna_00002", "bert bert_00001"],
    }
    for name, content in lines.items():
        (folder / name).write_text("\n".join(content) + "\n")
    return folder


def replace(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def test_written_order_is_that_of_sort_in_the_c_locale(tmp_path):
    ids = ["b_1", "B_1", "a-1", "a_1", "a", "ä_1", "a1", "Z", "10", "9"]
    write_scp(tmp_path / "text", {key: f"words of {key}" for key in ids})
    command = ["sort", str(tmp_path / "text")]
    expected = subprocess.run(command, env={"LC_ALL": "C"}, capture_output=True, check=True).stdout
    assert (tmp_path / "text").read_bytes() == expected
    assert read_scp(tmp_path / "text") == {key: f"words of {key}" for key in ids}
    assert list(tmp_path.iterdir()) == [tmp_path / "text"]  # nothing temporary is left


def test_read_errors_name_file_and_line(tmp_path):
    path = tmp_path / "wav.scp"
    path.write_text("a 1\nb 2\na 3\n")
    with pytest.raises(ValueError, match=r"wav\.scp:3: a is given twice"):
        read_scp(path)
    path.write_text("a 1\n\nb 2\n")
    with pytest.raises(ValueError, match=r"wav\.scp:2: empty line"):
        read_scp(path)
    with pytest.raises(ValueError, match="has blanks"):
        write_scp(path, {"a b": "1"})
    for value in ("1\nb 2", "1\rb 2", "1\r"):
        with pytest.raises(ValueError, match="line break"):
            write_scp(path, {"a": value})
    for key, why in (("a\ufeffb", "a byte order mark"), ("caf\udce9", "not UTF-8")):
        with pytest.raises(ValueError, match=rf"wav\.scp: id '.*' (has|is) {why}"):
            write_scp(path, {key: "1"})
    with pytest.raises(ValueError, match=r"wav\.scp: the value of 'a' is not UTF-8"):
        write_scp(path, {"a": "caf\udce9.mp4"})
    path.write_bytes(b"a caf\xe9\n")
    with pytest.raises(ValueError, match=r"wav\.scp is not UTF-8"):
        read_scp(path)


def test_what_is_written_is_read_again(tmp_path):
    """Blanks of Unicode are part of values, and byte order marks never are."""
    values = {
        "a": "l'été\u00a0!",
        "b": "\u00a0one\u2028two\x85\u3000",
        "c": "",
        "d": "\x0bx\x0c",
        "e": "x  y",
    }
    write_scp(tmp_path / "text", values | {"f": "\ufeffset red"})
    assert read_scp(tmp_path / "text") == values | {"f": "set red"}


def test_files_of_other_systems_are_read(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeffa_1 grün\r\na_2\t rot \r\n\ufeffa_3 blau".encode())
    expected = {"a_1": "grün", "a_2": "rot", "a_3": "blau"}
    assert read_scp(path) == expected
    path.write_bytes(path.read_bytes().decode().encode("utf-16"))
    assert read_scp(path) == expected


def test_spk2utt_is_the_inverse():
    assert spk2utt_of({"b_2": "b", "a_1": "a", "b_1": "b"}) == {"a": "a_1", "b": "b_1 b_2"}


def test_sound_folder_has_no_problem(tmp_path):
    assert validate_data_dir(write_folder(tmp_path / "train")) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("text", "anna_00002 place red\n", "", "text lacks 1 utterances: anna_00002"),
        ("text", "bert_00001 place red", "bert_00001", "text:3: bert_00001 has no words"),
        ("text", "bert_00001 place red\n", "bert_00001 place red", "may be cut"),
        ("text", "anna_00001 place red", "anna_00001 place red\r", "carriage return"),
        ("text", "anna_00001 ", "\ufeffanna_00001 ", "text:1: byte order mark"),
        ("text", "anna_00001 ", "anna\u00a000001 ", "has a blank, where other programs end an id"),
        ("text", "bert_00001", "anna_00001", "text:3: anna_00001 is given twice"),
        ("text", "anna_00001", "carl_00001", "text:2: anna_00002 is out of order"),
        ("wav.scp", "anna_00002", "anna_00003", "wav.scp has the unknown 1 utterances: anna_00003"),
        ("wav.scp", "anna_00001 /nowhere/anna_00001.flac", "anna_00001", "anna_00001 has no value"),
        ("utt2spk", "bert_00001 bert", "bert_00001 carl", "carl is not a prefix of utterance"),
        ("utt2spk", "bert_00001 bert", "bert_00001 bert carl", "several speakers"),
        ("spk2utt", "anna_00001 anna_00002", "anna_00001", "of anna do not match"),
        ("spk2utt", "bert bert_00001\n", "", "of bert do not match"),
        ("utt2dur", "bert_00001 1.50", "bert_00001 nan", "'nan', not a positive number"),
        ("utt2dur", "bert_00001 1.50", "bert_00001 -1", "'-1', not a positive number"),
    ],
)
def test_each_defect_is_found_and_named(tmp_path, name, old, new, message):
    folder = write_folder(tmp_path / "train")
    replace(folder / name, old, new)
    problems = validate_data_dir(folder)
    assert any(message in problem and name in problem for problem in problems), problems


def test_speakers_that_are_prefixes_of_each_other(tmp_path):
    folder = write_folder(tmp_path / "train", ("a1_1", "a_1"))
    (folder / "utt2spk").write_text("a1_1 a1\na_1 a\n")
    (folder / "spk2utt").write_text("a a_1\na1 a1_1\n")
    assert any("prefixes of each other" in problem for problem in validate_data_dir(folder))


def test_missing_files_and_folder(tmp_path):
    folder = write_folder(tmp_path / "train")
    (folder / "spk2utt").unlink()
    (folder / "wav.scp").unlink()
    (folder / "video.scp").unlink()
    problems = " ".join(validate_data_dir(folder))
    assert "spk2utt is missing" in problems
    assert "none of wav.scp, video.scp, lip.scp" in problems
    assert "is not a folder" in validate_data_dir(tmp_path / "none")[0]


def test_fix_keeps_what_all_files_have(tmp_path):
    folder = write_folder(tmp_path / "train")
    replace(folder / "video.scp", "anna_00001 /nowhere/anna_00001.mp4\n", "")
    replace(folder / "text", "bert_00001 place red", "bert_00001 ")
    assert fix_data_dir(folder) == 1
    assert validate_data_dir(folder) == []
    assert list(read_scp(folder / "text")) == ["anna_00002"]


def write_segmented(folder):
    """A sound data folder in which two utterances are segments of one recording."""
    write_folder(folder)
    segments = ["anna_00001 rec1 0.00 1.50", "anna_00002 rec1 1.52 3.02", "bert_00001 rec2 0 1.50"]
    (folder / "segments").write_text("\n".join(segments) + "\n")
    for name, suffix in (("wav.scp", "flac"), ("video.scp", "mp4")):
        write_scp(folder / name, {rec: f"/nowhere/{rec}.{suffix}" for rec in ("rec1", "rec2")})
    return folder


def test_segments_make_the_scp_files_lists_of_recordings(tmp_path):
    folder = write_segmented(tmp_path / "train")
    assert validate_data_dir(folder) == []
    assert read_segments(folder / "segments")["anna_00002"] == Segment("rec1", 1.52, 3.02)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("segments", "anna_00002 rec1 1.52 3.02\n", "", "segments lacks 1 utterances: anna_00002"),
        ("segments", "1.52 3.02", "3.02 1.52", "anna_00002 does not end after its start"),
        ("segments", "rec1 1.52 3.02", "rec1 1.52", "anna_00002 has 'rec1 1.52', not a recording"),
        ("segments", "1.52 3.02", "1.52 inf", "anna_00002 does not end after its start"),
        ("segments", "rec2 0", "rec3 0", "wav.scp lacks 1 recordings: rec3"),
        ("segments", "rec2 0", "rec1 0", "video.scp has the unknown 1 recordings: rec2"),
        ("video.scp", "rec2 /nowhere/rec2.mp4\n", "", "video.scp lacks 1 recordings: rec2"),
    ],
)
def test_defects_of_segments_are_named(tmp_path, name, old, new, message):
    folder = write_segmented(tmp_path / "train")
    replace(folder / name, old, new)
    problems = validate_data_dir(folder)
    assert any(message in problem for problem in problems), problems
    if new.startswith("rec1 1.52"):
        with pytest.raises(ValueError, match="segments: anna_00002 has"):
            read_segments(folder / "segments")


def test_fix_drops_segments_without_recording_and_recordings_without_segment(tmp_path):
    folder = write_segmented(tmp_path / "train")
    replace(folder / "video.scp", "rec2 /nowhere/rec2.mp4\n", "")
    replace(folder / "text", "anna_00002 place red", "anna_00002 ")
    assert fix_data_dir(folder) == 1
    assert validate_data_dir(folder) == []
    assert list(read_scp(folder / "segments")) == ["anna_00001"]
    assert list(read_scp(folder / "wav.scp")) == ["rec1"]


def test_media_are_checked(tmp_path, capsys):
    ids = ("anna_00001", "anna_00002", "anna_00003", "anna_00004", "anna_00005", "anna_00006")
    folder = write_folder(tmp_path / "train", ids)
    (folder / "spk2utt").write_text(f"anna {' '.join(ids)}\n")
    (folder / "wav.scp").unlink()
    clips = {u: tmp_path / f"{u}.mp4" for u in ids}
    write_clip(clips[ids[0]], num_frames=10)
    write_clip(clips[ids[1]], num_frames=10, audio=False)
    write_clip(clips[ids[2]], num_frames=12, fps=30)
    write_clip(clips[ids[3]], num_frames=10, audio_seconds=1.5)
    write_clip(clips[ids[4]], num_frames=0)
    clips[ids[5]].write_bytes(clips[ids[0]].read_bytes()[:500])
    write_scp(folder / "video.scp", clips)
    problems = validate_data_dir(folder, check_media=True)
    expected = [
        (ids[1], "no audio stream"),
        (ids[2], "30 frames/s, not 25"),
        (ids[3], "audio and video differ in length"),
        (ids[4], "no video stream"),
        (ids[5], "corrupt or truncated"),
    ]
    assert len(problems) == len(expected), problems
    for problem, (utterance, message) in zip(problems, expected, strict=True):
        assert problem.startswith(utterance)
        assert message in problem
    wide = validate_data_dir(folder, check_media=True, tolerance=2.0, frame_rate=30.0)
    assert not any("length" in problem for problem in wide)
    assert sum("25 frames/s, not 30" in problem for problem in wide) == 3
    with pytest.raises(SystemExit) as caught:
        validate_main([str(folder), "--check_media"])
    assert caught.value.code == 1
    assert f"{folder}: 5 problems" in capsys.readouterr().out


def test_a_recording_that_crashes_its_decoder_is_named(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "train", ("anna_00001", "anna_00002"))
    (folder / "spk2utt").write_text("anna anna_00001 anna_00002\n")
    (folder / "wav.scp").unlink()
    clips = {"anna_00001": tmp_path / "a.mp4", "anna_00002": tmp_path / "crash.mp4"}
    for path in clips.values():
        write_clip(path)
    write_scp(folder / "video.scp", clips)
    let_workers_crash(tmp_path, monkeypatch)
    (problem,) = validate_data_dir(folder, check_media=True, nj=2)
    assert problem.startswith(f"anna_00002: {clips['anna_00002']}: its process crashed or")
    # Where all do, what is wrong beside it is told all the same.
    let_workers_crash(tmp_path, monkeypatch, ".mp4")
    (folder / "utt2spk").write_text("anna_00001 anna\n")
    problems = validate_data_dir(folder, check_media=True, nj=2)
    assert any("every process crashes or is killed" in problem for problem in problems)
    assert any("utt2spk" in problem for problem in problems)


@pytest.mark.parametrize("force", [False, True])
def test_what_a_killed_call_leaves_of_other_settings_is_deleted_by_the_next(tmp_path, force):
    def outputs(end):
        """The files of before, as many as are deleted until the end."""
        for name in ("a", "b"):
            if name == end:
                raise KeyboardInterrupt
            yield tmp_path / name

    keep_only_same(tmp_path, {"seed": 0}, [])
    for name in ("a", "b"):
        (tmp_path / name).write_text("of seed 0")
    settings = {"seed": 0 if force else 1}
    with pytest.raises(KeyboardInterrupt):
        keep_only_same(tmp_path, settings, outputs("b"), force)
    assert (tmp_path / "b").exists()
    keep_only_same(tmp_path, settings, outputs(None))
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").touch()
    keep_only_same(tmp_path, settings, outputs(None))
    assert (tmp_path / "a" / "x").exists()
    keep_only_same(tmp_path, settings, outputs(None), force=True)
    assert not (tmp_path / "a").exists()


def test_copies_of_folders_replace_what_is_given(tmp_path):
    write_folder(tmp_path / "a")
    (tmp_path / "a" / "settings.json").write_text("{}")
    copy_data_dir(tmp_path / "a", tmp_path / "b", {"wav.scp": {"x": 1}, "lip.scp": {"y": 2}})
    assert read_scp(tmp_path / "b" / "wav.scp") == {"x": "1"}
    assert read_scp(tmp_path / "b" / "lip.scp") == {"y": "2"}
    kept = {"text", "utt2spk", "spk2utt", "video.scp", "utt2dur"}
    assert {path.name for path in (tmp_path / "b").iterdir()} == {*kept, "wav.scp", "lip.scp"}
    for name in kept:
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
