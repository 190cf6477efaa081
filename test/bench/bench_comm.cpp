// Bandwidth of the tensor collectives beside MPI's own and memcpy:   mpirun -np 2 build/bench-comm [megabytes [repetitions]]
// Best of the repetitions, each begun together. GB/s counts the bytes that a rank sends, (N-1)/N of the
// tensor per operation, so that the figure is what scripts/scaling.sh wants. Not a test: on a busy machine
// the numbers mean little.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "runtime/comm/mpi.h"

static double best_seconds(int repetitions, const std::function<void()>& work) {
    double best = 1e30;
    for (int i = 0; i < repetitions; i++) {
        comm_barrier("bench");
        const double start = comm_clock();
        work();
        double taken[1] = {comm_clock() - start};
        MPI_Allreduce(MPI_IN_PLACE, taken, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
        best = std::min(best, taken[0]);
    }
    return best;
}

int main(int argc, char** argv) {
    const double megabytes = argc > 1 ? atof(argv[1]) : 44;
    const int repetitions = argc > 2 ? atoi(argv[2]) : 12;
    comm_init();
    const int size = comm_size(), rank = comm_rank();
    const size_t piece = std::max<size_t>(1, size_t(megabytes * 1e6 / sizeof(float)) / size_t(size)), n = piece * size_t(size);
    std::vector<float> tensor(n, 1.0f), other(n, 0.0f);
    auto line = [&](const char* name, double bytes, const std::function<void()>& work) {
        const double s = best_seconds(repetitions, work);
        if (rank == 0) printf("%-34s %9.3f ms %8.2f GB/s\n", name, s * 1e3, bytes / s * 1e-9);
    };
    if (rank == 0) printf("%d ranks, %zu bytes, best of %d\n", size, n * sizeof(float), repetitions);
    const double sent = double(piece) * sizeof(float) * (size - 1);
    line("memcpy, all ranks at once", double(n) * sizeof(float), [&] { memcpy(other.data(), tensor.data(), n * sizeof(float)); });
    if (size > 1) {
        auto finish = [](CommRequest request) { comm_wait(request); };
        line("comm_reduce_scatter", sent, [&] { finish(comm_reduce_scatter(tensor.data(), piece, Number::f32, "bench")); });
        line("MPI_Reduce_scatter_block", sent, [&] {
            MPI_Reduce_scatter_block(tensor.data(), other.data(), int(piece), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        });
        line("comm_all_gather", sent, [&] { finish(comm_all_gather(tensor.data(), piece, Number::f32, "bench")); });
        line("MPI_Allgather", sent,
             [&] { MPI_Allgather(MPI_IN_PLACE, 0, MPI_FLOAT, other.data(), int(piece), MPI_FLOAT, MPI_COMM_WORLD); });
        line("comm_all_reduce", 2 * sent, [&] { finish(comm_all_reduce(tensor.data(), n, Number::f32, "bench")); });
        line("MPI_Allreduce", 2 * sent, [&] { MPI_Allreduce(tensor.data(), other.data(), int(n), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); });
        std::fill(tensor.begin(), tensor.end(), 0.0f);
        double one = 1;
        line("comm_sum of one number", 0, [&] { comm_sum(&one, 1, "bench"); });
        line("comm_all_reduce of 4 KB", 2 * 4096.0 * (size - 1) / size,
             [&] { finish(comm_all_reduce(tensor.data(), std::min<size_t>(n, 1024), Number::f32, "bench")); });
    }
    comm_finalize();
}
