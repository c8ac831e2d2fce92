"""The recipe from end to end: stages 0 to 7 on a handful of generated clips.

Speech synthesis, rendering, dlib, ESPnet's trainer, decoding and scoring are the real ones; the LLM
and Whisper are tiny and random.
"""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from tiny_recipe import options as write_options

from mome.analysis.comparison import errors_by_seed, paired_interval
from mome.analysis.decoded import decode_folder, read_prepared, read_transcripts
from mome.bin.run_experiments import main as run_experiments
from mome.data.kaldi import read_scp
from mome.tasks.packed import load_packed

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs/mini_av"
PAIRS = {
    "avsr": ["a4_v2", "a4_v5", "a16_v2", "a16_v5"],
    "asr": ["a4", "a16"],
    "vsr": ["v2", "v5"],
}


def run(arguments: list[str], check: bool = True) -> subprocess.CompletedProcess:
    result = subprocess.run(
        [str(RECIPE / "run.sh"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"OMP_NUM_THREADS": "2", **os.environ},
    )
    if check:
        assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return result


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_lm, tiny_whisper) -> tuple[Path, list[str]]:
    """A finished run and its options."""
    folder = tmp_path_factory.mktemp("recipe")
    options = write_options(folder, tiny_lm, tiny_whisper)
    said = run(options)
    (folder / "said.txt").write_text(said.stdout + said.stderr)
    return folder, options


def test_all_conditions_are_decoded_and_scored(recipe):
    folder, _ = recipe
    exp = folder / "exp/mome"
    scores = json.loads((exp / "scores.json").read_text())
    noisy = ["test_babble_snr-5", "test_babble_snr10"]
    expected = {f"{task}/test/{pair}" for task, pairs in PAIRS.items() for pair in pairs}
    expected |= {f"{t}/{s}/{p}" for t in ("avsr", "asr") for s in noisy for p in PAIRS[t]}
    expected |= {
        f"avsr/{s}/{p}" for s in ("test_swapvideo", "test_swapaudio") for p in PAIRS["avsr"]
    }
    dropped = [f"drop{strength}" for strength in (1, 2, 3)]
    expected |= {f"{t}/test_{d}/{p}" for d in dropped for t in ("avsr", "vsr") for p in PAIRS[t]}
    expected |= {f"avsr/test_babble_snr-5_{d}/{p}" for d in dropped for p in PAIRS["avsr"]}
    assert {key for key in scores if not key.startswith("guess/")} == expected
    assert len([key for key in scores if key.startswith("guess/")]) == 2
    assert all(score["utterances"] == 3 for score in scores.values())
    table = (exp / "RESULTS.md").read_text()
    assert "## VSR" in table
    assert "test, babble at -5 dB" in table
    assert "test, babble at -5 dB, 60 % of lip frames dropped" in table
    assert "adapter" in (exp / "parameters.txt").read_text()
    # How many transcripts four tokens were too few for.
    how = json.loads((exp / "decode/avsr/test/a4_v2/decode.json").read_text())
    assert 0 <= how["unfinished"] <= 3
    cells = rf"avsr +\| test +\| a4_v2 +\|.* 3 \| +{how['unfinished']} \| +\d+ \|\n"
    assert re.search(rf"\| {cells}", table)


