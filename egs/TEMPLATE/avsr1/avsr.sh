#!/usr/bin/env bash
# The one driver of all recipes: from raw data to a table of word error rates.
#   stage 0  environment, pretrained models, raw data
#   stage 1  Kaldi data folders                        -> <datadir>/<set>
#   stage 2  lip regions and audio                     -> <dumpdir>/<set>
#   stage 3  noise lists; test copies with noise or    -> <dumpdir>/noise, <dumpdir>/<set>_<kind>_snr<N>,
#            corrupted lips                               <dumpdir>/<set>_<corruption><strength>
#   stage 4  training                                  -> <expdir>/<model>
#   stage 5  decoding at every rate pair and scoring   -> <expdir>/<model>/RESULTS.md
# A finished stage is not redone, a broken one goes on where it stopped. Call it from a recipe's
# run.sh; any option below can be given there or on the command line as --name value.
set -euo pipefail

template=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=egs/TEMPLATE/avsr1/path.sh
. "${template}/path.sh"
# shellcheck source=egs/TEMPLATE/avsr1/cmd.sh
. "${template}/cmd.sh"         # sets train_cmd and decode_cmd, which are options too

stage=0
stop_stage=5
nj=$(nproc)                # parallel jobs of the data stages, on this machine
parallel=                  # YAML of a Dask cluster that runs the data stages 2 and 3 instead
ngpu=0                     # GPUs of a machine, all used by one model in training
num_nodes=1                # machines for training; more than one need a train_cmd of a cluster
decode_nj=                 # parallel jobs of decoding, with a GPU each if ngpu > 0; default: ngpu or 1
datadir=data
dumpdir=dump
expdir=exp
corpus=                    # where the raw corpus is, or is made: given to local/data.py
download_opts=             # further options of local/data.py download; the stage is skipped if "none"
prepare_opts=              # further options of local/data.py prepare
train_set=train
valid_set=valid
test_sets="test"           # sets decoded clean and, by copies at each SNR, noisy
lip_dir=                   # mouth crops made elsewhere (Auto-AVSR, AV-HuBERT), used as they are
detector=dlib              # or mediapipe: finds faces and landmarks
lip_opts=                  # further options of mome.bin.prepare_media
musan=                     # folder of the MUSAN corpus, or "download": adds noise, speech and music
musan_opts=                # further options of mome.bin.fetch_musan, such as --mirror <url>
train_noise=               # kinds of noise in training, of babble noise speech music; default: all
test_noise=                # the same for noisy test copies and decoding
snrs="-5 0 5 10 15"        # of the noisy test copies, in dB; empty: clean test sets only
noise_opts=                # further options of mome.bin.make_noise
corruptions=               # of lips in test copies, of blur occlusion darkness drop, at three
                           # strengths each, see mome/data/corrupt.py; none if empty
corrupt_sets=              # the sets for that, such as "test test_babble_snr-5"; default: test_sets
lm=                        # hub name or folder of the LLM
audio_model=               # hub name or folder of the Whisper model
video_weights=             # file or folder of the video encoder's weights, if it comes from elsewhere
video_config=              # configuration of the video encoder's pretraining, if it is trained here
units_opts=                # further options of mome.bin.make_units, the targets of that
projector_config=          # configuration of the warm start by CTC of the projectors and of a video
                           # encoder that was pretrained here; no warm start if empty
train_config=conf/train.yaml
train_opts=                # further options of mome.bin.train
dry_run=false              # true: only say what the models of train_config cost; no data or weights needed
tasks=avsr                 # rows of the table, such as "avsr asr vsr"
one_model=true             # one model for all tasks; otherwise one model for each
tag=                       # name of the model's folder in expdir; default: mome or mome_<task>
beam=15
decode_batch_size=16
decode_opts=               # further options of mome.bin.decode
seed=0

help_message=$(sed -n '2,/^set -/{/^#/p}' "${BASH_SOURCE[0]}")
# shellcheck source=utils/parse_options.sh
. "${MOME_ROOT}/utils/parse_options.sh"

decode_nj=${decode_nj:-$((ngpu > 1 ? ngpu : 1))}

log() { echo "$(date '+%H:%M:%S') ($(basename "$0")) $*" >&2; }

# run_logged FILE COMMAND...: run with its output to FILE as well.
run_logged() {
    local output=$1
    shift
    mkdir -p "$(dirname "${output}")"
    if ! "$@" > >(tee -a "${output}") 2>&1; then
        log "failed: $*; see ${output}; the same command goes on from there"
        exit 1
    fi
}

