"""mome.common.text_files, and the recipe that a new corpus starts from."""

import importlib.util
from pathlib import Path

import pytest

from mome.common.text_files import read_text

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_name_themselves(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("größer\r\n".encode(encoding))
    assert read_text(path) == "größer\r\n"


def test_other_encodings_are_an_error_or_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8"):
        read_text(path)
    assert read_text(path, otherwise="latin-1") == "café"
    path.write_bytes(b"\xff\xfea")  # UTF-16 with half a character
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8"):
        read_text(path, otherwise="latin-1")


def test_joined_files_keep_no_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n")
    assert read_text(path) == "one\ntwo\n"


def test_a_new_recipe_reads_texts_with_a_mark(tmp_path):
    file = ROOT / "egs/TEMPLATE/recipe/local/data.py"
    spec = importlib.util.spec_from_file_location("new_recipe", file)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    folder = tmp_path / "train/anna"
    folder.mkdir(parents=True)
    (folder / "1.mp4").touch()
    (folder / "1.txt").write_bytes("\ufeffplace  red\r\n".encode())
    assert recipe.utterances(tmp_path, "train", 1)[0]["anna-1"][2] == "place red"
