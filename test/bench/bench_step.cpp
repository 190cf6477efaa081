// The whole training step against its limit: the same matrix products alone, done by each library at hand in this process.
//   build/bench-step-qkv LAYERS WIDTH HEADS CONTEXT VOCAB BATCH [threads] [seconds] [parts]
// Prints medians: the step's milliseconds and tokens/s, the step's parts, and for each library the
// products-only rate. With `parts`, instead of the latter, one line with the share of each operation
// (timed_ops.h), for the table of docs/BENCHMARKS.md (`make bench-parts`).
// The variant is the one this binary is built with; random tokens; forward, backward, clipping and AdamW as train.cu calls them.
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <functional>
#include <omp.h>

#include "layers/gemm.h"
#include "test/bench/timed_ops.h"

#include "model/gpt.h"


// Median seconds of `work`, repeated for about `seconds` after one warm-up, at least 5 times.
static double median_s(double seconds, const std::function<void()>& work) {
    work();
    std::vector<double> times;
    for (double begin = now_s(); now_s() - begin < seconds || times.size() < 5;) {
        double t = now_s();
        work();
        times.push_back(now_s() - t);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

// One product of the step: C (m, n) = op(A) op(B), how often it occurs, and who gets which operand transposed.
struct Product { bool ta, tb; size_t m, n, k; int count; };

// Forward x W^T, backward dy W and dy^T x, for every weight matrix of the model and the head.
static std::vector<Product> products_of(const GPT& g, size_t rows) {
    std::vector<Product> list;
    auto add = [&](size_t in, size_t out, int count) {
        list.push_back({false, true, rows, out, in, count});
        list.push_back({false, false, rows, in, out, count});
        list.push_back({true, false, out, in, rows, count});
    };
    const ModelConfig& c = g.c;
    size_t q = size_t(c.NH) * size_t(c.HS), kv = size_t(c.NKV) * size_t(c.HS);
    add(size_t(c.C), q + 2 * kv, c.L);
    add(q, size_t(c.C), c.L);
    add(size_t(c.C), size_t(c.F), c.L);
    add(size_t(c.F), size_t(c.C), c.L);
    add(size_t(c.C), size_t(c.Vp()), 1);
    return list;
}

template <class A, class C> using Gemm = std::function<void(const Product&, const A* a, const A* b, C* c)>;

template <class A, class C> static double products_s(const std::vector<Product>& list, double seconds, const Gemm<A, C>& gemm) {
    size_t largest_a = 0, largest_b = 0, largest_c = 0;
    for (const Product& p : list) {
        largest_a = std::max(largest_a, p.m * p.k);
        largest_b = std::max(largest_b, p.k * p.n);
        largest_c = std::max(largest_c, p.m * p.n);
    }
    std::vector<A> a(largest_a, A(0.5f)), b(largest_b, A(0.25f));
    std::vector<C> c(largest_c);
    return median_s(seconds, [&] {
        for (const Product& p : list)
            for (int i = 0; i < p.count; i++) gemm(p, a.data(), b.data(), c.data());
    });
}

// One line of the table: milliseconds of a step, and what part of it each operation took, the largest first.
static void print_parts(double seconds, const std::function<void()>& step, double rows) {
    step();
    timed::on = true;
    int steps = 0;
    const double begin = now_s();
    while (steps < 5 || now_s() - begin < seconds) {
        step();
        steps++;
    }
    const double all = now_s() - begin;
    std::vector<std::pair<double, std::string>> parts;
    double other = all;
    for (auto& [name, s] : timed::seconds) parts.push_back({s, name}), other -= s;
    parts.push_back({other, "the rest"});
    std::sort(parts.rbegin(), parts.rend());
    printf("| %s | %s | %.1f | %.0f |", ATTENTION_NAME, PRECISION_NAME, all / steps * 1e3, rows * steps / all);
    for (auto& [s, name] : parts)
        if (s > 0.005 * all) printf(" %s %.0f%%;", name.c_str(), 100 * s / all);
    printf(" |\n");
}

int main(int argc, char** argv) {
    backend_prepare(argv);
    if (argc < 7) {
        fprintf(stderr, "usage: bench-step-VARIANT LAYERS WIDTH HEADS CONTEXT VOCAB BATCH [threads] [seconds] [parts]\n");
        return EXIT_USAGE;
    }
    ModelConfig c;
    c.L = atoi(argv[1]);
    c.C = atoi(argv[2]);
    c.NH = atoi(argv[3]);
    c.T = atoi(argv[4]);
    c.V = atoi(argv[5]);
    c.pos = Position::learned;                               // as the peers: GPT-2
    int B = atoi(argv[6]), threads = argc > 7 ? atoi(argv[7]) : 2;
    double seconds = argc > 8 ? atof(argv[8]) : 5;
    backend_init(threads);
    GPT g = gpt_allocate(c, B);
    gpt_init(g, 1);
    size_t rows = size_t(B) * c.T;
    std::vector<int> tokens(rows), targets(rows);
    for (size_t i = 0; i < rows; i++) {
        tokens[i] = int(philox_below(1, 1, i, uint32_t(c.V)));
        targets[i] = int(philox_below(1, 2, i, uint32_t(c.V)));
    }
    int64_t step = 0;
    auto update = [&] { gpt_update(g, {1e-4, 0.9, 0.95, 1e-8, 0.1, 1, ++step, 0}); };
    auto gradients = [&] { gpt_forward_backward(g, tokens.data(), targets.data(), B, c.T, 1.0 / double(rows), false); };
    if (argc > 9 && std::string(argv[9]) == "parts") {
        print_parts(seconds, [&] { gradients(); update(); }, double(rows));
        gpt_free(g);
        return EXIT_DONE;
    }
    double whole = median_s(seconds, [&] { gradients(); update(); });
    double forward = median_s(seconds / 4, [&] { gpt_forward(g, tokens.data(), B, c.T); });
    double both = median_s(seconds / 4, gradients), optimizer = median_s(seconds / 4, update);
    double rate = double(rows) / whole;
    printf(
        "step %s L%d C%d NH%d T%d V%d B%d, %d threads, %s, %s: %.1f ms, %.0f tokens/s, "
        "%.0f GFLOP/s (blocks forward %.1f, forward+backward %.1f, update %.1f ms)\n",
        ATTENTION_NAME, c.L, c.C, c.NH, c.T, c.V, B, threads, PRECISION_NAME, gemm_library(), whole * 1e3, rate,
        rate * flops_per_token(g, true) / 1e9, forward * 1e3, both * 1e3, optimizer * 1e3);

    std::vector<Product> list = products_of(g, rows);
    double best = 0;
    auto report = [&](const char* name, double s) {
        printf("products only, %-28s %8.1f ms, %7.0f tokens/s; the whole step is at %.0f%% of it\n", name, s * 1e3,
               double(rows) / s, 100 * s / whole);
        best = std::max(best, double(rows) / s);
    };
    report("ours (linear, with epilogues)",
           products_s<floatX, floatM>(
               list, seconds / 2, [&](const Product& p, const floatX* a, const floatX* b, floatM* out) {
                   LinearShape forward_shape = linear_shape(p.m, int(p.k), int(p.n)),
                               input = linear_shape(p.m, int(p.n), int(p.k)),
                               weight = linear_shape(p.k, int(p.n), int(p.m));
                   floatX* stored =
                       reinterpret_cast<floatX*>(out);    // activations are floatX, weight gradients floatM
                   if (p.tb) linear_forward(stored, a, b, nullptr, forward_shape);
                   else if (!p.ta) linear_backward_input(stored, a, b, input);
                   else linear_backward_weight(out, nullptr, a, b, weight, false);
               }));
    // Libraries as they are, with their own threads, loaded by name so that none of them is needed to build.
    if (void* dnnl = dlopen("libdnnl.so.2", RTLD_NOW)) {
        auto f = reinterpret_cast<int (*)(char, char, long, long, long, float, const float*, long, const float*, long,
                                          float, float*, long)>(dlsym(dnnl, "dnnl_sgemm"));
        if (f)
            report("oneDNN, fp32",
                   products_s<float, float>(
                       list, seconds / 2, [&](const Product& p, const float* a, const float* b, float* out) {
                           f(p.ta ? 'T' : 'N', p.tb ? 'T' : 'N', long(p.m), long(p.n), long(p.k), 1, a,
                             long(p.ta ? p.m : p.k), b, long(p.tb ? p.k : p.n), 0, out, long(p.n));
                       }));
    }
    if (void* blas = dlopen("libopenblas.so.0", RTLD_NOW)) {
        auto f = reinterpret_cast<void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int,
                                           float, float*, int)>(dlsym(blas, "cblas_sgemm"));
        auto set_threads = reinterpret_cast<void (*)(int)>(dlsym(blas, "openblas_set_num_threads"));
        if (f && set_threads) {
            set_threads(threads);
            report("OpenBLAS, fp32",
                   products_s<float, float>(
                       list, seconds / 2, [&](const Product& p, const float* a, const float* b, float* out) {
                           f(101, p.ta ? 112 : 111, p.tb ? 112 : 111, int(p.m), int(p.n), int(p.k), 1, a,
                             int(p.ta ? p.m : p.k), b, int(p.tb ? p.k : p.n), 0, out, int(p.n));
                       }));
        }
    }
    printf("summary tokens_per_s %.1f products_best %.1f percent_of_products %.1f\n", rate, best, 100 * rate / best);
    gpt_free(g);
    return EXIT_DONE;
}
