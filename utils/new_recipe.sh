#!/usr/bin/env bash
# Start a recipe: utils/new_recipe.sh <name> makes egs/<name>; see egs/TEMPLATE/README.md.
set -euo pipefail
if [ $# -ne 1 ] || [[ ! $1 =~ ^[A-Za-z0-9][A-Za-z0-9_-]*$ ]]; then
    echo "usage: $0 <name>" >&2
    exit 2
fi
egs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../egs" && pwd)
recipe=${egs}/$1
if [ -e "${recipe}" ]; then
    echo "$0: ${recipe} exists already" >&2
    exit 1
fi
cp -r "${egs}/TEMPLATE/recipe" "${recipe}"
cp -r "${egs}/mini_av/conf" "${recipe}/conf"
sed -i "s/CORPUS/$1/g" "${recipe}/run.sh" "${recipe}/local/data.py"
echo "${recipe}: unless clips lie as {train,valid,test}/<speaker>/<clip>.{mp4,txt}, change" \
    "local/data.py; then ./run.sh --corpus <folder>"
