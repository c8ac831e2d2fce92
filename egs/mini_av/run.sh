#!/usr/bin/env bash
# mini_av: the whole pipeline on a generated corpus and real pretrained parts, on a CPU.
#   ./run.sh                           all stages; the table is exp/mome/RESULTS.md
#   ./run.sh --stage 4 --expdir exp2   train again elsewhere; see ../TEMPLATE/avsr1/avsr.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
downloads=${MOME_DOWNLOADS:-$(cd ../.. && pwd)/downloads}

exec ../TEMPLATE/avsr1/avsr.sh \
    --corpus "${downloads}/mini_av" \
    --lm "${downloads}/smollm2-135m-instruct" \
    --audio_model "${downloads}/whisper-tiny.en" \
    --video_config conf/video_encoder.yaml \
    --projector_config conf/projectors.yaml \
    --train_config conf/train.yaml \
    --trained_on "mini_av: synthetic voices and drawn faces that say sentences of some 50 words" \
    --beam 1 \
    "$@"
