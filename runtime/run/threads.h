// If OpenMP cannot start a thread it ends the program, with a line of its own. So as many threads as will be needed are
// started once beforehand. Not a check of memory: a thread's stack is only reserved here.
#pragma once
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "runtime/run/error.h"

// Fails unless `threads` can be there at once, this one included.
inline void ensure_threads(int threads) {
    std::mutex mutex;
    std::condition_variable over;
    bool done = false;
    std::vector<std::thread> tried;
    std::string reason;
    try {
        while (int(tried.size()) + 1 < threads)
            tried.emplace_back([&] {
                std::unique_lock lock(mutex);
                over.wait(lock, [&] { return done; });
            });
    } catch (const std::system_error& e) {
        reason = e.code().message();
    }
    {
        const std::lock_guard lock(mutex);
        done = true;
    }
    over.notify_all();
    for (std::thread& t : tried) t.join();
    ensure(reason.empty(),
           "only %zu of %d threads can be started (%s): give --threads %zu, "
           "or raise the limit (ulimit -u, a container's number of processes)",
           tried.size() + 1, threads, reason.c_str(), tried.size() + 1);
}
