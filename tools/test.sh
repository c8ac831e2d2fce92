#!/usr/bin/env bash
# Set up what is missing, then lint, check types and test: tools/test.sh [pytest options]
# tools/test.sh --wheel: install the package into fresh environments and try it there (test_wheel.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/setup.sh
# More threads than cores wait here, in files of tests side by side, so that none shall spin; path.sh leaves it so.
export OMP_WAIT_POLICY=PASSIVE
# shellcheck source=egs/TEMPLATE/avsr1/path.sh
. egs/TEMPLATE/avsr1/path.sh
if [ "${1:-}" = --wheel ]; then exec tools/test_wheel.sh; fi
python -m mome.bin.fetch_models --downloads "${MOME_DOWNLOADS}"
find egs mome test tools utils -name '*.sh' -not -path '*/venv/*' -not -path '*/.uv/*' -print0 \
    | xargs -0 shellcheck -x
ruff check .
ruff format --check .
mypy
# Files of tests side by side, on up to four cores.
jobs=$(nproc)
jobs=$((jobs > 4 ? 4 : jobs))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(nproc) / jobs))}
python -m pytest -q -n "${jobs}" --dist loadfile --no-loadscope-reorder --durations 20 "$@"
