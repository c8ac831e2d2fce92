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
# holds one of these. --config FILE sources a file of settings first, so that other options override
# it. --help or -h prints $help_message and ends. Parsing stops at the first word that is not an
# option, or after --; what is left stays in "$@".

_option_error() {
  echo "$0: $1" >&2
  [ -z "${help_message:-}" ] || printf '%s\n' "$help_message" >&2
  exit 1
}

# A config file comes first, wherever it stands.
for ((_i = 1; _i <= $#; _i++)); do
  _word=${!_i}
  case $_word in
    --config=*) _file=${_word#*=} ;;
    --config)
      _next=$((_i + 1))
      _file=${!_next:-}
      ;;
    --) break ;;
    *) continue ;;
  esac
  [ -r "$_file" ] || _option_error "--config: cannot read '$_file'"
  # shellcheck disable=SC1090
  . "$_file"
done

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
  [ "$_name" != config ] || continue
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
unset -v _i _word _next _file _name _value _option
unset -f _option_error
