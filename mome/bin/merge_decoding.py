"""Join what the jobs of mome.bin.decode --part i/n have decoded into one text per condition.

Reads <decode>/split<n>/<i>/<task>/<set>/<rate pair>/{text,decode.json} of every part i and writes
<decode>/<task>/<set>/<rate pair>/{text,decode.json}. Conditions that were decoded whole stay.
"""

import json
from pathlib import Path

from mome.common.command import in_one_line, parser_for, start_log
from mome.common.json_files import read_json
from mome.common.marks import differences
from mome.data.kaldi import read_scp, write_scp, write_text
from mome.tasks.transcript_length import warn_if_cut


def merge(folders: list[Path], output: Path) -> int:
    """Join the parts of one condition: the number of utterances.

    Raises:
        FileNotFoundError: if a part is not decoded.
        ValueError: if two parts have an utterance in common or differ in settings, or all together
            lack an utterance.
    """
    texts: dict[str, str] = {}
    settings = []
    for folder in folders:
        if not (folder / "text").exists():
            raise FileNotFoundError(f"{folder} is not decoded; run stage 5 again")
        found = read_scp(folder / "text")
        if found.keys() & texts.keys():
            raise ValueError(f"{folder}: utterances of another part; remove {folder.parents[3]}")
        texts |= found
        settings.append(read_json(folder / "decode.json", "run stage 5 again"))
        if differences(settings[0]["settings"], settings[-1]["settings"]):
            raise ValueError(f"{folder} was decoded with other settings than {folders[0]}")
    missing = read_scp(settings[0]["reference"]).keys() - texts.keys()
    if missing:
        raise ValueError(
            f"{output}: {len(missing)} utterances are in no part, such as {min(missing)}; remove"
            f" {folders[0].parents[3]} and run stage 5 again"
        )
    merged = settings[0] | {
        # Encoders and search of all jobs together.
        "seconds": round(sum(part["seconds"] for part in settings), 2),
        "utterances": len(texts),
        # Parts of earlier versions did not count.
        "unfinished": sum(part.get("unfinished", 0) for part in settings),
        "command": settings[0]["command"].replace(" --part 1/", " --part JOB/"),
    }
    # The jobs have said it of their parts, in their logs, which nobody reads.
    condition = f"{output.parent.name} {output.parent.parent.name} {output.name}"
    limit = merged["settings"]["max_new_tokens"]
    warn_if_cut(condition, merged["unfinished"], len(texts), limit)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "decode.json", json.dumps(merged, indent=2) + "\n")
    write_scp(output / "text", texts)
    return len(texts)


@in_one_line("mome-merge-decoding")
def main(argv: list[str] | None = None) -> None:
    """Join every condition of which a part is there."""
    parser = parser_for(__doc__)
    parser.add_argument("--decode", type=Path, required=True, help="e.g. exp/mome/decode")
    parser.add_argument("--nj", type=int, required=True, help="number of parts")
    args = parser.parse_args(argv)
    start_log()
    parts = [args.decode / f"split{args.nj}" / str(number + 1) for number in range(args.nj)]
    names = {path.parent.relative_to(part) for part in parts for path in part.glob("*/*/*/text")}
    for name in sorted(names):
        if not (args.decode / name / "text").exists():
            count = merge([part / name for part in parts], args.decode / name)
            print(f"{args.decode / name}: {count} utterances of {args.nj} parts")


if __name__ == "__main__":
    main()
