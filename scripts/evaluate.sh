#!/usr/bin/env bash
# One table of runs of any variants: each run is evaluated by its own variant's program.   scripts/evaluate.sh RUN... [-- options]
# Options go to build/evaluate-VARIANT (--help lists them): scripts/evaluate.sh runs/compare-default/* -- --times "1 2"
# `make evaluate` builds the programs. Runs that cannot be evaluated are named at the end, and the exit code says so.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BUILD=${BUILD:-build} SUFFIX=${SUFFIX:-}
runs=()
while (($#)) && [[ $1 != -- ]]; do runs+=("$1"); shift; done
(($# == 0)) || shift
((${#runs[@]})) || { echo "usage: scripts/evaluate.sh RUN... [-- options]" >&2; exit 2; }
header="" failed=()
for run in "${runs[@]}"; do
    [[ -f $run/config.json ]] || { [[ ! -d $run && -f runs/$run/config.json ]] && run=runs/$run; }
    if [[ ! -f $run/config.json ]]; then
        [[ -d $run && ${#runs[@]} -gt 1 ]] || failed+=("$run: not a run's folder")      # beside runs, as in runs/NAME/*, other folders lie
        continue
    fi
    attention=$(sed -n 's/^ *"attn": *"\([a-z0-9_]*\)".*/\1/p' "$run/config.json" | head -n 1)
    program=$BUILD/evaluate-$attention$SUFFIX
    [[ -x $program ]] || { failed+=("$run: $program is not there; make evaluate"); continue; }
    "$program" "$run" "$@" $header || { code=$?; failed+=("$run: see above"); ((code != 130)) || exit 130; continue; }
    header=--no-header
done
for line in "${failed[@]}"; do printf 'error: %s\n' "$line" >&2; done
((${#failed[@]} == 0))
