"""What anyone can ask of the page's server without its page."""

import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import free_port

from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber

pytest.importorskip("gradio", reason="the page needs Gradio: pip install '.[demo]'")

import gradio as gr
import httpx
import safehttpx

from mome.demo import page
from mome.demo.reading import SHAPED

OUTSIDE = "http://mome.example/clip.mp4"


@pytest.fixture
def outside(monkeypatch) -> list[str]:
    """Names that were resolved and addresses that were asked, of which none is reached."""
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def record_name(host, *args, **kwargs):
        if host in ("127.0.0.1", "localhost", None):
            return resolve(host, *args, **kwargs)
        asked.append(str(host))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))]

    async def record_request(_, request):
        asked.append(str(request.url))
        raise httpx.ConnectError("no way out of the test")

    monkeypatch.setattr(socket, "getaddrinfo", record_name)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", record_request)
    # What the page replaces is as before for other tests.
    for name in ("get", "async_validate_url"):
        monkeypatch.setattr(safehttpx, name, getattr(safehttpx, name))
    return asked


@pytest.fixture
def transcribe(packed) -> Transcriber:
    return Transcriber.load(packed)


@pytest.fixture
def shown(transcribe, outside) -> Iterator[tuple[gr.Blocks, httpx.Client]]:
    """The page, and a client of its server."""
    demo = page.Demo(transcribe, Options(beam=1, max_new_tokens=4), {SHAPED: []})
    blocks, address = page.launch(demo, "127.0.0.1", free_port())
    try:
        with httpx.Client(base_url=f"{address}gradio_api", timeout=60) as client:
            yield blocks, client
    finally:
        blocks.close(verbose=False)


def event_of(blocks: gr.Blocks, kind: str) -> int:
    """Number of the event that happens to a component, such as ``file`` or ``video``."""
    dependencies = blocks.get_config_file()["dependencies"]
    (number,) = (
        each["id"]
        for each in dependencies
        for target, _ in each["targets"]
        if target is not None and blocks.blocks[target].get_block_name() == kind
    )
    return number


def join(client: httpx.Client, event: int, data: list, session: str) -> None:
    body = {"fn_index": event, "data": data, "session_hash": session}
    assert client.post("/queue/join", json=body).status_code == 200


def results(client: httpx.Client, session: str, count: int) -> list[dict]:
    """What the first events of a session came to, in the order in which they ended."""
    ended = []
    with client.stream("GET", "/queue/data", params={"session_hash": session}) as response:
        for line in response.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if message.get("msg") == "process_completed":
                ended.append(message)
            if len(ended) == count:
                return ended
    return ended


def file_data(path: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_no_address_is_fetched(shown, outside):
    blocks, client = shown
    session = secrets.token_hex(8)
    for kind in ("file", "video"):
        join(client, event_of(blocks, kind), [file_data(OUTSIDE)], session)
    # Other components than those of files take files, too.
    join(client, event_of(blocks, "button"), [None, file_data(OUTSIDE), SHAPED], session)
    failed = results(client, session, 3)
    assert [each["success"] for each in failed] == [False] * 3
    assert {each["output"]["error"] for each in failed} == {
        "Addresses are not fetched: send the file itself"
    }
    for address in (OUTSIDE, "https://huggingface.co/robots.txt"):
        assert client.get(f"/file={address}").status_code == 403
    assert outside == []


def upload(client: httpx.Client, path: Path) -> dict:
    (stored,) = client.post("/upload", files={"files": (path.name, path.read_bytes())}).json()
    return file_data(stored)


def test_a_recording_that_comes_while_another_is_read_is_read_next(shown, clips):
    blocks, client = shown
    events = {each["id"]: each for each in blocks.get_config_file()["dependencies"]}
    for kind in ("file", "video"):
        # The page in the browser drops further events of those that it sends once.
        assert events[event_of(blocks, kind)]["trigger_mode"] == "multiple"
    session = secrets.token_hex(8)
    names = ["silent.mp4", "sound.wav"]
    uploads = [upload(client, clips / name) for name in names]
    for each in uploads:
        join(client, event_of(blocks, "file"), [each], session)
    join(client, event_of(blocks, "button"), [None, page.CLEAN, SHAPED], session)
    *read, transcripts = results(client, session, 3)
    for name, each in zip(names, read, strict=True):
        assert f"{name}: " in each["output"]["data"][1]
    assert 'data-task="asr"' in transcripts["output"]["data"][0]
    assert 'data-task="vsr"' not in transcripts["output"]["data"][0]
    assert not any(Path(each["path"]).exists() for each in uploads)
