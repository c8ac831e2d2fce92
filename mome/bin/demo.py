"""Show in a web page what a packed model does.

A video or sound is uploaded or recorded by the camera. The page shows the mouth as the model reads
it, transcripts at every rate with their cost and confidence, what is left of them in noise without
and with the lips, and which experts the tokens go to. --model is what mome-pack has made.

  mome-demo --model grid.zip        then open http://127.0.0.1:7860

The page is served to this machine alone unless --host says otherwise, and asks nothing of any
other. Uploads are deleted when they have been read. Gradio is needed: in the clone,
pip install '.[demo]'.
"""

import argparse
import os
import signal
import socket
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from mome.common.command import parser_for
from mome.data.video import reason_of
from mome.demo.reading import find_noises, warm_up
from mome.pretrained.places import download_folders
from mome.transcribe.arguments import add_model_arguments
from mome.transcribe.faces import find_tracker
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber

LOCAL = ("127.0.0.1", "localhost", "::1")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="packed model, folder or .zip")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 lets other machines in"
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument(
        "--noise",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="recordings of noise, or folders of them, such as dump/noise/babble; MUSAN in the "
        "folder musan of --downloads is taken unasked; noise shaped like the voice needs none",
    )
    parser.add_argument("--beam", type=int, default=1, help="1 is greedy")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    add_model_arguments(parser)
    return parser.parse_args(argv)


def check_port(host: str, port: int) -> None:
    """See that the page can be served there, before the model is loaded.

    Raises:
        ValueError: if the port is taken, or the address is none of this machine.
    """
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"{host}, port {port}: {reason}; see --host and --port") from None


def load(args: argparse.Namespace) -> Transcriber:
    """The model, ready to be shown: what is built at its first use is built now.

    Raises:
        FileNotFoundError, ValueError: for a model, a device or a finder of faces that is not there.
    """
    tracker = find_tracker(args.detector, args.downloads) if args.detector else None
    transcribe = Transcriber.load(args.model, args.device, tracker, args.imports, args.downloads)
    if "video" in transcribe.model.rates and transcribe.tracker is None:
        transcribe.tracker = find_tracker(transcribe.crops["detector"], args.downloads)
    warm_up(transcribe)
    return transcribe


def main(argv: list[str] | None = None) -> None:
    """Load the model and serve the page."""
    args = parse(argv)
    for name in ("gradio", "matplotlib"):
        if find_spec(name) is None:
            raise SystemExit(f"mome-demo: {name} is missing: in the clone, pip install '.[demo]'")
    # Ended by a signal, the process shall still delete the folder of the uploads.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Gradio sends statistics, and asks its own page through a proxy, unless it is told not to.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["NO_PROXY"] = ",".join([*filter(None, [os.environ.get("NO_PROXY")]), *LOCAL])
    with tempfile.TemporaryDirectory(prefix="mome-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        from mome.demo.page import Demo, serve

        try:
            check_port(args.host, args.port)
            noises = find_noises(args.noise, download_folders(args.downloads))
            demo = Demo(load(args), Options(beam=args.beam), noises)
            if args.host not in LOCAL:
                print(f"whoever reaches {args.host} may upload and read", file=sys.stderr)
            serve(demo, args.host, args.port)
        except Exception as error:
            raise SystemExit(f"mome-demo: {reason_of(error)}") from None


if __name__ == "__main__":
    main()
