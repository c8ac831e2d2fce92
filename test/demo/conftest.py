"""A tiny packed model and recordings for the page."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media import talking_head, write_clip

from mome.tasks.packed import pack

FETCHED = Path(os.environ.get("MOME_DOWNLOADS", Path(__file__).parents[2] / "downloads"))
ROWS = [
    {
        "task": task,
        "rates": rates,
        "wer": wer,
        "seconds_per_second": 0.5,
        "tflops_per_second": 0.1,
    }
    for task, rates, wer in [("avsr", "a4_v2", 1.5), ("asr", "a4", 2.5), ("vsr", "v2", 62.5)]
]
INFO = {
    "trained_on": "nothing <at all>",
    "max_seconds": 4.0,
    "training_hours": 0.25,
    "rates": ROWS,
    "measured": "no clip",
}


@pytest.fixture(scope="module", autouse=True)
def downloads(tmp_path_factory, tiny_downloads):
    """$MOME_DOWNLOADS names a folder of the model's frozen parts, and of the landmark models."""
    folder = tmp_path_factory.mktemp("downloads")
    for part in (*tiny_downloads.iterdir(), FETCHED / "dlib", FETCHED / "mediapipe"):
        (folder / part.name).symlink_to(part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOME_DOWNLOADS", str(folder))
        yield


@pytest.fixture(scope="session")
def packed(tmp_path_factory, training) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    return pack(training / "config.yaml", training / "model.pth", folder / "p.zip", INFO, "")


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """Recordings of two seconds: a head with sound, without; sound alone; no face; no recording."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 1e-4, 32000)
    speech[8000:24000] = rng.normal(0, 0.1, 16000)
    head = talking_head(50, 160)
    write_clip(folder / "both.mp4", head, samples=speech)
    write_clip(folder / "silent.mp4", head, audio=False)
    write_clip(folder / "faceless.mp4", num_frames=50, samples=speech)
    soundfile.write(folder / "sound.wav", speech, 16000)
    (folder / "notes ${1}{{x}}.txt").write_text("no recording")
    return folder