def test_the_model_is_packed_and_reads_two_recordings(recipe, tiny_lm, tiny_whisper):
    folder, _ = recipe
    parts = [Path(part).parent for part in (tiny_lm, tiny_whisper)]
    model, _, info = load_packed(folder / "exp/mome/packed", downloads=parts)
    assert list(model.pairs) == list(PAIRS)
    measured = {task: [r["rates"] for r in info["rates"] if r["task"] == task] for task in PAIRS}
    assert measured == PAIRS
    assert all(row["tflops_per_second"] > 0 for row in info["rates"])
    assert "mini_av" in info["trained_on"]
    assert info["calibration"]["words"] > 0
    assert {"test", "test_babble_snr-5"} <= {row["set"] for row in info["tests"]}
    assert info["crops"]["detector"] == "dlib"
    assert list(info["crops"]["landmarks"]["dlib"]) == ["shape_predictor_68_face_landmarks.dat"]
    told = ModelCard((folder / "exp/mome/packed/README.md").read_text()).data
    assert (told.language, told.datasets) == (["en"], None)
    assert {result.dataset_split for result in told.eval_results} == {"test"}
    videos = read_scp(folder / "data/test/video.scp")
    said = (folder / "said.txt").read_text()
    assert re.search(r"finished stages 0 to 7; stage 0 \d+:\d\d; .*; stage 7 \d+:\d\d", said)
    html = (folder / "exp/mome/report/report.html").read_text()
    assert "Not drawn" not in html
    assert (html.count("<video"), html.count("<img")) == (6, 5)  # three clips, clean and noisy
    for name in list(videos.values())[:2]:
        assert re.search(rf"{re.escape(name)}: \d+ segments? in .* read as avsr a4_v2", said)


def test_a_packed_model_that_cannot_be_opened_ends_the_stage(recipe):
    """Unlike a clip that cannot be read."""
    folder, options = recipe
    weights = folder / "exp/mome/packed/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    result = run([*options, "--stage", "6"], check=False)
    weights.write_bytes(whole)
    assert result.returncode
    assert "model.safetensors is not what was packed" in result.stderr
    assert "finished stages" not in result.stderr


def test_a_second_run_does_nothing_again(recipe):
    folder, options = recipe
    before = {p: p.stat().st_mtime_ns for p in (folder / "exp").rglob("*.pth")}
    before |= {p: p.stat().st_mtime_ns for p in (folder / "dump").rglob("*.mp4")}
    before |= {p: p.stat().st_mtime_ns for p in (folder / "exp").rglob("text")}
    before |= {p: p.stat().st_mtime_ns for p in (folder / "exp").rglob("*.safetensors")}
    listed = (folder / "dump/test_sets.json").read_bytes()
    # How many jobs there are changes no result, and an SNR may be spelled in another way.
    result = run([*options, "--nj", "1", "--snrs", "-5.0 10.0", "--decode_batch_size", "3"])
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (folder / "dump/test_sets.json").read_bytes() == listed
    assert "done already" in result.stderr
    assert "epoch started" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stage", "1", "--prepare_opts", "--x"], "--x: was not given, is empty"),
        (["--stage", "2", "--lip_opts", "--window 8"], "--window: was not given, is 8"),
        (["--stage", "3", "--seed", "1"], "seed: was 0, is 1"),
        (["--stage", "4", "--seed", "1"], "--seed: was 0, is 1"),
        (["--stage", "4", "--train_opts", "--max_epoch 2"], "--max_epoch: was not given, is 2"),
        (["--stage", "4", "--tasks", "avsr asr"], "--tasks: was avsr asr vsr, is avsr asr"),
        (["--stage", "5", "--beam", "3"], "beam: was 2, is 3"),
        (["--stage", "5", "--snrs", "7"], "stage 3 makes it, with --snrs 7 --test_noise babble"),
        (["--stage", "5", "--test_noise", "music"], "--test_noise music --musan <folder>"),
        (["--stage", "3", "--noisex", "nowhere.wav"], "nowhere.wav does not exist"),
        (["--snrs", "5 loud"], "--snrs '5 loud': loud is not an SNR in dB"),
        (["--dumpdir", "a b"], "folder 'a b': its name separates words"),
    ],
)
def test_other_settings_are_refused(recipe, options, message):
    folder, same = recipe
    results = (folder / "exp/mome/RESULTS.md").read_bytes()
    result = run([*same, *options], check=False)
    assert result.returncode != 0
    assert message in result.stdout + result.stderr
    assert (folder / "exp/mome/RESULTS.md").read_bytes() == results


def test_a_changed_configuration_is_refused_and_shown(recipe):
    folder, options = recipe
    conf = yaml.safe_load((folder / "train.yaml").read_text())
    conf["optim_conf"]["lr"] = 0.5
    conf["log_interval"] = 7  # what is logged does not count
    (folder / "other.yaml").write_text(yaml.safe_dump(conf))
    other = ["--stage", "4", "--train_config", folder / "other.yaml"]
    result = run([*options, *other], check=False)
    assert result.returncode != 0
    output = result.stdout + result.stderr
    assert "optim_conf.lr: was 0.002, is 0.5\nKeep it and give another --expdir or --tag" in output
    assert "log_interval: was" not in output


