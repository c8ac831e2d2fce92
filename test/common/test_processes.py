"""mome.common.processes."""

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from jobs import square_but, square_if_alone, square_or_crash, threads_of

from mome.common import processes
from mome.common.processes import AllCrash, WorkerError, map_items
from mome.data.audio import write_flac
from mome.data.kaldi import spk2utt_of, write_scp

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("nj", [1, 2])
def test_results_are_in_order(nj):
    results = map_items(square_but, range(20), nj, "squares")
    assert [square for square, _ in results] == [n * n for n in range(20)]
    assert (os.getpid() in {pid for _, pid in results}) == (nj == 1)


@pytest.mark.parametrize("nj", [1, 2])
def test_failure_names_work_item_and_reason(nj):
    with pytest.raises(WorkerError, match="squares: 7: ValueError: cannot square this") as caught:
        map_items(partial(square_but, bad=7), range(20), nj, "squares")
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_item_that_ends_its_process_is_found(caplog):
    crash = partial(square_or_crash, bad=(1, 4))
    with pytest.raises(WorkerError, match="squares: 1: BrokenProcessPool: its process crashed or"):
        map_items(crash, range(6), 2, "squares")
    found = map_items(crash, range(6), 2, crashed=lambda number, reason: f"{number}: {reason}")
    assert [found[place] for place in (0, 2, 3, 5)] == [0, 4, 9, 25]
    for place in (1, 4):
        assert str(found[place]).startswith(
            f"{place}: its process crashed or was killed, also when"
        )
    # How many results were lost with a pool is a matter of time.
    said = r"job: a worker crashed or was killed; the [2-4] items that it may have been"
    assert re.search(said, caplog.text)


def test_what_crashes_beside_others_alone_is_not_blamed(tmp_path, caplog):
    work = partial(square_if_alone, memory=tmp_path / "memory")
    found = map_items(work, range(5), 2, crashed=lambda number, reason: reason)
    assert found == [n * n for n in range(5)]
    assert "a worker crashed or was killed" in caplog.text


@pytest.mark.parametrize("bad", [(1, 2), (0, 1, 2, 3), (2, 3, 4, 5), (3, 4, 5, 6, 7)])
def test_one_job_survives_items_that_end_its_process(bad):
    """Also where all of the first, or of the last, or more than are tried at once, do."""
    crash = partial(square_or_crash, bad=bad)
    count = 6 if max(bad) < 6 else 8
    found = map_items(crash, range(count), 1, crashed=lambda number, reason: -number)
    assert found == [-n if n in bad else n * n for n in range(count)]


@pytest.mark.parametrize(("count", "nj"), [(1, 1), (2, 2), (3, 1), (6, 1), (6, 2)])
def test_items_are_not_blamed_where_every_process_crashes(count, nj):
    crash = partial(square_or_crash, bad=tuple(range(count)))
    with pytest.raises(
        AllCrash, match=r"job: every process crashes .*machine.* The first of them is 0"
    ):
        map_items(crash, range(count), nj, crashed=lambda number, reason: number)


def test_an_item_that_is_known_to_do_tells_whose_fault_it_is():
    """As where all but few items were done before."""
    crash = partial(square_or_crash, bad=(0, 1))
    options = {"crashed": lambda number, reason: -number, "desc": "squares"}
    assert map_items(crash, [1], control=lambda: 2, **options) == [-1]
    assert map_items(partial(square_but, bad=2), [1], control=lambda: 2, **options)[0][0] == 1
    for control in (lambda: 0, lambda: None):
        with pytest.raises(AllCrash, match="squares: every process crashes"):
            map_items(crash, [1], control=control, **options)
    # Others that are there may have been done before, without being tried now.
    with pytest.raises(AllCrash, match=r"with 1 item\(s\) and with another one: rather"):
        map_items(crash, [5, 1], control=lambda: 0, **options)


def test_workers_compute_in_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert map_items(threads_of, range(2), 2) == [(["1", "1", "1"], 1)] * 2
    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert "MKL_NUM_THREADS" not in os.environ


