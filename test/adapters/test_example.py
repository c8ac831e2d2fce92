"""The example of docs/adapters.md, run as it stands, outside this checkout."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import make_lm
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

import mome

ROOT = Path(__file__).parents[2]
CONF = {"num_routed": 7, "num_shared": 1, "bottleneck": 16, "top_k": 2}


def example() -> str:
    """The code of the document."""
    text = (ROOT / "docs/adapters.md").read_text()
    (code,) = re.findall(r"```python\n# adapt\.py\n(.*?)```", text, flags=re.S)
    return code


def test_it_has_thirty_lines():
    assert len([line for line in example().splitlines() if line.strip()]) <= 30


@pytest.mark.parametrize("config", [LlamaConfig, GPTNeoXConfig])
def test_a_text_is_learned_and_the_adapter_can_be_loaded(tmp_path, config):
    lm = make_lm(tmp_path / "lm", config_class=config)
    (tmp_path / "adapt.py").write_text(example())
    (tmp_path / "notes.txt").write_text("place red now set blue again lay green soon " * 40)
    command = [sys.executable, "adapt.py", "lm", "notes.txt", "notes.pt", "8"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = map(float, re.findall(r"loss ([\d.]+) without, ([\d.]+) with", done.stdout)[0])
    assert after < 0.95 * before
    shares = [float(share) for share in done.stdout.split("[")[1].rstrip("]\n").split(", ")]
    assert len(shares) == CONF["num_routed"]
    assert sum(shares) == pytest.approx(CONF["top_k"], abs=1e-4)
    again = mome.attach(AutoModelForCausalLM.from_pretrained(lm), "mome", CONF)
    assert again is not None
    again.load_state_dict(torch.load(tmp_path / "notes.pt", weights_only=True))
