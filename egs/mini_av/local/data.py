#!/usr/bin/env python3
"""mini_av: generated audio-visual speech, laid out on disk as LRS3 is.

Speech comes from eSpeak NG, in many voices, rates and pitches; a drawn face says it, moved by the
same phonemes' timings. One clip is <out>/{trainval,test}/<speaker>/<number>.mp4 (224x224, 25
frames/s, 16 kHz mono) with <number>.txt beside it ("Text:  UPPER CASE WORDS"). Train, valid and
test share neither speakers (voice and face) nor sentences. As in LRS3 there is no validation
folder: <out>/valid.speakers names the speakers of trainval/ that are held out. Everything follows
from --seed and the clip's name alone.
"""

import argparse
import os
import re
import sys
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from espeak import RATE, Voice, speak
from face import FPS, random_identity, render
from sentences import MODES, distinct_sentences
from visemes import mouth_shapes

from mome.common.atomic_files import replacing
from mome.common.command import in_one_line
from mome.common.processes import default_jobs, map_items
from mome.data.exclusions import write_excluded
from mome.data.kaldi import read_scp, spk2utt_of, write_scp, write_text
from mome.data.video import video_info

LANGUAGES = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp")
TRAIN_VARIANTS = """
    m1 m2 m3 m4 m5 f1 f2 f3 klatt klatt2 klatt3 Alex Alicia Andy Annie Denis Gene Michael Mike
    Reed adam antonio aunty belinda benjamin caleb david ed john linda marcelo max michel
    miguel norbert paul pedro quincy rob sandro shelby steph travis zac
""".split()
VALID_VARIANTS = """
    m6 f5 robert gustave victor steph2
""".split()
TEST_VARIANTS = """
    m7 m8 f4 klatt4 Andrea Hugo Mario Gene2 edward iven mike2 pablo steph3 Diogo
""".split()
SPLITS = {"train": "trainval", "valid": "trainval", "test": "test"}


@dataclass(frozen=True)
class Clip:
    """One utterance to make: who says what, and where it goes."""

    split: str
    speaker: str
    number: int
    sentence: str
    voice: Voice
    identity_seed: int

    def path(self, out: Path) -> Path:
        """The clip's mp4."""
        return out / SPLITS[self.split] / self.speaker / f"{self.number:05d}.mp4"


def plan(num: dict[str, int], seed: int, mode: str = "grid") -> list[Clip]:
    """Who says what: every clip of the corpus, without making any."""
    rng = np.random.default_rng(seed)
    sentences = iter(distinct_sentences(sum(num.values()), rng, mode))
    clips = []
    variants = {"train": TRAIN_VARIANTS, "valid": VALID_VARIANTS, "test": TEST_VARIANTS}
    for split in SPLITS:
        speakers = []
        # Every training variant is heard in two accents, so as two speakers.
        copies = 2 if split == "train" else 1
        for place, variant in enumerate(variants[split] * copies):
            shift = place // len(variants[split])
            language = LANGUAGES[(place + shift) % len(LANGUAGES)]
            voice = Voice(
                f"{language}+{variant}",
                rate=int(rng.integers(170, 215)),
                pitch=int(rng.integers(30, 70)),
                pitch_range=int(rng.integers(30, 70)),
            )
            speakers.append((f"{split}{place:03d}", voice, int(rng.integers(2**31))))
        for place in range(num[split]):
            name, voice, identity = speakers[place % len(speakers)]
            number = place // len(speakers)
            clips.append(Clip(split, name, number, next(sentences), voice, identity))
    return clips


