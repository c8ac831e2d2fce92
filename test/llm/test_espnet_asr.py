"""``decoder: mome_llm`` in ESPnet's own ASR task."""

import numpy as np
import soundfile
import torch
import yaml
from espnet2.tasks.asr import ASRTask

import mome.tasks.asr  # noqa: F401 - registers mome_llm
from mome.llm.decoder import MoMELLMDecoder


def test_a_stock_asr_configuration_trains_one_step(tmp_path, tiny_lm):
    rng = np.random.default_rng(0)
    texts = {"a": "place blue", "b": "set red now"}
    for utterance in texts:
        soundfile.write(tmp_path / f"{utterance}.wav", 0.1 * rng.standard_normal(16000), 16000)
    wavs = "".join(f"{u} {tmp_path / u}.wav\n" for u in texts)
    (tmp_path / "wav.scp").write_text(wavs)
    (tmp_path / "text").write_text("".join(f"{u} {t}\n" for u, t in texts.items()))
    (tmp_path / "shape").write_text("a 16000\nb 16000\n")
    words = ["<blank>", "<unk>", "place", "blue", "set", "red", "now", "<sos/eos>"]
    (tmp_path / "tokens").write_text("".join(f"{word}\n" for word in words))
    config = {
        "frontend_conf": {"n_fft": 512, "hop_length": 160},
        "encoder": "transformer",
        "encoder_conf": {"output_size": 16, "attention_heads": 2, "linear_units": 32}
        | {"num_blocks": 1},
        "decoder": "mome_llm",
        "decoder_conf": {
            "lm": str(tiny_lm),
            "adapter_conf": {"num_routed": 3, "top_k": 2, "bottleneck": 2},
        },
        # ESPnet scores CTC with the package editdistance, which it does not itself require.
        "model_conf": {"ctc_weight": 0.3, "lsm_weight": 0.1, "report_cer": False}
        | {"report_wer": False},
        "optim": "adam",
        "optim_conf": {"lr": 0.01},
        "token_type": "word",
        "token_list": str(tmp_path / "tokens"),
        "batch_type": "sorted",
        "batch_size": 2,
        "max_epoch": 1,
        "num_iters_per_epoch": 1,
        "num_workers": 0,
        "num_att_plot": 0,
        "use_tensorboard": False,
        "use_matplotlib": False,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--config", str(tmp_path / "config.yaml"), "--output_dir", str(tmp_path / "exp")]
    for phase in ("train", "valid"):
        arguments += [f"--{phase}_data_path_and_name_and_type", f"{tmp_path}/wav.scp,speech,sound"]
        arguments += [f"--{phase}_data_path_and_name_and_type", f"{tmp_path}/text,text,text"]
        arguments += [f"--{phase}_shape_file", str(tmp_path / "shape")]
    ASRTask.main(cmd=arguments)
    states = torch.load(tmp_path / "exp/1epoch.pth", weights_only=True)
    ups = [tensor for name, tensor in states.items() if name.endswith("up.weight")]
    assert len(ups) == 2
    assert all(bool(up.abs().sum() > 0) for up in ups)  # zero at first: the step reached them
    assert not [name for name in states if "lm." in name]
    model, _ = ASRTask.build_model_from_file(
        str(tmp_path / "exp/config.yaml"), str(tmp_path / "exp/1epoch.pth"), "cpu"
    )
    assert isinstance(model.decoder, MoMELLMDecoder)
