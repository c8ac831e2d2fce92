"""mome.lips.clips and mome.lips.sources: what is read of an utterance and what is made anew."""

import os
from pathlib import Path

import pytest

from mome.data.kaldi import read_scp, write_scp
from mome.lips import sources
from mome.lips.clips import Clip, find_crop, list_clips
from mome.lips.sources import drop_changed, look, made_of

CUT = {  # utterance, its speaker, its video, whether it is a segment -> names of crops, best first
    ("anna-_7", "anna", "corpus/part/tape/clip.mp4", False): [
        "anna/7.mp4",
        "part/tape/clip.mp4",
        "tape/clip.mp4",
        "anna/anna-_7.mp4",
        "anna-_7.mp4",
    ],
    ("x_1", "anna", "", False): ["anna/x_1.mp4", "x_1.mp4"],
    ("anna_clip_0", "anna", "corpus/part/tape/clip.mp4", True): [
        "anna/clip_0.mp4",
        "part/tape/clip_0.mp4",
        "tape/clip_0.mp4",
        "anna/anna_clip_0.mp4",
        "anna_clip_0.mp4",
        "short-part/tape/clip_0.mp4",
        "short-part/tape/clip.mp4",
    ],
    ("anna_clip_1", "anna", "corpus/part/tape/clip.mp4", True): [
        "anna/clip_1.mp4",
        "part/tape/clip_1.mp4",
        "tape/clip_1.mp4",
        "anna/anna_clip_1.mp4",
        "anna_clip_1.mp4",
        "short-part/tape/clip_1.mp4",
    ],
    ("anna_clip_0", "anna", "tape/clip.mp4", True): [
        "anna/clip_0.mp4",
        "tape/clip_0.mp4",
        "anna/anna_clip_0.mp4",
        "anna_clip_0.mp4",
    ],
}


@pytest.mark.parametrize(("clip", "names"), CUT.items())
def test_crops_made_elsewhere_are_found_by_their_names(tmp_path, clip, names):
    """By the first of these that is there; names of other rules are no crops of this one."""
    utterance, speaker, video, segmented = clip
    others = [name for each in CUT.values() for name in each] + [".mp4", "clip.mp4"]
    for name in {*others} - {*names}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    # Without a word, the whole clip is meant.
    found = find_crop(tmp_path, utterance, speaker, video, *[True] * segmented)
    assert found == str(tmp_path / names[0])
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        found = find_crop(tmp_path, utterance, speaker, video, segmented)
        assert found == str(tmp_path / name)


def data_folder(data: Path, **tables: dict[str, str]) -> Path:
    """Its files are named with _ for a dot."""
    for name, table in tables.items():
        write_scp(data / name.replace("_", "."), table)
    return data


def test_the_clips_of_a_data_folder_and_what_it_lacks(tmp_path):
    data = data_folder(
        tmp_path / "data",
        utt2spk=dict.fromkeys(("a_1", "a_2", "a_3", "a_4"), "anna"),
        text={"a_1": "red", "a_2": "now", "a_3": "{NS} ...", "a_4": "set", "b_1": "red"},
        video_scp={"a_1": "1.mp4", "a_3": "3.mp4", "b_1": "b.mp4"},
        wav_scp={"a_1": "1.wav", "a_2": "2.wav"},
    )
    dump = tmp_path / "dump"
    clips, excluded = list_clips(data, dump, None, "wav")
    first = Clip(
        "a_1",
        "1.mp4",
        "1.wav",
        str(dump / "lips/anna/a_1.mp4"),
        str(dump / "audio/anna/a_1.wav"),
        None,
    )
    assert clips == [first]
    lacks = {
        "a_2": f"{data}: no video",
        "a_3": f"{data / 'text'}: no words",
        "a_4": f"{data}: no audio",
        "b_1": f"{data / 'utt2spk'}: no speaker",
    }
    assert excluded == lacks
    # Sound alone needs no video, and is that of the video where no other is named.
    clips, excluded = list_clips(data, dump, tmp_path / "crops", "flac", ["audio"])
    assert [(c.utterance, c.audio, c.lips_output, c.crop) for c in clips] == [
        ("a_1", "1.wav", "", None),
        ("a_2", "2.wav", "", None),
    ]
    assert clips[1].audio_output == str(dump / "audio/anna/a_2.flac")
    assert excluded == {name: lacks[name] for name in ("a_3", "a_4", "b_1")}
    # For crops that exist no video is needed.
    clips, excluded = list_clips(data, dump, tmp_path / "crops", "flac", ["video"])
    assert [(c.utterance, c.video, c.audio_output) for c in clips] == [
        ("a_1", "1.mp4", ""),
        ("a_2", "", ""),
        ("a_4", "", ""),
    ]
    assert [Path(c.crop).name for c in clips] == ["a_1.mp4", "a_2.mp4", "a_4.mp4"]
    assert excluded == {name: lacks[name] for name in ("a_3", "b_1")}
    (data / "wav.scp").unlink()
    (clip,), _ = list_clips(data, dump, None, "flac")
    assert (clip.video, clip.audio) == ("1.mp4", "1.mp4")


