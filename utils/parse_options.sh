#!/usr/bin/env bash
# Read --name value options into shell variables. To be sourced, after the variables have been given
# their defaults and before positional arguments are read:
#
#   stage=0
#   nj=2
#   help_message="usage: $0 [--stage N] [--nj N] <folder>"
#   . utils/parse_options.sh
#
# --nj 4 and --nj=4 set nj; dashes within a name stand for underscores. A name that is not yet a
# variable, in lower case, is an error, as is a value other than true or false for a variable that
# holds one of these. --config FILE reads a file of settings (config_file.sh), which other options
# override. --help or -h prints $help_message and ends. Parsing stops at the first word that is not an
# option, or after --; what is left stays in "$@".

_option_error() {
  echo "$0: $1" >&2
  [ -z "${help_message:-}" ] || printf '%s\n' "$help_message" >&2
  exit 1
}

# Its settings come first, wherever it is named.
# shellcheck source=utils/config_file.sh
. "$(dirname "${BASH_SOURCE[0]}")/config_file.sh"
[ -z "${_config_flaw}" ] || _option_error "${_config_flaw}"

while [ $# -gt 0 ]; do
  case $1 in
    --help | -h)
      printf '%s\n' "${help_message:-$0 has no help message}"
      exit 0
      ;;
    --)
      shift
      break
      ;;
    --*=*)
      _name=${1%%=*}
      _value=${1#*=}
      shift
      ;;
    --*)
      _name=$1
      [ $# -gt 1 ] || _option_error "option $1 needs a value"
      _value=$2
      shift 2
      ;;
    *) break ;;
  esac
  _option=$_name
  _name=${_name#--}
  _name=${_name//-/_}
  # Lower case only, so that no option changes PATH or HOME.
  [[ $_name =~ ^[a-z][a-z0-9_]*$ ]] && [ -n "${!_name+set}" ] ||
    _option_error "unknown option $_option"
  case ${!_name} in
    true | false)
      case $_value in
        true | false) ;;
        *) _option_error "option $_option must be true or false, not '$_value'" ;;
      esac
      ;;
  esac
  printf -v "$_name" '%s' "$_value"
done
unset -v _config_flaw _name _value _option
unset -f _option_error
