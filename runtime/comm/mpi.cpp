// Ranks as MPI processes: start, end, small operations in host memory, agreement, checkpoint pieces. See comm.h.
// MPI only carries messages: sums are added here, in our own order, because MPI leaves the order of its reductions to the
// implementation (MPI 4.0, 6.9.1: recommended, not required, to be the same in every run). All calls come from the main
// thread (MPI_THREAD_FUNNELED).
// Not for tensors: collectives_mpi.cpp and collectives_nccl.cpp.
#include "runtime/comm/mpi.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <omp.h>
#include <sched.h>
#include <unistd.h>
#include <vector>

#include "runtime/comm/tree_sum.h"

CommState comm;

// ---------------------------------------------------------------------------------------------- start and end
static int environment_number(const char* name) {
    const char* value = std::getenv(name);
    return value ? std::atoi(value) : -1;
}
// Without a launcher MPI is not started at all: as a single process MPI_Init takes 480 ms here with Open MPI 4.1.4, 95 ms with MPICH 4.0.2.
static bool launched() {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"})
        if (std::getenv(name)) return true;
    return environment_number("SLURM_STEP_NUM_TASKS") > 1;
}

// The cores this process may use, divided by the ranks of this machine that may use any of them too. Open MPI gives every
// rank cores of its own; MPICH and a plain srun let all ranks use all. Open MPI's default for one or two ranks is one core
// each, however many the machine has; a note tells the user.
static int threads_for_each(MPI_Comm local, int local_size) {
    cpu_set_t own;
    CPU_ZERO(&own);
    const bool known = sched_getaffinity(0, sizeof own, &own) == 0;     // not on machines with more than 1024 cores
    std::vector<cpu_set_t> all(static_cast<size_t>(local_size));
    mpi_check(MPI_Allgather(&own, sizeof own, MPI_BYTE, all.data(), sizeof own, MPI_BYTE, local));
    int sharers = 0;
    cpu_set_t any = own;
    for (const cpu_set_t& other : all) {
        cpu_set_t both;
        CPU_AND(&both, &own, &other);
        sharers += CPU_COUNT(&both) > 0;
        CPU_OR(&any, &any, &other);
    }
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (known && comm.rank == 0 && CPU_COUNT(&any) * 2 < cores && !std::getenv("SLURM_JOB_ID"))
        fprintf(stderr,
                "note: the launcher gives the ranks of this machine %d of its %ld cores; "
                "with Open MPI, mpirun --bind-to none gives all\n",
                CPU_COUNT(&any), cores);
    return std::max(1, omp_get_num_procs() / (known && sharers > 0 ? sharers : local_size));
}

void comm_init() {
    if (comm.started || !launched()) return;
    int provided = MPI_THREAD_SINGLE;
    ensure(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) == MPI_SUCCESS,
           "MPI_Init_thread failed; is this MPI's own mpirun used?");
    comm.started = true;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);        // the communicators made from it take it over
    mpi_check(MPI_Comm_rank(MPI_COMM_WORLD, &comm.rank));
    mpi_check(MPI_Comm_size(MPI_COMM_WORLD, &comm.size));
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
        char version[MPI_MAX_LIBRARY_VERSION_STRING];
        int length;
        if (comm.size > 1 || environment_number(name) <= 1) continue;
        MPI_Get_library_version(version, &length);
        fail_usage(
            "%s is %d, but each process finds itself alone: "
            "the launcher is not the one of the MPI this program was built with (%.40s); "
            "use that one's mpirun, "
            "under Slurm srun --mpi=pmix or --mpi=pmi2",
            name, environment_number(name), version);
    }
    for (MPI_Comm* c : {&comm.small, &comm.tensors, &comm.pieces, &comm.roll}) mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, c));
    MPI_Comm local;
    mpi_check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, comm.rank, MPI_INFO_NULL, &local));
    mpi_check(MPI_Comm_rank(local, &comm.local_rank));
    mpi_check(MPI_Comm_size(local, &comm.local_size));
    comm.threads = threads_for_each(local, comm.local_size);
    mpi_check(MPI_Comm_free(&local));
    begin_roll_call();
    tensors_start();
}

void comm_finalize() {
    if (!comm.started) return;
    comm_barrier("the end of the run");
    tensors_finish();
    for (MPI_Comm* c : {&comm.small, &comm.tensors, &comm.pieces, &comm.roll}) MPI_Comm_free(c);
    MPI_Finalize();
    comm = CommState();
}

int comm_rank() { return comm.rank; }
int comm_size() { return comm.size; }
int comm_local_rank() { return comm.local_rank; }
int comm_local_size() { return comm.local_size; }
int comm_threads() { return comm.started ? comm.threads : omp_get_num_procs(); }
const char* comm_name() { return comm.size > 1 ? tensors_name() : "single process"; }

// ---------------------------------------------------------------------------------------------- small operations
// Every rank gets all values and adds them itself, in the tree's order: the same bits everywhere.
void comm_sum(double* values, size_t n, const char* what) {
    if (comm.size == 1 || n == 0) return;
    std::vector<double> all(size_t(comm.size) * n);
    MPI_Request request;
    mpi_check(MPI_Iallgather(values, int(n), MPI_DOUBLE, all.data(), int(n), MPI_DOUBLE, comm.small, &request));
    wait_for(request, "sum", what);
    std::vector<const double*> parts;
    for (int r = 0; r < comm.size; r++) parts.push_back(&all[size_t(r) * n]);
    tree_sum(values, parts.data(), comm.size, n);
}

