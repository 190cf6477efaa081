// main of build/test-comm: doctest on every rank, rank 0's output and that of ranks with failures, one result for all.
//   test-comm [doctest's options]      the cases of test_comm.cpp
//   test-comm --fail-on RANK           one check that fails on that rank: does the run fail?
//   test-comm --work SECONDS TIMEOUT [hang|lost|apart RANK]    exchanges for so long; to be killed or stopped by test_mpi.sh.
//      RANK misbehaves in step 20: hangs (computes for ever), is lost (throws, and ends all), or makes another
//      call than the rest (apart).
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <unistd.h>

#include "runtime/device/backend.h"
#include "runtime/comm/comm.h"
#include "runtime/run/error.h"

static int fail_on = -1;
TEST_CASE("a failure on one rank") { CHECK(comm_rank() != fail_on); }

static void work(double seconds, const std::string& fault, int culprit) {
    float* tensor = device_alloc_array<float>(size_t(comm_size()) * 50000);
    printf("rank %d pid %d\n", comm_rank(), int(getpid()));
    fflush(stdout);
    comm_barrier("the start");
    bool over = false;
    for (int step = 1; !over; step++) {
        comm_at_step(step);
        CommRequest request = comm_reduce_scatter(tensor, 50000, Number::f32, "h.3");
        if (step == 20 && comm_rank() == culprit) {
            if (fault == "hang") for (;;) usleep(100000);
            if (fault == "lost") fail("disk of rank %d is gone", culprit);
            if (fault == "apart") comm_barrier("a barrier of its own");
        }
        comm_wait(request);
        device_synchronize();
        double waited = 0.005;
        comm_sum(&waited, 1, "loss");
        over = comm_any(step * 0.005 >= seconds, "stop");
        usleep(5000);
    }
    device_free(tensor);
    printf("rank %d done\n", comm_rank());
}

int main(int argc, char** argv) {
    try {
        comm_init();
        backend_init(1);
        comm_start_devices();
        if (argc > 3 && std::string(argv[1]) == "--work") {
            comm_set_timeout(atof(argv[3]));
            work(atof(argv[2]), argc > 5 ? argv[4] : "", argc > 5 ? atoi(argv[5]) : -1);
            comm_finalize();
            return 0;
        }
        comm_set_timeout(60);
        if (argc > 2 && std::string(argv[1]) == "--fail-on") fail_on = atoi(argv[2]);
        doctest::Context context(argc, argv);
        std::ostringstream quiet;
        if (comm_rank() != 0) context.setCout(&quiet);
        const int failed = context.run();
        if (failed && comm_rank() != 0) std::cout << "rank " << comm_rank() << " of " << comm_size() << ":\n" << quiet.str() << std::flush;
        const bool any = comm_any(failed != 0, "the result");
        comm_finalize();
        return any;
    } catch (const Error& e) {
        fprintf(stderr, "error: rank %d: %s\n", comm_rank(), e.what());
        comm_abort(e.exit_code);
    }
}