# run_once MARK COMMAND...: run unless MARK says that it has succeeded; its output goes to MARK's log.
run_once() {
    local mark=$1
    shift
    if [ -e "${mark}" ]; then
        log "done already: ${mark}"
        return
    fi
    run_logged "${mark%.done}log" "$@"
    touch "${mark}"
}

wants() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }

# The models to train, as "name task task ...".
if "${one_model}"; then
    models=("${tag:-mome} ${tasks}")
else
    models=()
    for task in ${tasks}; do models+=("${tag:-mome}_${task} ${task}"); done
fi

# set_model_args TASKS: mome.bin.train's options for a model of the (quoted) tasks, in model_args.
set_model_args() {
    model_args=(--model_conf "tasks=[${1// /,}]")
    if [ -n "${lm}" ]; then model_args+=(--decoder_conf "lm=${lm}"); fi
    if [ -n "${audio_model}" ]; then model_args+=(--audio_encoder_conf "model=${audio_model}"); fi
    if [ -n "${video_weights}" ]; then model_args+=(--video_encoder_conf "weights=${video_weights}"); fi
}

if "${dry_run}"; then
    for model in "${models[@]}"; do
        read -r _ model_tasks <<< "${model}"
        set_model_args "${model_tasks}"
        # shellcheck disable=SC2086
        python -m mome.bin.train --config "${train_config}" --dry_run true --ngpu "${ngpu}" \
            "${model_args[@]}" ${train_opts}
    done
    exit
fi

if wants 0; then
    log "stage 0: environment, pretrained models, raw data"
    "${MOME_ROOT}/tools/setup.sh"
    python -m mome.bin.fetch_models --downloads "${MOME_DOWNLOADS}"
    if [ "${detector}" = mediapipe ]; then
        python -m mome.bin.fetch_models --downloads "${MOME_DOWNLOADS}" --only mediapipe
    fi
    if [ "${download_opts}" != none ]; then
        # shellcheck disable=SC2086
        python local/data.py download --out "${corpus}" --nj "${nj}" ${download_opts}
    fi
fi

if [ "${musan}" = download ]; then
    musan=${MOME_DOWNLOADS}/musan
    if wants 0 || wants 3; then
        # shellcheck disable=SC2086
        python -m mome.bin.fetch_musan --downloads "${MOME_DOWNLOADS}" ${musan_opts}
    fi
fi

if wants 1; then
    log "stage 1: data folders"
    # shellcheck disable=SC2086
    run_once "${datadir}/.done" \
        python local/data.py prepare --corpus "${corpus}" --out "${datadir}" ${prepare_opts}
    for set in "${train_set}" "${valid_set}" ${test_sets}; do
        python -m mome.bin.validate_data_dir "${datadir}/${set}"
    done
fi

if wants 2; then
    log "stage 2: lip regions and audio"
    landmarks=${MOME_DOWNLOADS}/${detector}
    if [ "${detector}" = dlib ]; then landmarks+=/shape_predictor_68_face_landmarks.dat; fi
    for set in "${train_set}" "${valid_set}" ${test_sets}; do
        # shellcheck disable=SC2086
        run_once "${dumpdir}/${set}/.done" \
            python -m mome.bin.prepare_media --data "${datadir}/${set}" --dump "${dumpdir}/${set}" \
            --detector "${detector}" --landmarks "${landmarks}" \
            --nj "${nj}" ${parallel:+--parallel "${parallel}"} \
            ${lip_dir:+--lip_dir "${lip_dir}"} ${lip_opts}
        python -m mome.bin.validate_data_dir "${dumpdir}/${set}"
        if [ ! -e "${dumpdir}/${set}/lips.png" ]; then
            python -m mome.bin.contact_sheet --data "${dumpdir}/${set}" \
                --output "${dumpdir}/${set}/lips.png"
        fi
    done
fi

if wants 3; then
    log "stage 3: noise"
    # Without a mark: it keeps what is finished, and other SNRs or kinds may be asked for later.
    # shellcheck disable=SC2086
    run_logged "${dumpdir}/noise/log" \
        python -m mome.bin.make_noise --dump "${dumpdir}" --train_set "${train_set}" \
        --test_sets ${test_sets} --snrs ${snrs} --nj "${nj}" --seed "${seed}" \
        ${parallel:+--parallel "${parallel}"} ${musan:+--musan "${musan}"} \
        ${test_noise:+--test_kinds ${test_noise}} ${noise_opts}
    if [ -n "${corruptions}" ]; then
        # shellcheck disable=SC2086
        run_logged "${dumpdir}/corrupt.log" \
            python -m mome.bin.corrupt_lips --dump "${dumpdir}" --sets ${corrupt_sets:-${test_sets}} \
            --kinds ${corruptions} --nj "${nj}" --seed "${seed}"
    fi
    for set in ${test_sets}; do
        for stream in video audio; do
            run_once "${dumpdir}/${set}_swap${stream}/.done" \
                python -m mome.bin.swap_stream --data "${dumpdir}/${set}" --stream "${stream}" \
                --output "${dumpdir}/${set}_swap${stream}"
        done
    done