static int lowest(int value, const char* collective, const char* what) {
    int result = value;
    MPI_Request request;
    mpi_check(MPI_Iallreduce(&value, &result, 1, MPI_INT, MPI_MIN, comm.small, &request));
    wait_for(request, collective, what);
    return result;
}
bool comm_any(bool mine, const char* what) { return comm.size == 1 ? mine : lowest(mine ? 0 : 1, "agreement", what) == 0; }

static void broadcast_from(int root, void* data, size_t bytes, const char* what) {
    constexpr size_t PART = size_t(1) << 30;                           // MPI counts are int
    for (size_t at = 0; at < bytes; at += PART) {
        MPI_Request request;
        mpi_check(MPI_Ibcast(static_cast<char*>(data) + at, int(std::min(PART, bytes - at)), MPI_BYTE, root, comm.small, &request));
        wait_for(request, "broadcast", what);
    }
}
static void broadcast_from(int root, std::string& bytes, const char* what) {
    uint64_t length = bytes.size();
    broadcast_from(root, &length, sizeof length, what);
    bytes.resize(length);
    broadcast_from(root, bytes.data(), length, what);
}
void comm_broadcast(std::string& bytes, const char* what) {
    if (comm.size > 1) broadcast_from(0, bytes, what);
}

void comm_barrier(const char* what) {
    if (comm.size == 1) return;
    MPI_Request request;
    mpi_check(MPI_Ibarrier(comm.small, &request));
    wait_for(request, "barrier", what);
}

void comm_agree(const char* error, int exit_code, const char* phase) {
    const bool failed = error && *error;
    if (comm.size == 1) {
        if (failed) throw AgreedError(exit_code, error);
        return;
    }
    const int who = lowest(failed ? comm.rank : comm.size, "agreement", phase);
    if (who == comm.size) return;
    std::string text = comm.rank == who ? error : "";
    broadcast_from(who, &exit_code, sizeof exit_code, phase);
    broadcast_from(who, text, phase);
    throw AgreedError(exit_code, who == 0 ? text : format("rank %d: %s", who, text.c_str()));
}

// ---------------------------------------------------------------------------------------------- pieces for rank 0's checkpoint
// Rank 0 asks (an Order); the other rank answers in parts of a few MB, reading one while the last one is being sent. While
// rank 0 writes files it asks nobody, so now and then it sends the waiting ranks a sign that it is alive.
struct Order {
    enum Kind : int32_t { FETCH, ALIVE, END } kind;
    int32_t buffer;
    uint64_t offset, bytes;                                            // END: length of the error text
};
static constexpr int ORDER_TAG = 1, PIECE_TAG = 2, ERROR_TAG = 3;
static constexpr size_t PIECE_BYTES = size_t(4) << 20;
static constexpr double ALIVE_SECONDS = 1;

static void send(const void* data, size_t bytes, int to, int tag, const char* what) {
    MPI_Request request;
    mpi_check(MPI_Isend(data, int(bytes), MPI_BYTE, to, tag, comm.pieces, &request));
    wait_for(request, "checkpoint piece", what);
}
static void receive(void* data, size_t bytes, int from, int tag, const char* what) {
    MPI_Request request;
    mpi_check(MPI_Irecv(data, int(bytes), MPI_BYTE, from, tag, comm.pieces, &request));
    wait_for(request, "checkpoint piece", what);
}

std::string comm_serve(const CommRead& read) {
    std::vector<char> memory[2];
    for (;;) {
        Order order;
        receive(&order, sizeof order, 0, ORDER_TAG, "an order from rank 0");
        if (order.kind == Order::END) {
            std::string error(order.bytes, '\0');
            if (order.bytes) receive(error.data(), error.size(), 0, ERROR_TAG, "the result");
            return error;
        }
        if (order.kind == Order::ALIVE) continue;
        MPI_Request sending[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
        int side = 0;
        for (uint64_t at = 0; at < order.bytes; at += PIECE_BYTES, side ^= 1) {
            const size_t bytes = std::min(PIECE_BYTES, size_t(order.bytes - at));
            wait_for(sending[side], "checkpoint piece", "to rank 0");
            memory[side].resize(std::max(memory[side].size(), bytes));
            read(order.buffer, order.offset + at, bytes, memory[side].data());
            mpi_check(MPI_Isend(memory[side].data(), int(bytes), MPI_BYTE, 0, PIECE_TAG, comm.pieces, &sending[side]));
        }
        for (MPI_Request& request : sending) wait_for(request, "checkpoint piece", "to rank 0");
    }
}

void comm_fetch(int rank, int buffer, uint64_t offset, size_t bytes, void* out) {
    static double last_word = 0;
    const double now = comm_clock();
    if (now - last_word > ALIVE_SECONDS) {
        last_word = now;
        const Order alive{Order::ALIVE, 0, 0, 0};
        for (int r = 1; r < comm.size; r++)
            if (r != rank) send(&alive, sizeof alive, r, ORDER_TAG, "a word to all");
    }
    const Order order{Order::FETCH, buffer, offset, bytes};
    send(&order, sizeof order, rank, ORDER_TAG, "an order");
    for (size_t at = 0; at < bytes; at += PIECE_BYTES)
        receive(static_cast<char*>(out) + at, std::min(PIECE_BYTES, bytes - at), rank, PIECE_TAG, "from another rank");
}

void comm_serve_end(const std::string& error) {
    const Order end{Order::END, 0, 0, error.size()};
    for (int r = 1; r < comm.size; r++) {
        send(&end, sizeof end, r, ORDER_TAG, "the end");
        if (!error.empty()) send(error.data(), error.size(), r, ERROR_TAG, "the result");
    }
}
