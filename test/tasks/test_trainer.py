"""Trainings that fail or are killed: what they say, and what they end with when they go on."""

import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from tiny_task import trainer_options
from torch.multiprocessing.spawn import ProcessContext

from mome.bin.train import main as program
from mome.models.avsr import AVSRModel
from mome.tasks.avsr import AVSRTask
from mome.tasks.config import parse
from mome.tasks.trainer import keep, restore


@pytest.fixture(scope="module")
def options(tmp_path_factory, tiny_lm, tiny_whisper) -> list[str]:
    folder = tmp_path_factory.mktemp("trainer")
    options = trainer_options(folder, tiny_lm, tiny_whisper)
    return [*options, "--num_iters_per_epoch", "2", "--ngpu", "0"]


def train(options: list[str], folder: Path) -> None:
    AVSRTask.main(cmd=[*options, "--output_dir", str(folder), "--resume", "true"])


@pytest.fixture(scope="module")
def undisturbed(options, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(options, folder)
    return folder


class Killed(BaseException):
    """Stands for the signal."""


@pytest.mark.parametrize(
    "name", ["1epoch.pth", "2epoch.pth", "checkpoint.pth at 1", "checkpoint.pth at 2"]
)
def test_a_training_killed_while_it_writes_ends_as_one_undisturbed(
    options, undisturbed, tmp_path, monkeypatch, name
):
    name, _, epoch = name.partition(" at ")
    save, written = torch.save, []

    def cut(value, path, *args, **kwargs):
        save(value, path, *args, **kwargs)
        written.append(Path(path).name)
        if Path(path).name == name and written.count(name) == int(epoch or 1):
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            raise Killed

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(Killed):
        train(options, tmp_path)
    monkeypatch.undo()
    train(options, tmp_path)
    for file in ("2epoch.pth", "valid.acc.best.pth", "valid.acc.ave.pth"):
        got = torch.load(tmp_path / file, weights_only=True)
        wanted = torch.load(undisturbed / file, weights_only=True)
        assert got.keys() == wanted.keys()
        assert all(torch.equal(got[key], wanted[key]) for key in wanted)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        p.name for p in undisturbed.iterdir()
    )


