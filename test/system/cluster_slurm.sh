# Debian's Slurm on the hosts of cluster.sh, which sources this: slurmctld on the head, slurmd on three hosts,
# one munge for all (they share /run). Processes are tracked without cgroups (proctrack/linuxproc).
# scripts/slurm_cpu.sh as written: its sizes are changed by options behind it, and --cpus-per-task, 32 there,
# by one before it, since the nodes have two cores. A requeue after a node is drained; SIGUSR1 before the time
# limit; a node that is lost.
make_slurm() {
    local i
    mkdir -p "$T"/slurm/tmp-node{1,2,3} "$T/job"
    dd if=/dev/urandom of="$T/munge.key" bs=1024 count=1 2>/dev/null
    mkdir -p /run/munge "$T/munge"
    chown munge "$T/munge.key" "$T/munge" /run/munge
    chmod 400 "$T/munge.key"
    chmod 711 "$T" "$T/munge"
    chmod 755 /run/munge
    setpriv --reuid munge --regid munge --clear-groups munged --key-file "$T/munge.key" --log-file "$T/munge/log" \
        --pid-file /run/munge/munged.pid --seed-file "$T/munge/seed" ||
        die "munged does not start: $(cat "$T/munge/log")"
    cat >"$T/slurm/slurm.conf" <<EOF
ClusterName=cables
SlurmctldHost=head($HEAD)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=5,bf_interval=5
SlurmdTimeout=15
KillWait=20
TmpFS=$T/slurm/tmp-%n
StateSaveLocation=$T/slurm/state
SlurmdSpoolDir=$T/slurm/spool-%n
SlurmctldPidFile=$T/slurm/ctld.pid
SlurmdPidFile=$T/slurm/%n.pid
SlurmctldLogFile=$T/slurm/ctld.log
SlurmdLogFile=$T/slurm/%n.log
NodeName=node[1-3] NodeAddr=10.77.0.[1-3] Sockets=2 CoresPerSocket=1 ThreadsPerCore=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
    export SLURM_CONF=$T/slurm/slurm.conf
    slurmctld || die "slurmctld does not start: $(tail -n 5 "$T/slurm/ctld.log")"
    for i in 1 2 3; do on "node$i" slurmd -N "node$i" || die "slurmd does not start on node$i: $(tail -n 5 "$T/slurm/node$i.log")"; done
    wait_for 30 nodes_idle
    report $? "three nodes are idle" "$(sinfo -N 2>&1; tail -n 5 "$T"/slurm/*.log)"
}
wait_for() {             # seconds, command...: until it succeeds
    local i seconds=$1
    shift
    for ((i = 0; i < seconds * 5; i++)); do "$@" && return; sleep 0.2; done
    return 1
}
nodes_idle() { [[ $(sinfo -h -t idle -o %D 2>/dev/null) == 3 ]]; }
state_of() { scontrol -o show job "$1" 2>/dev/null | sed -n 's/.* JobState=\([A-Z_]*\).*/\1/p'; }
in_state() { [[ $(state_of "$1") == "$2" ]]; }
at_step() { (($(tail -n 1 "$T/job/runs/$1/metrics.csv" 2>/dev/null | cut -d, -f1 | grep -E '^[0-9]+$' || echo 0) >= $2)); }
restarts() { scontrol -o show job "$1" | sed -n 's/.* Restarts=\([0-9]*\).*/\1/p'; }
restarted() { [[ $(restarts "$1") == "$2" ]] && in_state "$1" RUNNING; }
says() { grep -qE "$2" "$T/job/slurm-$1.out" 2>/dev/null; }
shown() { squeue 2>&1; sinfo -N; tail -n 30 "$T/job/slurm-$1.out" 2>&1; tail -n 8 "$T"/slurm/ctld.log; }
# submit RUN SBATCH-OPTIONS -- OPTIONS OF THE TRAINER: scripts/slurm_cpu.sh from the job's folder; sets job
submit() {
    local run=$1 options=()
    shift
    while [[ $1 != -- ]]; do options+=("$1"); shift; done
    shift
    job=$(cd "$T/job" && RUN=$run DATA=$DATA sbatch --parsable --cpus-per-task=1 "${options[@]}" \
        scripts/slurm_cpu.sh --layers 2 --width 48 --heads 4 --context 32 --batch-tokens 768 --micro-batch 2 \
        --warmup 5 --val-tokens 1000 --val-every 10 --save-every 5 "$@" 2>&1)
    [[ $job =~ ^[0-9]+$ ]]
    report $? "$run: sbatch takes scripts/slurm_cpu.sh" "$job"
}

