#!/usr/bin/env bash
# Put the settings of a file that --config FILE names before all other options in "$@", so that these
# override them. To be sourced by what reads the options then (parse_options.sh, own_options.sh):
#
#   . utils/config_file.sh
#   [ -z "${_config_flaw}" ] || exit 1
#
# FILE is read by Bash. What it sets in lower case are options, nj=4 is --nj 4; what else it needs is
# to be in capitals. Of several files that set an option the last one counts. Words after -- or the
# first one that is no option stay as they are.

_config_flaw='' _settings=() _others=()
# In a process of its own, whose other variables are not mistaken for the file's. The blank at its end
# says that it got there: after an exit in the file nothing is printed.
# shellcheck disable=SC2016
_print_settings='unset -v $(compgen -v | grep "^[a-z]"); . "$1" >&2
for _name in $(compgen -v | grep "^[a-z]"); do printf "%q %q " "--${_name}" "${!_name}"; done
printf " "'
while [ $# -gt 0 ] && [ -z "${_config_flaw}" ]; do
    case $1 in
        --config=*) _words=1 _file=${1#*=} ;;
        --config) _words=2 _file=${2-} ;;
        --help | -h | --?*=*) _words=1 ;;
        --?*) _words=2 ;;
        *) break ;;
    esac
    case $1 in
        --config | --config=*)
            # Of a name without a folder, Bash would look for a program first.
            _path=${_file}
            [[ ${_path} = */* ]] || _path=./${_path}
            if [ -d "${_path}" ] || [ ! -r "${_path}" ]; then
                _config_flaw="--config: cannot read '${_file}'"
            elif _found=$(bash -euc "${_print_settings}" "$0" "${_path}") && [ -n "${_found}" ]; then
                eval "_settings+=(${_found})"
            else
                _config_flaw="--config: what '${_file}' says cannot be done"
            fi
            ;;
        *) _others+=("${@:1:_words}") ;;
    esac
    shift "$((_words < $# ? _words : $#))"
done
set -- "${_settings[@]}" "${_others[@]}" "$@"
unset -v _settings _others _print_settings _words _file _path _found