def make_clip(clip: Clip, out: Path, espeak_folder: Path, seed: int) -> int:
    """Synthesise, render and write one clip unless it is there; returns 1 if it had to be made."""
    path = clip.path(out)
    if path.exists() and path.with_suffix(".txt").exists():
        return 0
    rng = np.random.default_rng([seed, *str(path.relative_to(out)).encode()])
    speech, phonemes = speak(espeak_folder, clip.sentence, clip.voice)
    lead, tail = rng.uniform(0.1, 0.2, 2)
    frames = int(np.ceil((lead + len(speech) / RATE + tail) * FPS))
    wave = np.zeros(frames * RATE // FPS, np.float32)
    start = int(lead * RATE)
    wave[start : start + len(speech)] = speech
    wave *= 0.5 * rng.uniform(0.5, 1.0) / max(1e-3, float(np.abs(wave).max()))
    wave += rng.normal(0, 2e-4, len(wave)).astype(np.float32)
    times = (np.arange(frames) + 0.5) / FPS - start / RATE
    identity = random_identity(np.random.default_rng(clip.identity_seed))
    pictures = render(identity, mouth_shapes(phonemes, times), rng)
    with replacing(path) as partial_path:
        write_mp4(partial_path, pictures, wave)
    text = f"Text:  {clip.sentence.upper()}\nConf:  5\nRef:   {clip.speaker}\n"
    write_text(path.with_suffix(".txt"), text)
    return 1


def write_mp4(path: Path, frames: np.ndarray, wave: np.ndarray) -> None:
    """H.264 and AAC: frames (T, H, W, 3) uint8 BGR, wave (N,) float32 at 16 kHz."""
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.options = {"preset": "ultrafast", "threads": "1"}
        audio = container.add_stream("aac", rate=RATE)
        # By default FFmpeg searches for its coefficients three times as long.
        audio.options = {"aac_coder": "fast"}
        audio.layout = "mono"
        audio.bit_rate = 64000
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        sound.sample_rate = RATE
        sound.time_base = Fraction(1, RATE)
        sound.pts = 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def download(args: argparse.Namespace) -> None:
    """Make the corpus; clips that are there already are kept."""
    num = {"train": args.num_train, "valid": args.num_valid, "test": args.num_test}
    clips = plan(num, args.seed, args.mode)
    values = {**num, "seed": args.seed, "mode": args.mode}
    settings = " ".join(f"{key}={value}" for key, value in values.items())
    record = args.out / "settings"
    if record.exists() and record.read_text().strip() != settings:
        raise SystemExit(
            f"{args.out} holds a corpus made with {record.read_text().strip()}, not {settings}: "
            f"remove the folder or name another one by --corpus"
        )
    write_text(record, settings + "\n")
    held_out = sorted({clip.speaker for clip in clips if clip.split == "valid"})
    write_text(args.out / "valid.speakers", "".join(f"{speaker}\n" for speaker in held_out))
    make = partial(make_clip, out=args.out, espeak_folder=args.espeak, seed=args.seed)
    made = sum(map_items(make, clips, args.nj, "generate"))
    print(f"{args.out}: {made} clips made, {len(clips) - made} were there")


def read_transcript(path: Path) -> str:
    """The words of an LRS3 text file, lower case.

    Raises:
        ValueError: if there is no ``Text:`` line or no word in it.
    """
    match = re.search(r"^Text:[ \t]*(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    words = match.group(1).lower().split() if match else []
    if not words:
        raise ValueError(f"{path}: no words after 'Text:'; repair or remove the clip")
    return " ".join(words)


def row_of(video: Path) -> dict[str, str]:
    """What the data folder says of a clip: file -> value."""
    return {
        "video.scp": str(video),
        "wav.scp": str(video),
        "text": read_transcript(video.with_suffix(".txt")),
        "utt2spk": video.parent.name,
        "utt2dur": f"{video_info(video).seconds:.2f}",
    }


def prepare(args: argparse.Namespace) -> None:
    """Write the Kaldi data folders train, valid and test."""
    if not (args.corpus / "valid.speakers").exists():
        raise FileNotFoundError(f"{args.corpus}: no corpus there; run stage 0 first")
    held_out = set((args.corpus / "valid.speakers").read_text().split())
    tables: dict[str, dict[str, dict[str, str]]] = {split: {} for split in SPLITS}
    videos = sorted(args.corpus.glob("trainval/*/*.mp4"))
    videos += sorted(args.corpus.glob("test/*/*.mp4"))
    rows = map_items(row_of, videos, args.nj, "read clips")
    for video, row in zip(videos, rows, strict=True):
        speaker, folder = video.parent.name, video.parents[1].name
        split = "test" if folder == "test" else "valid" if speaker in held_out else "train"
        for name, value in row.items():
            tables[split].setdefault(name, {})[f"{speaker}_{video.stem}"] = value
    for split, files in tables.items():
        for name, table in files.items():
            write_scp(args.out / split / name, table)
        write_excluded(args.out / split, [])  # of what was generated, nothing is left out
        utt2spk = read_scp(args.out / split / "utt2spk")
        write_scp(args.out / split / "spk2utt", spk2utt_of(utt2spk))
        print(
            f"{args.out / split}: {len(utt2spk)} utterances, {len(set(utt2spk.values()))} speakers"
        )


@in_one_line("local/data.py")
def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("download", help="make the corpus")
    first.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    default = Path(os.environ.get("MOME_DOWNLOADS", "downloads")) / "espeak"
    first.add_argument("--espeak", type=Path, default=default, help="folder of eSpeak NG's library")
    first.add_argument(
        "--num_train", type=int, default=2000, help="clips of training; default: %(default)s"
    )
    first.add_argument(
        "--num_valid", type=int, default=48, help="clips of validation; default: %(default)s"
    )
    first.add_argument(
        "--num_test", type=int, default=140, help="clips of the test; default: %(default)s"
    )
    first.add_argument("--mode", choices=MODES, default="grid", help="sentences")
    first.add_argument(
        "--seed",
        type=int,
        default=0,
        help="draws voices, faces, sentences and sounds; default: %(default)s",
    )
    first.add_argument(
        "--nj", type=int, default=default_jobs(), help="processes; default: a core each"
    )
    second = commands.add_parser("prepare", help="write Kaldi data folders")
    second.add_argument("--corpus", type=Path, required=True, help="folder that download has made")
    second.add_argument("--out", type=Path, required=True, help="folder for train, valid and test")
    second.add_argument("--nj", type=int, default=1, help="processes")
    args = parser.parse_args(argv)
    {"download": download, "prepare": prepare}[args.command](args)


if __name__ == "__main__":
    main()
