"""Pack a trained model into one folder or .zip: to give away, and for mome-transcribe.

Measures on the validation set what its transcripts are worth: the error rate and the seconds of
each task at each rate pair, and how often a word is right that the model is so sure of, by which
its confidence is calibrated; that it knows what it does not know, it learns of the same clips
played backwards. Frozen parts are named with their SHA-256, not copied. Writes config.yaml,
model.safetensors, mome.json and a model card, README.md, which has the error rates of test sets as
well, if stage 5 has decoded them with these weights. --push_to also uploads them to the Hugging
Face hub. After a further stage 5, the same command with --card_only renews the card of what is
packed, and measures nothing.

  mome-pack --expdir exp/mome --weights valid.epoch.best.pth --dump dump \\
      --trained_on "GRID, speaker s1" --output grid.zip
"""

import argparse
import json
import logging
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from mome.analysis.conditions import describe_search
from mome.analysis.decoded import read_scores
from mome.common.command import in_one_line, parser_for, start_log
from mome.common.extras import demand_installed
from mome.common.marks import file_digest
from mome.common.yaml_files import read_yaml
from mome.data.kaldi import read_scp
from mome.lips.provenance import read_crops
from mome.tasks.checkpoint import check_trained
from mome.tasks.frozen_parts import describe_part, folders_of
from mome.tasks.packed import check_output, load_packed, opened, pack, renew
from mome.tasks.transcript_length import longest_allowed
from mome.transcribe.card import card
from mome.transcribe.options import Options


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--expdir", type=Path, required=True, help="folder of the model")
    parser.add_argument("--weights", default="valid.acc.best.pth", help="checkpoint in it")
    parser.add_argument("--dump", type=Path, required=True, help="folder of the sets")
    parser.add_argument(
        "--train_set", default="train", help="its lengths and how its lips were cut"
    )
    parser.add_argument("--valid_set", default="valid", help="measured on, and calibrated by")
    parser.add_argument("--max_clips", type=int, default=200, help="of the validation set")
    parser.add_argument("--trained_on", required=True, help="the data, in words, for its users")
    parser.add_argument("--name", help="for the card; default: that of --expdir")
    parser.add_argument(
        "--language", type=language, nargs="+", default=[], help="ISO 639 codes, for the card"
    )
    parser.add_argument(
        "--datasets", nargs="+", default=[], help="the data's names on the hub, for the card"
    )
    parser.add_argument(
        "--base_models",
        nargs="+",
        default=[],
        help="names on the hub of frozen parts that are folders here, for the card",
    )
    parser.add_argument(
        "--decode_tag", default="", help="of the decoding whose error rates the card shows"
    )
    parser.add_argument("--license", default="other", help="of the model, for the card")
    parser.add_argument("--beam", type=int, default=Options().beam, help="of the measurement")
    parser.add_argument(
        "--length_penalty", type=float, default=0.0, help="of the measurement, and of its users"
    )
    parser.add_argument(
        "--no_repeat_ngram_size",
        type=int,
        default=0,
        help="no n-gram of so many tokens twice in a transcript, of the measurement and of its "
        "users; 0 allows it",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, required=True, help="folder, or file ending in .zip")
    parser.add_argument(
        "--card_only",
        action="store_true",
        help="what is packed stays; its card gets the test sets that are decoded by now, and what "
        "these options say for it",
    )
    parser.add_argument("--push_to", help="repository of the Hugging Face hub, such as me/my-model")
    return parser.parse_args(argv)


def language(text: str) -> str:
    """A language on the command line."""
    if not re.fullmatch("[a-z]{2,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no ISO 639 code such as en")
    return text


def add_tests(info: dict[str, Any], args: argparse.Namespace, digest: str) -> None:
    """Add the error rates of the test sets, if the weights were decoded, and how they were.

    Args:
        info: of the packed model.
        args: the options.
        digest: SHA-256 of the weights.
    """
    tests, how = read_scores(args.expdir, digest, args.decode_tag)
    if not tests:
        logging.warning(
            "%s holds no error rates of %s: the card has none of test sets. Stage 5 makes them",
            *(args.expdir, Path(args.weights).name),
        )
        return
    info["tests"] = tests
    info["tested"] = describe_search(how).lower()  # within a sentence


def for_card(args: argparse.Namespace) -> dict[str, Any]:
    """What the options say for the card, and for mome.json."""
    names = ("trained_on", "language", "datasets", "base_models")
    return {name: getattr(args, name) for name in names}


def renew_card(args: argparse.Namespace, weights: Path) -> bool:
    """Renew the card of what is packed, without measuring: whether anything is new in it.

    Raises:
        FileNotFoundError, PackedModelError: as of :func:`mome.tasks.packed.renew`.
        ValueError: for a model that was packed of other weights.
    """
    digest = file_digest(weights)

    def change(info: dict[str, Any]) -> str | None:
        if info.get("checkpoint", digest) != digest:
            raise ValueError(
                f"{args.output} was packed of other weights than {weights}; pack them without "
                f"--card_only, or name those by --expdir and --weights"
            )
        info |= for_card(args)
        add_tests(info, args, digest)
        try:
            return card(args.name or args.expdir.name, info, info["frozen"], args.license)
        except KeyError as error:
            logging.warning(
                "%s was packed by an older version, which did not measure %s: its card stays as it "
                "is. Pack it again, without --card_only",
                *(args.output, error),
            )
            return None

    return renew(args.output, change)


