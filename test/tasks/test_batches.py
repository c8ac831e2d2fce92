"""Batches of equally long utterances, and that training draws them anew."""

from collections import Counter

import pytest

from mome.tasks.batches import RandomTies
from mome.tasks.config import parse


def test_equally_long_utterances_change_places_and_nothing_else():
    lengths = {f"u{n:02d}": 75 if n < 20 else 50 + n for n in range(30)}
    names = sorted(lengths, key=lengths.get)
    batches = [names[start : start + 4] for start in range(0, 30, 4)]
    sampler = RandomTies(batches, lengths)
    assert list(sampler) == [tuple(batch) for batch in batches]
    epochs = [sampler.generate(seed) for seed in range(40)]
    partners = Counter()
    for epoch in epochs:
        assert len(epoch) == len(sampler) == len(batches)
        assert sorted(u for batch in epoch for u in batch) == sorted(lengths)
        for drawn, given in zip(epoch, batches, strict=True):
            assert [lengths[u] for u in drawn] == [lengths[u] for u in given]
        partners.update(u for batch in epoch if "u00" in batch for u in batch)
    assert epochs[0] == sampler.generate(0)
    assert epochs[0] != epochs[1]
    # Every utterance of the same length has shared a batch with u00; by name it is always three.
    assert {f"u{n:02d}" for n in range(20)} <= set(partners)


@pytest.mark.parametrize("kind", ["sorted", "length"])  # as mini_av's and GRID's, and as LRS'
def test_the_task_trains_on_them_and_validates_in_order(tmp_path, kind):
    from mome.tasks.avsr import AVSRTask

    folder = tmp_path / "set"
    folder.mkdir()
    names = [f"u{n:02d}" for n in range(12)]
    for file in ("text", "utt2num_frames"):
        value = "a word" if file == "text" else "75"
        (folder / file).write_text("".join(f"{name} {value}\n" for name in names))
    (folder / "lip.scp").write_text("".join(f"{name} {name}.mp4\n" for name in names))
    arguments = ["--train_data", str(folder), "--valid_data", str(folder), "--tasks", "vsr"]
    # By length as well, a batch has some utterances and not all of them.
    arguments += ["--batch_bins", "300", "--valid_batch_bins", "300"]
    args = parse([*arguments, "--batch_type", kind, "--batch_size", "4"])
    args.preprocessor_conf = {}
    args.use_preprocessor = False
    drawn = {}
    for mode in ("train", "valid"):
        options = AVSRTask.build_iter_options(args, _OneProcess, mode)
        factory = AVSRTask.build_sequence_iter_factory(args, options, mode)
        drawn[mode] = [factory.sampler.generate(seed) for seed in (0, 1)]
    assert all(1 < len(batch) < 12 for epoch in drawn["train"] for batch in epoch)
    assert drawn["train"][0] != drawn["train"][1]
    assert drawn["valid"][0] == drawn["valid"][1]


class _OneProcess:
    """ESPnet's option of distributed training, which is off."""

    distributed = False
