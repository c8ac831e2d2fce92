"""The model card: what the hub reads of it, and whether its error rates are those of the tests."""

import json
import os
import subprocess
from pathlib import Path

import jiwer
import pytest
import yaml
from huggingface_hub import ModelCard

from mome.bin import pack as command
from mome.bin.score import main as score
from mome.common.marks import file_digest, read_mark, write_mark
from mome.data import test_sets
from mome.data.kaldi import write_scp
from mome.pretrained.places import CONVERTED_FROM
from mome.tasks.frozen_parts import folders_of
from mome.tasks.packed import load_packed, opened
from mome.transcribe.card import card

AVSR = Path(__file__).parents[2] / "egs/TEMPLATE/avsr1/avsr.sh"
REFERENCES = {"u0": "place red now", "u1": "place blue now", "u2": "lay red again"}
SAID = {
    "a4_v2": {"u0": "place red now", "u1": "place red now", "u2": "lay red again"},
    "a16_v5": {"u0": "red now", "u1": "place red now", "u2": "lay again soon"},
}
INFO = {
    "trained_on": "nothing: at all",
    "training_hours": 0.5,
    "measured": "3 clips of valid, beam 1, cpu",
    "rates": [{"task": "avsr", "rates": "a4_v2", "wer": 1.5, "seconds_per_second": 0.5}],
    "calibration": {
        **{"words": 9, "utterances": 3, "right": 0.5, "word_ece": 0.1, "utterance_ece": 0.1},
        **{"raw_word_ece": 0.2, "raw_utterance_ece": 0.3},
        **{"unknown_parts": 3, "unknown_doubtful": 1.0},
    },
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Transcripts of the tiny model hardly ever end; how long they are is nothing to a card."""
    monkeypatch.setattr("mome.transcribe.transcriber.MAX_NEW_TOKENS", 4)
    monkeypatch.setattr("mome.tasks.transcript_length.LEAST", 4)


@pytest.fixture
def decoded(training, dump) -> Path:
    """Two sets that stage 5 has decoded with the tiny model's weights, and scored."""
    weights = file_digest(training / "model.pth")
    settings = {"weights": weights, "beam": 3, "max_new_tokens": 8, "length_penalty": 1.0}
    copy = test_sets.noisy("test", "babble", 0.0)
    write_scp(dump / "test/text", REFERENCES)
    write_scp(dump / copy.name / "text", REFERENCES)
    test_sets.add_to_list(dump, {copy: {"seed": 0}})
    expdir = dump.parent / "scored"
    expdir.mkdir()
    for name in ("test", copy.name):
        for rates, said in SAID.items():
            folder = expdir / "decode/avsr" / name / rates
            write_scp(folder / "text", said)
            used = settings | {"test_set": test_sets.settings_of(dump, name)}
            how = {"settings": used, "command": "decode", "unfinished": 0}
            (folder / "decode.json").write_text(json.dumps(how))
    score(["--expdir", str(expdir), "--dump", str(dump)])
    for name in ("config.yaml", "model.pth"):
        (expdir / name).symlink_to(training / name)
    return expdir


def pack(expdir: Path, dump: Path, output: Path, *options: object) -> ModelCard:
    words = ["--expdir", expdir, "--weights", "model.pth", "--dump", dump, "--beam", "1"]
    words += ["--trained_on", "noise", "--name", "tiny: a model", "--output", output, *options]
    command.main([str(word) for word in words])
    return ModelCard((output / "README.md").read_text())


def test_the_hub_reads_what_was_tested(decoded, dump, tmp_path):
    found = pack(
        *(decoded, dump, tmp_path / "p", "--language", "en", "--datasets", "mine/words"),
        *("--base_models", "someone/some-lm", "--license", "apache-2.0"),
    )
    assert found.data.language == ["en"]
    assert found.data.datasets == ["mine/words"]
    assert found.data.base_model == ["someone/some-lm"]
    assert found.data.base_model_relation == "adapter"
    assert (found.data.license, found.data.library_name) == ("apache-2.0", "mome")
    assert found.data.model_name == "tiny: a model"
    results = {each.metric_name: each for each in found.data.eval_results}
    assert set(results) == {f"WER, avsr at {rates}" for rates in SAID}  # of the set, not its copy
    for rates, said in SAID.items():
        result = results[f"WER, avsr at {rates}"]
        assert (result.dataset_type, result.dataset_split) == ("mine/words", "test")
        wer = 100 * jiwer.wer(list(REFERENCES.values()), list(said.values()))
        assert result.metric_value == pytest.approx(wer, abs=0.005)


def test_error_rates_of_tests_stand_beside_those_of_the_validation(decoded, dump, tmp_path):
    text = pack(decoded, dump, tmp_path / "p").text
    assert "decoded with beam 3, at most 8 new tokens, length penalty 1; the" in text
    table = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in table]
    header = cells[0]
    assert header[:4] == ["task", "rates", "WER, validation", "WER, test"]
    rows = {(row[0], row[1]): row for row in cells}
    scores = json.loads((decoded / "scores.json").read_text())
    info = json.loads((tmp_path / "p" / "mome.json").read_text())
    measured = {(row["task"], row["rates"]): row["wer"] for row in info["rates"]}
    for rates in SAID:
        row, test = rows["avsr", rates], scores[f"avsr/test/{rates}"]
        assert float(row[2]) == measured["avsr", rates]
        assert row[3] == f"{test['wer']:.1f} [{test['low']:.1f}, {test['high']:.1f}]"
    assert rows["asr", "a4"][3] == ""
    finest = scores["avsr/test_babble_snr0/a4_v2"]
    noisy = next(row for row in cells if row[0] == "test, babble at 0 dB")
    assert noisy[1] == f"{finest['wer']:.1f} [{finest['low']:.1f}, {finest['high']:.1f}]"


