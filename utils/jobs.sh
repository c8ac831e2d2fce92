#!/usr/bin/env bash
# Start one job or an array of jobs and wait for them, as Kaldi's launchers of the same names do:
#
#   run.pl   [options] [JOB=1:N] <log> <command>...    on this machine, all jobs at once
#   slurm.pl [options] [JOB=1:N] <log> <command>...    on a Slurm cluster, by sbatch
#
# JOB stands for the number of the job in <log> and <command>. Options: --gpu N, --num_threads N,
# --num_nodes N; slurm.pl gives any other --name value to sbatch (--partition gpu --time 24:00:00).
# run.pl --gpu 1 spreads the jobs of an array over the GPUs; without --gpu they share the cores, unless
# OMP_NUM_THREADS says how many threads each has. Failed jobs are named with their logs.
# espnet2.bin.launch tells by the name how jobs of several machines are started, hence the links.
set -euo pipefail

gpu=0 num_threads=1 num_nodes=1 first='' last=''
sbatch_options=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        --gpu | --num_threads | --num_nodes) printf -v "${1#--}" %s "$2"; shift 2 ;;
        --*) sbatch_options+=("$1=$2"); shift 2 ;;
        JOB=*) first=${1#JOB=}; last=${first#*:}; first=${first%:*}; shift ;;
        *) break ;;
    esac
done
if [ $# -lt 2 ]; then
    echo "$0: a log file and a command are needed; see --help" >&2
    exit 2
fi
log=$1
shift

log_of() { if [ -n "${first}" ]; then echo "${log//JOB/$1}"; else echo "${log}"; fi; }

for job in $(seq "${first:-1}" "${last:-1}"); do mkdir -p "$(dirname "$(log_of "${job}")")"; done

# report: name the jobs whose log does not end well.
report() {
    local job
    for job in $(seq "${first:-1}" "${last:-1}"); do
        if [ "$(tail -n 1 "$(log_of "${job}")" 2> /dev/null)" != "# Ended (code 0)" ]; then
            echo "${0##*/}: job ${job} failed; the end of $(log_of "${job}"):" >&2
            tail -n 10 "$(log_of "${job}")" >&2 || true
        fi
    done
    exit 1
}

# The job itself, as a script of its own for sbatch: its number is $1.
job_script() {
    local command=("$@")
    echo '#!/usr/bin/env bash'
    declare -p command
    # shellcheck disable=SC2016
    [ -z "${first}" ] || echo 'command=("${command[@]//JOB/$1}")'
    # shellcheck disable=SC2016
    printf '%s\n' 'echo "# Running on $(hostname): ${command[*]@Q}"' \
        '"${command[@]}" && code=0 || code=$?' 'echo "# Ended (code ${code})"' 'exit "${code}"'
}

case ${0##*/} in
    run.pl)
        # A job is a session of its own, so that an interrupt ends all that it started.
        trap 'for pid in $(jobs -p); do kill -- "-${pid}" || true; done; exit 130' INT TERM
        if [ "${gpu}" -gt 0 ] && [ -n "${first}" ]; then
            visible=${CUDA_VISIBLE_DEVICES:-$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd,)}
            IFS=, read -ra devices <<< "${visible}"
        fi
        if [ "${gpu}" -eq 0 ] && [ -n "${first}" ] && [ -z "${OMP_NUM_THREADS:-}" ]; then
            threads=$(($(nproc) / (last - first + 1)))
            export OMP_NUM_THREADS=$((threads > 1 ? threads : 1))
        fi
        script=$(job_script "$@")
        for job in $(seq "${first:-1}" "${last:-1}"); do
            if [ -n "${devices:-}" ]; then
                export CUDA_VISIBLE_DEVICES=${devices[(job - 1) % ${#devices[@]}]}
            fi
            setsid bash -c "${script}" job "${job}" > "$(log_of "${job}")" 2>&1 &
        done
        failed=0
        for pid in $(jobs -p); do wait "${pid}" || failed=1; done
        [ "${failed}" -eq 0 ] || report
        ;;
    slurm.pl)
        options=(--wait --job-name="$(basename "${log}" .log)" --cpus-per-task="${num_threads}")
        [ "${gpu}" -eq 0 ] || options+=(--gres="gpu:${gpu}")
        [ "${num_nodes}" -eq 1 ] || options+=(--nodes="${num_nodes}" --ntasks-per-node=1)
        number=1
        if [ -n "${first}" ]; then
            options+=(--array="${first}-${last}")
            # shellcheck disable=SC2016
            number='${SLURM_ARRAY_TASK_ID}'
        fi
        script=$(log_of all).sh
        { job_script "$@" | sed "1a set -- ${number}"; } > "${script}"
        sbatch "${options[@]}" "${sbatch_options[@]}" --output="$(log_of %a)" "${script}" || report
        ;;
    *) echo "$0: call this as run.pl or slurm.pl" >&2; exit 2 ;;
esac
