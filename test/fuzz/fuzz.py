#!/usr/bin/env python3
"""Read damaged files by every reader of the package: test/fuzz/fuzz.py --count 10000

A reader may give what it can still read, or raise an error that names the file: a ValueError or an
OSError. Anything else is a finding: another exception, an error that does not name the file, a
crash, too much memory or time, and a program that is started, an address that is connected to or a
file elsewhere that is written, as far as Python sees it. Each input follows from --seed, the reader
and its number, so that --only and --first repeat a finding; --keep writes its input there.

The files are read in a process of its own, which is started again after one that ends it.
"""

import argparse
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

from mutations import mutate  # noqa: E402 - found on the path set above

# What no reader does, by the names of Python's audit events.
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
)
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MEMORY = 1 << 30  # bytes beyond those of the libraries
SECONDS = 20  # of a file


LRS_TEXT = """Text:  SO {NS} WHAT
Conf:  4

WORD START END ASDSCORE
SO 0.11 0.28 6.3
WHAT 0.30 0.51 7.0
"""
SUPPRESSED = '{"suppress_ids": [1, 2, 7], "suppress_ids_begin": [220, 50256]}'


@dataclass(frozen=True)
class Reader:
    """How files of a kind are read, and a sound file of that kind."""

    name: str
    read: Callable[[Path], object]
    make: Callable[[Path], None]


@dataclass(frozen=True)
class Finding:
    """What a reader should not have done."""

    reader: str
    number: int
    what: str


