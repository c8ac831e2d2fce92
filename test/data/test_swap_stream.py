"""mome.bin.swap_stream."""

import pytest

from mome.bin.swap_stream import main as swap_main
from mome.bin.swap_stream import partners
from mome.data.kaldi import read_scp, spk2utt_of, write_scp
from mome.data.test_sets import read_list

TEXTS = {"a_1": "red", "a_2": "red", "b_1": "blue", "b_2": "green"}


def test_partners_are_neighbours_in_length_that_say_something_else():
    durations = dict(zip(TEXTS, ["1", "2", "3", "9"], strict=True))
    assert partners(durations, TEXTS) == {"a_1": "b_1", "a_2": "b_1", "b_1": "b_2", "b_2": "a_1"}
    with pytest.raises(ValueError, match="no utterance of the set has another text"):
        partners(durations, dict.fromkeys(TEXTS, "red"))


def write_set(data, texts):
    utt2spk = {u: u[0] for u in texts}
    write_scp(data / "text", texts)
    write_scp(data / "utt2spk", utt2spk)
    write_scp(data / "spk2utt", spk2utt_of(utt2spk))
    write_scp(data / "utt2dur", {u: number for number, u in enumerate(texts, 1)})
    for name in ("lip.scp", "wav.scp"):
        write_scp(data / name, {u: f"{u}.{name}" for u in texts})


def test_sets_without_anything_to_exchange_stop_nothing(tmp_path, capsys):
    """All say the same, there is but one utterance, or there is but one stream."""
    write_set(tmp_path / "same", dict.fromkeys(TEXTS, "red"))
    write_set(tmp_path / "single", {"a_1": "red"})
    write_set(tmp_path / "lips", TEXTS)
    (tmp_path / "lips/wav.scp").unlink()
    write_set(tmp_path / "test", TEXTS)
    swap_main(["--dump", str(tmp_path), "--sets", "same", "single", "lips", "test"])
    assert list(read_list(tmp_path)) == ["test_swapaudio", "test_swapvideo"]
    printed = capsys.readouterr().out
    assert printed.count("between utterances of the same text") == 2
    assert "lips: no streams to exchange without wav.scp" in printed


def test_copies_exchange_one_stream_and_are_listed(tmp_path):
    data = tmp_path / "test"
    write_set(data, TEXTS)
    swap_main(["--dump", str(tmp_path)])
    assert list(read_list(tmp_path)) == ["test_swapaudio", "test_swapvideo"]
    for stream, changed, kept in (("video", "lip", "wav"), ("audio", "wav", "lip")):
        folder = tmp_path / f"test_swap{stream}"
        assert read_scp(folder / f"{changed}.scp")["a_1"] == f"b_1.{changed}.scp"
        for name in (f"{kept}.scp", "text"):
            assert (folder / name).read_bytes() == (data / name).read_bytes()
