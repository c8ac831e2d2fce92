#!/usr/bin/env bash
# Read a recipe's own options, which avsr.sh does not know, and leave all others in "$@". To be
# sourced, after the own options have been given their defaults:
#
#   lrs3= subset=433h
#   own_options="lrs3 subset"
#   . utils/own_options.sh
#
# --lrs3 /x and --lrs3=/x set lrs3. --help or -h prints the head of the recipe's script before
# avsr.sh prints its own. The settings of a file that --config FILE names become options before all
# others in "$@" (config_file.sh): the recipe's own too, and where "$@" follows what a recipe itself
# gives avsr.sh, they override that. A relative FILE is one of the folder in which the recipe is called.

# shellcheck source=utils/config_file.sh
. "$(dirname "${BASH_SOURCE[0]}")/config_file.sh"
if [ -n "${_config_flaw}" ]; then
    echo "$0: ${_config_flaw}" >&2
    exit 1
fi
unset -v _config_flaw
_others=()
while [ $# -gt 0 ]; do
    _name=${1%%=*}
    _name=${_name#--}
    _name=${_name//-/_}
    case $1 in
        --help | -h)
            sed -n '2,/^set -/{/^#/p}' "$0"
            _others+=(--help)
            shift
            continue
            ;;
        --*=*) _words=1 _value=${1#*=} ;;
        --*) _words=2 _value=${2-} ;;
        *) _words=1 _name= ;;
    esac
    if [ "${_words}" -gt $# ]; then
        echo "$0: option $1 needs a value" >&2
        exit 1
    fi
    case " ${own_options:?} " in
        *" ${_name:-?} "*) printf -v "${_name}" '%s' "${_value}" ;;
        *) _others+=("${@:1:_words}") ;;
    esac
    shift "${_words}"
done
set -- "${_others[@]}"
unset -v _others _name _words _value

# from_here PATH: a relative path as one of the folder in which the recipe is called, for after its cd;
# others, and none, as they are written.
from_here() {
    case $1 in "" | /*) printf %s "$1" ;; *) realpath -m -- "$1" ;; esac
}

# corpus_folder NAME FOLDER OPTION...: the absolute path of a licensed corpus that --NAME names. It may
# be left out where avsr.sh reads no data.
corpus_folder() {
    local name=$1 folder=$2
    shift 2
    if [ -n "${folder}" ]; then
        realpath -e -- "${folder}"
    elif [[ " $* " != *" --help "* && " $* " != *" --dry_run"[\ =]"true "* ]]; then
        echo "$0: --${name} <folder of the corpus> is missing" >&2
        return 1
    fi
}
