"""Write what tools/test_wheel.sh tries an installation with into a folder.

A tiny packed model with its frozen parts and a recording of noise; the example of docs/adapters.md
with a text for it.
"""

import re
import sys
from pathlib import Path

import numpy as np
import soundfile
from tiny import make_lm, make_whisper
from tiny_training import make_training

from mome.tasks.packed import pack

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Write it."""
    folder = Path(sys.argv[1])
    lm = make_lm(folder / "downloads/lm")
    whisper = make_whisper(folder / "downloads/whisper")
    training = make_training(folder / "training", str(lm), str(whisper))
    info = {"trained_on": "nothing", "max_seconds": 4.0}
    pack(training / "config.yaml", training / "model.pth", folder / "tiny.zip", info, "")
    noise = np.random.default_rng(0).normal(0, 0.1, 32000)
    soundfile.write(folder / "noise.wav", noise, 16000)
    page = (ROOT / "docs/adapters.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n# adapt\.py\n(.*?)```", page, flags=re.DOTALL)
    (folder / "adapt.py").write_text(code, encoding="utf-8")
    (folder / "notes.txt").write_text("place red now set blue again lay green soon " * 40)


if __name__ == "__main__":
    main()
