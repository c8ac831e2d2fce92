"""Lists of experiments and the order of work."""

import json
import os
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from mome.adapters import attach
from mome.analysis.dry_run import build, meta
from mome.analysis.experiment_figure import draw
from mome.analysis.experiment_tables import describe_decoding, hows_of, markdown, results
from mome.analysis.experiments import (
    all_trainings,
    best_rate,
    is_trained,
    left,
    read_list,
    trainings,
    trainings_left,
    validation_loss,
)
from mome.bin import run_experiments
from mome.common.marks import OtherSettings
from mome.data import test_sets
from mome.data.kaldi import write_scp
from mome.tasks.config import parse

TRAIN = {
    "model_conf": {"audio_rates": [4, 16], "video_rates": [2, 5], "pairs_per_step": 1},
    "optim_conf": {"lr": 0.1, "weight_decay": 0.1},
    "decoder_conf": {"adapter": "mome", "adapter_conf": {"top_k": 4}},
}
LIST = {
    "baseline": "mome",
    "task": "avsr",
    "learning_rates": [0.002, 0.001],
    "seeds": [0, 1],
    "common": {"model_conf": {"pairs_per_step": None}},
    "experiments": {
        "mome": {"title": "MoME"},
        "lora": {"model_per_pair": True, "conf": {"decoder_conf": {"adapter": "lora"}}},
    },
}


@pytest.fixture
def files(tmp_path):
    """A list and the configuration that it changes."""
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(TRAIN, sort_keys=False))
    (tmp_path / "list.yaml").write_text(yaml.safe_dump(LIST, sort_keys=False))
    return tmp_path / "list.yaml", tmp_path / "train.yaml"