fi

# data_args SET NAME...: ESPnet's data options of a set for the streams named.
data_args() {
    local phase=$1 set=$2 name
    shift 2
    for name in "$@"; do
        case ${name} in
            speech) echo "--${phase}_data_path_and_name_and_type ${dumpdir}/${set}/wav.scp,speech,sound" ;;
            lips) echo "--${phase}_data_path_and_name_and_type ${dumpdir}/${set}/lip.scp,lips,lips" ;;
            text) echo "--${phase}_data_path_and_name_and_type ${dumpdir}/${set}/text,text,text" ;;
            units) echo "--${phase}_data_path_and_name_and_type ${expdir}/units/${set}.units,units,text_int" ;;
        esac
    done
    echo "--${phase}_shape_file ${dumpdir}/${set}/utt2num_frames"
}

# train_espnet DIR CONFIG OPTION...: ESPnet's trainer. On this machine it starts a process per GPU;
# a cluster's command and several machines are left to ESPnet's launcher, whose log is DIR/train.log.
train_espnet() {
    local dir=$1 config=$2 distributed=false launch=()
    shift 2
    if [ "${ngpu}" -gt 1 ] || [ "${num_nodes}" -gt 1 ]; then distributed=true; fi
    if [ "${train_cmd}" != run.pl ] || [ "${num_nodes}" -gt 1 ]; then
        launch=(python -m espnet2.bin.launch --cmd "${train_cmd}" --log "${dir}/train.log"
            --ngpu "${ngpu}" --num_nodes "${num_nodes}" --init_file_prefix "${dir}/.dist_init_"
            --multiprocessing_distributed "${distributed}" --)
    fi
    # Rate pairs that a step does not draw leave projectors without gradient.
    "${launch[@]}" python -m mome.bin.train --config "${config}" --output_dir "${dir}" --resume true \
        --ngpu "${ngpu}" --multiprocessing_distributed "${distributed}" \
        --unused_parameters "${distributed}" --seed "${seed}" "$@"
}

train_video=false
if [ -n "${video_config}" ] && [ -z "${video_weights}" ] && [ "${tasks}" != asr ]; then
    train_video=true
    video_weights=${expdir}/video_encoder/encoder.safetensors
    if wants 4; then
        log "stage 4: pretraining of the video encoder"
        # shellcheck disable=SC2086
        run_once "${expdir}/units/.done" \
            python -m mome.bin.make_units --data "${dumpdir}/${train_set}" "${dumpdir}/${valid_set}" \
            --output "${expdir}/units" --whisper "${audio_model}" --seed "${seed}" ${units_opts}
        # shellcheck disable=SC2046
        run_once "${expdir}/video_encoder/.done" \
            train_espnet "${expdir}/video_encoder" "${video_config}" \
            $(data_args train "${train_set}" lips units) $(data_args valid "${valid_set}" lips units)
        run_once "${expdir}/video_encoder/.exported.done" \
            python -m mome.bin.export_encoder --weights "${expdir}/video_encoder/valid.acc.best.pth" \
            --prefix video_encoder. --output "${video_weights}"
    fi
fi

# streams_of TASK...: what these tasks read.
streams_of() {
    echo text
    case " $* " in *" avsr "* | *" asr "*) echo speech ;; esac
    case " $* " in *" avsr "* | *" vsr "*) echo lips ;; esac
}

# train_avsr DIR CONFIG TASKS OPTION...: a model that reads what the (quoted) tasks need.
train_avsr() {
    local dir=$1 config=$2 tasks_of_model=$3
    shift 3
    set_model_args "${tasks_of_model}"
    # shellcheck disable=SC2046,SC2086
    run_once "${dir}/.done" train_espnet "${dir}" "${config}" \
        $(data_args train "${train_set}" $(streams_of ${tasks_of_model})) \
        $(data_args valid "${valid_set}" $(streams_of ${tasks_of_model})) \
        --preprocessor_conf "noise_scp=${dumpdir}/noise/train.scp" \
        ${train_noise:+--preprocessor_conf "noise_kinds=[${train_noise// /,}]"} \
        "${model_args[@]}" "$@"
}