def test_a_data_folder_without_videos(tmp_path):
    data = data_folder(
        tmp_path / "data",
        utt2spk={"a_1": "anna"},
        text={"a_1": "red"},
        wav_scp={"a_1": "1.wav", "b_1": "b.wav"},
    )
    with pytest.raises(FileNotFoundError, match=r"video\.scp does not exist; run stage 1, or give"):
        list_clips(data, tmp_path, None, "flac")
    clips, excluded = list_clips(data, tmp_path, tmp_path / "crops", "flac")
    assert [clip.crop for clip in clips] == [str(tmp_path / "crops/anna/a_1.mp4")]
    assert list(excluded) == ["b_1"]
    assert len(list_clips(data, tmp_path, None, "flac", ["audio"])[0]) == 1


def test_the_segments_of_a_data_folder(tmp_path):
    """At 25 frames a second, of which times are whole numbers but for what is lost in binary."""
    assert (1.16 * 25, 2.28 * 25) == (28.999999999999996, 56.99999999999999)
    names = [f"anna_tape_{number}" for number in range(4)]
    spans = ("tape 0.00 0.80", "tape 1.16 2.28", "tape 1.00 1.01")
    data = data_folder(
        tmp_path / "data",
        utt2spk=dict.fromkeys(names, "anna"),
        text=dict.fromkeys(names, "red"),
        video_scp={"tape": "corpus/part/anna/tape.mp4", "anna_tape_3": "other.mp4"},
        segments=dict(zip(names, spans, strict=False)),
    )
    crop = tmp_path / "crops/short-part/anna/tape.mp4"
    crop.parent.mkdir(parents=True)
    crop.touch()
    clips, excluded = list_clips(data, tmp_path / "dump", tmp_path / "crops", "flac")
    assert [(c.utterance, c.video, c.span) for c in clips] == [
        ("anna_tape_0", "corpus/part/anna/tape.mp4", (0, 20)),
        ("anna_tape_1", "corpus/part/anna/tape.mp4", (29, 57)),
    ]
    assert [c.crop for c in clips] == [str(crop), str(tmp_path / "crops/anna/tape_1.mp4")]
    assert excluded == {
        "anna_tape_2": f"{data / 'segments'}: shorter than a frame",
        "anna_tape_3": f"{data / 'segments'}: no segment",
    }


def test_what_is_read_and_written_of_a_clip(tmp_path):
    """Not the video where a crop is there, and nothing of a stream that is not asked for."""
    tape = tmp_path / "tape.mp4"
    tape.write_bytes(b"12345")
    os.utime(tape, ns=(7, 7))
    one = Clip("a_1", str(tape), str(tape), "lips.mp4", "a.flac", None, (3, 25))
    assert (one.sources, one.outputs) == ([str(tape)] * 2, ["a.flac", "lips.mp4"])
    assert one.new_crop == "lips.mp4"
    assert one.made_from == f"{tape} 5 7, frames 3 to 25"
    cut = Clip("a_1", str(tape), "b.ark:12", "lips.mp4", "a.flac", "crop.mp4")
    assert (cut.sources, cut.outputs) == (["crop.mp4", "b.ark"], ["a.flac"])
    assert cut.new_crop == ""
    assert cut.made_from == "crop.mp4 absent, b.ark absent"
    heard = Clip("a_1", str(tape), "b.ark:12", "", "a.flac", None)
    assert (heard.sources, heard.outputs) == (["b.ark"], ["a.flac"])
    seen = Clip("a_1", str(tape), "b.ark:12", "lips.mp4", "", None)
    assert (seen.sources, seen.outputs) == ([str(tape)], ["lips.mp4"])