def test_another_beam_has_a_table_of_its_own_or_replaces_the_old_one(recipe):
    folder, options = recipe
    clean = [*options, "--stage", "5", "--snrs", "", "--corruptions", "", "--beam", "1"]
    results = (folder / "exp/mome/RESULTS.md").read_bytes()
    run([*clean, "--decode_tag", "greedy", "--no_repeat_ngram_size", "6"])
    table = (folder / "exp/mome/RESULTS_greedy.md").read_text()
    assert re.search(r"Beam 1, at most \d+ new tokens, no 6-gram of tokens twice", table)
    packed = [
        yaml.safe_load((folder / f"exp/mome/{name}/mome.json").read_text())
        for name in ("packed", "packed_greedy")
    ]
    assert ["beam 2" in packed[0]["measured"], "beam 1" in packed[1]["measured"]] == [True, True]
    assert [info["no_repeat_ngram_size"] for info in packed] == [0, 6]
    assert (folder / "exp/mome/RESULTS.md").read_bytes() == results
    # Of the further stages, packing is what takes the place of something else.
    again = [*clean, "--decode_tag", "greedy", "--beam", "2", "--force", "true", "--stop_stage"]
    run([*again, "6"])
    info = yaml.safe_load((folder / "exp/mome/packed_greedy/mome.json").read_text())
    assert ("beam 2" in info["measured"], info["no_repeat_ngram_size"]) == (True, 0)
    made = {path: path.stat().st_mtime_ns for path in (folder / "exp/mome").rglob("text")}
    run([*again, "5"])
    for path, before in made.items():  # of equal settings, and not of another --decode_tag
        assert (path.stat().st_mtime_ns > before) == ("decode_greedy" in path.parts)
    table = (folder / "exp/mome/RESULTS_greedy.md").read_text()
    assert "Beam 2," in table
    assert "--beam 1 " not in table


def test_jobs_decode_the_same_and_a_failed_one_is_named(recipe):
    folder, options = recipe
    jobs = [*options, "--stage", "5", "--stop_stage", "5", "--snrs", ""]
    jobs += ["--tag", "jobs", "--decode_nj", "2"]
    (folder / "exp/jobs").mkdir()
    (folder / "exp/jobs/config.yaml").write_bytes((folder / "exp/mome/config.yaml").read_bytes())
    result = run(jobs, check=False)
    assert result.returncode != 0
    assert "job 1 failed" in result.stdout + result.stderr
    assert "valid.acc.best.pth does not exist" in result.stdout + result.stderr
    weights = (folder / "exp/mome/valid.acc.best.pth").read_bytes()
    (folder / "exp/jobs/valid.acc.best.pth").write_bytes(weights)
    run(jobs)
    texts = sorted((folder / "exp/jobs/decode").glob("*/*/*/text"))
    whole = folder / "exp/mome"
    every = [text.relative_to(whole) for text in whole.glob("decode/*/*/*/text")]
    clean = {str(text) for text in every if not re.search(r"_snr[-.\d]+$", text.parts[2])}
    assert {str(text.relative_to(folder / "exp/jobs")) for text in texts} == clean
    assert len(clean) < len(every)
    for text in texts:
        same = whole / text.relative_to(folder / "exp/jobs")
        assert text.read_bytes() == same.read_bytes()
        parts = [text.parents[3] / f"split2/{i}" / text.relative_to(text.parents[3]) for i in "12"]
        assert [len(part.read_text().splitlines()) for part in parts] == [2, 1]


