#!/usr/bin/env bash
# The paper's methods, trained, decoded and compared on generated sentences from 1,500 words; after
# run.sh --preset open, whose lip encoder and warm start they share. It goes on where it stopped.
#   ./experiments.sh --hours 2
# conf/experiments.yaml lists them. Options: ./experiments.sh --help; those of run.sh after --
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=egs/TEMPLATE/avsr1/path.sh
. ../TEMPLATE/avsr1/path.sh
# Options of the runner come before --, those of run.sh behind it.
own=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do own+=("$1") && shift; done
[ $# -eq 0 ] || shift
exec python -m mome.bin.run_experiments --expdir open/exp --dumpdir open/dump "${own[@]}" \
    -- --preset open "$@"