def test_error_rates_of_other_weights_are_not_shown(decoded, dump, tmp_path, caplog):
    for how in decoded.glob("decode/*/*/*/decode.json"):
        values = json.loads(how.read_text())
        values["settings"]["weights"] = "0" * 64
        how.write_text(json.dumps(values))
    # Decoded anew, and not scored yet: the scores are those of another decoding.
    with pytest.raises(SystemExit, match=r"scores\.json: avsr/test\S* is not decoded, or in"):
        pack(decoded, dump, tmp_path / "p")
    score(["--expdir", str(decoded), "--dump", str(dump)])
    found = pack(decoded, dump, tmp_path / "p")
    assert found.data.eval_results is None
    assert "No test set was decoded with these weights." in found.text
    assert "holds no error rates of model.pth" in caplog.text
    (decoded / "scores.json").write_text("{")
    with pytest.raises(SystemExit, match=r"scores\.json cannot be read .*run stage 5 again"):
        pack(decoded, dump, tmp_path / "p")


def test_parts_are_linked_where_their_name_on_the_hub_is_known():
    frozen = {
        "decoder_conf.lm": {"name": "smollm2-135m-instruct", "sha256": {}},
        "audio_encoder_conf.model": {"name": "openai/whisper-small", "revision": "a", "sha256": {}},
        "video_encoder_conf.weights": {"name": "model.safetensors", "sha256": {}},
        # Earlier versions named a part by its path on the machine that packed it.
        "token_list": {"name": "/home/me/my-lm", "sha256": {}},
    }
    text = card("a: b", INFO, frozen, "other")
    known = ["HuggingFaceTB/SmolLM2-135M-Instruct", "openai/whisper-small"]
    data = yaml.safe_load(text.split("---")[1])
    assert data["base_model"] == known
    assert ModelCard(text).data.base_model == known
    assert "language" not in data
    assert "model-index" not in data


def test_weights_that_are_not_the_hubs_are_told():
    digest = next(iter(CONVERTED_FROM))
    part = {"name": "smollm2-135m-instruct", "sha256": {"model.safetensors": digest}}
    other = {"name": "smollm2-135m-instruct", "sha256": {"model.safetensors": "0" * 64}}
    assert "from a 4-bit GGUF copy" in card("a", INFO, {"decoder_conf.lm": part}, "other")
    assert "GGUF" not in card("a", INFO, {"decoder_conf.lm": other}, "other")


@pytest.mark.parametrize("name", ["p", "p.zip"])
def test_sets_that_were_decoded_since_come_into_the_card(decoded, dump, tmp_path, name, capsys):
    """Without measuring, which may take hours; nor is anything written that is not new."""
    packed = tmp_path / name
    scored = (decoded / "scores.json").read_text()
    (decoded / "scores.json").unlink()

    def contents() -> dict[str, bytes]:
        with opened(packed) as folder:
            return {path.name: path.read_bytes() for path in folder.iterdir()}

    words = ["--expdir", decoded, "--weights", "model.pth", "--dump", dump, "--beam", "1"]
    words += ["--trained_on", "noise", "--output", packed, "--datasets", "folder"]
    words = [str(word) for word in words]
    command.main(words)
    before = contents()
    assert b"No test set was decoded with these weights." in before["README.md"]
    (decoded / "scores.json").write_text(scored)
    command.main([*words, "--card_only", "--datasets", "mine/words"])
    assert "its card is new" in capsys.readouterr().out
    now = contents()
    data = ModelCard(now["README.md"].decode()).data
    assert data.datasets == ["mine/words"]
    assert {each.dataset_split for each in data.eval_results} == {"test"}
    old, new = (json.loads(each["mome.json"]) for each in (before, now))
    assert {row["set"] for row in new["tests"]} == {"test", "test_babble_snr0"}
    assert new["rates"] == old["rates"]
    assert {file for file in now if now[file] != before[file]} == {"README.md", "mome.json"}
    load_packed(packed, downloads=folders_of(decoded / "config.yaml"))
    command.main([*words, "--card_only", "--datasets", "mine/words"])
    assert "its card is new" not in capsys.readouterr().out
    (decoded / "other.pth").write_bytes(b"x")
    with pytest.raises(SystemExit, match=r"was packed of other weights than .*other\.pth"):
        command.main([*words, "--card_only", "--weights", "other.pth"])


