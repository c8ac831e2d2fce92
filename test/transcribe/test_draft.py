"""What a draft by CTC saves: egs/grid/local/draft.py, with a model of random weights."""

import sys
from pathlib import Path

import pytest

from mome.tasks.packed import pack
from mome.transcribe.prepared import read_clips
from mome.transcribe.transcriber import Transcriber

sys.path.insert(0, str(Path(__file__).parents[2] / "egs/grid/local"))

import draft


@pytest.fixture(scope="module")
def packed(training, tmp_path_factory):
    info = {"trained_on": "noise", "max_seconds": 6.0, "rates": []}
    folder = tmp_path_factory.mktemp("draft") / "packed"
    return pack(training / "config.yaml", training / "model.pth", folder, info, "")


def test_the_pass_confirms_just_what_greedy_search_says(packed, dump, monkeypatch):
    transcribe = Transcriber.load(packed)
    transcribe.max_new_tokens = 8
    clips, _ = read_clips(dump / "valid", 3, transcribe.model)
    features = transcribe.encode(clips, "avsr")
    some: set[bool] = set()
    for chosen in transcribe.model.task_pairs[:4]:
        # Random weights end nowhere: let a token that they say be the end.
        monkeypatch.setattr(transcribe.model.decoder, "eos_id", -1)
        (tokens, _), *_ = draft.search(transcribe, features, chosen)
        monkeypatch.setattr(transcribe.model.decoder, "eos_id", tokens[4])
        found = draft.search(transcribe, features, chosen)
        said = [tokens for tokens, _ in found]
        ended = [finished for _, finished in found]
        assert draft.confirmed(transcribe.model, features, chosen, said) == ended
        some |= {*ended}
        other = [[*tokens[:-1], (tokens[-1] + 1) % 50] if tokens else [1] for tokens in said]
        assert not any(draft.confirmed(transcribe.model, features, chosen, other))
    assert True in some


def test_the_table(packed, dump, capsys):
    draft.main(["--model", str(packed), "--dump", str(dump), "--test_sets", "valid"])
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 + 4
    assert "| valid" in lines[2]
