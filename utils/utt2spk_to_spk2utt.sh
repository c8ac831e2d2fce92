#!/usr/bin/env bash
# Invert a speaker list: utt2spk on standard input or in a file, spk2utt on standard output.
set -euo pipefail
if [ $# -gt 1 ] || [ "${1:-}" = --help ]; then
  echo "usage: $0 [<utt2spk>] > <spk2utt>" >&2
  exit 1
fi
LC_ALL=C sort -- "${1:--}" | awk '
  NF != 2 { print "utt2spk: line \"" $0 "\" is not <utterance> <speaker>" > "/dev/stderr"; bad = 1; exit }
  { list[$2] = list[$2] " " $1 }
  END { if (bad) exit 1; for (speaker in list) print speaker list[speaker] }
' | LC_ALL=C sort