def test_stage_6_renews_the_card_of_what_is_packed(decoded, dump, tmp_path):
    """Of models that earlier versions packed and marked, too, and without measuring again.

    It does not matter whether a job of a cluster has packed it.
    """
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/mome").symlink_to(decoded)
    scored = (decoded / "scores.json").read_text()
    (decoded / "scores.json").unlink()
    options = ["--stage", "6", "--stop_stage", "6", "--inference_model", "model.pth"]
    options += ["--lip_dir", "elsewhere", "--beam", "1"]

    env = {**os.environ, "SBATCH_LOG": str(tmp_path / "sbatch")}
    env["PATH"] = f"{Path(__file__).parents[1] / 'slurm'}:{env['PATH']}"

    def stage(*more: str) -> tuple[str, ModelCard]:
        command = [AVSR, *options, *more]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, env=env
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr, ModelCard((decoded / "packed/README.md").read_text())

    _, told = stage("--decode_cmd", "slurm.pl --exclusive -p gpu")
    assert {"--exclusive", "-p", "gpu"} <= set((tmp_path / "sbatch").read_text().split("\n"))
    log = (decoded / "packed_job.log").read_text()
    assert "mome.bin.pack" in log
    assert log.endswith("# Ended (code 0)\n")
    assert (told.data.eval_results, told.data.datasets) == (None, None)
    measured = json.loads((decoded / "packed/mome.json").read_text())["rates"]
    # As an earlier version left it.
    mark = read_mark(decoded / ".packed.done")
    settings = {k: v for k, v in mark["settings"].items() if not k.endswith("/sources")}
    assert len(settings) == len(mark["settings"]) - 1
    write_mark(decoded / ".packed.done", settings | {"--datasets": tmp_path.name})
    (decoded / "scores.json").write_text(scored)
    said, told = stage()
    assert "done already" in said
    assert {each.dataset_split for each in told.data.eval_results} == {"test"}
    assert json.loads((decoded / "packed/mome.json").read_text())["rates"] == measured


def test_character_error_rates_are_told_as_such():
    tests = [
        {"task": "avsr", "set": name, "rates": "a4_v2", "wer": 9.87, "low": 9.0, "high": 10.5}
        | {"unit": unit}
        for name, unit in [("test", "character"), ("en", "word"), ("test_swapvideo", "character")]
    ]
    rates = [row | {"unit": "character"} for row in INFO["rates"]]
    text = card("a", INFO | {"rates": rates, "tests": tests, "tested": "beam 1"}, {}, "other")
    data = ModelCard(text).data
    found = {each.dataset_split: each for each in data.eval_results}
    assert (found["test"].metric_type, found["en"].metric_type) == ("cer", "wer")
    assert found["test"].metric_name == "CER, avsr at a4_v2"
    assert data.metrics == ["cer", "wer"]
    header = next(line for line in text.splitlines() if line.startswith("| task"))
    titles = [cell.strip() for cell in header.split("|")[1:6]]
    assert titles == ["task", "rates", "CER, validation", "CER, test", "WER, en"]
    assert "test, video of another utterance (CER)" in text
    assert "WER or CER in %;" in text
    assert "each character counts as a\nword" in text
    # Of models that earlier versions packed, words were counted.
    text = card("a", INFO, {}, "other")
    assert "WER, validation" in text
    assert "CER" not in text


def test_a_language_that_the_hub_does_not_know_is_refused(dump, training, tmp_path, capsys):
    with pytest.raises(SystemExit):
        pack(training, dump, tmp_path / "p", "--language", "English")
    assert "'English' is no ISO 639 code such as en" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="Repo id must"):
        pack(training, dump, tmp_path / "p", "--base_models", "a/b/c")
