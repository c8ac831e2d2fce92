# shellcheck shell=bash disable=SC2034
# Sourced by avsr.sh: how training and decoding are started. run.pl is this machine. On a Slurm
# cluster, here or as options of run.sh, with whatever options your sbatch needs:
#
#   train_cmd="slurm.pl --partition gpu --time 48:00:00 --mem 64G"
#   decode_cmd="slurm.pl --partition gpu --time 4:00:00 --mem 32G"
#
# CPUs are asked for by the stages: docs/lrs3.md#on-a-slurm-cluster says how many.
# Kaldi's and ESPnet's launchers (queue.pl, pbs.pl, ...) take the same arguments: give their path.
# Data stages go to a cluster by Dask: see --parallel and conf/dask_slurm.yaml.

## Launchers
train_cmd=run.pl           # starts training
decode_cmd=run.pl          # starts the jobs of decoding, and packing and the report as one job each
