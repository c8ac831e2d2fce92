"""Files and folders that are complete or not there."""

import pytest

from mome.common.atomic_files import replacing


def write(path, content, folder):
    if folder:
        path.mkdir()
        (path / content).touch()
    else:
        path.write_text(content)


def write_half(path, folder):
    write(path, "damaged", folder)
    raise ValueError("half")


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_written_completely_replaces_what_was_there(tmp_path, folder):
    path = tmp_path / "below/it"
    for content in ("old", "new"):
        with replacing(path) as partial:
            write(partial, content, folder)
    if folder:
        assert [each.name for each in path.iterdir()] == ["new"]
    else:
        assert path.read_text() == "new"
    with pytest.raises(ValueError, match="half"), replacing(path) as partial:
        write_half(partial, folder)
    assert list(path.parent.iterdir()) == [path]
    assert (path / "new").exists() if folder else path.read_text() == "new"


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_process_has_left_is_deleted(tmp_path, folder):
    write(tmp_path / ".it.tmp", "damaged", folder)
    with replacing(tmp_path / "it") as partial:
        write(partial, "new", folder)
    assert [path.name for path in tmp_path.iterdir()] == ["it"]
    assert not (tmp_path / "it/damaged").exists()
