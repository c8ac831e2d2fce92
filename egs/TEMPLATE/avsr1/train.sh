# shellcheck shell=bash disable=SC2154
# Sourced by avsr.sh: how stage 4 trains a model. Options of avsr.sh are read here, none is changed.

# set_model_args TASKS VIDEO_WEIGHTS: mome.bin.train's options for a model, in model_args.
set_model_args() {
    model_args=(--tasks "$1")
    if [ -n "${lm}" ]; then model_args+=(--decoder_conf "lm=${lm}"); fi
    if [ -n "${audio_model}" ]; then model_args+=(--audio_encoder_conf "model=${audio_model}"); fi
    if [ -n "$2" ]; then model_args+=(--video_encoder_conf "weights=$2"); fi
}

# train DIR CONFIG "NEEDED_MARK..." OPTION...: ESPnet's trainer. On this machine it starts a process
# per GPU; a cluster's command and several machines are left to ESPnet's launcher, whose log is
# DIR/train.log, with a CPU for each GPU and each process that reads clips for it. What another training
# needs, to lie beside this one, is --expdir or what the variable elsewhere names.
train() {
    local dir=$1 config=$2 needs=$3 distributed=false launch=() workers
    shift 3
    if [ "${ngpu}" -gt 1 ] || [ "${num_nodes}" -gt 1 ]; then distributed=true; fi
    if [ "${train_cmd}" != run.pl ] || [ "${num_nodes}" -gt 1 ]; then
        workers=$(python -c 'import sys; from pathlib import Path
from mome.tasks.config import read_config
print(read_config(Path(sys.argv[1])).get("num_workers", 1))' "${config}")
        if [[ " $* " =~ " --num_workers "([0-9]+) ]]; then workers=${BASH_REMATCH[1]}; fi
        launch=(python -m espnet2.bin.launch --log "${dir}/train.log"
            --cmd "${train_cmd} --num_threads $(((ngpu > 1 ? ngpu : 1) * (1 + workers)))"
            --ngpu "${ngpu}" --num_nodes "${num_nodes}" --init_file_prefix "${dir}/.dist_init_"
            --multiprocessing_distributed "${distributed}" --)
    fi
    # Rate pairs that a step does not draw leave projectors without gradient.
    # shellcheck disable=SC2046,SC2086
    run_once --show progress --mark "${dir}/.done" "--elsewhere=${elsewhere:---expdir}" \
        --checkpoint "${dir}/checkpoint.pth" \
        --needs $(prepared "${dir}/.done" "${train_set}" "${valid_set}") ${needs} -- \
        "${launch[@]}" python -m mome.bin.train --config "${config}" --output_dir "${dir}" \
        --train_data "${dumpdir}/${train_set}" --valid_data "${dumpdir}/${valid_set}" --resume true \
        --ngpu "${ngpu}" --multiprocessing_distributed "${distributed}" \
        --unused_parameters "${distributed}" --seed "${seed}" "$@"
}

# train_avsr DIR CONFIG "NEEDED_MARK..." TASKS VIDEO_WEIGHTS OPTION...: a model that hears noise, if
# there is sound.
train_avsr() {
    local dir=$1 config=$2 needs=$3 noise=()
    set_model_args "$4" "$5"
    shift 5
    if prepares audio; then
        needs="${dumpdir}/noise/.done ${needs}"
        noise=(--preprocessor_conf "noise_scp=${dumpdir}/noise/train.scp")
        noise+=(${train_noise:+--preprocessor_conf "noise_kinds=[${train_noise// /,}]"})
    fi
    train "${dir}" "${config}" "${needs}" "${model_args[@]}" "${noise[@]}" "$@"
}

# export_encoder DIR WEIGHTS: the video encoder of a checkpoint, to DIR/video_encoder.safetensors.
export_encoder() {
    run_once --mark "$1/.exported.done" --elsewhere=--expdir --needs "$2" -- \
        python -m mome.bin.export_encoder --weights "$2" --prefix video_encoder. \
        --output "$1/video_encoder.safetensors"
}
