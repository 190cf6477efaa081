// Writes build/step-VARIANT.safetensors for test_step.cpp: losses, gradients and updated weights of step_common.h's models, computed by
// the CPU backend in fp32 ("truth") and again with everything stored rounded to bf16 ("naive", rounded_ops.h). No test by itself.
#include "test/ops/rounded_ops.h"

#include "test/model/step_common.h"

#include "runtime/run/safetensors.h"

template <class T> static void add(std::vector<TensorToWrite>& list, const std::string& name, const char* dtype, std::vector<T> values) {
    list.push_back({name, dtype, {int64_t(values.size())}, [values](uint64_t offset, size_t bytes, void* out) {
                        memcpy(out, reinterpret_cast<const char*>(values.data()) + offset, bytes);
                    }});
}

int main() try {
    backend_init(1);
    std::vector<TensorToWrite> list;
    for (const NamedConfig& n : step_configs())
        for (const char* kind : {"truth", "naive"}) {
            rounded::rounding = std::string(kind) == "naive";
            rounded::masters.clear();
            StepResult r = run_steps(n.c);
            const std::string prefix = n.name + "/" + kind + "/";
            add(list, prefix + "losses", "F64", r.losses);
            for (auto& [name, values] : r.gradients) add(list, prefix + "gradient/" + name, "F32", values);
            for (auto& [name, values] : r.first) add(list, prefix + "first/" + name, "F32", values);
        }
    safetensors_write(step_reference_path(), list, {});
} catch (const std::exception& e) {
    fprintf(stderr, "error: %s\n", e.what());
    return 1;
}