def test_a_full_disk_is_named_and_leaves_nothing_that_is_taken_for_complete(
    options, undisturbed, tmp_path
):
    (tmp_path / "2epoch.pth").symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"{tmp_path} cannot be written.*run the same command again"):
        train(options, tmp_path)
    (tmp_path / "2epoch.pth").unlink()
    train(options, tmp_path)
    got, wanted = (
        torch.load(folder / "2epoch.pth", weights_only=True) for folder in (tmp_path, undisturbed)
    )
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_a_training_killed_between_writes_ends_as_one_undisturbed(
    options, undisturbed, tmp_path, monkeypatch
):
    steps, forward = [], AVSRModel.forward

    def killed_in_the_second_epoch(self, *args, **kwargs):
        steps.append(self.training)
        if sum(steps) == 4:
            raise Killed
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(AVSRModel, "forward", killed_in_the_second_epoch)
    with pytest.raises(Killed):
        train(options, tmp_path)
    monkeypatch.undo()
    train(options, tmp_path)
    got = torch.load(tmp_path / "2epoch.pth", weights_only=True)
    wanted = torch.load(undisturbed / "2epoch.pth", weights_only=True)
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("damage", ["cut", "empty", "no checkpoint", "another model"])
def test_a_damaged_checkpoint_is_named_with_its_remedy(options, undisturbed, tmp_path, damage):
    """Not one of a killed epoch, which is known, but what a disk makes of it later."""
    folder = tmp_path / "exp"
    shutil.copytree(undisturbed, folder)
    checkpoint = folder / "checkpoint.pth"
    if damage == "another model":
        state = torch.load(checkpoint, weights_only=True)
        state["model"].popitem()
        torch.save(state, checkpoint)
    else:
        whole = checkpoint.read_bytes()
        checkpoint.write_bytes({"cut": whole[: len(whole) // 2], "empty": b""}.get(damage, b"x"))
    with pytest.raises(ValueError, match=rf"{checkpoint} is damaged, or of .*--force true"):
        train(options, folder)


def test_training_anew_in_the_folder_of_a_killed_one_does_not_go_on_from_it(
    options, undisturbed, tmp_path
):
    (tmp_path / "checkpoint.complete.pth").write_bytes(b"of an earlier training")
    train(options, tmp_path)
    got = torch.load(tmp_path / "2epoch.pth", weights_only=True)
    wanted = torch.load(undisturbed / "2epoch.pth", weights_only=True)
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_a_loss_that_is_no_number_names_the_batch(tmp_path, tiny_lm, tiny_whisper):
    options = trainer_options(tmp_path / "corpus", tiny_lm, tiny_whisper)
    # A projector that has lost its numbers, as after a step of far too high a learning rate.
    options += ["--optim_conf", "lr=1.0e+30", "--grad_clip", "1.0e+30", "--ngpu", "0"]
    with pytest.raises(
        FloatingPointError, match=r"loss is (nan|-?inf) .* a_\d, a_\d, .*optim_conf"
    ):
        train(options, tmp_path / "exp")


def one_of_two(rank: int, options: list[str], folder: Path) -> None:
    """A process of a training in which the second one's loss overflows in the second step."""
    steps, forward = [], AVSRModel.forward

    def overflows(self, *args, **kwargs):
        loss, *others = forward(self, *args, **kwargs)
        steps.append(kwargs["utt_id"])
        if rank == 1 and len(steps) == 2:
            loss = loss * float("inf")
        return loss, *others

    AVSRModel.forward = overflows
    options = [*options, "--dist_backend", "gloo", "--multiprocessing_distributed", "false"]
    options += ["--dist_init_method", f"file://{folder}/init", "--dist_world_size", "2"]
    try:
        train([*options, "--dist_rank", str(rank)], folder / "exp")
    except FloatingPointError as error:
        (folder / f"{rank}.txt").write_text(f"{error}\n{' '.join(steps[-1])}")


def test_a_loss_that_is_no_number_in_one_process_stops_all(options, tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    started = torch.multiprocessing.spawn(one_of_two, (options, tmp_path), nprocs=2, join=False)
    end = time.monotonic() + 600
    try:
        while not started.join(1):
            assert time.monotonic() < end, "a process waits for one that has stopped"
    finally:
        for process in started.processes:
            process.kill()
    (first, of_first), (second, of_second) = [
        (tmp_path / f"{rank}.txt").read_text().split("\n") for rank in (0, 1)
    ]
    assert first == second
    assert f"the loss is inf for the utterances {', '.join(of_second.split())}: look at" in first
    assert not any(utterance in first for utterance in of_first.split())


def test_a_lack_of_memory_names_the_batch_and_what_helps(options, tmp_path, monkeypatch):
    def too_large(self, *args, **kwargs):
        return torch.empty(2**55)  # PyTorch's own error

    monkeypatch.setattr(AVSRModel, "encode", too_large)
    with pytest.raises(MemoryError, match=r"a_\d, a_\d.*batch_size.*gradient_checkpointing"):
        train(options, tmp_path)


def test_what_fails_in_a_validation_names_its_batch(options, tmp_path, monkeypatch):
    """The errors of an epoch choose the model: with NaN among them any epoch may be the best."""
    encode, forward = AVSRModel.encode, AVSRModel.forward

    def too_large(self, *args, **kwargs):
        return encode(self, *args, **kwargs) if self.training else torch.empty(2**55)

    with monkeypatch.context() as patch:
        patch.setattr(AVSRModel, "encode", too_large)
        with pytest.raises(MemoryError, match=r"a_\d, a_\d.*lower valid_batch_size"):
            train(options, tmp_path)

    def undefined(self, *args, **kwargs):
        loss, *others = forward(self, *args, **kwargs)
        return loss if self.training else loss * float("nan"), *others

    monkeypatch.setattr(AVSRModel, "forward", undefined)
    with pytest.raises(FloatingPointError, match=r"loss is nan for the utterances a_\d, a_\d"):
        train(options, tmp_path)


def test_what_fails_in_a_training_ends_the_command_with_one_line(options, tmp_path, monkeypatch):
    command = [*options, "--output_dir", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(AVSRModel, "encode", lambda self, *args, **kwargs: torch.empty(2**55))
        with pytest.raises(SystemExit, match=r"^mome-train: error: out of memory with .*a_\d"):
            program(command)
    forward = AVSRModel.forward

    def undefined(self, *args, **kwargs):
        loss, *others = forward(self, *args, **kwargs)
        return loss * float("nan"), *others

    monkeypatch.setattr(AVSRModel, "forward", undefined)
    with pytest.raises(SystemExit, match=r"^mome-train: error: the loss is nan for .*a_\d"):
        program(command)


def of_one_gpu(options: list[str], folder: Path) -> None:
    """What ESPnet starts for a GPU, here without one; its memory does not suffice."""
    AVSRModel.encode = lambda self, *args, **kwargs: torch.empty(2**55)
    args = parse([*options, "--output_dir", str(folder), "--multiprocessing_distributed", "true"])
    args.distributed, args.dist_rank, args.dist_world_size = True, 0, 1
    args.dist_backend, args.dist_init_method = "gloo", f"file://{folder}/init"
    AVSRTask.main_worker(args)


def test_an_error_of_one_process_of_several_is_one_line(options, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")

    def start_and_wait(args):
        started = torch.multiprocessing.get_context("spawn").Process(
            target=of_one_gpu, args=(options, tmp_path)
        )
        started.start()
        while not ProcessContext([started], [str(tmp_path / "none")]).join():
            pass

    monkeypatch.setattr(AVSRTask, "main", start_and_wait)
    ended = rf"^mome-train: error: process 0 .* exit code 1; .* the log in {tmp_path}$"
    with pytest.raises(SystemExit, match=ended):
        program([*options, "--output_dir", str(tmp_path)])
    said = capfd.readouterr().err
    assert re.search(r"^mome-train: error: out of memory with the utterances a_\d", said, re.M)
    assert "Traceback" not in said


def test_other_errors_are_left_alone(options, tmp_path, monkeypatch):
    def broken(self, *args, **kwargs):
        raise RuntimeError("something else")

    monkeypatch.setattr(AVSRModel, "encode", broken)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        train(options, tmp_path)


def test_a_checkpoint_of_an_earlier_training_is_not_gone_back_to(tmp_path):
    (tmp_path / "checkpoint.pth").write_bytes(b"earlier")
    restore(tmp_path, resume=False)
    keep(tmp_path, epoch=1)
    (tmp_path / "checkpoint.pth").write_bytes(b"of the first epoch, cut")
    restore(tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "checkpoint.pth").write_bytes(b"first")
    keep(tmp_path, epoch=2)
    (tmp_path / "checkpoint.pth").write_bytes(b"cut")
    restore(tmp_path, resume=True)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("checkpoint.pth", b"first")]
