"""``mome-pack --push_to`` against a hub of this machine, by the hub's own client."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from local_hub import TOKEN, LocalHub, running_hub

from mome.bin import pack
from mome.tasks.packed import load_packed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def options(single, dump, tmp_path) -> list[str]:
    """What packs a tiny model and uploads it."""
    words = ["--expdir", single, "--dump", dump, "--weights", "model.pth", "--beam", "1"]
    words += ["--trained_on", "noise", "--push_to", "me/my-model"]
    return [str(word) for word in (*words, "--output", tmp_path / "packed.zip")]


@pytest.fixture
def hub_is(monkeypatch):
    """Lets the hub's client in this process know another hub, as the environment would at start."""

    def change(endpoint: str, token: str = TOKEN) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", token)

    return change


def contents(packed: Path) -> dict[str, bytes]:
    """The files of a packed model by name."""
    if packed.is_dir():
        return {path.name: path.read_bytes() for path in packed.iterdir()}
    with zipfile.ZipFile(packed) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_arrived(hub: LocalHub, packed: Path, folder: Path) -> None:
    """See that the hub has all files of a packed model, and that they make one again."""
    assert hub.repositories == {"me/my-model": True}
    sent = contents(packed)
    weights = {"model.safetensors", "video_encoder.safetensors"}
    assert set(sent) == {"README.md", "config.yaml", "mome.json"} | weights
    assert hub.files == sent
    assert len(hub.objects) == 2  # the weights went as large files
    folder.mkdir()
    for file, content in hub.files.items():
        (folder / file).write_bytes(content)
    load_packed(folder)


def test_every_file_arrives_as_it_is(options, hub: LocalHub, tmp_path):
    command = [sys.executable, "-m", "mome.bin.pack", *options]
    # The stand-in takes large files by Git LFS, and knows nothing of Xet's chunks.
    client = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf"), **client}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "uploaded to me/my-model; it is private" in done.stdout
    check_arrived(hub, tmp_path / "packed.zip", tmp_path / "arrived")


def test_a_folder_arrives_too(options, hub: LocalHub, hub_is, tmp_path):
    hub_is(hub.url)
    pack.main([*options, "--output", str(tmp_path / "folder")])
    check_arrived(hub, tmp_path / "folder", tmp_path / "arrived")


def test_a_card_that_is_as_it_was_is_uploaded_too(options, hub: LocalHub, hub_is, tmp_path):
    """As after an upload that failed."""
    place = options.index("--push_to")
    pack.main(options[:place] + options[place + 2 :])
    assert hub.repositories == {}
    hub_is(hub.url)
    pack.main([*options, "--card_only"])
    check_arrived(hub, tmp_path / "packed.zip", tmp_path / "arrived")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("token", "the hub does not let you write there: hf auth login"),
        ("hub", "127.0.0.1:9: [Errno 111] Connection refused: check the network and its proxy"),
        ("commit", "500"),
    ],
)
def test_what_is_packed_stays_if_it_cannot_be_uploaded(
    options, hub: LocalHub, hub_is, tmp_path, what, message
):
    output = tmp_path / "packed.zip"
    # Nobody listens on port 9.
    endpoint = "http://127.0.0.1:9" if what == "hub" else hub.url
    hub_is(endpoint, "hf_of_somebody_else" if what == "token" else TOKEN)
    if what == "commit":
        hub.fails["/api/models/me/my-model/commit"] = 500
    with pytest.raises(SystemExit) as stop:
        pack.main(options)
    said = str(stop.value)
    assert said.startswith(f"mome-pack: {output} is packed, but not uploaded to me/my-model (")
    assert message in said
    folder = tmp_path / "packed"
    assert said.endswith(f"unzip {output} -d {folder} && hf upload me/my-model {folder} .")
    assert "\n" not in said
    assert hub.files == {}
    load_packed(output)


def test_what_cannot_be_packed_is_not_uploaded(options, hub: LocalHub, hub_is, tmp_path, single):
    hub_is(hub.url)
    shutil.copytree(single, tmp_path / "exp")
    (tmp_path / "exp" / "cut.pth").write_bytes((single / "model.pth").read_bytes()[:1000])
    for changes, message in [
        (["--weights", "other.pth"], r"other\.pth does not exist"),
        (["--weights", "cut.pth"], r"cut\.pth is no checkpoint \(.*\); name one by --weights"),
        (["--push_to", "me/my/model"], "Repo id must"),
    ]:
        more = ["--expdir", str(tmp_path / "exp"), *changes]
        with pytest.raises(SystemExit, match=f"^mome-pack: .*{message}"):
            pack.main([*options, *more])
    assert hub.repositories == {}
    assert not (tmp_path / "packed.zip").exists()
