"""Fixtures that several test files share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "egs/mini_av/local"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from tiny import make_lm, make_whisper
from tiny_training import make_training

from mome.adapters.base import ADAPTERS
from mome.adapters.routers import GATES, ROUTERS
from mome.encoders.base import AUDIO_ENCODERS, VIDEO_ENCODERS

# The files that take longest: no process is to be left alone with one of them at the end.
FIRST = ("test_recipe.py", "recipes", "test_lrs.py", "test_package.py", "test_random_kills.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: min(places.get(part, len(FIRST)) for part in item.path.parts))


@pytest.fixture(autouse=True)
def registered_for_one_test():
    """Take out what a test has registered, and the modules that did, as they go with a process."""
    parts = (ADAPTERS, GATES, ROUTERS, AUDIO_ENCODERS, VIDEO_ENCODERS)
    before = [dict(registry) for registry in parts]
    loaded = set(sys.modules)
    yield
    for registry, entries in zip(parts, before, strict=True):
        for entry in [value for name, value in registry.items() if name not in entries]:
            if entry.__module__ not in loaded and not entry.__module__.startswith("mome."):
                sys.modules.pop(entry.__module__, None)
        registry.clear()
        registry.update(entries)


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory) -> str:
    """Folder of a tiny random Llama with its tokenizer."""
    return str(make_lm(tmp_path_factory.mktemp("lm")))


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory) -> str:
    """Folder of a tiny random Whisper."""
    return str(make_whisper(tmp_path_factory.mktemp("whisper")))


@pytest.fixture(scope="session")
def training(tmp_path_factory, tiny_lm, tiny_whisper):
    """What stage 4 leaves: a configuration and a checkpoint, and beside them a lip encoder."""
    return make_training(tmp_path_factory.mktemp("training"), tiny_lm, tiny_whisper)


@pytest.fixture(scope="session")
def tiny_downloads(tmp_path_factory, tiny_lm, tiny_whisper) -> Path:
    """A folder with the frozen parts of the tiny model, as $MOME_DOWNLOADS names one."""
    folder = tmp_path_factory.mktemp("downloads")
    for part in map(Path, (tiny_lm, tiny_whisper)):
        (folder / part.name).symlink_to(part)
    return folder
