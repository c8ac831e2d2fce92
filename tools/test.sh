#!/usr/bin/env bash
# Set up what is missing, then lint, check types and test: tools/test.sh [pytest options]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/setup.sh
# shellcheck source=egs/TEMPLATE/avsr1/path.sh
. egs/TEMPLATE/avsr1/path.sh
python -m mome.bin.fetch_models --downloads "${MOME_DOWNLOADS}"
python -m mome.bin.fetch_models --downloads "${MOME_DOWNLOADS}" --only mediapipe
find egs mome test tools utils -name '*.sh' -not -path '*/venv/*' -not -path '*/.uv/*' -print0 \
    | xargs -0 shellcheck -x
ruff check .
ruff format --check .
mypy
python -m pytest -q "$@"
