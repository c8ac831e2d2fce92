"""Check data folders; prints every problem and fails if there is one.

Checks what Kaldi's validate_data_dir.sh does (order, keys, duplicates, speakers, empty
transcripts) and, with --check_media, every recording: missing streams, frame rate, and audio and
video of different length. --fix first drops utterances that a file lacks, sorts and rebuilds
spk2utt.
"""

from pathlib import Path

from mome.common.command import in_one_line, parser_for
from mome.data.kaldi import findings, fix_data_dir, validate_data_dir


@in_one_line("mome-validate-data-dir")
def main(argv: list[str] | None = None) -> None:
    """Validate each folder."""
    parser = parser_for(__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="e.g. data/train")
    parser.add_argument("--fix", action="store_true", help="repair what can be")
    parser.add_argument("--check_media", action="store_true", help="open every recording")
    parser.add_argument("--frame_rate", type=float, default=25.0, help="expected frames/s")
    parser.add_argument(
        "--tolerance", type=float, default=0.2, help="s that audio and video may differ in length"
    )
    parser.add_argument("--nj", type=int, default=1, help="processes")
    args = parser.parse_args(argv)
    count = 0
    for folder in args.folders:
        if args.fix:
            print(f"{folder}: {fix_data_dir(folder)} utterances kept")
        problems = validate_data_dir(
            folder, args.check_media, args.frame_rate, args.tolerance, args.nj
        )
        print(findings(folder, problems))
        count += len(problems)
    if count:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
