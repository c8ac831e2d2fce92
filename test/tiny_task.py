"""A corpus of eight utterances and the options that train a tiny model on it."""

from pathlib import Path

import numpy as np
import yaml

from mome.data.audio import write_flac
from mome.data.kaldi import write_scp
from mome.data.video import write_lips

ROOT = Path(__file__).parents[1]
# Unequal on purpose: the processes of a batch then have different numbers of tokens and frames.
SENTENCES = [
    "place red",
    "set blue at one two now again soon please",
    "bin white",
    "lay green by now",
] + ["set the book", "cup", "lay the blue cup again and place the red book now", "table now please"]
SHAPES = (12, 40, 15, 25, 20, 10, 45, 30)


def write_set(folder: Path) -> None:
    """A dump folder of eight utterances of noise."""
    rng = np.random.default_rng(0)
    (folder / "media").mkdir(parents=True)
    tables: dict[str, dict[str, object]] = {"wav.scp": {}, "lip.scp": {}, "text": {}}
    tables["utt2num_frames"] = {}
    for number, (sentence, frames) in enumerate(zip(SENTENCES, SHAPES, strict=True)):
        name = f"a_{number}"
        wav, lips = folder / f"media/{name}.flac", folder / f"media/{name}.mp4"
        write_flac(wav, rng.normal(0, 0.1, frames * 640).astype(np.float32))
        write_lips(lips, rng.integers(0, 255, (frames, 96, 96), dtype=np.uint8))
        values = (wav, lips, sentence, frames)
        for table, value in zip(tables.values(), values, strict=True):
            table[name] = value
    for name, table in tables.items():
        write_scp(folder / name, table)


def trainer_options(folder: Path, lm: str, whisper: str) -> list[str]:
    """Options of the trainer for a tiny model with nothing at random but its rate pairs."""
    write_set(folder / "set")
    conf = yaml.safe_load((ROOT / "egs/mini_av/conf/train.yaml").read_text())
    conf["video_encoder_conf"] = {"width": 4, "output_size": 16, "layers": 1, "heads": 2}
    conf["decoder_conf"] |= {"lm": lm, "lm_dtype": "float32"}
    conf["decoder_conf"]["adapter_conf"] |= {"num_routed": 4, "top_k": 4, "bottleneck": 3}
    # All experts and all embeddings: a choice of the best may turn over by rounding.
    conf["model_conf"]["readout_conf"]["top"] = 1000
    conf["audio_encoder_conf"] = {"model": whisper, "pad_to_30s": False, "dtype": "float32"}
    # Drawn at random, so that the test sees that both processes draw the same.
    conf["model_conf"]["pairs_per_step"] = 2
    conf["scheduler_conf"] = {"warmup_steps": 2, "total_steps": 8}
    conf |= {"max_epoch": 2, "num_iters_per_epoch": 4, "batch_size": 4, "valid_batch_size": 4}
    conf |= {"num_workers": 0, "log_interval": 1}
    (folder / "train.yaml").write_text(yaml.safe_dump(conf))
    options = ["--config", folder / "train.yaml", "--unused_parameters", "true"]
    for phase in ("train", "valid"):
        for name, kind in (
            ("wav.scp", "speech,sound"),
            ("lip.scp", "lips,lips"),
            ("text", "text,text"),
        ):
            path = folder / "set" / name
            options += [f"--{phase}_data_path_and_name_and_type", f"{path},{kind}"]
        options += [f"--{phase}_shape_file", folder / "set/utt2num_frames"]
    return [str(option) for option in options]