make_slurm
ln -s "$BUILD" "$T/job/build"
cp -r scripts "$T/job/scripts"
[[ $(srun --mpi=list 2>&1) == *pmix* ]]
report $? "srun knows PMIx" "$(srun --mpi=list 2>&1)"
reference() {            # run, steps: the same on one process
    expect "$1: the same alone" 0 "done: best" "$BUILD/train-qv" --run "alone-$1" --runs-dir "$R" "${SIZE[@]}" \
        --steps "$2" --save-every 5 --deterministic-ranks 4
    same_run "$1: 4 ranks under Slurm against one process" "$R/alone-$1" "$T/job/runs/$1" "step-$(printf %08d "$2")"
}

submit whole -- --steps 40 --deterministic-ranks 4
wait_for 120 in_state "$job" COMPLETED
report $? "scripts/slurm_cpu.sh: completed" "$(shown "$job")"
says "$job" "^ranks +4, by MPI"
report $? "4 ranks on 2 nodes" "$(shown "$job")"
reference whole 40

# ---- a node is drained for repair and the job put back: it saves, and goes on by itself on the nodes that are left
submit drained -- --steps 150 --deterministic-ranks 4
wait_for 120 at_step drained 12
report $? "drained: runs" "$(shown "$job")"
scontrol update nodename=node2 state=drain reason="a new fan"
scontrol requeue "$job"
wait_for 90 restarted "$job" 1
report $? "drained: started again" "$(shown "$job")"
nodes=$(scontrol -o show job "$job" | sed -n 's/.* NodeList=\([^ ]*\).*/\1/p')
report "$([[ $nodes == "node[1,3]" ]]; echo $?)" "drained: without the drained node" "$nodes"
wait_for 180 in_state "$job" COMPLETED
report $? "drained: completed" "$(shown "$job")"
says "$job" "stopped at step [0-9]+ \(SIGTERM\)" && says "$job" "resumed from"
report $? "drained: saved, then resumed" "$(shown "$job")"
reference drained 150
scontrol update nodename=node2 state=resume

# ---- the time limit: SIGUSR1 before it, the ranks save, the script puts the job back, and it goes on by itself
submit limited --time=2 --signal=USR1@60 -- --steps 100000 --schedule constant
wait_for 150 says "$job" "stopped at step [0-9]+ \(SIGUSR1\)"
report $? "time limit: SIGUSR1 came and the ranks saved" "$(shown "$job")"
stopped=$(sed -n 's/.*stopped at step \([0-9]*\) (SIGUSR1).*/\1/p' "$T/job/slurm-$job.out" | tail -n 1)
wait_for 90 restarted "$job" 1
report $? "time limit: the job started again by itself" "$(shown "$job")"
wait_for 60 at_step limited $((stopped + 10))
report $? "time limit: and trains on past step $stopped" "$(shown "$job")"
says "$job" "resumed from .*step-0*$stopped"
report $? "time limit: from the step where it stopped" "$(shown "$job")"
scancel "$job"
wait_for 60 in_state "$job" CANCELLED
report $? "scancel ends it" "$(shown "$job")"
sleep 3
in_state "$job" CANCELLED
report $? "a cancelled job is not put back" "$(shown "$job")"
wait_for 60 nodes_idle

# ---- a cable is cut: Slurm gives the node up after its timeout and puts the job back on others
submit lost -- --steps 150 --deterministic-ranks 4
wait_for 120 at_step lost 12
report $? "lost node: runs" "$(shown "$job")"
cable node2 down
wait_for 120 restarted "$job" 1
report $? "lost node: Slurm gives it up and starts the job on the others" "$(shown "$job")"
wait_for 180 in_state "$job" COMPLETED
report $? "lost node: completed" "$(shown "$job")"
reference lost 150
cable node2 up
