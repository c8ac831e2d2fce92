#!/usr/bin/env bash
# Sort the files of data folders, drop utterances that a file lacks, rebuild spk2utt, then check.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/validate_data_dir.sh" --fix "$@"
