"""Configurations with a base, and those that the recipes of LRS2 and LRS3 share."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from recipe_options import recipe_options

from mome.bin.train import main as train
from mome.common.command import explains_itself
from mome.data.augment import mix
from mome.tasks.config import parse, read_config

EGS = Path(__file__).parents[2] / "egs"
VARIANTS = sorted(
    str(path.relative_to(EGS / "lrs3/conf"))
    for path in (EGS / "lrs3/conf").rglob("*.yaml")
    if path.name != "train.yaml"
)


def test_a_base_lies_beside_the_path_that_was_given_not_beside_what_a_link_names(tmp_path):
    for name, steps in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.yaml").write_text(f"steps: {steps}\nconf: {{a: 1, b: 1}}\n")
    (tmp_path / "one/variant.yaml").write_text("base: train.yaml\nconf: {b: 2}\n")
    (tmp_path / "two/variant.yaml").symlink_to("../one/variant.yaml")
    for name, steps in (("one", 1), ("two", 2)):
        config = read_config(tmp_path / name / "variant.yaml")
        assert config == {"steps": steps, "conf": {"a": 1, "b": 2}}


def test_lrs2_has_every_configuration_of_lrs3_as_a_relative_link():
    assert VARIANTS
    for name in VARIANTS:
        link = EGS / "lrs2/conf" / name
        assert link.is_symlink()
        up = "../" * len(Path(name).parents)
        assert link.readlink() == Path(f"{up}../lrs3/conf") / name
    assert not (EGS / "lrs2/conf/train.yaml").is_symlink()


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_take_the_schedule_of_their_own_recipe(name):
    configs = {}
    for recipe in ("lrs2", "lrs3"):
        configs[recipe] = read_config(EGS / recipe / "conf" / name)
        base = yaml.safe_load((EGS / recipe / "conf/train.yaml").read_text(encoding="utf-8"))
        for key in ("scheduler_conf", "num_iters_per_epoch"):
            assert configs[recipe][key] == base[key]
            del configs[recipe][key]
    assert configs["lrs2"] == configs["lrs3"]


@pytest.mark.parametrize("recipe", ["lrs2", "lrs3"])
def test_each_configuration_of_a_table_has_its_place_in_the_results(recipe):
    conf = EGS / recipe / "conf"
    tables = {str(path.relative_to(conf).with_suffix("")) for path in conf.glob("table*/*.yaml")}
    text = (EGS / recipe / "RESULTS.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\| `(table\d/\w+)`", text)) == tables
    for path in re.findall(r"--train_config (conf/\S+\.yaml)", text):
        assert (EGS / recipe / path).is_file()


@pytest.mark.parametrize(("recipe", "size"), [("lrs2", "3B"), ("lrs3", "1B")])
def test_the_recipes_are_the_papers_system_by_default(recipe, size):
    """What decides the paper's error rates: changing one of these values is a deliberate act."""
    given = recipe_options(recipe)
    assert given["lm"] == f"meta-llama/Llama-3.2-{size}"
    assert given["audio_model"] == "openai/whisper-small"
    assert given["snrs"] == "-5 0 2.5 5 7.5"
    assert given["inference_model"] == "valid.epoch.ave.pth"
    assert given["length_penalty"] == "1"
    assert given["max_new_tokens"] == "32"
    assert not {"beam", "init_projectors", "projector_config"} & given.keys()
    helped = [str(EGS / recipe / "run.sh"), "--help"]
    helped = subprocess.run(helped, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^ +--beam 15 ", helped, re.MULTILINE)

    args = parse(["--config", str(EGS / recipe / given["train_config"])])
    assert args.audio_encoder == "whisper"
    assert args.audio_encoder_conf["pad_to_30s"] is True
    assert (args.video_encoder, args.video_encoder_conf["size"]) == ("avhubert", "large")
    assert args.freeze_video_encoder is True
    assert args.model_conf == {
        "audio_rates": [4, 16],
        "video_rates": [2, 5],
        "compression": "average",
        "projector": "per_rate",
        "projector_conf": {"hidden_size": 2048},
        "balance_weight": 0.01,
    }
    assert (args.decoder, args.decoder_conf["adapter"]) == ("mome_llm", "mome")
    assert args.decoder_conf["adapter_conf"] == {
        "position": "mhsa",
        "num_routed": 23,
        "num_shared": 1,
        "reduction": 256,
        "top_k": 4,
        "init": "normal",
    }
    assert args.preprocessor_conf["noise_snrs"] == [-5, 0, 5, 10, 15, 20, None]
    assert args.optim == "adamw"
    assert args.optim_conf == {"lr": 1e-3, "betas": [0.9, 0.98], "weight_decay": 0.1}
    assert args.scheduler == "warmup_cosine"
    steps = args.max_epoch * args.num_iters_per_epoch
    assert args.scheduler_conf == {"warmup_steps": 0, "total_steps": steps}
    assert (args.max_epoch, args.grad_clip, args.keep_nbest_models) == (10, 10.0, 4)
    assert [list(each) for each in args.best_model_criterion] == [["valid", "epoch", "max"]]

    vsr = parse(["--config", str(EGS / recipe / "conf/mome_vsr.yaml")])
    changed = {"model_conf": {**args.model_conf, "tasks": ["vsr"], "video_rates": [1, 2, 3, 4, 5]}}
    changed["optim_conf"] = {**args.optim_conf, "lr": 5e-4}
    changed["decoder_conf"] = {
        **args.decoder_conf,
        "adapter_conf": {**args.decoder_conf["adapter_conf"], "position": "ffn"},
    }
    assert vars(vsr) == {**vars(args), **changed, "config": vsr.config}


def test_a_circle_of_bases_is_an_error(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ValueError, match="is its own base"):
        read_config(tmp_path / "a.yaml")


def test_broken_yaml_is_named_by_file_and_line(tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("max_epoch: 1\noptim_conf: {lr: 0.1\n")
    (tmp_path / "train.yaml").write_text("base: base.yaml\n")
    with pytest.raises(SystemExit):
        parse(["--config", str(tmp_path / "train.yaml")])
    assert (
        f"error: {tmp_path / 'base.yaml'}, line 3: expected ',' or '}}'" in capsys.readouterr().err
    )


def test_an_error_of_the_configuration_is_one_line(tiny_lm, tmp_path):
    config = yaml.safe_load((EGS / "mini_av/conf/train.yaml").read_text(encoding="utf-8"))
    config["decoder_conf"] |= {"lm": tiny_lm, "adapter": "nothing"}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(
        SystemExit, match=r"^mome-train: error: adapter 'nothing' is unknown; there"
    ):
        train(["--config", str(tmp_path / "train.yaml"), "--dry_run", "true"])


def test_only_what_this_package_raises_explains_itself(tmp_path):
    (tmp_path / "a.yaml").touch()
    with pytest.raises(ValueError, match="is no configuration") as ours:
        read_config(tmp_path / "a.yaml")
    with pytest.raises(ValueError, match="invalid literal") as pythons:
        int("one")
    assert explains_itself(ours.value)
    assert not explains_itself(pythons.value)
    # NumPy's own functions have no frame: the last one is that of this package.
    with pytest.raises(ValueError, match="could not be broadcast") as numpys:
        mix(np.ones(3), np.ones(4), 0.0)
    assert not explains_itself(numpys.value)


def test_an_exponent_without_a_point_is_a_number(tmp_path):
    (tmp_path / "train.yaml").write_text(
        "optim_conf: {lr: 1e-3, betas: [9e-1, 0.98]}\nmodel_conf: {pair_weights: {a4_v2: 2e0}}\n"
    )
    options = [
        "--config",
        str(tmp_path / "train.yaml"),
        "--decoder_conf",
        "adapter_conf={init: 1e}",
    ]
    args = parse([*options, "--optim_conf", "eps=1e-7", "--grad_clip", "1e1"])
    assert args.optim_conf == {"lr": 1e-3, "betas": [0.9, 0.98], "eps": 1e-7}
    assert args.model_conf == {"pair_weights": {"a4_v2": 2.0}}
    assert args.decoder_conf == {"adapter_conf": {"init": "1e"}}
    assert args.grad_clip == 10.0
