#!/usr/bin/env bash
# List the options of scripts with their defaults and comments, for --help: list_options.sh <script>...
# Options stand in blocks that begin with a heading (## Folders) and end with an empty line:
#   name=default    # comment, which goes on
#                   # in further lines
set -euo pipefail
sed -s -n '/^## /,/^$/p' "$@" | awk '
    sub(/^## /, "") { printf "\n%s\n", $0; next }
    match($0, /^[a-z_]+=/) {
        name = substr($0, 1, RLENGTH - 1)
        comment = index($0, " # ")
        value = substr($0, RLENGTH + 1, comment - RLENGTH - 1)
        sub(/ +$/, "", value)
        printf "  --%-30s %s\n", name " " (value == "" ? "\"\"" : value), substr($0, comment + 3)
    }
    sub(/^ +# /, "") { printf "%35s%s\n", "", $0 }
'
