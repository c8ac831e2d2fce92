"""mome.bin.decode and mome.bin.merge_decoding: what is decoded knows its settings."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mome.adapters.routers import GATES
from mome.bin.decode import check_decoded
from mome.bin.decode import main as decode_main
from mome.bin.merge_decoding import main as merge_main
from mome.bin.merge_decoding import merge
from mome.common.marks import OtherSettings
from mome.data import test_sets as sets
from mome.data.audio import write_flac
from mome.data.kaldi import write_scp
from mome.models.avsr import AVSRModel
from mome.tasks import decoding
from mome.tasks.transcript_length import are_cut

SETTINGS = {"weights": "0" * 64, "beam": 2, "max_new_tokens": 8, "length_penalty": 0.0}
COPY = sets.noisy("test", "babble", 0)


def decoded(folder: Path, dump: Path, text: str = "a x\nb y\n", **changes) -> Path:
    """A decoded condition."""
    folder.mkdir(parents=True)
    test_set = sets.settings_of(dump, folder.parent.name)
    how = {"settings": {**SETTINGS, "test_set": test_set, **changes}, "seconds": 1.0}
    how |= {"reference": str(dump / "text"), "command": "decode --part 1/2", "unfinished": 1}
    (folder / "decode.json").write_text(json.dumps(how))
    (folder / "text").write_text(text)
    return folder


def test_other_settings_of_any_condition_are_refused(tmp_path):
    sets.add_to_list(tmp_path, {COPY: {"seed": 0}})
    same = decoded(tmp_path / "decode/avsr/test/a4_v2", tmp_path)
    copy = decoded(tmp_path / f"decode/avsr/{COPY.name}/a4_v2", tmp_path)
    check_decoded(tmp_path / "decode", SETTINGS, tmp_path, force=False)
    with pytest.raises(OtherSettings, match=r"beam: was 2, is 5\nKeep it and give another --dec"):
        check_decoded(tmp_path / "decode", SETTINGS | {"beam": 5}, tmp_path, force=False)
    sets.add_to_list(tmp_path, {COPY: {"seed": 1}})
    with pytest.raises(OtherSettings, match=r'test_set: was \{"seed": 0\}, is \{"seed": 1\}'):
        check_decoded(tmp_path / "decode", SETTINGS, tmp_path, force=False)
    check_decoded(tmp_path / "decode", SETTINGS, tmp_path, force=True)
    assert same.exists()
    assert not copy.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"beam": 2}'])
def test_what_does_not_say_its_settings_is_decoded_again(tmp_path, caplog, content):
    folder = decoded(tmp_path / "decode/avsr/test/a4_v2", tmp_path)
    (folder / "decode.json").write_text(content)
    check_decoded(tmp_path / "decode", SETTINGS, tmp_path, force=False)
    assert "test/a4_v2 does not say how it was decoded: it counts as not done" in caplog.text
    assert not folder.exists()


@pytest.fixture
def dump(tmp_path):
    """Two sets of three clips that are heard."""
    folder = tmp_path / "dump"
    rng = np.random.default_rng(0)
    for name in ("train", "valid"):
        wavs = {f"u{number}": folder / name / f"{number}.flac" for number in range(3)}
        for wav in wavs.values():
            write_flac(wav, rng.normal(0, 0.1, 16000).astype(np.float32))
        write_scp(folder / name / "wav.scp", wavs)
        write_scp(folder / name / "text", dict.fromkeys(wavs, "place red now"))
        write_scp(folder / name / "utt2dur", dict.fromkeys(wavs, "1.00"))
        write_scp(folder / name / "utt2num_frames", dict.fromkeys(wavs, 25))
    return folder


@pytest.mark.parametrize(("unfinished", "said"), [(0, False), (2, False), (3, True)])
def test_more_than_one_transcript_in_a_hundred_must_end(unfinished, said):
    assert are_cut(unfinished, 200) == said


def test_cut_transcripts_are_counted_and_a_warning_says_so(training, dump, tmp_path, caplog):
    config = yaml.safe_load((training / "config.yaml").read_text())
    config["use_preprocessor"] = True
    config["train_data_path_and_name_and_type"] = [[str(dump / "train/text"), "text", "text"]]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    options = ["--config", tmp_path / "config.yaml", "--weights", training / "model.pth"]
    options += ["--dump", dump, "--test_sets", "valid", "--beam", "1", "--rates", "a16"]

    def decode(name: str, *more: object) -> dict:
        decode_main([str(word) for word in (*options, "--output", tmp_path / name, *more)])
        return json.loads((tmp_path / name / "asr/valid/a16/decode.json").read_text())

    how = decode("short", "--max_new_tokens", 1, "--num_workers", 0)
    cut = how["unfinished"]
    assert cut > 0  # random weights seldom end a transcript with its first token
    assert f"valid asr a16: {cut} of 3 transcripts do not end within --max_new_tokens 1" in (
        caplog.text
    )
    assert decode("default", "--num_workers", 0)["settings"]["max_new_tokens"] == 32
    write_scp(dump / "train/text", {"u0": "red " * 50})
    assert decode("long", "--num_workers", 0)["settings"]["max_new_tokens"] == 64


def options_of(training: Path, dump: Path, folder: Path, *further) -> list:
    """Of a decoding of the validation set by hearing at rate 16, into ``<folder>/decode``."""
    config = yaml.safe_load((training / "config.yaml").read_text()) | {"use_preprocessor": True}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    options = ["--config", folder / "config.yaml", "--weights", training / "model.pth"]
    options += ["--dump", dump, "--test_sets", "valid", "--rates", "a16", "--num_workers", 0]
    return [*options, "--output", folder / "decode", *further]


def test_a_lack_of_memory_names_the_utterances_and_what_helps(
    training, dump, tmp_path, monkeypatch
):
    options = options_of(training, dump, tmp_path, "--batch_size", 2)
    monkeypatch.setattr(AVSRModel, "encode", lambda self, **batch: torch.empty(2**55))
    with pytest.raises(
        SystemExit, match=r"with the utterances u\d, u\d: .*--decode_batch_size.* or --beam"
    ):
        decode_main(list(map(str, options)))

    with monkeypatch.context() as patch:
        patch.setattr(AVSRModel, "load_state_dict", lambda *_, **__: torch.empty(2**55))
        with pytest.raises(SystemExit, match=r"memory while .*model\.pth was loaded: end what"):
            decode_main(list(map(str, options)))

    class Large:
        """A batch for which the device has no memory."""

        def to(self, device):
            return torch.empty(2**55)

    with monkeypatch.context() as patch:
        patch.setattr(
            decoding, "DataLoader", lambda *_, **__: [(["u0", "u1"], {"speech": Large()})]
        )
        with pytest.raises(SystemExit, match="with the utterances u0, u1: lower --decode_batch"):
            decode_main(list(map(str, options)))

    def broken(self, **batch):
        raise RuntimeError("something else")

    monkeypatch.setattr(AVSRModel, "encode", broken)
    with pytest.raises(RuntimeError, match="something else"):
        decode_main(list(map(str, options)))


def test_utterances_of_which_the_llm_knows_no_probability_are_named(
    training, dump, tmp_path, monkeypatch
):
    options = options_of(training, dump, tmp_path, "--batch_size", 3, "--max_new_tokens", 2)
    prompts = AVSRModel.prompts

    def one_is_undefined(self, *args):
        nodes, leaves = prompts(self, *args)
        embeds = nodes[leaves[0]].embeds.clone()
        embeds[1] = torch.nan
        nodes[leaves[0]] = replace(nodes[leaves[0]], embeds=embeds)
        return nodes, leaves

    monkeypatch.setattr(AVSRModel, "prompts", one_is_undefined)
    with pytest.raises(SystemExit, match="no number as their probability for u1: look at"):
        decode_main(list(map(str, options)))


def test_parts_are_merged_if_their_settings_agree(tmp_path, caplog):
    (tmp_path / "text").write_text("a x\nb y\n")
    parts = [
        decoded(tmp_path / f"split2/{n}/avsr/test/a4", tmp_path, text, **changes)
        for n, text, changes in ((1, "a x\n", {}), (2, "b y\n", {}), (3, "b y\n", {"beam": 5}))
    ]
    with pytest.raises(ValueError, match="was decoded with other settings than"):
        merge([parts[0], parts[2]], tmp_path / "bad")
    assert merge(parts[:2], tmp_path / "avsr/test/a4") == 2
    # One of each part was cut, which the jobs have said in their logs alone.
    said = "test avsr a4: 2 of 2 transcripts do not end within --max_new_tokens 8"
    assert said in caplog.text
    how = json.loads((tmp_path / "avsr/test/a4/decode.json").read_text())
    assert how["settings"]["beam"] == 2
    assert how["seconds"] == 2.0
    assert how["unfinished"] == 2


def test_a_part_that_is_missing_ends_the_joining_with_a_line(tmp_path):
    decoded(tmp_path / "decode/split2/1/avsr/test/a4_v2", tmp_path, "a x\n")
    with pytest.raises(SystemExit, match=r"split2/2/avsr/test/a4_v2 is not decoded; run stage 5"):
        merge_main(["--decode", str(tmp_path / "decode"), "--nj", "2"])


def test_what_was_decoded_with_another_module_is_refused(training, dump, tmp_path, monkeypatch):
    """Decodings of before do not say which modules there were, and hold."""
    monkeypatch.chdir(tmp_path)
    # The module is imported here: no other test shall find it, nor this folder on Python's path.
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("decoded_by_my_gate.py").write_text("one = 1\n")
    options = options_of(training, dump, tmp_path, "--beam", 1, "--max_new_tokens", 1)
    config = yaml.safe_load(Path("config.yaml").read_text()) | {"imports": ["decoded_by_my_gate"]}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    decode_main(list(map(str, options)))
    with monkeypatch.context() as patch:
        patch.delattr(decoding, "load_model")  # nothing is left to decode
        decode_main(list(map(str, options)))
    Path("decoded_by_my_gate.py").write_text("two = 2\n")
    with pytest.raises(SystemExit, match=r"other settings:\n  modules: was .*my_gate"):
        decode_main(list(map(str, options)))
    (how,) = Path("decode").glob("*/*/*/decode.json")
    said = json.loads(how.read_text())
    del said["settings"]["modules"]
    how.write_text(json.dumps(said))
    decode_main(list(map(str, options)))


def test_parameters_are_counted_with_the_module_that_an_option_imports(
    training, dump, tmp_path, monkeypatch
):
    """Also where a run was killed after the last transcript, and nothing is left to decode."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("counted_by_my_gate.py").write_text(
        "import mome\n\n@mome.register_gate('counted')\ndef gate(logits, probs, top_k):\n"
        "    return probs.topk(top_k, dim=-1)\n"
    )
    options = options_of(training, dump, tmp_path, "--beam", 1, "--max_new_tokens", 1)
    options += ["--parameters", tmp_path / "parameters.txt", "--import", "counted_by_my_gate"]
    config = yaml.safe_load(Path("config.yaml").read_text())
    config["decoder_conf"]["adapter_conf"]["gate"] = "counted"
    Path("config.yaml").write_text(yaml.safe_dump(config))
    decode_main(list(map(str, options)))
    counted = Path("parameters.txt").read_text()
    assert "active" in counted
    Path("parameters.txt").unlink()
    GATES.pop("counted")  # as in a new process
    sys.modules.pop("counted_by_my_gate")
    decode_main(list(map(str, options)))
    assert Path("parameters.txt").read_text() == counted