def readers() -> dict[str, Reader]:
    """Every reader by the name of the file that it reads; the libraries are loaded here."""
    import torch
    import yaml
    from media import write_clip
    from safetensors.torch import save_file

    from mome.bin.fetch_models import read_gguf
    from mome.common.weights import load_weights
    from mome.corpora import lrs
    from mome.data.audio import audio_seconds, read_audio
    from mome.data.kaldi import read_scp, read_segments, validate_data_dir
    from mome.data.video import read_lips, read_video, video_info, write_lips
    from mome.encoders.avhubert import SIZES, read_weights
    from mome.encoders.avhubert_conversion import read_checkpoint as read_fairseq
    from mome.pretrained.ctranslate2 import read_model, read_suppressed
    from mome.tasks.checkpoint import read_checkpoint
    from mome.tasks.config import read_config
    from mome.tasks.packed import opened, read_info

    rng = np.random.default_rng(0)
    tone = 0.1 * np.sin(np.arange(1600) * 0.2)
    tensors = {"a.weight": torch.ones(3, 4), "b": torch.arange(5)}
    lips = rng.integers(0, 255, (5, 96, 96), dtype=np.uint8)

    def sound(path: Path) -> None:
        audio_seconds(path)
        read_audio(path)

    def clip(path: Path) -> None:
        video_info(path)
        read_video(path, grey=True, rate=25)
        read_audio(path)

    weighed = torch.nn.Linear(4, 3)

    def weights(path: Path) -> None:
        load_weights(weighed, path)

    def data_dir(path: Path) -> None:
        validate_data_dir(path.parent)

    def archive(path: Path) -> None:
        with opened(path) as folder:
            read_info(folder, path)

    def write_archive(path: Path) -> None:
        import hashlib
        import zipfile

        files = {"config.yaml": b"model: avsr\n", "model.safetensors": b"x" * 20}
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        info = {"format": 1, "files": sums, "frozen": {"decoder_conf.lm": {"name": "a/b"}}}
        info["frozen"]["decoder_conf.lm"]["sha256"] = {}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in {**files, "mome.json": json.dumps(info).encode()}.items():
                zipped.writestr(name, content)

    def write_ark(path: Path) -> None:
        import kaldiio

        with kaldiio.WriteHelper(f"ark:{path}") as writer:
            writer("a", (16000, (3000 * tone).astype(np.int16)))

    def write_sound(path: Path) -> None:
        import soundfile

        soundfile.write(path, tone, 16000)

    def write_gguf(path: Path) -> None:
        """A Llama of one layer of random weights, whose tokenizer knows the letters a and b."""
        import gguf

        writer = gguf.GGUFWriter(path, "llama")
        for name, value in {
            "context_length": 64,
            "embedding_length": 32,
            "block_count": 1,
            "feed_forward_length": 32,
            "head_count": 2,
            "head_count_kv": 2,
            "vocab_size": 5,
        }.items():
            getattr(writer, f"add_{name}")(value)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["<s>", "</s>", "a", "b", "ab"])
        writer.add_token_types([3, 3, 1, 1, 1])
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        square = rng.normal(0, 0.1, (32, 32)).astype(np.float32)
        writer.add_tensor("token_embd.weight", square[:5])
        writer.add_tensor("output_norm.weight", square[0])
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            writer.add_tensor(f"blk.0.{name}.weight", square)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.0.{name}.weight", square[0])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def write_wav_scp(path: Path) -> None:
        write_sound(path.with_name("of_scp.wav"))
        path.write_text(f"a_1 {path.with_name('of_scp.wav')}\na_2 {path.with_name('of_scp.wav')}\n")

    def media(path: Path) -> None:
        for file in read_scp(path).values():
            try:
                sound(Path(file))
            except (OSError, ValueError) as error:
                raise ValueError(f"{path}: {error}") from error

    def lrs_text(path: Path) -> None:
        lrs.read_text(path)
        lrs.read_words(path)

    def avhubert(path: Path) -> None:
        read_weights(path.parent, None)

    def write_avhubert(path: Path) -> None:
        path.with_name("model.safetensors").touch()
        path.write_text(json.dumps({"size": "large", "geometry": SIZES["large"]}))

    # Version, specification, revision; a variable with its shape and type; an alias.
    name, alias = (struct.pack("<H", 3) + word + b"\0" for word in (b"ab", b"cd"))
    ctranslate2 = struct.pack("<I", 6) + name + struct.pack("<II", 3, 1) + name
    ctranslate2 += struct.pack("<BIIBI", 2, 2, 3, 0, 24) + bytes(24)
    ctranslate2 += struct.pack("<I", 1) + alias + name
    text = "a_1 the red book\na_2 bin  blue\nb_1 größer\n"
    config = yaml.safe_dump({"optim_conf": {"lr": 0.1, "betas": [0.9, 0.98]}, "tasks": ["avsr"]})
    all_of_them = [
        Reader("text", read_scp, lambda path: path.write_text(text)),
        Reader("utt2spk", data_dir, lambda path: path.write_text("a_1 a\na_2 a\nb_1 b\n")),
        Reader("segments", read_segments, lambda p: p.write_text("a_1 a 0 1.5\na_2 a 1.5 3\n")),
        Reader("config.yaml", read_config, lambda path: path.write_text(config)),
        Reader("a.wav", sound, write_sound),
        Reader("a.flac", sound, write_sound),
        Reader("a.ark", lambda path: sound(Path(f"{path}:2")), write_ark),
        Reader("lips.mp4", read_lips, lambda path: write_lips(path, lips)),
        Reader("clip.mp4", clip, lambda path: write_clip(path, num_frames=5)),
        Reader(
            "clip.avi", clip, lambda path: write_clip(path, num_frames=5, codecs=("mpeg4", "mp2"))
        ),
        Reader(
            "clip.mov", clip, lambda p: write_clip(p, num_frames=5, codecs=("mjpeg", "pcm_s16le"))
        ),
        Reader(
            "clip.mkv",
            clip,
            lambda p: write_clip(p, num_frames=5, codecs=("libx264", "libopus"), rate=48000),
        ),
        Reader("a.mp3", sound, write_sound),
        Reader("wav.scp", media, write_wav_scp),
        Reader("lrs.txt", lrs_text, lambda path: path.write_text(LRS_TEXT)),
        Reader("avhubert/config.json", avhubert, write_avhubert),
        Reader("whisper/config.json", read_suppressed, lambda path: path.write_text(SUPPRESSED)),
        Reader("model.gguf", read_gguf, write_gguf),
        Reader("model.bin", read_model, lambda path: path.write_bytes(ctranslate2)),
        Reader("model.pth", read_checkpoint, lambda path: torch.save(tensors, path)),
        Reader("fairseq.pt", read_fairseq, lambda path: torch.save({"model": tensors}, path)),
        Reader("model.safetensors", weights, lambda path: save_file(weighed.state_dict(), path)),
        Reader("model.zip", archive, write_archive),
    ]
    return {reader.name: reader for reader in all_of_them}


def judge(error: BaseException, path: Path) -> str | None:
    """What is wrong with an error; None if a user can do something with it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, MemoryError) or not isinstance(error, ValueError | OSError):
        return text
    if path.name not in str(error):
        return f"the file is not named: {text}"
    return None


class Watch:
    """Keeps what is read from starting programs and from writing anywhere but into a folder.

    Attributes:
        found: what was tried since it was last emptied; None while nobody watches.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.found: list[str] | None = None
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple) -> None:
        """Python's hook, which is called before the event."""
        if self.found is None:
            return
        wrong = event in FORBIDDEN
        if event == "open":
            wrong = bool(arguments[2] & WRITING) and self.is_elsewhere(arguments[0])
        elif event in CHANGES:
            wrong = any(self.is_elsewhere(path, arguments[-1]) for path in arguments[:2])
        if wrong:
            self.found.append(f"{event}{arguments[:1]!r}")
            raise PermissionError(f"{event} is not allowed here")

    def is_elsewhere(self, path: object, place: int = -1) -> bool:
        """Whether a path lies outside of the folder; descriptors of open files do not.

        It may be relative to ``place``, the descriptor of a folder.
        """
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        base = Path(f"/proc/self/fd/{place}" if place >= 0 else ".")
        resolved = (base / os.fsdecode(path)).resolve()
        return self.folder not in resolved.parents and resolved != Path(os.devnull)


