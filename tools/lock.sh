#!/usr/bin/env bash
# Resolve requirements.in into requirements.lock for the Python of tools/venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
PATH=${PWD}/.uv/bin:${PATH}
uv pip compile --python venv/bin/python --no-header --no-annotate requirements.in -o requirements.lock
