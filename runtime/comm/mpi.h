// What the files behind comm.h share when MPI is used: who we are, checked MPI calls, and the one loop in which every call
// waits. Not for callers of comm.h: nobody else includes this.
//   mpi.cpp                   start and end, small operations, agreement, checkpoint pieces
//   wait.cpp                  waiting, the timeout, the roll call that names a missing rank, abort
//   collectives_mpi.cpp       tensors in host memory; collectives_nccl.cpp: tensors on GPUs
#pragma once
// The C interface only: the C++ one left the standard with MPI 3.0.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include "runtime/comm/comm.h"
#include "runtime/run/error.h"

struct CommState {
    bool started = false;                    // MPI runs; false: one process without a launcher
    int rank = 0, size = 1, local_rank = 0, local_size = 1, threads = 1;
    double timeout_seconds = 600;            // 0: wait for ever
    int64_t step = -1;
    bool volatile ending = false;            // a roll call is under way, or this rank aborts: do not start another
    uint64_t progress = 0;                   // messages completed; while it grows no rank is given up
    MPI_Comm small, tensors, pieces, roll;   // the kinds of traffic cannot be mistaken for each other
};
extern CommState comm;

inline void mpi_check_at(int status, const char* expression, const char* file, int line) {
    if (status == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(status, text, &length);
    fail("%s, from %s at %s:%d", text, expression, file, line);
}
#define mpi_check(expression) mpi_check_at(expression, #expression, __FILE__, __LINE__)

// ---------------------------------------------------------------------------------------------- wait.cpp
double comm_clock();                         // seconds, from any start
// Returns when done() is true. Meanwhile tensors make progress. After the timeout without any progress, the roll is called
// and all ranks end.
void wait_until(const std::function<bool()>& done, const char* collective, const char* what);
void wait_for(MPI_Request& request, const char* collective, const char* what);
void answer_roll_call();                     // when another rank has lost patience: never returns then
void begin_roll_call();                      // learns the host names; all ranks

// ---------------------------------------------------------------------------------------------- comm_collectives_*.cpp
void tensors_start();                        // at the end of comm_init
void tensors_finish();                       // before MPI_Finalize
void tensors_advance();                      // advances what is under way; never blocks
bool tensors_oldest(std::string& collective, std::string& what);         // the oldest one under way, if any
const char* tensors_name();
