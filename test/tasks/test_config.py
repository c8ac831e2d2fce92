"""Configurations with a base, and those that the recipes of LRS2 and LRS3 share."""

import re
from pathlib import Path

import pytest
import yaml

from mome.bin.train import explains_itself
from mome.bin.train import main as train
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
