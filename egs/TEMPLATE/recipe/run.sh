#!/usr/bin/env bash
# CORPUS: from the raw corpus to a table of word error rates.
#   ./run.sh --corpus /data/CORPUS --ngpu 1
# Other options: ../TEMPLATE/avsr1/avsr.sh --help
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
corpus=
# shellcheck disable=SC2034
own_options=corpus
# shellcheck source=utils/own_options.sh
. "${recipe}/../../utils/own_options.sh"
corpus=$(from_here "${corpus}")
cd "${recipe}"
downloads=${MOME_DOWNLOADS:-$(cd ../.. && pwd)/downloads}

exec ../TEMPLATE/avsr1/avsr.sh \
    ${corpus:+--corpus "${corpus}"} --download_opts none \
    --lm "${downloads}/smollm2-135m-instruct" \
    --audio_model "${downloads}/whisper-tiny.en" \
    --video_config conf/video_encoder.yaml \
    --projector_config conf/projectors.yaml \
    --train_config conf/train.yaml \
    "$@"