@pytest.fixture
def made(tmp_path) -> tuple[Path, list[Clip]]:
    """A dump folder with two clips of which everything is made, in both formats of sound."""
    clips = []
    for number in ("1", "2"):
        source = tmp_path / f"{number}.mp4"
        source.write_bytes(b"12345")
        lips, audio = (str(tmp_path / f"dump/{kind}/anna/a_{number}") for kind in ("lips", "audio"))
        for path in (f"{lips}.mp4", f"{audio}.flac", f"{audio}.wav"):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
        clip = Clip(f"a_{number}", str(source), str(source), f"{lips}.mp4", f"{audio}.wav", None)
        clips.append(clip)
    return tmp_path / "dump", clips


def files(dump: Path) -> set[str]:
    return {path.name for path in dump.glob("*/anna/*")}


def test_what_was_made_of_a_clip_by_any_run_is_known(made):
    dump, (clip, _) = made
    assert {path.name for path in made_of(clip, dump)} == {"a_1.mp4", "a_1.wav"}
    heard = Clip(clip.utterance, clip.video, clip.audio, "", clip.audio_output, None)
    assert {path.name for path in made_of(heard, dump)} == {"a_1.mp4", "a_1.wav"}
    seen = Clip(clip.utterance, clip.video, clip.audio, clip.lips_output, "", None)
    assert {path.name for path in made_of(seen, dump)} == {"a_1.mp4", "a_1.wav", "a_1.flac"}
    (dump / "audio/anna/a_1.wav").unlink()
    assert [path.name for path in made_of(heard, dump)] == ["a_1.mp4"]
    # A crop that somebody else made is not deleted.
    cut = Clip(clip.utterance, clip.video, clip.audio, clip.lips_output, "", clip.lips_output)
    assert [path.name for path in made_of(cut, dump)] == ["a_1.flac"]


def test_only_what_was_made_from_other_sources_is_deleted(made):
    dump, clips = made
    drop_changed(dump, clips, True)  # nothing says what they were made from
    assert files(dump) == {"a_1.flac", "a_2.flac"}
    assert read_scp(dump / "sources") == {clip.utterance: clip.made_from for clip in clips}
    for clip in clips:
        Path(clip.lips_output).touch()
    drop_changed(dump, clips, True)
    assert files(dump) == {"a_1.flac", "a_2.flac", "a_1.mp4", "a_2.mp4"}
    Path(clips[1].video).write_bytes(b"1234")
    drop_changed(dump, clips, True)
    assert files(dump) == {"a_1.flac", "a_2.flac", "a_1.mp4"}
    assert " 4 " in read_scp(dump / "sources")["a_2"]
    drop_changed(dump, clips, False)
    assert files(dump) == {"a_1.flac", "a_2.flac"}


def test_recordings_that_have_changed_since_are_told(made, capsys):
    dump, clips = made
    record = dump / "sources.sha256"
    look(dump, clips)
    before = record.read_text()
    drop_changed(dump, clips, True)
    look(dump, clips)
    assert (record.read_text(), capsys.readouterr().out) == (before, "")
    was = clips[1].made_from
    Path(clips[1].video).write_bytes(b"1234")
    look(dump, clips)
    now = f"was {was}, is {clips[1].made_from}. To make only these anew, delete {dump / '.done'}\n"
    assert capsys.readouterr().out == (
        f"{dump}: 1 of 2 clips were made from other files than there are now, such as a_2: {now}"
    )
    changed = record.read_text()
    assert changed != before
    # One of them may lack; where none is there, a disk is not mounted.
    Path(clips[0].video).unlink()
    look(dump, clips)
    lacking = record.read_text()
    assert lacking != changed
    assert "such as a_1: was" in capsys.readouterr().out
    Path(clips[1].video).unlink()
    look(dump, clips)
    assert record.read_text() == lacking
    assert "none of the recordings is there now" in capsys.readouterr().out
    record.unlink()
    look(dump, clips)
    assert record.is_file()


def test_a_repository_that_has_moved_has_the_same_recordings(tmp_path, monkeypatch):
    assert Path(__file__).resolve().parents[2] == sources.ROOT
    digests = []
    for place in ("here", "there"):
        root = tmp_path / place
        root.mkdir()
        (root / "1.mp4").write_bytes(b"12345")
        os.utime(root / "1.mp4", ns=(7, 7))
        monkeypatch.setattr(sources, "ROOT", root)
        path = str(root / "1.mp4")
        look(root, [Clip("a_1", path, path, str(root / "lips.mp4"), "", None)])
        digests.append((root / "sources.sha256").read_text())
    assert digests[0] == digests[1]