def test_nothing_to_do_and_no_job():
    assert map_items(square_but, [], 2) == []
    with pytest.raises(ValueError, match="nj=0"):
        map_items(square_but, [1], 0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Path:
    """The YAML of a Dask cluster of two processes on this machine."""
    pytest.importorskip("dask_jobqueue", reason="data stages on a cluster need Dask")
    path = tmp_path_factory.mktemp("dask") / "local.yaml"
    options = {"threads_per_worker": 1, "dashboard_address": None}
    path.write_text(yaml.safe_dump({"env": "local", "n_workers": 2, "options": options}))
    return path


def test_cluster_gives_results_in_order_and_names_a_failure(cluster):
    results = map_items(square_but, range(20), desc="squares", cluster=cluster)
    assert [square for square, _ in results] == [n * n for n in range(20)]
    assert os.getpid() not in {pid for _, pid in results}
    with pytest.raises(WorkerError, match="squares: 7: ValueError: cannot square this"):
        map_items(partial(square_but, bad=7), range(20), desc="squares", cluster=cluster)


def test_workers_of_a_cluster_compute_in_one_thread(cluster, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert map_items(threads_of, range(2), cluster=cluster) == [(["1", "1", "1"], 1)] * 2


def test_an_item_that_ends_workers_of_a_cluster_is_found(cluster, tmp_path):
    """Those that its workers had beside it are done again alone, and not blamed."""
    import dask

    own = tmp_path / "own.yaml"  # another cluster, of which workers may end
    own.write_text(cluster.read_text())
    crash = partial(square_or_crash, bad=(1, 4))
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        found = map_items(
            crash, range(6), cluster=own, crashed=lambda number, reason: f"{number}: {reason}"
        )
        with pytest.raises(WorkerError, match=r"squares: [0-5]: KilledWorker: "):
            map_items(crash, range(6), desc="squares", cluster=own)
    assert [found[place] for place in (0, 2, 3, 5)] == [0, 4, 9, 25]
    for place in (1, 4):
        assert str(found[place]).startswith(f"{place}: its process crashed or was killed")


def test_items_are_not_blamed_where_all_workers_of_a_cluster_end(cluster, tmp_path):
    import dask

    own = tmp_path / "own.yaml"
    own.write_text(cluster.read_text())
    crash = partial(square_or_crash, bad=(1, 4))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(AllCrash, match=r"job: every process .* with 2 item\(s\) and with another"),
    ):
        map_items(crash, range(6), cluster=own, crashed=lambda *_: "", control=lambda: 1)


def test_a_cluster_that_has_lost_its_workers_is_given_up(cluster, tmp_path, monkeypatch):
    own = tmp_path / "own.yaml"
    own.write_text(cluster.read_text())
    assert map_items(time.sleep, [0.0], cluster=own) == [None]
    monkeypatch.setattr(processes, "LOST", 1.0)
    ending = threading.Timer(1.0, lambda: processes._client(str(own)).cluster.scale(0))
    ending.start()
    said = r"naps: \d+ items are left, and no worker of the cluster has been at work for 1 s"
    with pytest.raises(WorkerError, match=said):
        map_items(time.sleep, [0.2] * 100, desc="naps", cluster=own)
    ending.join()


def write_speakers(folder: Path) -> None:
    """A dump of four speakers with two utterances each, and a test set of two of them."""
    rng = np.random.default_rng(0)
    wavs = {f"s{n // 2}_{n % 2}": folder / f"audio/{n}.flac" for n in range(8)}
    for wav in wavs.values():
        write_flac(wav, rng.normal(0, 0.1, 16000).astype(np.float32))
    for name, chosen in (("train", list(wavs)), ("test", ["s0_0", "s1_1"])):
        speakers = {utterance: utterance[:2] for utterance in chosen}
        write_scp(folder / name / "wav.scp", {u: wavs[u] for u in chosen})
        write_scp(folder / name / "utt2spk", speakers)
        write_scp(folder / name / "spk2utt", spk2utt_of(speakers))
        write_scp(folder / name / "utt2dur", dict.fromkeys(chosen, "1.00"))
        write_scp(folder / name / "text", dict.fromkeys(chosen, "red"))


def make_noise(folder: Path, *options: object, **env: str) -> dict[str, str]:
    """Run stage 3's command; the SHA-256 of each file made, by path."""
    write_speakers(folder)
    command = [sys.executable, "-m", "mome.bin.make_noise", "--dump", ".", "--snrs", "0"]
    command += ["--num_train", "2", "--num_test", "1", "--seconds", "2", *map(str, options)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
    assert result.returncode == 0, result.stderr[-4000:]
    made = [*folder.glob("noise/*/*.flac"), *folder.glob("test_babble_snr0/**/*")]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in made
        if path.is_file()
    }


def test_a_slurm_cluster_makes_the_same_files(cluster, tmp_path):
    """Dask's own job script runs, started by a stand-in for sbatch."""
    conf = yaml.safe_load((ROOT / "egs/TEMPLATE/avsr1/conf/dask_slurm.yaml").read_text())
    conf["n_workers"] = 1
    conf["options"] |= {"interface": "lo", "log_directory": str(tmp_path / "log")}
    (tmp_path / "slurm.yaml").write_text(yaml.safe_dump(conf))
    here = make_noise(tmp_path / "here", "--nj", 1)
    there = make_noise(
        tmp_path / "there",
        "--parallel",
        tmp_path / "slurm.yaml",
        PATH=f"{ROOT / 'test/slurm'}:{os.environ['PATH']}",
        SBATCH_LOG=str(tmp_path / "sbatch"),
    )
    assert len(here) > 5
    assert there == here
    script = (tmp_path / "sbatch.sh").read_text().split("\n")
    asked = {"-p cpu", "--cpus-per-task=1", "--mem=4G", "-t 12:00:00"}
    assert asked <= {line.removeprefix("#SBATCH ") for line in script}
