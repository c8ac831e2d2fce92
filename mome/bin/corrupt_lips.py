"""Make copies of test sets with corrupted lips: blur, occlusion, darkness, dropped frames.

Writes <dump>/<set>_<kind><strength>/, a data folder with corrupted crops in lips/ and everything
else, the audio too, as in the set; `mome.data.corrupt` says what the strengths mean. Randomness
follows --seed and the utterance id. Finished crops are kept when the command is run again with the
same settings; other settings are an error, and with --force true all are made anew. The copies are
listed in <dump>/test_sets.json.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mome.common.command import in_one_line, parser_for
from mome.common.extras import demand_installed
from mome.common.processes import map_items
from mome.data import corrupt, test_sets
from mome.data.corrupt import CORRUPTIONS, STRENGTHS
from mome.data.kaldi import copy_data_dir, keep_only_same, read_scp
from mome.data.video import MediaError, read_lips, video_info, write_lips

# What the crops depend on beside the command line.
PARAMETERS = {
    name: value for name, value in vars(corrupt).items() if name.isupper() and name != "CORRUPTIONS"
}


@dataclass(frozen=True)
class Clip:
    """One utterance, its crop and the copies wanted: (kind, strength, output)."""

    utterance: str
    lips: str
    num_frames: int
    outputs: tuple[tuple[str, int, str], ...]


def corrupt_clip(clip: Clip, seed: int) -> int:
    """Write the copies of a crop that are not finished; returns how many these are.

    Raises:
        ValueError: for a crop that has not as many frames as the data folder says.
    """
    todo = [wanted for wanted in clip.outputs if not _finished(wanted[2], clip)]
    if not todo:
        return 0
    frames = read_lips(clip.lips)
    if len(frames) != clip.num_frames:
        raise ValueError(
            f"{clip.utterance}: {clip.lips} has {len(frames)} frames, utt2num_frames says"
            f" {clip.num_frames}; run stage 2 again"
        )
    for kind, strength, output in todo:
        # The generator starts anew, so that the same patch hides the mouth at every strength.
        rng = np.random.default_rng([seed, *f"{kind} {clip.utterance}".encode()])
        write_lips(output, corrupt.corrupt(frames, kind, strength, rng))
    return len(todo)


def _finished(output: str, clip: Clip) -> bool:
    path = Path(output)
    try:
        return (
            path.is_file()
            and path.stat().st_mtime >= Path(clip.lips).stat().st_mtime
            and video_info(path).num_frames == clip.num_frames
        )
    except MediaError:
        return False


def corrupt_set(data: Path, args: argparse.Namespace) -> None:
    """Write the copies of a set, of every kind at every strength.

    Raises:
        SystemExit: for a set without lips.
        OtherSettings: for copies that were made with other settings.
    """
    if not (data / "lip.scp").is_file():
        raise SystemExit(
            f"{data / 'lip.scp'} does not exist: there are no lips to corrupt. Stage 2 cuts them"
            " for tasks that read lips, or with --streams video"
        )
    lips, speakers = read_scp(data / "lip.scp"), read_scp(data / "utt2spk")
    lengths = read_scp(data / "utt2num_frames")
    names = {u: f"lips/{speakers[u]}/{u}.mp4" for u in lips}
    settings = {"seed": args.seed, "source": test_sets.source_of(args.dump, data.name)}
    settings |= PARAMETERS
    copies = [
        test_sets.corrupted(data.name, kind, strength)
        for kind in args.kinds
        for strength in args.strengths
    ]
    wanted = dict.fromkeys(copies, settings)
    test_sets.claim(args.dump, wanted, args.force == "true")
    folders = {
        (each.corruption, each.strength): args.dump / each.name
        for each in wanted
        if each.corruption and each.strength
    }
    for folder in folders.values():
        keep_only_same(folder, settings, [folder / "lips"], args.force == "true")
    clips = [
        Clip(
            u,
            path,
            int(lengths[u]),
            tuple((*key, str(folder / names[u])) for key, folder in folders.items()),
        )
        for u, path in lips.items()
    ]
    corrupt_one = partial(corrupt_clip, seed=args.seed)
    new = map_items(corrupt_one, clips, args.nj, f"corrupted lips of {data.name}", args.parallel)
    for folder in folders.values():
        crops = {u: str(folder / name) for u, name in names.items()}
        copy_data_dir(data, folder, {"lip.scp": crops})
    test_sets.add_to_list(args.dump, wanted)
    print(f"{data.name}: {len(lips)} utterances in {len(folders)} copies, {sum(new)} crops new")


@in_one_line("mome-corrupt-lips")
def main(argv: list[str] | None = None) -> None:
    """Write the copies of all sets."""
    parser = parser_for(__doc__)
    parser.add_argument("--dump", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--sets", nargs="+", default=["test"], help="may be noisy copies too")
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=list(CORRUPTIONS),
        default=list(CORRUPTIONS),
        help="of corruption; default: all",
    )
    parser.add_argument(
        "--strengths",
        nargs="+",
        type=int,
        choices=STRENGTHS,
        default=STRENGTHS,
        help="of each kind, 3 is the worst; default: all",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="draws patches, noise and lost frames, with the utterance's id; default: %(default)s",
    )
    parser.add_argument(
        "--force",
        choices=("true", "false"),
        default="false",
        help="true makes the copies anew, also those of other settings; default: %(default)s",
    )
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument("--parallel", help="YAML of a Dask cluster, in the place of --nj")
    args = parser.parse_args(argv)
    if args.parallel:
        demand_installed("mome-corrupt-lips", "espnet3")
    for name in args.sets:
        corrupt_set(args.dump / name, args)


if __name__ == "__main__":
    main()
