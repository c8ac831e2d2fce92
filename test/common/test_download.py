"""mome.common.download and mome.bin.fetch_musan against a real HTTP server on this machine."""

import hashlib
import io
import tarfile
import threading
from http.server import ThreadingHTTPServer

import numpy as np
import pytest
from local_server import Handler

from mome.bin.fetch_musan import fetch_musan
from mome.common.download import download, unpack_tar

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.ranges, server.cuts, server.asked = {"/file": CONTENT}, True, [], []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, folder, names=("/file",), content=CONTENT, attempts=1):
    return download(
        [server.url + name for name in names],
        folder / "file",
        hashlib.sha256(content).hexdigest(),
        len(content),
        attempts=attempts,
        pause=0,
    )


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.cuts = [1_000_000]
    with pytest.raises(RuntimeError, match=r"1000000 of 3000000 bytes .* run the same command"):
        get(server, tmp_path)
    assert not (tmp_path / "file").exists()
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [("/file", None), ("/file", "bytes=1000000-")]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    get(server, tmp_path)
    assert len(server.asked) == 2


def test_broken_servers_are_tried_again_and_another_mirror_is_asked(server, tmp_path):
    server.cuts = [10, 1_000, 2_000_000]
    assert get(server, tmp_path, ["/nothing", "/file"], attempts=4).read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/nothing", "/file"] * 4
    assert server.asked[-1][1] == "bytes=2001010-"


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    server.ranges, server.cuts = False, [1_000_000]
    assert get(server, tmp_path, attempts=2).read_bytes() == CONTENT
    assert server.asked[1] == ("/file", "bytes=1000000-")


def test_a_complete_part_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == []


def test_wrong_content_is_refused_and_deleted(server, tmp_path):
    server.files["/file"] = CONTENT[::-1]
    with pytest.raises(ValueError, match=r"/file: .*SHA-256 is .* expected .* deleted already"):
        get(server, tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(ValueError, match="delete it and try again"):
        get(server, tmp_path)


def test_another_size_is_refused_before_the_transfer(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:100])
    server.files["/file"] = CONTENT + b"x"
    with pytest.raises(RuntimeError, match="offers 3000001 bytes in place of 3000000"):
        get(server, tmp_path)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:100]


def archive(entries: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in entries.items():
            if isinstance(content, tarfile.TarInfo):
                file.addfile(content)
            else:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                file.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


MALICIOUS = {
    "climbs": {"musan/a": b"1", "musan/../../evil": b"2"},
    "links out": {"musan/a": b"1", "link": link("musan/link", "../.."), "musan/link/evil": b"2"},
    "absolute link": {"link": link("musan/link", "/etc")},
    "device": {"musan/a": b"1", "device": tarfile.TarInfo("musan/device")},
}
MALICIOUS["device"]["device"].type = tarfile.CHRTYPE


@pytest.mark.parametrize("kind", MALICIOUS)
def test_malicious_archives_are_refused(tmp_path, kind):
    folder = tmp_path / "deep/downloads/musan"
    folder.mkdir(parents=True)
    (folder / "old").write_bytes(b"kept")
    path = folder.parent / "musan.tar.gz"
    path.write_bytes(archive(MALICIOUS[kind]))
    with pytest.raises(ValueError, match=r"musan\.tar\.gz could not be unpacked"):
        unpack_tar(path, "musan", folder)
    assert sorted(p for p in tmp_path.rglob("*") if not p.is_dir()) == [folder / "old", path]


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    good = archive({"musan/a": CONTENT})
    for content in (good[: len(good) // 2], b"<html>not here</html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="could not be unpacked"):
            unpack_tar(path, "musan", tmp_path / "musan")
    path.write_bytes(archive({"other/a": b"1"}))
    with pytest.raises(ValueError, match="does not contain the folder musan"):
        unpack_tar(path, "musan", tmp_path / "musan")
    assert list(tmp_path.iterdir()) == [path]


def test_musan_is_fetched_once(server, tmp_path):
    entries = {f"musan/{kind}/sub/{kind}-0.wav": kind.encode() for kind in ("noise", "music")}
    options = {}

    def serve(content):
        server.files["/musan.tar.gz"] = content
        options.update(sha256=hashlib.sha256(content).hexdigest(), size=len(content))

    urls = [server.url + "/musan.tar.gz"]
    serve(archive(entries))
    with pytest.raises(ValueError, match="has no folder speech"):
        fetch_musan(tmp_path, urls, **options)
    (tmp_path / "musan.tar.gz").unlink()
    serve(archive({**entries, "musan/speech/a.wav": b"speech"}))
    folder = fetch_musan(tmp_path, urls, **options)
    assert (folder / "music/sub/music-0.wav").read_bytes() == b"music"
    asked = len(server.asked)
    assert fetch_musan(tmp_path, urls, **options) == folder == tmp_path / "musan"
    assert len(server.asked) == asked
    assert sorted(p.name for p in tmp_path.iterdir()) == [".musan.done", "musan"]