def pack_measured(args: argparse.Namespace, config: Path, weights: Path) -> dict[str, Any]:
    """Pack, measure, pack again with what was measured: what mome.json says.

    Args:
        args: the options.
        config: of the training.
        weights: its checkpoint.

    Raises:
        OSError, ValueError, FloatingPointError: of what cannot be read, measured or written.
        OutOfMemory: if that of the GPU or the machine does not suffice; names the clips.
    """
    # A card that is renewed does not wait for these, which load the model's parts.
    from mome.transcribe.measurement import add_flops, calibrate, measure
    from mome.transcribe.prepared import read_clips
    from mome.transcribe.transcriber import Transcriber, check_device

    check_device(args.device)
    durations = [float(v) for v in read_scp(args.dump / args.train_set / "utt2dur").values()]
    info: dict[str, Any] = {
        **for_card(args),
        "checkpoint": file_digest(weights),
        "max_seconds": max(durations),
        "training_hours": round(sum(durations) / 3600, 2),
        "length_penalty": args.length_penalty,
        "no_repeat_ngram_size": args.no_repeat_ngram_size,
    }
    add_tests(info, args, info["checkpoint"])
    with tempfile.TemporaryDirectory(prefix="mome-") as temporary:
        bare = pack(config, weights, Path(temporary, "bare"), info, "")
        allowed = read_yaml(config).get("imports") or ()
        # Faces need not be found: lips are cut already.
        model, conf, described = load_packed(
            bare, args.device, imports=allowed, downloads=folders_of(config)
        )
    # Before the model is measured, so that it is with the limit that its users will have.
    spoken = read_scp(args.dump / args.train_set / "text").values()
    info["max_new_tokens"] = longest_allowed(spoken, model.tokenizer)
    transcribe = Transcriber(model, conf, {**described, **info})
    # What was not at hand is since the model was loaded.
    info["frozen"] = frozen = {
        place: part if part["sha256"] else describe_part(part["name"])
        for place, part in transcribe.info["frozen"].items()
    }
    if "video" in model.rates:
        info["crops"] = crops = read_crops(args.dump / args.train_set)
        if not crops:
            logging.warning(
                "%s does not say what cut its lips: those of recordings will be cut by dlib's "
                "landmarks, and nobody will know whether the model learned from such",
                args.dump / args.train_set,
            )
    valid = args.dump / args.valid_set
    clips, texts = read_clips(valid, args.max_clips, transcribe.model, remedy="lower --max_clips")
    measured = measure(transcribe, clips, texts, args.beam)
    info["calibration"] = calibrate(measured)
    add_flops(measured.rows, config, float(np.median(durations)))
    info["rates"] = measured.rows
    info["measured"] = f"{len(clips)} clips of {args.valid_set}, beam {args.beam}, {args.device}"
    text = card(args.name or args.expdir.name, info, frozen, args.license)
    pack(config, weights, args.output, info, text)
    return info


@in_one_line("mome-pack")
def main(argv: list[str] | None = None) -> None:
    """Pack and measure, or renew the card; upload."""
    args = parse(argv)
    if not args.card_only:
        demand_installed("mome-pack", "sklearn")
    start_log()
    config, weights = args.expdir / "config.yaml", args.expdir / args.weights
    check_trained(config, weights)
    check_output(args.output)
    if args.no_repeat_ngram_size < 0:
        raise ValueError(f"--no_repeat_ngram_size {args.no_repeat_ngram_size} must be 0 or more")
    for name in filter(None, [args.push_to, *args.base_models]):
        check_repository(name)  # hours of measuring before it would be noticed
    if args.card_only:
        if renew_card(args, weights):
            print(f"{args.output}: its card is new")
        push_to_hub(args)
        return
    info = pack_measured(args, config, weights)
    print(f"{args.output}: {json.dumps(info['calibration'])}")
    push_to_hub(args)


def check_repository(name: str) -> None:
    """See that the hub can have a repository of this name.

    Raises:
        ValueError: if it cannot.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(str(error)) from None


def push_to_hub(args: argparse.Namespace) -> None:
    """Upload what is packed, if the options say so."""
    if args.push_to:
        try:
            push(args.output, args.push_to)
        except PushError as error:
            raise SystemExit(f"mome-pack: {error}") from None
        print(f"uploaded to {args.push_to}; it is private until you publish it there")


def push(packed: Path, repository: str) -> None:
    """Upload a packed model to the Hugging Face hub, where it is private at first.

    The hub is that of ``$HF_ENDPOINT``, and who uploads is known by ``$HF_TOKEN`` or ``hf auth
    login``.

    Raises:
        PushError: if it cannot be uploaded; says why, and how to do it later. The packed model
            stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        with opened(packed) as folder:
            api.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:
        # Of what the hub's client and its transports raise, not all is an OSError; and whatever it
        # is, hours of work are packed already.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
            reason = "the hub does not let you write there: hf auth login, with a token that may"
        elif status is None and not isinstance(error, ValueError):
            reason = f"{api.endpoint}: {reason}: check the network and its proxy"
        raise PushError(packed, repository, reason) from error


class PushError(RuntimeError):
    """A packed model could not be uploaded."""

    def __init__(self, packed: Path, repository: str, reason: str):
        folder = packed
        first = ""
        if packed.suffix == ".zip":
            folder = packed.with_suffix("")
            first = f"unzip {packed} -d {folder} && "
        super().__init__(
            f"{packed} is packed, but not uploaded to {repository} ({reason}); then upload it by "
            f"{first}hf upload {repository} {folder} ."
        )


if __name__ == "__main__":
    main()