def work(name: str, numbers: range, seed: int, folder: Path, reader: Reader, watch: Watch) -> None:
    """Read damaged files; prints the number of each before it is read, and what is found."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    reader.make(path)
    whole = path.read_bytes()
    reader.read(path)  # the sound file is read
    for number in numbers:
        print(json.dumps({"reader": name, "number": number}), flush=True)
        path.write_bytes(damaged(whole, name, number, seed))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # ends the process, also inside a library
        what = None
        watch.found = []
        try:
            reader.read(path)
        except Exception as error:
            what = judge(error, path)
        tried, watch.found = watch.found, None
        if what := "; ".join(tried) or what:
            print(json.dumps({"reader": name, "number": number, "what": what}), flush=True)
        signal.setitimer(signal.ITIMER_REAL, 0)


def limit_memory() -> None:
    """Give this process no more memory than what it holds and ``MEMORY``."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))


def damaged(whole: bytes, name: str, number: int, seed: int) -> bytes:
    """The input of a reader with this number."""
    return mutate(whole, np.random.default_rng([seed, zlib.crc32(name.encode()), number]))


def fuzz(names: list[str], first: int, count: int, seed: int, folder: Path) -> Iterator[Finding]:
    """Read so many damaged files of some kinds, and give what should not have happened.

    Raises:
        RuntimeError: if a reader does not read the sound file.
    """
    left, number = list(names), first
    while left:
        words = ["--work", *left, "--first", str(number), "--until", str(first + count)]
        words += ["--from", str(first), "--seed", str(seed), "--keep", str(folder)]
        process = subprocess.run(
            [sys.executable, __file__, *words],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENCV_LOG_LEVEL": "SILENT"},
        )
        lines = [json.loads(line) for line in process.stdout.splitlines() if line[:1] == "{"]
        for line in lines:
            if "what" in line:
                yield Finding(line["reader"], line["number"], line["what"])
        if process.returncode == 0:
            return
        if process.returncode > 0 or not lines:
            raise RuntimeError(f"{left}: {process.stderr[-2000:]}")
        name, number = lines[-1]["reader"], lines[-1]["number"]
        how = signal.Signals(-process.returncode).name
        what = f"took {SECONDS} s or more" if how == "SIGALRM" else f"the process ended by {how}"
        yield Finding(name, number, f"{what} {process.stderr.strip()[-200:]}".strip())
        left, number = left[left.index(name) :], number + 1


def main(argv: list[str] | None = None) -> int:
    """Read damaged files by all readers, or some; prints the findings, how many are the status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help="readers, by the file that they read")
    parser.add_argument("--count", type=int, default=1000, help="inputs of each")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument(
        "--seed", type=int, default=0, help="draws the damage of every input; default: %(default)s"
    )
    parser.add_argument("--keep", type=Path, help="folder for the inputs of findings")
    for name in ("--work", "--until", "--from"):  # of the process that reads
        nargs = "+" if name == "--work" else None
        parser.add_argument(name, nargs=nargs, type=str if nargs else int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    known = readers()
    if args.work:
        limit_memory()
        tempfile.tempdir = str(args.keep)
        watch = Watch(args.keep)
        for place, name in enumerate(args.work):
            begin = getattr(args, "from") if place else args.first
            work(name, range(begin, args.until), args.seed, args.keep, known[name], watch)
        return 0
    total = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for found in fuzz(
            args.only or list(known), args.first, args.count, args.seed, Path(folder)
        ):
            total += 1
            print(f"{found.reader} {found.number}: {found.what}", flush=True)
            if args.keep:
                sound = Path(folder) / "sound" / found.reader
                sound.parent.mkdir(parents=True, exist_ok=True)
                known[found.reader].make(sound)
                args.keep.mkdir(parents=True, exist_ok=True)
                data = damaged(sound.read_bytes(), found.reader, found.number, args.seed)
                (args.keep / f"{found.number}_{sound.name}").write_bytes(data)
    print(f"{total} findings")
    return min(total, 100)


if __name__ == "__main__":
    sys.exit(main())
