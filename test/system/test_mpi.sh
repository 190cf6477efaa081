#!/usr/bin/env bash
# Several processes: build/test-comm under mpirun with 1 to 4 ranks, and faults 12 and 13 of docs/RELIABILITY.md: a rank that is killed,
# stopped, hung, or that ends by an error. After each: an exit code, a line that names the rank, no process left.
# alone: its time limits are for ranks that have the cores to themselves
#   test/system/test_mpi.sh [build]       mpirun and build/test-comm from the same MPI; test-comm-nccl beside it
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=${1:-build}
PROGRAM=$BUILD/test-comm
source test/system/shell_common.sh
source test/system/mpi_common.sh
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

if ! [[ -x $PROGRAM ]]; then
    report 1 "test-comm is missing: make $PROGRAM"
elif ! reason=$(mpi_setup "$PROGRAM"); then
    printf '%s\n' "$reason"
    expect "one process without MPI: $reason" 0 "SUCCESS" "$PROGRAM"
else
    mpi_setup "$PROGRAM"
    # ------------------------------------------------------------------------------------------ the cases, on 1 to 4 ranks
    expect "started without mpirun" 0 "SUCCESS" "$PROGRAM"
    for n in 1 2 3 4; do expect "$n ranks" 0 "SUCCESS" ranks $n "$PROGRAM" --no-colors; done

    # The NCCL path on a fake of NCCL and CUDA, its streams worked off as late and as early as their events allow.
    NCCL=$BUILD/test-comm-nccl
    if [[ -x $NCCL ]]; then
        expect "NCCL path, 2 ranks, early" 0 "SUCCESS" env FAKE_FIRST=newest "$MPIRUN" -np 2 "$NCCL" --no-colors
        expect "NCCL path, 3 ranks, late" 0 "SUCCESS" ranks 3 "$NCCL" --no-colors
    else
        echo "skipped: the NCCL path (built where the headers of CUDA and NCCL are)"
    fi

    # A failing check on one rank only fails the run.
    expect "a failure on rank 1 counts" 1 "rank 1 of 2" ranks 2 "$PROGRAM" --fail-on 1
    # The launcher of another MPI starts n processes that find themselves alone: they must not train n times.
    expect "a launcher of another MPI is noticed" 2 "each process finds itself alone" env OMPI_COMM_WORLD_SIZE=2 "$PROGRAM"

    # ------------------------------------------------------------------------------------------ faults, side by side: they mostly wait
    # fault NAME RANKS SIGNAL CULPRIT [hang|lost|apart CULPRIT]: timeout 2 s; writes NAME.out and NAME.code
    fault() {
        local name=$1 count=$2 signal=$3 culprit=$4 program=$PROGRAM mpi i
        [[ $name != nccl* ]] || program=$NCCL
        : >"$T/$name.out"
        shift 4
        ranks "$count" "$program" --work 30 2 "$@" >"$T/$name.out" 2>&1 </dev/null &
        mpi=$!
        if [[ $signal != none ]]; then
            for ((i = 0; i < 200; i++)); do
                [[ $(grep -c ' pid ' "$T/$name.out") == "$count" ]] && break
                sleep 0.1
            done
            sleep 1
            kill "-$signal" "$(sed -n "s/^rank $culprit pid //p" "$T/$name.out")"
        fi
        wait $mpi
        echo $? >"$T/$name.code"
    }
    started=$(now_ms)
    fault killed 3 KILL 1 &
    fault stopped 3 STOP 2 &
    fault stopped0 2 STOP 0 &
    fault hung 3 none 0 hang 1 &
    fault lost 3 none 0 lost 2 &
    fault apart 2 none 0 apart 1 &
    if [[ -x $NCCL ]]; then
        fault nccl_stopped 2 STOP 1 &
        FAKE_HOLD=1 fault nccl_held 2 none 0 &
    fi
    wait
    took=$(($(now_ms) - started))
    # check NAME TEXT: the exit code is not 0 and not timeout's, the text is there, all ranks are gone
    check() {
        local name=$1 text=$2 code pids i
        code=$(<"$T/$name.code")
        pids=$(sed -n 's/^rank [0-9]* pid //p' "$T/$name.out")
        [[ $code != 0 && $code != 124 && $code != 137 || $name == killed && $code != 0 && $code != 124 ]]
        report $? "$name: exit code $code" "$(cat "$T/$name.out")"
        grep -qE "$text" "$T/$name.out"
        report $? "$name: says $text" "$(cat "$T/$name.out")"
        for ((i = 0; i < 50; i++)); do gone $pids && break; sleep 0.1; done
        [[ -n $pids ]] && gone $pids
        report $? "$name: no process left of" "$pids"
    }
    culprit=$(sed -n 's/^rank 1 pid //p' "$T/killed.out")
    # Open MPI names the rank, MPICH the process and its machine
    check killed "process rank 1 with PID|PID $culprit RUNNING AT"
    silent="did not answer: hung, stopped or lost; rank [01] .* has waited for [2-9] s"
    check stopped "error: rank 2 \(.*\) $silent at step [0-9]+ in [a-z-]+ of "
    check stopped0 "error: rank 0 \(.*\) did not answer.*; rank 1 .* at step [0-9]+ in "
    check hung "error: rank 1 \(.*\) did not answer.* at step 20 in (reduce-scatter of h.3|sum of loss)"
    check lost "error: rank 2: disk of rank 2 is gone"
    check apart "^error: (all ranks answered|rank [01]: MPI)"
    if [[ -x $NCCL ]]; then
        held="was queued [0-9]+ s ago, and the main thread has not come by for [0-9]+ s"
        check nccl_held "error: rank [01]: reduce-scatter of h.3 of step 1 $held"
        where="(reduce-scatter of h.3|sum of loss|agreement of stop)"
        check nccl_stopped "error: rank 1 \(.*\) did not answer.*; rank 0 .* at step [0-9]+ in $where"
    fi
    ((took < 25000))
    report $? "faults are over within 25 s" "$took ms"
fi
printf 'test_mpi: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
