# For the shell suites that start several processes (sourced after shell_common.sh, or alone).
#   mpi_setup PROGRAM      0: `ranks` works; else says why on stdout
#   ranks N PROGRAM...     under the mpirun of the MPI that PROGRAM is linked with, as root too, more ranks than cores, this machine only
# The environment is exported for mpirun's other uses in the suite. Ranks are not bound to cores: the suites share a small machine.
mpi_setup() {
    local libraries
    libraries=$(ldd "$1" 2>/dev/null)
    case $libraries in
        *libmpich*) mpi_names="mpirun.mpich mpiexec.hydra mpirun" ;;
        *libmpi*) mpi_names="mpirun.openmpi mpirun" ;;
        *) echo "skipped: ${1##*/} is built without MPI"; return 1 ;;
    esac
    MPIRUN=""
    for name in $mpi_names; do [[ -n $MPIRUN ]] || MPIRUN=$(command -v "$name"); done
    [[ -n $MPIRUN ]] || { echo "skipped: no mpirun"; return 1; }
    # Open MPI: root is allowed, more ranks than cores, shared memory only (no probing of networks).
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
        OMPI_MCA_hwloc_base_binding_policy=none
    export OMPI_MCA_pml=ob1 OMPI_MCA_btl=^tcp,openib,ofi,usnic
    # Open MPI 5 (PRRTE) takes the same wishes under these names; MPICH over UCX: shared memory only.
    export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none
    export UCX_TLS=sm,self
}
ranks() {
    local count=$1
    shift
    timeout -k 5 90 "$MPIRUN" -np "$count" "$@"
}
# A process is gone when it does not exist or only waits to be reaped.
gone() {
    local pid state
    for pid in "$@"; do
        state=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null)
        [[ -z $state || $state == Z* || $state == X* ]] || return 1
    done
}
