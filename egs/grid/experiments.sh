#!/usr/bin/env bash
# The paper's methods, trained, decoded and compared on one real speaker; after run.sh, whose lip
# encoder and warm start they share. It goes on where it stopped.
#   ./experiments.sh --hours 8 -- --corpus <folder with s1/*.mpg> --snrs -5
# conf/experiments.yaml lists them. Options: ./experiments.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=egs/TEMPLATE/avsr1/path.sh
. ../TEMPLATE/avsr1/path.sh
exec python -m mome.bin.run_experiments "$@"
