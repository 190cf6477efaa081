// One process: nothing to exchange. See comm.h. This is also what is built where MPI is not installed.
#include "runtime/comm/comm.h"

#include <cstdlib>
#include <omp.h>

#include "runtime/run/error.h"

// If a launcher started several of us, we could not talk: each would train alone and write into the same folder.
void comm_init() {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
        const char* value = std::getenv(name);
        ensure_usage(!value || std::atoi(value) <= 1,
                     "%s is %s, but this program was built without MPI; "
                     "install libopenmpi-dev and build again, or start one process",
                     name, value);
    }
}
void comm_finalize() {}
int comm_rank() { return 0; }
int comm_size() { return 1; }
int comm_local_rank() { return 0; }
int comm_local_size() { return 1; }
int comm_threads() { return omp_get_num_procs(); }
const char* comm_name() { return "single process"; }
void comm_start_devices() {}
void comm_set_timeout(double) {}
void comm_at_step(int64_t) {}

CommRequest comm_reduce_scatter(void*, size_t, Number, const char*) { return -1; }
CommRequest comm_all_gather(void*, size_t, Number, const char*) { return -1; }
CommRequest comm_all_reduce(void*, size_t, Number, const char*) { return -1; }
void comm_wait(CommRequest& request) { request = -1; }
void comm_poll() {}
bool comm_sums_by_tree() { return true; }
void comm_wait_device(const std::function<bool()>& done) {
    while (!done()) {}
}

void comm_sum(double*, size_t, const char*) {}
bool comm_any(bool mine, const char*) { return mine; }
void comm_broadcast(std::string&, const char*) {}
void comm_barrier(const char*) {}
void comm_agree(const char* error, int exit_code, const char*) {
    if (error && *error) throw AgreedError(exit_code, error);
}
void comm_abort(int exit_code) { std::exit(exit_code); }

std::string comm_serve(const CommRead&) { return ""; }
void comm_fetch(int, int, uint64_t, size_t, void*) {}
void comm_serve_end(const std::string&) {}
