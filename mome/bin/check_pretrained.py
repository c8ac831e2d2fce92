"""See that the frozen parts that a training names can be had, before its data are prepared.

Takes the options of mome.bin.train that name them, and reads over all others. Files and folders are
looked for; of names on the hub the configuration is read, from its cache or the hub, which refuses
that of gated models as it would their weights. A recipe calls it where it is to do data stages and
train in one call, as days may lie between.

  mome-check-pretrained --config conf/train.yaml --decoder_conf lm=me/my-llm
"""

from pathlib import Path

from mome.common.command import in_one_line, parser_for
from mome.pretrained.hub import load
from mome.tasks.config import merge, read_config

# Section, the class in it that reads a Transformers model, and the key of the model's name.
KNOWN = (("decoder", "mome_llm", "lm"), ("audio_encoder", "whisper", "model"))


def named_parts(argv: list[str] | None) -> dict[str, dict]:
    """Sections of the configuration, with what the options change in them: ``decoder_conf`` etc.

    Raises:
        FileNotFoundError, ValueError: if the configuration cannot be read.
    """
    parser = parser_for(__doc__, allow_abbrev=False)
    sections = ("decoder", "audio_encoder", "video_encoder")
    parser.add_argument("--config", type=Path, required=True, help="YAML of the training")
    for section in sections:
        instead = "in the place of the configuration's"
        parser.add_argument(f"--{section}", help=f"name of the {section}'s class, {instead}")
        parser.add_argument(
            f"--{section}_conf",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help=f"option of the {section}, {instead}; may be repeated",
        )
    args, _ = parser.parse_known_args(argv)
    config = read_config(args.config)
    parts = {}
    for section in sections:
        given = dict(each.partition("=")[::2] for each in getattr(args, f"{section}_conf"))
        if name := getattr(args, section) or config.get(section):
            parts[section] = merge(config.get(f"{section}_conf") or {}, given)
            parts[section]["class"] = str(name).lower()
    return parts


@in_one_line("mome-check-pretrained")
def main(argv: list[str] | None = None) -> None:
    """Look for each part."""
    parts = named_parts(argv)
    # Of others than these, such as a user's own encoder, it is not known what they take.
    for section, known, key in KNOWN:
        part = parts.get(section, {"class": ""})
        unread = str(part.get("load_pretrained", "true")).lower() == "false"
        if part["class"] == known and part.get(key) and not unread:
            from transformers import AutoConfig  # takes seconds to load, as encoders do below

            load(AutoConfig, part[key])
    lips = parts.get("video_encoder", {})
    if weights := lips.get("weights"):
        if lips["class"] == "avhubert":
            from mome.encoders.avhubert import read_weights

            read_weights(Path(weights), lips.get("size"))
        elif lips["class"] == "visual" and not Path(weights).exists():
            raise FileNotFoundError(
                f"{weights} does not exist: name the weights of the video encoder by"
                " --video_weights"
            )


if __name__ == "__main__":
    main()
