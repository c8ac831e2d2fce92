"""mome.lips and mome.bin.prepare_media, on a photograph moved as a head moves."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest
from face import random_identity, render
from media import head_motion, patch_avi, photograph, quick_options, talking_head, write_clip
from visemes import REST

from mome.bin.contact_sheet import main as sheet_main
from mome.bin.prepare_media import main as prepare_main
from mome.data.audio import read_audio
from mome.data.kaldi import read_scp, validate_data_dir, write_scp
from mome.data.pictures import CAPTION_HEIGHT
from mome.data.video import MediaError, read_lips, write_lips
from mome.lips import provenance
from mome.lips.clips import Clip
from mome.lips.crop import CROP_SIDE, MEAN_FACE, MOUTH, STABLE, similarity, smooth
from mome.lips.extract import REMEDY, crop_lips, read_frames
from mome.lips.landmarks import Face, FaceTracker, WrongModel
from mome.lips.mediapipe import MediaPipeTracker
from mome.lips.preparation import check_length

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
MODEL = DOWNLOADS / "dlib" / "shape_predictor_68_face_landmarks.dat"

MEDIAPIPE = DOWNLOADS / "mediapipe"


@pytest.fixture(scope="module")
def tracker() -> FaceTracker:
    return FaceTracker(MODEL)


def crop_video(path, tracker, **options):
    return crop_lips(read_frames(path), path, tracker, **options)


def grey(frames):
    return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]


def in_photograph(points, motion):
    """Landmarks (68, 2) of a frame, mapped back to the photograph."""
    return np.linalg.solve(motion[:, :2], (points - motion[:, 2]).T).T


@pytest.mark.parametrize("detect_every", [1, 8])
def test_landmarks_move_with_the_head(detect_every):
    motion = head_motion(17, 224)
    frames = grey(talking_head(17, 224))
    landmarks = FaceTracker(MODEL, detect_every=detect_every)(frames)
    assert all(points is not None for points in landmarks)
    back = np.stack([in_photograph(p, m) for p, m in zip(landmarks, motion, strict=True)])
    # The face is 210 pixels wide in the photograph.
    mouth = back[:, MOUTH].mean(1)
    assert np.abs(mouth - (268, 279)).max() < 8
    assert back[:, STABLE].std(0).max() < 6


def place(tracker, frames):
    """Mouth centre (T, 2) and side (T, 1) of the crop, in pixels of the frames' corner."""
    smoothed = smooth(np.stack(tracker(frames)))
    matrices = [similarity(points[list(STABLE)], MEAN_FACE) for points in smoothed]
    sides = CROP_SIDE / np.array([np.hypot(*matrix[:, 0]) for matrix in matrices])
    return smoothed[:, MOUTH].mean(1) + 0.5, sides[:, None]


@pytest.fixture(scope="module")
def clip_of_720() -> np.ndarray:
    return np.stack(grey(talking_head(16, 720)))


