// libFuzzer's entry point: one binary per target, chosen by -DFUZZ_TARGET=safetensors | tokenizer_json | shard | config.
// https://llvm.org/docs/LibFuzzer.html. See run.sh.
#include "test/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    fuzz::FUZZ_TARGET(data, size);
    return 0;
}

// One thread, and no OpenMP library, which clang may not have: the pragmas are ignored, these are all that is called by name.
extern "C" int omp_get_max_threads() { return 1; }
extern "C" int omp_get_num_threads() { return 1; }
extern "C" int omp_get_thread_num() { return 0; }
