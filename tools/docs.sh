#!/usr/bin/env bash
# Build the documents as a site in site/: tools/docs.sh [options of mkdocs build]. A dead link, a
# missing anchor or a page that no menu names is an error. MOME_REPOSITORY=https://<host>/<owner>/<name>
# makes links to files of the repository, which are plain text otherwise.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=${PWD}/tools/venv/bin:${PATH}
export NO_MKDOCS_2_WARNING=1 # an announcement of Material's
# Not --quiet, with which warnings would not count.
python -m mkdocs build --strict "$@"