@pytest.mark.parametrize("shape", [(160, 160), (448, 448), (720, 1280)])
def test_crop_is_the_same_at_any_size_of_the_video(tracker, clip_of_720, shape):
    """The same clip at another size, or letterboxed in 720p, is cropped at the same place."""

    def scaled(side):
        return [cv2.resize(f, (side, side), interpolation=cv2.INTER_AREA) for f in clip_of_720]

    height, width = shape
    frames = [np.pad(f, ((0, 0), ((width - height) // 2,) * 2)) for f in scaled(height)]
    centre, side = place(tracker, scaled(224))
    other_centre, other_side = place(tracker, frames)
    moved = (other_centre - ((width - height) // 2, 0)) / height - centre / 224
    assert np.hypot(*moved.T).max() * 224 / side.min() * 96 < 2  # pixels of the crop
    assert np.allclose(other_side / height, side / 224, rtol=0.02)


def test_large_videos_are_reduced_before_the_crop(tmp_path, tracker):
    crops = {}
    for size in (224, 900):
        write_clip(tmp_path / f"{size}.mp4", talking_head(16, size))
        lips = crop_video(tmp_path / f"{size}.mp4", tracker)
        assert lips.lost == 0
        crops[size] = cv2.GaussianBlur(lips.frames.mean(0), (0, 0), 3)
    (x, y), _ = cv2.phaseCorrelate(crops[224], crops[900])
    assert np.hypot(x, y) < 2
    assert np.corrcoef(crops[224].ravel(), crops[900].ravel())[0, 1] > 0.95


def test_skipping_frames_does_not_move_the_crop(tmp_path):
    """Detection about every 30 frames and landmarks in every third, against both in every frame."""
    write_clip(tmp_path / "a.mp4", talking_head(50, 224))
    plain = crop_video(tmp_path / "a.mp4", FaceTracker(MODEL, detect_every=1), landmark_every=1)
    fast = crop_video(tmp_path / "a.mp4", FaceTracker(MODEL))
    assert fast.seen == 18
    assert plain.seen == 50
    for one, two in zip(plain.frames, fast.frames, strict=True):
        (x, y), _ = cv2.phaseCorrelate(one.astype(float), two.astype(float))
        assert np.hypot(x, y) < 1.5


def test_mean_face_is_that_of_the_landmark_model(tracker):
    """What the predictor says of a picture without anything is the mean shape of its training."""
    points = tracker.predict(np.zeros((400, 400), np.uint8), Face(200, 200, 200))[list(STABLE)]
    matrix = similarity(points, MEAN_FACE)
    distances = np.hypot(*(points @ matrix[:, :2].T + matrix[:, 2] - MEAN_FACE).T)
    assert distances.max() < 0.03  # of the distance between the eyes' outer corners


def test_face_lost_for_a_while_is_found_again(tracker):
    frames = grey(talking_head(40, 224))
    for i in range(10, 19):
        frames[i] = np.zeros_like(frames[i])
    landmarks = tracker(frames)
    missing = [i for i, points in enumerate(landmarks) if points is None]
    assert missing == list(range(10, 19))


@pytest.mark.parametrize("what", ["black", "noise", "other scene"])
def test_face_lost_between_detections_is_noticed(tracker, what):
    """The detector looks at frames 0, 8, 16; what the predictor says of 2 to 6 is no face."""
    frames = grey(talking_head(17, 224))
    scene = cv2.resize(cv2.flip(frames[0], 0), (224, 224))
    noise = np.random.default_rng(0).integers(0, 255, (224, 224), dtype=np.uint8)
    for i in range(2, 7):
        frames[i] = {"black": np.zeros_like(noise), "noise": noise, "other scene": scene}[what]
    missing = [i for i, points in enumerate(tracker(frames)) if points is None]
    assert missing == [2, 3, 4, 5, 6]


def test_several_faces(tracker):
    """A second, smaller face beside the first."""
    main = talking_head(9, 224)
    frames = np.zeros((9, 224, 400, 3), np.uint8)
    frames[:, :, 100:324] = main
    frames[:, 100:212, :100] = talking_head(9, 112)[:, :, 6:106]
    alone = np.zeros_like(frames)
    alone[:, :, 100:324] = main
    for both, one in zip(tracker(grey(frames)), tracker(grey(alone)), strict=True):
        assert np.abs(both[MOUTH].mean(0) - one[MOUTH].mean(0)).max() < 12


def test_reasons_for_exclusion_name_the_file(tmp_path, tracker):
    rng = np.random.default_rng(0)
    noise = tmp_path / "noise.mp4"
    write_clip(noise, rng.integers(0, 255, (10, 120, 120, 3), dtype=np.uint8))
    with pytest.raises(MediaError, match=r"noise\.mp4: no face in any frame"):
        crop_video(noise, tracker)
    half = tmp_path / "half.mp4"
    frames = talking_head(16, 224)
    frames[5:] = 0
    write_clip(half, frames)
    with pytest.raises(MediaError, match=r"half\.mp4: no face in \d of 6 frames; .*--max_lost"):
        crop_video(half, tracker)
    assert crop_video(half, tracker, max_lost=0.9).lost > 0


def test_missing_or_wrong_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="mome-fetch-models"):
        FaceTracker(tmp_path / "none.dat")
    (tmp_path / "wrong.dat").write_bytes(b"not a model")
    wrong = FaceTracker(tmp_path / "wrong.dat")
    for use in (wrong.read, lambda: wrong(grey(talking_head(3, 224)))):
        with pytest.raises(
            WrongModel, match=r"wrong\.dat is not a dlib landmark model \([^[\n]+\); delete"
        ):
            use()


def test_a_model_of_other_landmarks_is_refused(tmp_path):
    """Such as dlib's own model of five points."""
    frames = grey(talking_head(3, 224))
    options = dlib.shape_predictor_training_options()
    options.tree_depth, options.cascade_depth, options.num_trees_per_cascade_level = 1, 1, 1
    options.oversampling_amount, options.num_threads = 1, 1
    box = dlib.rectangle(60, 60, 160, 160)
    points = [dlib.point(60 + 20 * number, 100) for number in range(5)]
    face = dlib.full_object_detection(box, points)
    predictor = dlib.train_shape_predictor([frames[0]], [[face]], options)
    predictor.save(str(tmp_path / "five.dat"))
    five = FaceTracker(tmp_path / "five.dat")
    for use in (five.read, lambda: five(frames)):
        with pytest.raises(
            WrongModel, match=r"five\.dat has 5 points, not 68: take that of mome-f"
        ):
            use()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A data folder of good and bad clips."""
    root = tmp_path_factory.mktemp("corpus")
    frames = talking_head(12, 224)
    rng = np.random.default_rng(0)
    good = ("anna_00001", "anna_00002", "bert_00001")
    clips = {u: root / f"{u}.mp4" for u in good}
    for i, path in enumerate(clips.values()):
        write_clip(path, np.roll(frames, i, axis=0))
    for name in ("cut", "faceless", "long", "mute", "sound", "text"):
        clips[f"carl_{name}"] = root / f"{name}.mp4"
    write_clip(clips["carl_cut"], frames)
    data = clips["carl_cut"].read_bytes()
    clips["carl_cut"].write_bytes(data[: len(data) // 2])
    write_clip(clips["carl_faceless"], rng.integers(0, 255, (12, 64, 64, 3), dtype=np.uint8))
    write_clip(clips["carl_long"], frames, audio_seconds=1.2)
    write_clip(clips["carl_mute"], frames, audio=False)
    write_clip(clips["carl_sound"], num_frames=0, audio_seconds=0.48)
    write_clip(clips["carl_text"], frames)
    data = root / "data"
    write_scp(data / "video.scp", clips)
    write_scp(data / "wav.scp", clips)
    write_scp(data / "utt2spk", {u: u.split("_")[0] for u in clips})
    write_scp(data / "text", {u: "" if u == "carl_text" else "place red" for u in clips})
    return data


def prepare(data, dump, *options):
    arguments = ["--data", data, "--dump", dump, "--landmarks", MODEL, *options]
    prepare_main([str(argument) for argument in arguments])


def outputs(dump):
    return {p.relative_to(dump): p.read_bytes() for p in dump.glob("*/*/*") if p.is_file()}


def test_prepare_media(tmp_path, corpus, capsys):
    dump = tmp_path / "one"
    prepare(corpus, dump, "--max_excluded", "0.7")
    printed = capsys.readouterr().out
    assert "3 utterances, 6 excluded" in printed
    assert f"excluded 1: no face in any frame; {REMEDY}" in printed
    excluded = read_scp(dump / "excluded")
    assert {u: reason.rpartition(": ")[2] for u, reason in excluded.items()} == {
        "carl_cut": excluded["carl_cut"].rpartition(": ")[2],
        "carl_faceless": f"no face in any frame; {REMEDY}",
        "carl_long": "1.20 s and 0.48 s",
        "carl_mute": "no audio stream; name its sound in wav.scp, or drop the utterance",
        "carl_sound": "no video stream; name a video in video.scp, or drop the utterance",
        "carl_text": "no words",
    }
    assert "truncated" in excluded["carl_cut"]
    assert "cut.mp4" in excluded["carl_cut"]
    assert validate_data_dir(dump, check_media=True, tolerance=0.001) == []
    for u, path in read_scp(dump / "lip.scp").items():
        assert read_lips(path).shape == (12, 96, 96)
        assert len(read_audio(read_scp(dump / "wav.scp")[u])) == 12 * 640
    assert read_scp(dump / "utt2num_frames") == dict.fromkeys(read_scp(dump / "text"), "12")
    assert read_scp(dump / "utt2dur")["anna_00001"] == "0.48"
    # Two processes give the same bytes; a second run keeps what is done and repairs what is broken.
    prepare(corpus, tmp_path / "two", "--max_excluded", "0.7", "--nj", "2")
    assert outputs(tmp_path / "two") == outputs(dump)
    assert len(outputs(dump)) == 6
    before = outputs(dump)
    stamps = {p: (dump / p).stat().st_mtime_ns for p in before}
    broken = dump / "lips" / "anna" / "anna_00002.mp4"
    broken.write_bytes(broken.read_bytes()[:200])
    prepare(corpus, dump, "--max_excluded", "0.7")
    assert outputs(dump) == before
    redone = {p.stem for p in before if (dump / p).stat().st_mtime_ns != stamps[p]}
    assert redone == {"anna_00002"}
    sheet_main(["--data", str(dump), "--output", str(tmp_path / "sheet.png"), "--columns", "4"])
    sheet = cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet.shape == (3 * (CAPTION_HEIGHT + 96), 4 * 96)
    # Under each title, which is not empty, the first frame of its clip.
    for row, path in zip(np.split(sheet, 3), read_scp(dump / "lip.scp").values(), strict=True):
        assert row[:CAPTION_HEIGHT].min() < 100
        assert np.array_equal(row[CAPTION_HEIGHT:, :96], read_lips(path)[0])


def test_too_many_exclusions_fail(tmp_path, corpus):
    with pytest.raises(SystemExit, match=r"6 of 9 utterances are excluded.*excluded"):
        prepare(corpus, tmp_path / "dump")
    assert not (tmp_path / "dump" / "lip.scp").exists()


def test_crops_that_exist_are_used(tmp_path, corpus, capsys):
    lip_dir = tmp_path / "crops"
    crop = np.full((12, 96, 96), 128, np.uint8)
    write_lips(lip_dir / "anna" / "00001.mp4", crop)
    write_lips(lip_dir / "anna_00002.mp4", crop)
    write_lips(lip_dir / "bert" / "00001.mp4", crop[:, :64, :64])
    dump = tmp_path / "dump"
    prepare(corpus, dump, "--lip_dir", lip_dir, "--max_excluded", "0.8")
    assert read_scp(dump / "lip.scp") == {
        "anna_00001": str(lip_dir / "anna" / "00001.mp4"),
        "anna_00002": str(lip_dir / "anna_00002.mp4"),
    }
    excluded = read_scp(dump / "excluded")
    assert "64x64 pixels, not a crop of 96x96" in excluded["bert_00001"]
    assert "carl/mute.mp4 does not exist" in excluded["carl_mute"]
    assert "  excluded 5: does not exist\n" in capsys.readouterr().out
    assert not (dump / "lips").exists()


def test_crops_made_elsewhere_in_colour_or_of_another_size_or_rate(tmp_path, corpus):
    lip_dir = tmp_path / "crops"
    lip_dir.mkdir()
    crop = np.random.default_rng(0).integers(0, 255, (12, 96, 96, 3), dtype=np.uint8)
    write_clip(lip_dir / "anna_00001.mp4", crop, audio=False)  # colour, at 25 frames a second
    write_clip(lip_dir / "anna_00002.mp4", crop, audio=False, fps=50)  # half as long as the sound
    write_clip(lip_dir / "bert_00001.mp4", crop[:, :88, :88], audio=False)
    write_clip(lip_dir / "carl_faceless.mp4", crop.repeat(2, axis=0), audio=False, fps=50)
    dump = tmp_path / "dump"
    prepare(corpus, dump, "--lip_dir", lip_dir, "--max_excluded", "0.9")
    assert set(read_scp(dump / "lip.scp")) == {"anna_00001", "carl_faceless"}
    assert set(read_scp(dump / "utt2num_frames").values()) == {"12"}
    excluded = read_scp(dump / "excluded")
    assert "0.48 s and 0.24 s; see its frame rate" in excluded["anna_00002"]
    assert "crops/anna_00002.mp4" in excluded["anna_00002"]
    assert "crops/bert_00001.mp4: 88x88 pixels, not a crop of 96x96" in excluded["bert_00001"]
    # Where no sound is asked for, it is the video that tells, if there is one.
    lost = read_scp(corpus / "video.scp") | {"carl_faceless": str(tmp_path / "lost.mp4")}
    for name in ("text", "utt2spk"):
        write_scp(tmp_path / "data" / name, read_scp(corpus / name))
    write_scp(tmp_path / "data/video.scp", lost)
    options = ["--lip_dir", lip_dir, "--streams", "video", "--max_excluded", "0.9"]
    prepare(tmp_path / "data", tmp_path / "mute", *options)
    assert set(read_scp(tmp_path / "mute/lip.scp")) == {"anna_00001", "carl_faceless"}
    reason = read_scp(tmp_path / "mute/excluded")["anna_00002"]
    assert reason.endswith("anna_00002.mp4: 6 frames for a video of 0.48 s; see its frame rate")


def test_a_crop_is_as_long_as_what_can_be_read_of_its_video(tmp_path):
    """Not as its header says; where a video cannot be read, that is all there is."""
    path = tmp_path / "a.avi"
    write_clip(path, num_frames=25, codecs=("mjpeg", "pcm_s16le"))
    patch_avi(path, b"vids", 32, 5.0)
    clip = Clip("a", str(path), "", "", "", "crop.mp4")
    check_length(25, clip, tolerance=0.2)
    with pytest.raises(MediaError, match=r"crop.mp4: 100 frames for a video of 1.00 s"):
        check_length(100, clip, tolerance=0.2)
    path.write_bytes(path.read_bytes()[:-8000])
    with pytest.raises(MediaError, match=r"crop.mp4: 50 frames for a video of \d.\d\d s"):
        check_length(50, clip, tolerance=0.2)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Path, dict]:
    """A data folder of 12 clips, and what an uninterrupted run makes of it."""
    root = tmp_path_factory.mktemp("many")
    frames = talking_head(16, 224)
    clips = {f"anna_{i:05d}": root / f"{i}.mp4" for i in range(12)}
    for i, path in enumerate(clips.values()):
        write_clip(path, np.roll(frames, i, axis=0))
    data = root / "data"
    write_scp(data / "video.scp", clips)
    write_scp(data / "utt2spk", dict.fromkeys(clips, "anna"))
    write_scp(data / "text", dict.fromkeys(clips, "place red"))
    prepare(data, root / "dump", *quick_options())
    return data, everything(root / "dump")


def everything(dump):
    """All files of a folder, also hidden ones, in which its own name is left out."""
    return {
        path.relative_to(dump): path.read_bytes().replace(str(dump).encode(), b"")
        for path in dump.rglob("*")
        if path.is_file()
    }


def command(data, dump, *options):
    options = ["--data", data, "--dump", dump, *quick_options(), *options]
    return [sys.executable, "-m", "mome.bin.prepare_media", *map(str, options)]


def test_a_killed_run_goes_on(tmp_path, many):
    data, expected = many
    dump = tmp_path / "dump"
    process = subprocess.Popen(command(data, dump, "--nj", "2"), cwd=ROOT, stderr=subprocess.PIPE)
    while len(list(dump.glob("lips/*/anna*.mp4"))) < 3:
        assert process.poll() is None
        time.sleep(0.002)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while any(running(pid) for pid in workers):  # they end by themselves
        assert time.monotonic() < deadline
        time.sleep(0.01)
    done = {path: path.stat().st_mtime_ns for path in dump.glob("lips/*/anna*.mp4")}
    assert 3 <= len(done) < 12
    # What a worker leaves that dies while it writes.
    (dump / "lips" / "anna" / ".anna_00011.mp4.1.tmp").write_bytes(b"half")
    subprocess.run(command(data, dump, "--nj", "2"), cwd=ROOT, check=True, capture_output=True)
    assert everything(dump) == expected
    kept = [path for path, stamp in done.items() if path.stat().st_mtime_ns == stamp]
    assert len(kept) >= len(done) - 2  # of the last ones the sound may have been missing


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_full_disk_names_the_file(tmp_path, many):
    """A limit on the size of a file stands for a full disk: both end a write half-way."""
    data, expected = many
    dump = tmp_path / "dump"
    sizes = {path: len(content) for path, content in expected.items()}
    largest = max(sizes, key=lambda path: (path.suffix == ".mp4", sizes[path]))
    limit = sizes[largest] - 1
    assert max(size for path, size in sizes.items() if path.suffix != ".mp4") < limit
    for nj in ("2", "1"):
        result = subprocess.run(
            command(data, dump, "--nj", nj),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        assert result.returncode == 1
        assert "File too large; nothing is half-written" in result.stderr
        assert f"'{dump / largest}'" in result.stderr
        assert not (dump / "lip.scp").exists()
        # How many crops each detector has cut is counted at the end.
        written = {
            p: content for p, content in everything(dump).items() if p.name != provenance.FILE
        }
        assert all(expected[path] == content for path, content in written.items())
    prepare(data, dump, *quick_options())
    assert everything(dump) == expected


needs_mediapipe = pytest.mark.skipif(
    not MEDIAPIPE.is_dir(),
    reason=f"no {MEDIAPIPE}: run python -m mome.bin.fetch_models --only mediapipe",
)


@needs_mediapipe
def test_mediapipe_crops_what_dlib_crops(tmp_path, tracker):
    """On a photograph and on generated faces: mouth centres and sizes of the crops."""
    mediapipe = MediaPipeTracker(MEDIAPIPE)
    shapes = np.tile(REST, (12, 1))
    shapes[:, 0] = np.linspace(0, 0.6, 12)
    clips = [grey(talking_head(12, 224))]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rendered = render(random_identity(rng), shapes, rng)
        clips.append([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in rendered])
    for frames in clips:
        centre, side = place(tracker, frames)
        other_centre, other_side = place(mediapipe, frames)
        assert (np.hypot(*(other_centre - centre).T) / side[:, 0]).max() * 96 < 3.5
        assert np.allclose(other_side, side, rtol=0.07)


@needs_mediapipe
def test_mediapipe_finds_small_and_several_faces(tracker):
    mediapipe = MediaPipeTracker(MEDIAPIPE)
    small = np.zeros((720, 1280), np.uint8)
    face = grey(talking_head(1, 180))[0]
    small[500:680, 900:1080] = face
    small[100:280, 200:380] = face
    found = sorted(mediapipe.detect(small), key=lambda face: face.x)
    expected = sorted(tracker.detect(small), key=lambda face: face.x)
    assert len(found) == len(expected) == 2
    assert all(one.near(other) for one, other in zip(found, expected, strict=True))
    assert mediapipe.detect(np.zeros((224, 224), np.uint8)) == []


@needs_mediapipe
def test_mediapipe_prepares_a_corpus(tmp_path, corpus):
    options = ["--detector", "mediapipe", "--landmarks", MEDIAPIPE, "--max_excluded", "0.7"]
    prepare(corpus, tmp_path, *options)
    assert set(read_scp(tmp_path / "lip.scp")) == {"anna_00001", "anna_00002", "bert_00001"}


def test_mediapipe_says_what_it_lacks(tmp_path):
    with pytest.raises(FileNotFoundError, match="mome-fetch-models --only mediapipe"):
        MediaPipeTracker(tmp_path)
    for name in ("face_detection_short_range", "face_landmark"):
        (tmp_path / f"{name}.tflite").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"face_detection_short_range\.tflite is not"):
        MediaPipeTracker(tmp_path)


def test_photograph_is_where_the_tests_expect_it(tracker):
    face = tracker.detect(cv2.cvtColor(photograph(), cv2.COLOR_RGB2GRAY))
    assert len(face) == 1
    assert Face(268, 250, 200).near(face[0])
