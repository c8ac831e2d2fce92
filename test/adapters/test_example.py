"""The examples of docs/adapters.md and README.md, run as they stand, outside this checkout."""

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
    """The code of docs/adapters.md."""
    text = (ROOT / "docs/adapters.md").read_text()
    (code,) = re.findall(r"```python\n# adapt\.py\n(.*?)```", text, flags=re.S)
    return code


def run(code: str, name: str, folder: Path, *arguments: str) -> str:
    """What a script says that is run in a folder."""
    (folder / name).write_text(code)
    done = subprocess.run(
        [sys.executable, name, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_has_thirty_lines():
    assert len([line for line in example().splitlines() if line.strip()]) <= 30


@pytest.mark.parametrize("config", [LlamaConfig, GPTNeoXConfig])
def test_a_text_is_learned_and_the_adapter_can_be_loaded(tmp_path, config):
    lm = make_lm(tmp_path / "lm", config_class=config)
    (tmp_path / "notes.txt").write_text("place red now set blue again lay green soon " * 40)
    said = run(example(), "adapt.py", tmp_path, "lm", "notes.txt", "notes.pt", "8")
    before, after = map(float, re.findall(r"loss ([\d.]+) without, ([\d.]+) with", said)[0])
    assert after < 0.95 * before
    shares = [float(share) for share in said.split("[")[1].rstrip("]\n").split(", ")]
    assert len(shares) == CONF["num_routed"]
    assert sum(shares) == pytest.approx(CONF["top_k"], abs=1e-4)
    again = mome.attach(AutoModelForCausalLM.from_pretrained(lm), "mome", CONF)
    assert again is not None
    again.load_state_dict(torch.load(tmp_path / "notes.pt", weights_only=True))


def count(layers: int, dim: int) -> tuple[int, int]:
    """Trained and active parameters of MoME-23/4 with a shared expert and 12 units, by hand."""
    expert = dim * 12 + 12 + 12 * dim + dim
    router = dim * 23 + 23
    return layers * (24 * expert + router), layers * (5 * expert + router)


def test_the_examples_of_the_readme_run(tmp_path):
    # A folder here is taken before a model of the same name on the hub.
    make_lm(tmp_path / "HuggingFaceTB/SmolLM2-135M-Instruct", num_hidden_layers=2, hidden_size=32)
    codes = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert codes
    for code in codes:
        said = run(code, "example.py", tmp_path)
        assert said == "{1:,} of {0:,} are active\n".format(*count(layers=2, dim=32))
        # What the page shows is of the real LM.
        assert "# {1:,} of {0:,} are active\n".format(*count(layers=30, dim=576)) in code
