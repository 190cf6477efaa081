// The processes ("ranks") of one run: who they are, what they exchange, how they agree, what happens when one is gone.
// Three implementations, chosen by the Makefile (COMM=none|mpi|nccl): single.cpp; mpi.cpp with collectives_mpi.cpp
// (CPU and emulation); mpi.cpp with collectives_nccl.cpp (GPUs: NCCL moves the tensors, MPI starts it and carries the rest).
// No other file names MPI or NCCL.
//
// All ranks make the same calls in the same order with the same sizes, from the main thread only. If a call waits longer
// than the timeout (a rank is hung, stopped or lost), all processes end, with one line that names the rank that did not
// arrive, the step and the collective. With one rank every call returns at once.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>

#include "runtime/device/types.h"
#include "runtime/run/error.h"

// ---------------------------------------------------------------------------------------------- who
void comm_init();                        // first, between signals_install and backend_init; starts MPI under mpirun or srun
void comm_finalize();                    // the last call of a run that ended well; all ranks
int comm_rank();                         // 0 .. comm_size() - 1; also before comm_init (0 then)
int comm_size();
int comm_local_rank();                   // among the ranks of this machine
int comm_local_size();
int comm_threads();                      // for this rank: the cores it may use, divided among the ranks that share them; >= 1
const char* comm_name();                 // "single process", "MPI", "NCCL"
void comm_start_devices();               // after backend_init: NCCL's own start; nothing elsewhere
void comm_set_timeout(double seconds);   // 0: wait for ever
void comm_at_step(int64_t step);         // for the timeout's message

// ---------------------------------------------------------------------------------------------- tensors, in device memory
// Non-blocking: they start after the work queued so far on the compute stream and run alongside what is queued next.
// comm_wait makes the compute stream (CPU: the caller) wait for the result. Until then the memory belongs to the request.
// `what` names the tensor in the timeout's message.
enum class Number { f32, f64, bf16 };
template <class T> constexpr Number number_of() {
    return std::is_same_v<T, float> ? Number::f32 : std::is_same_v<T, double> ? Number::f64 : Number::bf16;
}
using CommRequest = int;                 // -1: nothing to wait for; with more than one rank a request is 0 or more until comm_wait

// data: (size, piece) elements, f32 or f64. Piece r of rank r becomes the sum over all ranks; the other pieces stay as they were.
// MPI: the ranks' values are added in a balanced binary tree over the ranks, ((0+1)+(2+3))+..., so that with 2^k ranks the
// order of additions is that of a tree over 2^j > 2^k parts of which each rank has added its own (--deterministic-ranks).
// NCCL: its own order, the same in every run with the same ranks.
CommRequest comm_reduce_scatter(void* data, size_t piece, Number type, const char* what);
// data: (size, piece) elements of any type. Piece r is rank r's; afterwards all ranks have all pieces.
CommRequest comm_all_gather(void* data, size_t piece, Number type, const char* what);
// data: n elements, f32 or f64, becomes the sum over the ranks, the same bits on all of them.
CommRequest comm_all_reduce(void* data, size_t n, Number type, const char* what);
void comm_wait(CommRequest& request);    // sets it to -1
void comm_poll();                        // lets messages progress; called between layers. MPI moves data only inside its calls
bool comm_sums_by_tree();                // reduce_scatter's order is the tree (MPI, single)

// How the host waits for the device when there are several ranks (backend_cuda.cu): with a hung partner in a collective,
// cudaStreamSynchronize would never return. Returns when done(), which asks the device without blocking, is true; subject
// to the timeout.
void comm_wait_device(const std::function<bool()>& done);

// ---------------------------------------------------------------------------------------------- small things, in host memory; blocking
void comm_sum(double* values, size_t n, const char* what);       // over the ranks, the same bits on all
bool comm_any(bool mine, const char* what);                      // true on all ranks when true on one
void comm_broadcast(std::string& bytes, const char* what);       // from rank 0
void comm_barrier(const char* what);

// All ranks already hold this error when it is thrown: only rank 0 prints it, and nobody has to be ended.
struct AgreedError : Error {
    using Error::Error;
};
// Ends a phase that may fail on some ranks only. Every rank calls it, with null or the error it caught ("" is no error). If
// any rank has one, all throw AgreedError with the code and text of the lowest such rank, "rank 3: text" if it is not 0.
void comm_agree(const char* error, int exit_code, const char* phase);
// After an error that the other ranks do not know about: ends them all. mpirun's own message names the rank too.
[[noreturn]] void comm_abort(int exit_code);

// ---------------------------------------------------------------------------------------------- pieces for rank 0's checkpoint
// Ranks other than 0 answer comm_fetch until rank 0 calls comm_serve_end. read(buffer, offset, bytes, out) copies from this rank's
// buffer number `buffer`. Returns the error text of comm_serve_end, "" for none.
using CommRead = std::function<void(int buffer, uint64_t offset, size_t bytes, void* out)>;
std::string comm_serve(const CommRead& read);
void comm_fetch(int rank, int buffer, uint64_t offset, size_t bytes, void* out);       // rank 0, of another rank
void comm_serve_end(const std::string& error);                                         // rank 0
