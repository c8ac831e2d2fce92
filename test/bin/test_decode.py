"""mome.bin.decode and mome.bin.merge_decoding: what is decoded knows its settings."""

import json
from pathlib import Path

import pytest

from mome.bin.decode import check_decoded
from mome.bin.merge_decoding import merge
from mome.common.marks import OtherSettings
from mome.data import test_sets as sets

SETTINGS = {"weights": "0" * 64, "beam": 2, "max_new_tokens": 8, "length_penalty": 0.0}
COPY = sets.noisy("test", "babble", 0)


def decoded(folder: Path, dump: Path, text: str = "a x\nb y\n", **changes) -> Path:
    """A decoded condition."""
    folder.mkdir(parents=True)
    test_set = sets.settings_of(dump, folder.parent.name)
    how = {"settings": {**SETTINGS, "test_set": test_set, **changes}, "seconds": 1.0}
    how |= {"reference": str(dump / "text"), "command": "decode --part 1/2", "unfinished": 1}
    (folder / "decode.json").write_text(json.dumps(how))
    (folder / "text").write_text(text)
    return folder


def test_other_settings_of_any_condition_are_refused(tmp_path):
    sets.add_to_list(tmp_path, {COPY: {"seed": 0}})
    same = decoded(tmp_path / "decode/avsr/test/a4_v2", tmp_path)
    copy = decoded(tmp_path / f"decode/avsr/{COPY.name}/a4_v2", tmp_path)
    check_decoded(tmp_path / "decode", SETTINGS, tmp_path, force=False)
    with pytest.raises(OtherSettings, match=r"beam: was 2, is 5\nKeep it and give another --dec"):
        check_decoded(tmp_path / "decode", SETTINGS | {"beam": 5}, tmp_path, force=False)
    sets.add_to_list(tmp_path, {COPY: {"seed": 1}})
    with pytest.raises(OtherSettings, match=r'test_set: was \{"seed": 0\}, is \{"seed": 1\}'):
        check_decoded(tmp_path / "decode", SETTINGS, tmp_path, force=False)
    check_decoded(tmp_path / "decode", SETTINGS, tmp_path, force=True)
    assert same.exists()
    assert not copy.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"beam": 2}'])
def test_what_does_not_say_its_settings_is_decoded_again(tmp_path, caplog, content):
    folder = decoded(tmp_path / "decode/avsr/test/a4_v2", tmp_path)
    (folder / "decode.json").write_text(content)
    check_decoded(tmp_path / "decode", SETTINGS, tmp_path, force=False)
    assert "test/a4_v2 does not say how it was decoded: it counts as not done" in caplog.text
    assert not folder.exists()


def test_parts_are_merged_if_their_settings_agree(tmp_path):
    (tmp_path / "text").write_text("a x\nb y\n")
    parts = [
        decoded(tmp_path / f"split2/{n}/avsr/test/a4", tmp_path, text, **changes)
        for n, text, changes in ((1, "a x\n", {}), (2, "b y\n", {}), (3, "b y\n", {"beam": 5}))
    ]
    with pytest.raises(ValueError, match="was decoded with other settings than"):
        merge([parts[0], parts[2]], tmp_path / "bad")
    assert merge(parts[:2], tmp_path / "merged") == 2
    how = json.loads((tmp_path / "merged/decode.json").read_text())
    assert how["settings"]["beam"] == 2
    assert how["seconds"] == 2.0
    assert how["unfinished"] == 2