init_opts=
if [ -n "${projector_config}" ]; then
    init_opts="--ignore_init_mismatch true --init_param ${expdir}/projectors/valid.loss.best.pth"
    if wants 4; then
        log "stage 4: warm start of the projectors"
        train_avsr "${expdir}/projectors" "${projector_config}" "${tasks}" \
            --freeze_video_encoder "$("${train_video}" && echo false || echo true)"
    fi
    if "${train_video}"; then
        video_weights=${expdir}/projectors/video_encoder.safetensors
        if wants 4; then
            run_once "${expdir}/projectors/.exported.done" \
                python -m mome.bin.export_encoder --weights "${expdir}/projectors/valid.loss.best.pth" \
                --prefix video_encoder. --output "${video_weights}"
        fi
    fi
fi

if wants 4; then
    for model in "${models[@]}"; do
        read -r name model_tasks <<< "${model}"
        log "stage 4: training of ${name} for ${model_tasks}"
        # shellcheck disable=SC2086
        train_avsr "${expdir}/${name}" "${train_config}" "${model_tasks}" ${init_opts} ${train_opts}
    done
fi

if wants 5; then
    for model in "${models[@]}"; do
        read -r name model_tasks <<< "${model}"
        log "stage 5: decoding and scoring of ${name}"
        python -m mome.bin.count_parameters --config "${expdir}/${name}/config.yaml" \
            | tee "${expdir}/${name}/parameters.txt"
        # Noisy copies differ from the clean set in audio alone, so a task that does not listen is
        # decoded on the clean set only; exchanged streams are a question for AVSR.
        hearing=$(tr ' ' '\n' <<< "${model_tasks}" | grep -v '^vsr$' | paste -sd, || true)
        sets=()
        for set in ${test_sets}; do
            sets+=("${dumpdir}/${set}=${model_tasks// /,}")
            for kind in ${test_noise:-babble noise speech music}; do
                for snr in ${hearing:+${snrs}}; do
                    noisy=${dumpdir}/${set}_${kind}_snr${snr}
                    # Of kinds not asked for by name, those that there are, but always babble.
                    if [ -n "${test_noise}" ] || [ "${kind}" = babble ] || [ -d "${noisy}" ]; then
                        sets+=("${noisy}=${hearing}")
                    fi
                done
            done
            if [[ " ${model_tasks} " == *" avsr "* ]]; then
                sets+=("${dumpdir}/${set}_swapvideo=avsr" "${dumpdir}/${set}_swapaudio=avsr")
            fi
        done
        # Corrupted lips are for tasks that see them; to VSR, noisy sets are the clean set.
        for set in ${corruptions:+${corrupt_sets:-${test_sets}}}; do
            blind='^asr$'
            if [[ "${set}" == *_snr* ]]; then blind='^asr$|^vsr$'; fi
            seeing=$(tr ' ' '\n' <<< "${model_tasks}" | grep -Ev "${blind}" | paste -sd, || true)
            for corruption in ${seeing:+${corruptions}}; do
                for strength in 1 2 3; do
                    sets+=("${dumpdir}/${set}_${corruption}${strength}=${seeing}")
                done
            done
        done
        decode=${expdir}/${name}/decode
        args=(--config "${expdir}/${name}/config.yaml" --data "${sets[@]}" --output "${decode}"
            --weights "${expdir}/${name}/valid.acc.best.pth" --beam "${beam}" --ngpu "$((ngpu > 0))"
            --batch_size "${decode_batch_size}")
        if [ "${decode_nj}" -eq 1 ] && [ "${decode_cmd}" = run.pl ]; then
            # shellcheck disable=SC2086
            python -m mome.bin.decode "${args[@]}" ${decode_opts} 2>&1 | tee -a "${decode}.log"
        else
            # shellcheck disable=SC2086
            ${decode_cmd} --gpu "$((ngpu > 0))" "JOB=1:${decode_nj}" "${decode}/log/decode.JOB.log" \
                python -m mome.bin.decode "${args[@]}" ${decode_opts} --part "JOB/${decode_nj}"
            python -m mome.bin.merge_decoding --decode "${decode}" --nj "${decode_nj}"
        fi
        python -m mome.bin.score --expdir "${expdir}/${name}" --dump "${dumpdir}" \
            --train_text "${dumpdir}/${train_set}/text"
        log "word error rates: ${expdir}/${name}/RESULTS.md"
    done
fi
log "finished stages ${stage} to ${stop_stage}"
