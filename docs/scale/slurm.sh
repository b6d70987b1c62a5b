#!/bin/bash
#SBATCH --job-name=kontext
#SBATCH --array=1-16%4
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=%x-%A-%a.log
#
# A folder of pictures as a Slurm array of 16 parts, four at a time:
#
#     BATCH=/scratch/me/batch sbatch docs/scale/slurm.sh
#
# BATCH is a folder that all nodes see, with pictures/ in it. After a time limit, a cancel or a node that died, submit
# the same again, or single parts of it (sbatch --array=3,7 docs/scale/slurm.sh).
set -euo pipefail

# Written here, and not taken from SLURM_ARRAY_TASK_COUNT: that counts only the parts which are submitted now.
parts=16
part=$SLURM_ARRAY_TASK_ID

# A ledger for each part, on the disk that stays; the node's own /tmp goes with the job.
export KONTEXT_BRIDGE_HOME=$BATCH/ledgers/$part-of-$parts
# All parts share what the service lets one account do at once: four parts with two each are eight.
export KONTEXT_BRIDGE_MAX_IN_FLIGHT=2
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

# exec, so that Slurm's TERM two minutes before the end reaches the command, which then stops as at Ctrl-C.
exec python -m kontext_bridge.batch "$BATCH/pictures" --output "$BATCH/results" --shard "$part/$parts" \
    --prompt "make it night" "$@"
