"""egs/grid from end to end on a small corpus in GRID's layout, served by a local HTTP server."""

import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import threading
import zipfile
from http.server import ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import yaml
from espeak import RATE, Voice, speak
from face import random_identity, render
from local_server import Handler
from media import quick_detector
from visemes import mouth_shapes

from mome.common.processes import map_items
from mome.data.kaldi import read_scp, validate_data_dir
from mome.data.video import video_info
from mome.tasks.config import read_config

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs/grid"
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
spec = importlib.util.spec_from_file_location("grid_data", RECIPE / "local/data.py")
grid = importlib.util.module_from_spec(spec)
spec.loader.exec_module(grid)

CLIPS = {
    1: {"bbaf2n": "bin blue at f two now", "swwzza": "set white with z zero again"},
    3: {"lrip9s": "lay red in p nine soon", "pgbx1p": "place green by x one please"},
    10: {"bgah4a": "bin green at h four again", "srbo7n": "set red by o seven now"},
}
for number, letters in ((3, "a"), (10, "b")):
    CLIPS[number] |= {f"lwi{c}3s": f"lay white in {c} three soon" for c in letters}


def write_mpg(item: tuple[Path, str]) -> Path:
    """One clip as GRID has them: MPEG-1, 360x288, 75 frames, 44.1 kHz MPEG audio."""
    path, words = item
    speech, phonemes = speak(DOWNLOADS / "espeak", words, Voice("en-us", 200, 50, 50))
    wave = np.zeros(3 * RATE, np.float32)
    wave[RATE // 5 :][: len(speech)] = 0.3 * speech[: len(wave) - RATE // 5]
    rng = np.random.default_rng(list(path.name.encode()))
    times = (np.arange(75) + 0.5) / 25 - 0.2
    pictures = render(random_identity(rng), mouth_shapes(phonemes, times), rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mpeg") as container:
        video = container.add_stream("mpeg1video", rate=25)
        video.width, video.height, video.pix_fmt, video.bit_rate = 360, 288, "yuv420p", 1_150_000
        audio = container.add_stream("mp2", rate=44100, layout="mono")
        resampler = av.AudioResampler("s16", "mono", 44100)
        for number, picture in enumerate(pictures):
            wide = cv2.copyMakeBorder(picture, 32, 32, 68, 68, cv2.BORDER_REPLICATE)
            frame = av.VideoFrame.from_ndarray(wide, format="bgr24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        sound.sample_rate = RATE
        for frame in [*resampler.resample(sound), *resampler.resample(None)]:
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Zenodo's record and its files: a zip for each speaker."""
    folder = tmp_path_factory.mktemp("grid_server")
    items = [
        (folder / f"s{number}/{code}.mpg", words)
        for number, clips in CLIPS.items()
        for code, words in clips.items()
    ]
    map_items(write_mpg, items, 2)
    (folder / "s3/notes.mpg").write_bytes(b"not a sentence")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.ranges, server.cuts, server.asked = {}, True, [], []
        url = f"http://127.0.0.1:{server.server_port}"
        entries = []
        for number in CLIPS:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as file:
                file.writestr(f"__MACOSX/s{number}/._bbaf2n.mpg", b"resource fork")
                for path in sorted((folder / f"s{number}").iterdir()):
                    file.write(path, f"s{number}/{path.name}")
            content = buffer.getvalue()
            server.files[f"/s{number}.zip"] = content
            entries.append(
                {
                    "key": f"s{number}.zip",
                    "size": len(content),
                    "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
                    "links": {"self": f"{url}/s{number}.zip"},
                }
            )
        server.files["/record"] = json.dumps({"files": entries}).encode()
        server.record = f"{url}/record"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_names_spell_sentences():
    assert grid.sentence("bbaf2n") == "bin blue at f two now"
    assert grid.sentence("pwwzzp") == "place white with z zero please"
    for wrong in ("bbaf2", "bbaw2n", "xbaf2n", "bbaf0n", "bbaf2nn"):
        with pytest.raises(ValueError, match="spells no sentence"):
            grid.sentence(wrong)


def test_download_goes_on_and_is_checked(server, tmp_path):
    speakers = ["--speakers", "1", "3"]
    command = ["download", "--out", str(tmp_path), "--record", server.record, *speakers]
    half = len(server.files["/s3.zip"]) // 2
    (tmp_path / "s3.zip.part").write_bytes(server.files["/s3.zip"][:half])
    server.asked.clear()
    grid.main(command)
    assert ("/s3.zip", f"bytes={half}-") in server.asked
    assert {path.stem for path in (tmp_path / "s1").iterdir()} == set(CLIPS[1])
    assert {path.name for path in tmp_path.iterdir()} == {"s1", "s3"}
    server.asked.clear()
    grid.main(command)
    assert server.asked == []
    with pytest.raises(SystemExit, match=r"has no s34\.zip; it has s1\.zip"):
        grid.main([*command[:-2], "34"])
    good = server.files["/s10.zip"]
    server.files["/s10.zip"] = good[:-1] + b"x"
    try:
        with pytest.raises(RuntimeError, match=r"s10\.zip.*MD5 is .* expected"):
            grid.main([*command[:-2], "10"])
    finally:
        server.files["/s10.zip"] = good
    assert not (tmp_path / "s10").exists()


def corpus_of(folder: Path, clips: int) -> Path:
    """Empty files under the names of all speakers' clips."""
    codes = [f"bbaa{digit}{last}" for digit in "z123456789" for last in "anps"][:clips]
    for number in grid.SPEAKERS:
        (folder / f"s{number}").mkdir(parents=True)
        for code in codes:
            (folder / f"s{number}/{code}.mpg").touch()
    return folder


def test_splits(tmp_path):
    corpus = corpus_of(tmp_path / "grid", clips=12)
    (corpus / "s4/Thumbs.mpg").touch()
    command = ["prepare", "--corpus", str(corpus), "--num_valid", "2", "--out"]
    grid.main([*command, str(tmp_path / "unseen")])
    speakers = {
        name: set(read_scp(tmp_path / "unseen" / name / "utt2spk").values())
        for name in ("train", "valid", "test")
    }
    assert speakers["test"] == {"s01", "s02", "s20", "s22"}
    assert speakers["train"] == speakers["valid"]
    assert len(speakers["train"]) == 29
    assert not speakers["train"] & speakers["test"]
    listed = {name: list(read_scp(tmp_path / "unseen" / name / "excluded")) for name in speakers}
    assert listed == {"train": ["s04_Thumbs"], "valid": [], "test": []}
    # Who is not asked for is left out of either split, wherever their clips are.
    grid.main([*command, str(tmp_path / "two"), "--speakers", "3", "1"])
    found = {n: set(read_scp(tmp_path / "two" / n / "utt2spk").values()) for n in speakers}
    assert found == {"train": {"s03"}, "valid": {"s03"}, "test": {"s01"}}
    # Of a test speaker it may be a clip that the set lacks.
    (corpus / "s20/bbaa 1a.mpg").touch()
    with pytest.raises(SystemExit, match=r"test: 1 of 49 utterances .*--test_max_excluded 0 allo"):
        grid.main([*command, str(tmp_path / "unseen")])
    grid.main([*command, str(tmp_path / "unseen"), "--test_max_excluded", "0.1"])
    assert list(read_scp(tmp_path / "unseen/test/excluded")) == ["s20_bbaa_1a"]
    grid.main([*command, str(tmp_path / "known"), "--split", "overlapped", "--num_test", "3"])
    utterances = {
        name: list(read_scp(tmp_path / "known" / name / "text"))
        for name in ("train", "valid", "test")
    }
    assert [len(names) for names in utterances.values()] == [33 * 7, 33 * 2, 33 * 3]
    assert len(set().union(*utterances.values())) == 33 * 12
    for folder in (tmp_path / "unseen", tmp_path / "known"):
        for name in ("train", "valid", "test"):
            assert validate_data_dir(folder / name) == []
    with pytest.raises(SystemExit, match="12 clips leave none for training"):
        grid.main([*command, str(tmp_path / "x"), "--split", "overlapped"])


def test_clips_in_capitals_are_read_and_no_name_ends_the_stage(tmp_path):
    folder = corpus_of(tmp_path / "grid", clips=4) / "s3"
    (folder / "bbaazn.mpg").rename(folder / "BBAAZN.MPG")
    (folder / "BBAAZP.MPG").touch()
    (folder / os.fsdecode(b"caf\xe9.mpg")).touch()
    command = ["prepare", "--corpus", str(tmp_path / "grid"), "--num_valid", "1"]
    grid.main([*command, "--out", str(tmp_path / "data"), "--speakers", "1", "3"])
    sets = [tmp_path / "data" / name for name in ("train", "valid", "test")]
    assert all(validate_data_dir(path) == [] for path in sets)
    videos = read_scp(sets[0] / "video.scp") | read_scp(sets[1] / "video.scp")
    files = {name: Path(video).name for name, video in videos.items()}
    # Of two of one name, the first in the order of bytes is taken.
    assert files == {
        "s03_bbaaza": "bbaaza.mpg",
        "s03_bbaazn": "BBAAZN.MPG",
        "s03_bbaazp": "BBAAZP.MPG",
        "s03_bbaazs": "bbaazs.mpg",
    }
    excluded = read_scp(sets[0] / "excluded")
    assert list(excluded) == ["s03_bbaazp", "s03_caf\\udce9"]
    assert excluded["s03_bbaazp"].endswith("); remove or rename one of them")
    assert excluded["s03_caf\\udce9"].endswith("spells no sentence of GRID")


def test_speakers_that_are_missing_are_counted_or_asked_for(tmp_path, capsys):
    corpus = corpus_of(tmp_path / "grid", clips=4)
    for number in (4, 20):
        shutil.rmtree(corpus / f"s{number}")
    command = ["prepare", "--corpus", str(corpus), "--num_valid", "1", "--out"]
    command.append(str(tmp_path / "data"))
    with pytest.raises(SystemExit, match=r"test: 1000 of 1012 utterances are excluded"):
        grid.main(command)
    said = capsys.readouterr().out
    assert "excluded 1000: is not there; fetch it, or choose by --speakers" in said
    grid.main([*command, "--test_max_excluded", "0.99"])
    names = list(read_scp(tmp_path / "data/test/excluded"))
    assert (len(names), names[0], names[-1]) == (1000, "s20_0001", "s20_1000")
    assert not read_scp(tmp_path / "data/train/excluded")  # s4 is one of many
    # Of each speaker that is there some sentences are tested: no set lacks what it should have.
    grid.main([*command, "--split", "overlapped", "--num_test", "1"])
    assert not read_scp(tmp_path / "data/test/excluded")
    with pytest.raises(SystemExit, match=r"grid has no s4, s20: --speakers of stage 0 fetches"):
        grid.main([*command, "--speakers", "1", "4", "20"])


def test_recipe_from_download_to_scores(server, tmp_path, tiny_lm, tiny_whisper):
    # Without pretraining and warm start, which test_recipe.py has, as it has the stages after this.
    conf = read_config(RECIPE / "conf/train.yaml")
    conf |= {"max_epoch": 1, "num_iters_per_epoch": 2, "batch_size": 2, "valid_batch_size": 2}
    conf["video_encoder_conf"] = {"width": 4, "output_size": 16, "layers": 1, "heads": 2}
    conf["decoder_conf"]["lm_dtype"] = conf["audio_encoder_conf"]["dtype"] = "float32"
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(conf))
    options = {name: tmp_path / name for name in ("datadir", "dumpdir", "expdir", "corpus")}
    options |= {"lm": tiny_lm, "audio_model": tiny_whisper, "nj": 1, "snrs": "0"}
    options |= {"video_config": "", "projector_config": "", "stop_stage": 5}
    options["detector"] = quick_detector()
    options["download_opts"] = f"--record {server.record} --speakers 1 3 10"
    options["prepare_opts"] = "--num_valid 1 --speakers 1 3 10"
    options["train_config"] = tmp_path / "train.yaml"
    options["lip_opts"] = "--landmark_every 5 --detect_every 25"
    options["decode_opts"] = "--rates a4_v2 --max_new_tokens 3"
    command = [RECIPE / "run.sh", *(s for k, v in options.items() for s in (f"--{k}", str(v)))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]

    info = video_info(tmp_path / "corpus/s1/bbaf2n.mpg")
    assert (info.width, info.height, info.fps, info.audio_rate) == (360, 288, 25, 44100)
    texts = read_scp(tmp_path / "dumpdir/test/text")
    assert texts == {f"s01_{code}": words for code, words in CLIPS[1].items()}
    frames = read_scp(tmp_path / "dumpdir/test/utt2num_frames")
    assert set(frames.values()) == {"75"}
    scores = json.loads((tmp_path / "expdir/mome/scores.json").read_text())
    assert scores["avsr/test/a4_v2"]["utterances"] == 2
    assert "avsr/test_babble_snr0/a4_v2" in scores


def test_one_speaker_from_his_clips_to_the_table(tmp_path, tiny_lm, tiny_whisper):
    """All that the results of one speaker come from: units, lip encoder, warm start, MoME."""
    codes = ("bbaf2n", "swwzza", "lrip9s", "pgbx1p", "bgah4a", "srbo7n", "lwia3s")
    clips = [(tmp_path / f"corpus/s1/{code}.mpg", grid.sentence(code)) for code in codes]
    map_items(write_mpg, clips, 1)
    options = {name: tmp_path / name for name in ("datadir", "dumpdir", "expdir", "corpus")}
    for option, name in (
        ("video_config", "video_encoder"),
        ("projector_config", "projectors"),
        ("train_config", "train"),
    ):
        conf = read_config(RECIPE / f"conf/{name}.yaml")
        conf |= {"max_epoch": 1, "num_iters_per_epoch": 2, "batch_size": 2, "valid_batch_size": 2}
        conf["num_workers"] = 0
        conf["video_encoder_conf"] = {"width": 4, "output_size": 16, "layers": 1, "heads": 2}
        if name == "video_encoder":
            conf["model_conf"]["num_units"] = 4
        else:
            conf["decoder_conf"]["lm_dtype"] = conf["audio_encoder_conf"]["dtype"] = "float32"
        options[option] = tmp_path / f"{name}.yaml"
        options[option].write_text(yaml.safe_dump(conf))
    options |= {"lm": tiny_lm, "audio_model": tiny_whisper, "nj": 1, "snrs": ""}
    options |= {"stage": 1, "stop_stage": 5, "units_opts": "--num_units 4"}
    options["prepare_opts"] = "--split overlapped --num_test 2 --num_valid 1"
    options["lip_opts"] = "--landmark_every 5 --detect_every 25"
    options["noise_opts"] = "--num_train 1 --num_test 1 --seconds 4 --test_share 0.5"
    options["decode_opts"] = "--rates a16_v5 --max_new_tokens 3 --num_workers 0"
    command = [RECIPE / "run.sh", *(s for k, v in options.items() for s in (f"--{k}", str(v)))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]

    sets = {name: read_scp(tmp_path / "dumpdir" / name / "text") for name in ("train", "test")}
    assert {name: len(texts) for name, texts in sets.items()} == {"train": 4, "test": 2}
    assert all(name.startswith("s01_") for texts in sets.values() for name in texts)
    exp = tmp_path / "expdir"
    warm = yaml.safe_load((exp / "projectors_avsr/config.yaml").read_text())
    assert warm["preprocessor_conf"]["activity"] is True
    model = yaml.safe_load((exp / "mome/config.yaml").read_text())
    encoder = exp / "projectors_avsr/video_encoder.safetensors"
    assert model["video_encoder_conf"]["weights"] == str(encoder)
    assert str(exp / "projectors_avsr/valid.loss.best.pth") in model["init_param"]
    scores = json.loads((exp / "mome/scores.json").read_text())
    assert scores["avsr/test/a16_v5"]["utterances"] == 2
    assert "| test, clean " in (exp / "mome/RESULTS.md").read_text()