def finish(folder, loss: float, decoded: bool = False) -> None:
    """What a finished training leaves behind, as far as the order of work looks at it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".done").write_text(json.dumps({"state": "done", "settings": {}}))
    (folder / "config.yaml").write_text("num_iters_per_epoch: 5\n")
    (folder / "log").write_text(
        "[x] (trainer:1) INFO: 1epoch results: [train] loss=9.0, [valid] loss_avsr_a4_v2=99.0\n"
        f"[x] (trainer:1) INFO: 2epoch results: [train] loss=9.0, [valid] loss_avsr_a4_v2={loss}, "
        f"loss_avsr_a16_v2={loss + 1}, loss_balance=7.0, acc=0.5, loss=99.0\n"
    )
    if decoded:
        (folder / "scores.json").write_text("{}")


def test_a_training_changes_what_the_list_says_and_nothing_else(files):
    listed = read_list(*files)
    mome, lora = listed.experiments
    (whole,) = trainings(mome, 0.002, 1)
    assert whole.name == "mome/lr0.002_seed1"
    assert whole.conf == {
        "model_conf": {"audio_rates": [4, 16], "video_rates": [2, 5], "pairs_per_step": None},
        "optim_conf": {"lr": 0.002, "weight_decay": 0.1},
        "decoder_conf": {"adapter": "mome", "adapter_conf": {"top_k": 4}},
        "seed": 1,
    }
    each = trainings(lora, 0.001, 0)
    assert [one.name for one in each] == [
        f"lora/lr0.001_seed0_{pair}" for pair in ("a4_v2", "a4_v5", "a16_v2", "a16_v5")
    ]
    assert each[1].conf["model_conf"]["audio_rates"] == [4]
    assert each[1].conf["model_conf"]["video_rates"] == [5]
    assert each[1].conf["decoder_conf"]["adapter"] == "lora"


ROOT = Path(__file__).parents[2]
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
LISTS = sorted(
    path
    for path in ROOT.glob("egs/*/conf/*.yaml")
    if "experiments" in yaml.safe_load(path.read_text())
)


@pytest.mark.parametrize("path", LISTS, ids=[f"{p.parts[-3]}_{p.stem}" for p in LISTS])
def test_every_model_of_the_lists_here_can_be_built(path, tmp_path, monkeypatch):
    monkeypatch.chdir(path.parents[1])  # where modules of a recipe's own are looked for
    monkeypatch.setattr(sys, "path", [*sys.path])
    listed = read_list(path, path.with_name("train.yaml"))
    models = {}
    for each in all_trainings(listed, listed.experiments):
        models[each.experiment.name, each.pairs] = each
    for (name, _), training in models.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(training.conf))
        args = parse(
            ["--config", str(tmp_path / f"{name}.yaml"), "--tasks", listed.task]
            + ["--decoder_conf", f"lm={DOWNLOADS / 'smollm2-135m-instruct'}"]
            + ["--audio_encoder_conf", f"model={DOWNLOADS / 'whisper-tiny.en'}"]
        )
        with meta():
            model = build(args)
        assert [pair for _, pair in model.task_pairs] == list(training.pairs)


def test_of_a_single_learning_rate_all_seeds_can_begin_at_once(files, tmp_path):
    one_rate = LIST | {"learning_rates": [0.001]}
    files[0].write_text(yaml.safe_dump(one_rate, sort_keys=False))
    listed = read_list(*files)
    names = [
        each.name for each in left(listed, [listed.experiments[0]], tmp_path / "exp", listed.seeds)
    ]
    assert names == ["mome/lr0.001_seed0", "mome/lr0.001_seed1"]


def test_a_single_stream_leaves_the_rates_of_the_other(files):
    files[0].write_text(yaml.safe_dump({**LIST, "task": "vsr"}, sort_keys=False))
    of_one = trainings(read_list(*files).experiments[1], 0.001, 0)
    assert [one.pairs[0].video for one in of_one] == [2, 5]
    assert of_one[1].conf["model_conf"]["audio_rates"] == [4, 16]


def test_all_experiments_come_before_other_rates_and_those_before_other_seeds(files, tmp_path):
    listed = read_list(*files)
    done = []
    assert trainings_left(listed, listed.experiments, tmp_path, listed.seeds) == 3 + 3 * 4
    while todo := left(listed, listed.experiments, tmp_path, listed.seeds):
        training = todo[0]
        decode = is_trained(tmp_path / training.name)
        done.append((training.name, decode))
        # The second learning rate is the better one for the first experiment alone.
        loss = 2.0 if training.name.startswith("mome/lr0.001") else 3.0 - training.rate
        finish(tmp_path / training.name, loss + 5.0 * training.name.startswith("lora"), decode)
        assert len(done) < 40
    pairs = ["a4_v2", "a4_v5", "a16_v2", "a16_v5"]
    lora = {rate: [f"lora/lr{rate}_seed0_{pair}" for pair in pairs] for rate in (0.002, 0.001)}
    assert done == [
        ("mome/lr0.002_seed0", False),
        *((name, False) for name in lora[0.002]),
        ("mome/lr0.001_seed0", False),
        *((name, False) for name in lora[0.001]),
        ("mome/lr0.001_seed0", True),
        *((name, True) for name in lora[0.002]),
        ("mome/lr0.001_seed1", False),
        ("mome/lr0.001_seed1", True),
        *((f"lora/lr0.002_seed1_{pair}", decode) for pair in pairs for decode in (False, True)),
    ]
    assert trainings_left(listed, listed.experiments, tmp_path, listed.seeds) == 0
    assert best_rate(listed, listed.experiments[0], tmp_path) == 0.001
    # Of the last epoch, over the rate pairs, without balance loss and sums.
    assert validation_loss(tmp_path / "mome/lr0.001_seed0") == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "x"}, "the baseline x is not among"),
        ({"task": "tts"}, "task 'tts' is not one of avsr, asr, vsr"),
        ({"seeds": []}, "learning_rates and seeds must name one each"),
        ({"lr": 1}, "unknown key lr; known are baseline"),
        ({"experiments": {"mome": {"config": {}}}}, "mome: unknown key config"),
        ({"experiments": {"mome": 3}}, "mome holds no `key: value`"),
    ],
)
def test_mistakes_in_a_list_are_named(files, changes, message):
    files[0].write_text(yaml.safe_dump({**LIST, **changes}, sort_keys=False))
    with pytest.raises(ValueError, match=message):
        read_list(*files)


def test_what_is_not_there_is_named(files, tmp_path):
    options = ["--train_config", str(files[1]), "--expdir", str(tmp_path / "exp"), "--list"]
    with pytest.raises(SystemExit, match=r"nothing.yaml does not exist; it lists the experiments"):
        run_experiments.main([*options, str(tmp_path / "nothing.yaml")])
    with pytest.raises(SystemExit, match="no experiment x is listed; there are mome, lora"):
        run_experiments.main([*options, str(files[0]), "--only", "x"])
    with pytest.raises(SystemExit, match="--train_config cannot be given to run"):
        run_experiments.main([*options, str(files[0]), "--", "--train_config", "other.yaml"])
    values = {**LIST}
    del values["seeds"]
    files[0].write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(SystemExit, match="the key seeds is missing"):
        run_experiments.main([*options, str(files[0])])


def test_a_table_without_results_says_so(files, tmp_path, capsys):
    options = ["--train_config", str(files[1]), "--list", str(files[0])]
    run_experiments.main([*options, "--expdir", str(tmp_path), "--report_only", "true"])
    assert "Without results so far: MoME, lora." in capsys.readouterr().out


@pytest.mark.parametrize("rates", [[0.001], [0.002, 0.001]])
def test_an_experiment_that_has_not_begun_has_no_learning_rate(files, tmp_path, rates):
    """Though the only one of a list is known beforehand."""
    files[0].write_text(yaml.safe_dump(LIST | {"learning_rates": rates}, sort_keys=False))
    folder = tmp_path / "experiments"
    for rate in rates:
        finish(folder / f"mome/lr{rate}_seed0", loss=rate)
        (folder / f"mome/lr{rate}_seed0/run.json").write_text(json.dumps({"settings": {}}))
    found = results(read_list(*files), read_list(*files).experiments, folder, tmp_path / "dump")
    rows = found["experiments"]
    assert {name: row["learning_rate"] for name, row in rows.items()} == {
        "mome": 0.001,
        "lora": None,
    }
    assert "Without results so far: MoME, lora." in markdown(found)
    draw(json.loads(json.dumps(found)), tmp_path)


def test_a_difference_is_bold_if_its_interval_leaves_out_zero():
    cell = {"wers": [5.0, 6.0], "mean": 5.5, "spread": 0.7}
    none = {"difference": None, "low": None, "high": None}
    row = {
        "seeds": [0, 1],
        "trained": 10,
        "active": 5,
        "tflops": {"a4": 0.1},
        "training_seconds": 60,
    }
    row |= {"peak_gigabytes": 2.0, "revisions": ["abc"], "validation_loss": {"0.001": 1.5}}
    clear = {"difference": 1.0, "low": 0.2, "high": 2.0}
    unclear = {"difference": 1.0, "low": -0.2, "high": 2.0}
    alone = {**clear, "spread": None}
    rows = {
        name: {
            **row,
            "title": name,
            "wer": {"test": {"a4": {**cell, **values}}},
            "wer_of_all_pairs": {"test": {**cell, **values}},
        }
        for name, values in (
            ("base", none),
            ("clear", clear),
            ("unclear", unclear),
            ("alone", alone),
        )
    }
    found = {"task": "asr", "baseline": "base", "decoding": [], "experiments": rows}
    table = re.sub(" +", " ", markdown(found))
    assert "| base | 2 | 5.5 ± 0.7 |" in table
    assert "| clear | 2 | 5.5 ± 0.7<br>**+1.0 [+0.2, +2.0]** |" in table
    assert "| unclear | 2 | 5.5 ± 0.7<br>+1.0 [-0.2, +2.0] |" in table
    assert "| alone | 2 | 5.5<br>+1.0 [+0.2, +2.0] |" in table


def test_the_table_of_experiments_says_how_all_were_decoded(tmp_path):
    dump = tmp_path / "dump"
    dump.mkdir()
    copy = test_sets.noisy("test", "babble", 0)
    test_sets.add_to_list(dump, {copy: {"seed": 3, "speakers": 30, "train_set": "train"}})
    folders = [tmp_path / "exp" / name for name in ("mome", "lora")]
    for folder in folders:
        for name in ("test", copy.name):
            settings = {"weights": folder.name, "beam": 4, "max_new_tokens": 8, "length_penalty": 0}
            settings["test_set"] = test_sets.settings_of(dump, name)
            how = {"settings": settings, "weights": f"{folder}/valid.epoch.best.pth"}
            of_pair = folder / "decode/avsr" / name / "a4_v2"
            write_scp(of_pair / "text", {"u": "red"})
            (of_pair / "decode.json").write_text(json.dumps(how))
    hows = hows_of(folders, "avsr", ["test", copy.name])
    assert len(hows) == 4
    assert describe_decoding(hows, dump) == [
        "Beam 4, at most 8 new tokens. Weights: `valid.epoch.best.pth` of each training.",
        "",
        "- Noise `babble`: up to 30 voices of `train`, seed 3.",
        "",
    ]
    settings["beam"] = 15
    (of_pair / "decode.json").write_text(json.dumps(how))
    with pytest.raises(OtherSettings, match=r"lora/.*, unlike .*/mome/.*\n  beam: was 15, is 4"):
        describe_decoding(hows_of(folders, "avsr", ["test", copy.name]), dump)
    test_sets.add_to_list(dump, {copy: {"seed": 4, "speakers": 30, "train_set": "train"}})
    with pytest.raises(OtherSettings, match=r"unlike .*/test_babble_snr0 now"):
        describe_decoding(hows_of(folders[:1], "avsr", ["test", copy.name]), dump)
    assert describe_decoding({}, dump) == []


@pytest.mark.parametrize("wer", [0.0, 2.0])
def test_the_picture_writes_what_is_far_off_at_its_edge(tmp_path, wer):
    def row(title, *wers):
        cell = {"wers": wers, "mean": sum(wers) / 2}
        pairs = {"wer": {"test": {"a4": cell}}, "wer_of_all_pairs": {"test": cell}}
        return {"title": title, "active": 1_000_000, **pairs}

    rows = {"a": row("good", wer, wer), "b": row("alike", wer, wer), "c": row("lost", 80, 90)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw({"experiments": rows}, tmp_path)
    drawn = (tmp_path / "wer.svg").read_text()
    assert "85 ↑" in drawn
    assert "<!-- 0 ↑ -->" not in drawn
    draw({"experiments": {"a": {"title": "waits", "wer": {}}}}, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_error_rates_are_drawn_against_active_parameters(tmp_path):
    def row(title, active, *wers):
        cell = {"wers": wers, "mean": sum(wers) / len(wers)}
        pairs = {"wer": {"test": {"a4": cell}}, "wer_of_all_pairs": {"test": cell}}
        return {"title": title, "active": active, **pairs}

    rows = {
        "a": row("good", 830_000, 4.0, 6.0),
        "b": row("larger", 2_000_000, 5.0, 5.0),
        "c": row("lost", 1_000_000, 80, 90),
        "d": row("no adapter", 0, 4.0, 5.0),
        "e": {"title": "waits", "wer": {}},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw({"experiments": rows}, tmp_path)
    drawn = (tmp_path / "parameters.svg").read_text()
    assert "<!-- not drawn: lost: 85.0; no adapter: 4.5 -->" in drawn
    assert "<!-- good -->" in drawn
    assert "<!-- larger -->" in drawn
    assert "<!-- lost -->" not in drawn
    draw({"experiments": {"e": rows["e"]}}, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_list_takes_from_its_base_what_it_leaves_out_but_no_experiments(files, tmp_path):
    own = {"learning_rates": [0.25, "1e-1"]}
    short = {"base": "list.yaml", "learning_rates": [0.5], "experiments": {"mome": None, "x": own}}
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(short))
    base, listed = read_list(*files), read_list(path, files[1])
    assert [each.learning_rates for each in listed.experiments] == [[0.5], [0.25, 0.1]]
    assert (listed.baseline, listed.task, listed.seeds) == (base.baseline, base.task, base.seeds)
    assert [each.name for each in listed.experiments] == ["mome", "x"]
    assert all(each.conf == base.experiments[0].conf for each in listed.experiments)
    for changes, message in (
        ({"experiments": None}, r"short\.yaml: experiments must name one"),
        ({"experiments": {"x": {}}}, r"short\.yaml: the baseline mome is not among"),
        ({"base": "lost.yaml"}, r"lost\.yaml does not exist"),
        ({"base": "short.yaml"}, "is its own base"),
        ({"seed": [1]}, "unknown key seed; known are"),
    ):
        path.write_text(yaml.safe_dump(short | changes))
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_list(path, files[1])


def test_the_ablations_share_their_trainings_with_the_other_methods():
    conf = ROOT / "egs/grid/conf"
    methods, ablations = (
        read_list(conf / f"{name}.yaml", conf / "train.yaml")
        for name in ("experiments", "ablations")
    )
    for other in ablations.experiments:
        assert set(other.learning_rates) <= set(methods.experiments[0].learning_rates)
    assert (ablations.seeds, ablations.task) == (methods.seeds, methods.task)
    (mome,) = methods.only(["mome_mhsa"])
    (whole,) = ablations.only([ablations.baseline])
    assert replace(whole, learning_rates=mome.learning_rates) == mome
    # Each differs from it in its one point.
    for name, part, key, value in (
        ("dropped", "model_conf", "last_window", "drop"),
        ("no_balance", "model_conf", "balance_weight", 0.0),
    ):
        (found,) = ablations.only([name])
        assert found.conf == {**mome.conf, part: {**mome.conf[part], key: value}}
    (found,) = ablations.only(["per_layer"])
    adapter = {**mome.conf["decoder_conf"]["adapter_conf"], "balance": "per_layer"}
    decoder = {**mome.conf["decoder_conf"], "adapter_conf": adapter}
    assert found.conf == {**mome.conf, "decoder_conf": decoder}


@pytest.mark.parametrize("name", ["experiments", "ablations"])
def test_the_lists_of_grid_name_adapters_that_can_be_made(name, tiny_lm):
    conf = Path(__file__).parents[2] / "egs/grid/conf"
    listed = read_list(conf / f"{name}.yaml", conf / "train.yaml")
    for each in listed.experiments:
        lm = AutoModelForCausalLM.from_pretrained(tiny_lm)
        decoder = each.conf["decoder_conf"]
        given = decoder["adapter_conf"]
        if "reduction" in given:  # a 256th of so narrow an LM is nothing
            given = {k: v for k, v in given.items() if k != "reduction"}
            given["rank" if "lora" in decoder["adapter"] else "bottleneck"] = 2
        attach(lm, decoder["adapter"], given)


def test_a_training_that_diverged_is_never_chosen(files, tmp_path):
    listed = read_list(*files)
    mome = listed.experiments[0]
    for rate, loss in ((0.002, "nan"), (0.001, 5.0)):
        folder = tmp_path / trainings(mome, rate, 0)[0].name
        finish(folder, 1.0)
        text = (folder / "log").read_text()
        (folder / "log").write_text(text.replace("a4_v2=1.0", f"a4_v2={loss}"))
    assert validation_loss(tmp_path / "mome/lr0.002_seed0") == float("inf")
    assert best_rate(listed, mome, tmp_path) == 0.001