def test_experiments_are_trained_decoded_and_compared_within_a_budget(recipe, capsys):
    folder, options = recipe
    given = dict(zip(options[::2], map(str, options[1::2]), strict=True))
    paths = {name: given.pop(f"--{name}") for name in ("expdir", "dumpdir", "train_config")}
    for name in ("--tasks", "--corruptions", "--corrupt_sets"):
        del given[name]
    values = {
        "baseline": "mome",
        "task": "avsr",
        "learning_rates": [0.002],
        "seeds": [0, 1],
        "common": {"model_conf": {"pairs_per_step": None}},
        "experiments": {
            "mome": None,
            "projectors": {"conf": {"decoder_conf": {"adapter": "none", "adapter_conf": {}}}},
        },
    }
    (folder / "list.yaml").write_text(yaml.safe_dump(values))
    command = ["--recipe", RECIPE, "--list", folder / "list.yaml"]
    command += [word for name, path in paths.items() for word in (f"--{name}", path)]
    further = ["--", *(word for pair in given.items() for word in pair), "--snrs", ""]

    def compare(*more: str) -> str:
        at_end = signal.getsignal(signal.SIGTERM)  # the runner has its own way to end
        try:
            run_experiments([str(word) for word in (*command, *more, *further)])
        finally:
            signal.signal(signal.SIGTERM, at_end)
        return capsys.readouterr().out

    said = compare("--hours", "0.001")  # which the first training alone takes
    assert "training mome/lr0.002_seed0; 4 trainings are left" in said
    assert "budget of 0.001 h used up: 3 trainings are left" in said
    assert "Without results so far: mome, projectors." in said
    said = compare("--hours", "1")
    assert "training projectors/lr0.002_seed0; 3 trainings are left" in said
    assert "decoding mome/lr0.002_seed0" in said
    assert "training mome/lr0.002_seed0" not in said
    assert "training mome/lr0.002_seed1; 2 trainings are left" in said
    results = json.loads((folder / "exp/experiments/results.json").read_text())
    table = (folder / "exp/experiments/RESULTS.md").read_text()
    assert re.search(r"\nBeam \d+, at most \d+ new .* Weights: `\S+` of each training\.\n", table)
    mome, projectors = (results["experiments"][name] for name in ("mome", "projectors"))
    assert (mome["seeds"], projectors["seeds"]) == ([0, 1], [0, 1])
    assert set(mome["wer"]) == {"test", "test_swapvideo", "test_swapaudio"}
    assert list(mome["wer"]["test"]) == PAIRS["avsr"]
    assert mome["trained"] > mome["active"] > projectors["active"] == 0
    assert mome["tflops"]["a4_v2"] > projectors["tflops"]["a16_v5"] > 0
    assert mome["validation_loss"].keys() == {"0.002"}
    trained = yaml.safe_load(
        (folder / "exp/experiments/mome/lr0.002_seed0/config.yaml").read_text()
    )
    assert (trained["model_conf"]["pairs_per_step"], trained["seed"]) == (None, 0)
    scored = json.loads((folder / "exp/experiments/mome/lr0.002_seed0/scores.json").read_text())
    wer = scored["avsr/test/a4_v2"]["wer"]
    assert mome["wer"]["test"]["a4_v2"]["wers"][0] == pytest.approx(wer)
    assert projectors["wer"]["test"]["a4_v2"]["low"] is not None
    drawn = (folder / "exp/experiments/wer.svg").read_text()
    for shown in ("mome", "projectors", "a16_v5"):
        assert shown in drawn
    for row in (mome, projectors):
        means = [row["wer"]["test"][pair]["mean"] for pair in PAIRS["avsr"]]
        assert row["wer_of_all_pairs"]["test"]["mean"] == pytest.approx(sum(means) / len(means))
    # Of all pairs, an utterance is drawn with what was heard of it at each of them.
    dump = Path(paths["dumpdir"])
    references = read_prepared(dump, "test", "text")

    def errors_of(name: str) -> tuple[np.ndarray, np.ndarray]:
        folders = [folder / f"exp/experiments/{name}/lr0.002_seed{seed}" for seed in (0, 1)]
        heard = [read_transcripts(decode_folder(each), "avsr", "test") for each in folders]
        counts = [
            errors_by_seed(references, {seed: each[pair] for seed, each in enumerate(heard)})
            for pair in PAIRS["avsr"]
        ]
        return np.array([sum(of[0][seed] for of in counts) for seed in (0, 1)]), counts[0][1]

    (others, words), (base, _) = errors_of("projectors"), errors_of("mome")
    cell = projectors["wer_of_all_pairs"]["test"]
    low, high = paired_interval(others, base, words * len(PAIRS["avsr"]))
    assert (cell["low"], cell["high"]) == pytest.approx((low, high))
    gap = 100 * (others - base).mean(0).sum() / words.sum() / len(PAIRS["avsr"])
    assert cell["difference"] == pytest.approx(gap)
    assert not list((folder / "exp/experiments").glob("*/*/.packed.done"))
    values["common"] = {"model_conf": {"pairs_per_step": 1}}
    (folder / "list.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SystemExit, match=r"model_conf\.pairs_per_step: was null, is 1"):
        compare("--report_only", "true")


def test_training_goes_on_from_its_checkpoint(recipe):
    folder, options = recipe
    exp = folder / "exp/mome"
    first = torch.load(exp / "checkpoint.pth", weights_only=False)
    assert first["reporter"]["epoch"] == 1
    (exp / ".done").unlink()
    run([*options, "--stage", "4", "--stop_stage", "4", "--train_opts", "--max_epoch 2"])
    second = torch.load(exp / "checkpoint.pth", weights_only=False)
    assert second["reporter"]["epoch"] == 2
    assert set(second["reporter"]["stats"]) == {1, 2}
    trained = torch.load(exp / "2epoch.pth", weights_only=True)
    parts = {name.split(".")[0] for name in trained}
    assert parts == {"decoder", "projectors", "norms", "readout"}
    assert sum(tensor.numel() for tensor in trained.values()) < 50_000
    # The mean of the last epochs, chosen by their number.
    before = torch.load(exp / "1epoch.pth", weights_only=True)
    mean = torch.load(exp / "valid.epoch.ave.pth", weights_only=True)
    for name, tensor in trained.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(mean[name], (before[name] + tensor) / 2)


def test_fresh_projectors_have_the_lip_encoder_of_the_warm_start(recipe):
    folder, options = recipe
    train = yaml.safe_load((folder / "train.yaml").read_text())
    plain = yaml.safe_load((RECIPE / "conf/plain.yaml").read_text())
    train["model_conf"] |= plain["model_conf"]  # without readout
    (folder / "plain.yaml").write_text(yaml.safe_dump(train))
    fresh = [
        "--tag",
        "plain",
        "--train_config",
        folder / "plain.yaml",
        "--init_projectors",
        "false",
    ]
    stage = ["--stage", "4", "--stop_stage", "4"]
    run([*options, *stage, *fresh, "--init_projectors", "false"])
    warm, plain = (
        yaml.safe_load((folder / "exp" / name / "config.yaml").read_text())
        for name in ("mome", "plain")
    )
    assert warm["init_param"] == [str(folder / "exp/projectors_avsr/valid.loss.best.pth")]
    assert plain["init_param"] == []
    encoder = str(folder / "exp/projectors_avsr/video_encoder.safetensors")
    for config in (warm, plain):
        assert config["video_encoder_conf"]["weights"] == encoder
    trained = torch.load(folder / "exp/plain/1epoch.pth", weights_only=True)
    assert {name.split(".")[0] for name in trained} == {"decoder", "projectors", "norms"}


def test_untrained_rates_and_missing_files_are_named(recipe):
    options = [*recipe[1], "--stage", "5"]
    result = run([*options, "--decode_tag", "x", "--decode_opts", "--rates a8_v2"], check=False)
    assert result.returncode != 0
    assert "a8_v2 was not trained" in result.stdout + result.stderr
    result = run([*options, "--tag", "nothing"], check=False)
    assert result.returncode != 0
    assert "exp/nothing/config.yaml does not exist" in result.stdout + result.stderr
    result = run([*options, "--stag", "4"], check=False)
    assert result.returncode != 0
    assert "unknown option --stag" in result.stderr


def test_help_names_the_stages():
    result = run(["--help"])
    assert "stage 5" in result.stdout
