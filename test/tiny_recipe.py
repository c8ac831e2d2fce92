"""egs/mini_av on a handful of clips, with tiny random models."""

from pathlib import Path

import yaml

RECIPE = Path(__file__).parents[1] / "egs/mini_av"


def options(folder: Path, lm: str, whisper: str) -> list[str]:
    """Options of run.sh that do all stages in a folder, in which the configurations are written."""
    train = yaml.safe_load((RECIPE / "conf/train.yaml").read_text())
    train["decoder_conf"]["adapter_conf"] |= {"num_routed": 3, "top_k": 2, "bottleneck": 2}
    video = yaml.safe_load((RECIPE / "conf/video_encoder.yaml").read_text())
    video["video_encoder_conf"] = {"width": 4, "output_size": 16, "layers": 1, "heads": 2}
    video["model_conf"]["num_units"] = 4
    projectors = yaml.safe_load((RECIPE / "conf/projectors.yaml").read_text())
    for name, conf in (("train", train), ("projectors", projectors), ("video_encoder", video)):
        conf |= {"max_epoch": 1, "num_iters_per_epoch": 3, "batch_size": 2, "valid_batch_size": 2}
        # The tiny encoder's shape; avsr.sh names its weights.
        conf["video_encoder_conf"] = video["video_encoder_conf"]
        if name != "video_encoder":
            conf["decoder_conf"]["lm_dtype"] = conf["audio_encoder_conf"]["dtype"] = "float32"
        if name == "train":
            conf["best_model_criterion"].append(["valid", "epoch", "max"])
            conf["keep_nbest_models"] = 2
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(conf))
    options: list[object] = ["--datadir", folder / "data", "--dumpdir", folder / "dump"]
    options += ["--nj", "2"]
    options += ["--expdir", folder / "exp", "--corpus", folder / "corpus"]
    options += ["--lm", lm, "--audio_model", whisper, "--tasks", "avsr asr vsr"]
    options += ["--train_config", folder / "train.yaml", "--snrs", "-5 10", "--beam", "2"]
    options += ["--video_config", folder / "video_encoder.yaml", "--units_opts", "--num_units 4"]
    options += ["--projector_config", folder / "projectors.yaml"]
    options += ["--download_opts", "--num_train 8 --num_valid 2 --num_test 3"]
    options += ["--decode_opts", "--max_new_tokens 4", "--corruptions", "drop"]
    options += ["--corrupt_sets", "test test_babble_snr-5"]
    return [str(option) for option in options]
