"""mome-prune-experts: what a trained model hardly selects is left out, the rest stays as it was."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from mome.bin.prune_experts import main
from mome.data.audio import write_flac
from mome.data.kaldi import write_scp
from mome.tasks.avsr import load_model

CLIPS = 3
UNASKED = 2  # the expert that no token of any layer goes to


@pytest.fixture
def model(training, tmp_path):
    """A model for hearing, of five routed experts of which each token selects two."""
    folder = tmp_path / "exp/mome"
    shutil.copytree(training, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"use_preprocessor": True}
    config["model_conf"]["tasks"] = ["asr"]
    config["decoder_conf"]["adapter_conf"]["top_k"] = 2
    config["decoder_conf"]["lm_dtype"] = "float32"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    state = torch.load(folder / "model.pth")
    state = {name: tensor for name, tensor in state.items() if "video" not in name}
    for name, tensor in state.items():
        if name.endswith("router.bias"):
            tensor[UNASKED] = -100.0
    torch.save(state, folder / "model.pth")
    return folder


@pytest.fixture
def data(tmp_path):
    """Clips that are heard."""
    folder = tmp_path / "dump/valid"
    rng = np.random.default_rng(0)
    wavs = {f"u{number}": folder / f"{number}.flac" for number in range(CLIPS)}
    for wav in wavs.values():
        write_flac(wav, rng.normal(0, 0.1, 16000).astype(np.float32))
    write_scp(folder / "wav.scp", wavs)
    write_scp(folder / "text", dict.fromkeys(wavs, "place red now"))
    return folder


def prune(model, data, output, *further):
    words = ["--expdir", model, "--weights", "model.pth", "--data", data, "--output", output]
    main([str(word) for word in (*words, *further)])


def test_an_expert_that_nobody_asks_can_go(model, data, tmp_path, capsys):
    output = tmp_path / "exp/fewer"
    prune(model, data, output, "--keep", 4)
    what = json.loads((output / "pruned.json").read_text())
    assert what["kept"] == [[0, 1, 3, 4]] * len(what["kept"])
    assert what["lost_share"] == [0.0] * len(what["kept"])
    layers = len(what["kept"])
    assert f"{5 * layers} of {6 * layers} experts are left" in capsys.readouterr().out
    # Without it the model predicts what it predicted.
    losses = []
    for folder in (model, output):
        loaded, _ = load_model(folder / "config.yaml", folder / "model.pth")
        assert loaded.decoder.adapter.experts[0].num_routed == (5 if folder == model else 4)
        with torch.inference_mode():
            speech = torch.sin(torch.arange(16000) * 0.05)[None]
            features = loaded.encode(speech, torch.tensor([16000]))
            text, lengths = torch.tensor([[7, 8, 9]]), torch.tensor([3])
            _, stats = loaded.loss(features, text, lengths, loaded.task_pairs)
        losses.append([float(stats[f"loss_asr_{pair}"]) for pair in ("a4", "a16")])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_what_cannot_be_pruned_is_refused(model, data, tmp_path):
    for keep, said in ((1, "at least top_k=2"), (5, "below the 5 routed experts")):
        with pytest.raises(SystemExit, match=said):
            prune(model, data, tmp_path / "fewer", "--keep", keep)
    with pytest.raises(SystemExit, match="is there; name a new folder"):
        prune(model, data, model, "--keep", 4)
    with pytest.raises(SystemExit, match=r"other\.pth does not exist; train the model first"):
        prune(model, data, tmp_path / "fewer", "--keep", 4, "--weights", "other.pth")
    (data / "wav.scp").unlink()
    with pytest.raises(SystemExit, match=r"wav\.scp: no speech for"):
        prune(model, data, tmp_path / "fewer", "--keep", 4)
    assert not (tmp_path / "fewer").exists()
