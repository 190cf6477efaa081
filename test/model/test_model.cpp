// Whole models of the variant that this binary is built with: PyTorch's reference values (test/golden, made by
// make_golden.py), identities between variants, overfitting one batch, the same bits for any number of threads.
#include <doctest/doctest.h>

#include <filesystem>

#include "model/program.h"
#include "runtime/run/safetensors.h"
#include "test/check_tensor.h"
#include "test/model/model_common.h"

#if defined(BACKEND_EMU)
static const bool EMULATED = true;       // long training loops would take minutes there
#else
static const bool EMULATED = false;
#endif

// ---------------------------------------------------------------------------------------------- golden values

template <class T> static std::vector<T> golden_tensor(const SafetensorsFile& f, const std::string& name, const char* dtype) {
    const TensorInfo* t = f.find(name);
    REQUIRE_MESSAGE(t, f.path, ": no tensor ", name);
    REQUIRE(t->dtype == dtype);
    std::vector<T> values((t->end - t->begin) / sizeof(T));
    safetensors_read(f, *t, values.data());
    return values;
}

TEST_CASE("PyTorch's logits, loss, every gradient and ten AdamW steps") {
    backend_init(0);
    // fp64: both sides round at 1e-16, sums of a few hundred terms. fp32: the same at 6e-8, twice as deep in the backward;
    // ten AdamW steps divide by sqrt(v), which magnifies rounding where gradients are tiny.
    const double forward_tolerance = DOUBLE ? 1e-12 : 1e-5, grad_tolerance = DOUBLE ? 1e-11 : 5e-5, after_tolerance = DOUBLE ? 2e-7 : 5e-4;
    int cases = 0;
    for (const auto& entry : std::filesystem::directory_iterator("test/golden")) {
        if (entry.path().extension() != ".safetensors") continue;
        SafetensorsFile f = safetensors_open(entry.path().string());
        if (!golden_is_ours(f.metadata)) continue;
        cases++;
        std::string name = entry.path().filename().string();
        ModelConfig c = golden_config(f.metadata);
        const int B = std::stoi(f.metadata.at("B"));
        GPT g = gpt_allocate(c, B);
        size_t found = 0;
        for (const Param& p : g.params) {
            if (p.size == 0) continue;
            auto w = golden_tensor<double>(f, "param." + p.spec.name, "F64");
            REQUIRE_MESSAGE(f.find("param." + p.spec.name)->shape == p.spec.shape, name, ": shape of ", p.spec.name);
            set_weights(g, p, std::vector<floatM>(w.begin(), w.end()));
            found++;
        }
        size_t theirs = 0;
        for (const TensorInfo& t : f.tensors) theirs += t.name.rfind("param.", 0) == 0;
        CHECK_MESSAGE(found == theirs, name, ": PyTorch has other tensors");

        auto tokens64 = golden_tensor<int64_t>(f, "tokens", "I64"), targets64 = golden_tensor<int64_t>(f, "targets", "I64");
        std::vector<int> tokens(tokens64.begin(), tokens64.end()), targets(targets64.begin(), targets64.end());
        auto losses = golden_tensor<double>(f, "losses", "F64");
        auto logits = golden_tensor<double>(f, "logits", "F64");
        const size_t rows = size_t(B) * c.T;
        auto loss_of = [&](bool accumulate) {
            return gpt_forward_backward(g, tokens.data(), targets.data(), B, c.T, 1.0 / double(rows), accumulate) /
                   double(rows);
        };

        CHECK_MESSAGE(std::fabs(gpt_loss(g, tokens.data(), targets.data(), B, c.T) / double(rows) - losses[0]) <
                          forward_tolerance * losses[0],
                      name, ": loss");
        std::vector<floatX> padded(rows * size_t(c.Vp()));
        copy_to_host(padded.data(), g.logits, padded.size() * sizeof(floatX));
        std::vector<floatX> real;
        for (size_t r = 0; r < rows; r++)
            real.insert(real.end(), padded.begin() + int64_t(r * size_t(c.Vp())),
                        padded.begin() + int64_t(r * size_t(c.Vp())) + c.V);
        check_tensor(name + ": logits", real, logits, forward_tolerance);

        // Without rotation a key bias moves all scores of a query alike and its gradient is 0. In fp32 rounding remains of it, about 1e-8
        // and so about AdamW's eps, which makes steps of it: nothing to compare.
        auto is_rounding = [&](const Param& p) {
            return !DOUBLE && c.pos != Position::rope && p.spec.name.find("k.bias") != std::string::npos;
        };
        for (int step = 0; step <= 10; step++) {
            double loss = loss_of(false);
            CHECK_MESSAGE(
                std::fabs(loss - losses[size_t(step)]) < (step ? 10 : 1) * forward_tolerance * losses[size_t(step)],
                name, ": loss ", loss, " before step ", step + 1, ", PyTorch has ", losses[size_t(step)]);
            if (step == 0)
                for (const Param& p : g.params)
                    if (p.size && !is_rounding(p))
                        check_tensor(name + ": gradient of " + p.spec.name, get_gradient(g, p),
                                     golden_tensor<double>(f, "grad." + p.spec.name, "F64"), grad_tolerance);
            if (step < 10) gpt_update(g, {1e-3, 0.9, 0.95, 1e-8, 0.1, 1.0, step + 1, 0});
        }
        for (const Param& p : g.params)
            if (p.size && !is_rounding(p) && f.find("after." + p.spec.name))
                check_tensor(name + ": after ten steps " + p.spec.name, get_weights(g, p),
                             golden_tensor<float>(f, "after." + p.spec.name, "F32"), after_tolerance);
        gpt_free(g);
    }
    if (has_reference()) CHECK(cases >= 3);
    if (this_program().name() == "qv-rmsnorm-swiglu") CHECK(cases >= 2);
}

// ---------------------------------------------------------------------------------------------- identities

// The loss of this variant must equal multi-head attention's, written out here in double precision from its definition, when
// its weights are set so that both are the same function.
static double plain_attention_loss(const GPT& g, const TestBatch& b, const std::map<std::string, std::vector<floatM>>& w) {
    const ModelConfig& c = g.c;
    const int C = c.C, NH = c.NH, HS = c.HS, T = b.T, F = c.F;
    auto at = [&](const std::string& name) -> const std::vector<floatM>& { return w.at(name); };
    auto affine = [](const double* x, int in, const std::vector<floatM>& weight, const std::vector<floatM>* bias, int out) {
        std::vector<double> y(static_cast<size_t>(out));
        for (int o = 0; o < out; o++) {
            y[size_t(o)] = bias ? double((*bias)[size_t(o)]) : 0;
            for (int i = 0; i < in; i++) y[size_t(o)] += x[i] * double(weight[size_t(o) * in + size_t(i)]);
        }
        return y;
    };
    auto norm = [&](const double* x, const std::string& name) {
        double mean = 0, var = 0;
        for (int i = 0; i < C; i++) mean += x[i] / C;
        for (int i = 0; i < C; i++) var += (x[i] - mean) * (x[i] - mean) / C;
        std::vector<double> y(static_cast<size_t>(C));
        for (int i = 0; i < C; i++)
            y[size_t(i)] = (x[i] - mean) / std::sqrt(var + 1e-5) * double(at(name + ".weight")[size_t(i)]) +
                           double(at(name + ".bias")[size_t(i)]);
        return y;
    };
    double total = 0;
    for (int s = 0; s < b.B; s++) {
        std::vector<std::vector<double>> x(static_cast<size_t>(T));
        for (int t = 0; t < T; t++)
            for (int i = 0; i < C; i++)
                x[size_t(t)].push_back(double(at("wte.weight")[size_t(b.tokens[size_t(s * T + t)] * C + i)]) +
                                       double(at("wpe.weight")[size_t(t * C + i)]));
        for (int l = 0; l < c.L; l++) {
            std::string h = "h." + std::to_string(l) + ".";
            std::vector<std::vector<double>> q, k, v;
            for (int t = 0; t < T; t++) {
                auto n = norm(x[size_t(t)].data(), h + "ln_1");
                q.push_back(affine(n.data(), C, at(h + "q.weight"), &at(h + "q.bias"), NH * HS));
                k.push_back(affine(n.data(), C, at(h + "k.weight"), &at(h + "k.bias"), NH * HS));
                v.push_back(affine(n.data(), C, at(h + "v.weight"), &at(h + "v.bias"), NH * HS));
            }
            for (int t = 0; t < T; t++) {
                std::vector<double> o(static_cast<size_t>(NH * HS));
                for (int head = 0; head < NH; head++) {
                    std::vector<double> p;
                    double sum = 0;
                    for (int j = 0; j <= t; j++) {
                        double score = 0;
                        for (int i = 0; i < HS; i++) score += q[size_t(t)][size_t(head * HS + i)] * k[size_t(j)][size_t(head * HS + i)];
                        p.push_back(std::exp(score / std::sqrt(double(HS))));
                        sum += p.back();
                    }
                    for (int j = 0; j <= t; j++)
                        for (int i = 0; i < HS; i++) o[size_t(head * HS + i)] += p[size_t(j)] / sum * v[size_t(j)][size_t(head * HS + i)];
                }
                auto y = affine(o.data(), NH * HS, at(h + "attn.o.weight"), &at(h + "attn.o.bias"), C);
                for (int i = 0; i < C; i++) x[size_t(t)][size_t(i)] += y[size_t(i)];
                auto n = norm(x[size_t(t)].data(), h + "ln_2");
                auto f = affine(n.data(), C, at(h + "mlp.fc.weight"), &at(h + "mlp.fc.bias"), F);
                for (double& z : f) z = z / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
                auto m = affine(f.data(), F, at(h + "mlp.proj.weight"), &at(h + "mlp.proj.bias"), C);
                for (int i = 0; i < C; i++) x[size_t(t)][size_t(i)] += m[size_t(i)];
            }
        }
        for (int t = 0; t < T; t++) {
            auto n = norm(x[size_t(t)].data(), "ln_f");
            auto logits = affine(n.data(), C, at("wte.weight"), nullptr, c.V);
            double sum = 0;
            for (double z : logits) sum += std::exp(z);
            total += std::log(sum) - logits[size_t(b.targets[size_t(s * T + t)])];
        }
    }
    return total / (b.B * T);
}

TEST_CASE("with fitting weights the variant is multi-head attention") {
    if (!DOUBLE || !has_reference()) return;
    backend_init(0);
    std::string attn = ATTENTION_NAME;
    ModelConfig c = awkward_config(Position::learned);
    c.T = 60;                                                // beyond one tile of queries
    set_own(c, "mla-dr", 0);
    set_own(c, "mla-dcq", 0);
    set_own(c, "mla-dc", c.C);
    if (attn == "gqa" || attn == "gta") c.NKV = 2;
    GPT g = gpt_allocate(c, 2);
    init_for_test(g, 5);
    TestBatch b = random_batch(2, c.T, c.V, 6);
    std::map<std::string, std::vector<floatM>> w;
    for (const Param& p : g.params) w[p.spec.name] = get_weights(g, p);
    const int C = c.C, NH = g.c.NH, NKV = g.c.NKV, HS = g.c.HS, width = NH * HS;
    for (int l = 0; l < c.L; l++) {
        std::string h = "h." + std::to_string(l) + ".", a = h + "attn.";
        // keys and values of query head j come from head floor(j NKV / NH)
        auto expand = [&](const std::vector<floatM>& source, int columns) {
            std::vector<floatM> out;
            for (int head = 0; head < NH; head++) {
                auto from = source.begin() + int64_t(head * NKV / NH) * HS * columns;
                out.insert(out.end(), from, from + int64_t(HS) * columns);
            }
            return out;
        };
        std::vector<floatM> no_bias(static_cast<size_t>(width), 0);
        const std::string query = attn == "one" ? "v" : "q";
        w[h + "q.weight"] = w[a + query + ".weight"];
        w[h + "q.bias"] = w.count(a + query + ".bias") ? w[a + query + ".bias"] : no_bias;
        if (attn == "mla") continue;                         // below
        w[h + "v.weight"] = expand(w[a + "v.weight"], C);
        w[h + "v.bias"] = expand(w[a + "v.bias"], 1);
        bool own_keys = w.count(a + "k.bias") > 0;           // qkv, gqa, mqa
        w[h + "k.weight"] = own_keys ? expand(w[a + "k.weight"], C) : w[h + "v.weight"];
        w[h + "k.bias"] = own_keys ? expand(w[a + "k.bias"], 1) : w[h + "v.bias"];
        if (attn == "qk") {                                  // the key is the query
            w[h + "k.weight"] = w[h + "q.weight"];
            w[h + "k.bias"] = w[h + "q.bias"];
        }
        if (attn == "gta")                                   // the second half of every key is the same vector, without a bias
            for (int head = 0; head < NH; head++) {
                const std::vector<floatM>& shared = w[a + "kr.weight"];
                std::copy(shared.begin(), shared.end(), w[h + "k.weight"].begin() + int64_t(head * HS + HS / 2) * C);
                std::fill_n(w[h + "k.bias"].begin() + head * HS + HS / 2, HS / 2, floatM(0));
            }
        if (attn == "qv_ka") {                               // W_K = [0 ; I]: the key is the value again, QV
            const Param& p = *find_param(g, a + "k.weight");
            int d_ctx = int(p.spec.shape.back()) - HS;
            std::vector<floatM> identity(p.size, 0);
            for (int head = 0; head < NKV; head++)
                for (int i = 0; i < HS; i++) identity[size_t((head * HS + i) * (d_ctx + HS) + d_ctx + i)] = 1;
            set_weights(g, p, identity);
        }
    }
    if (attn == "mla") {
        // Full rank: d_c = C and W_DKV = I. The block's input is a layernorm's output; with gain 1 and bias 0 its mean square is 1
        // (up to eps), so that rms(x) = x and MLA is multi-head attention.
        for (int l = 0; l < c.L; l++) {
            std::string h = "h." + std::to_string(l) + ".", a = h + "attn.";
            const Param &down = *find_param(g, a + "dkv.weight"), &gain = *find_param(g, a + "kv_norm.weight"),
                        &lw = *find_param(g, h + "ln_1.weight"), &lb = *find_param(g, h + "ln_1.bias");
            std::vector<floatM> identity(down.size, 0), ones(size_t(C), 1), zeros(size_t(C), 0);
            for (int i = 0; i < C; i++) identity[size_t(i * C + i)] = 1;
            set_weights(g, down, identity);
            set_weights(g, gain, ones);
            set_weights(g, lw, w[h + "ln_1.weight"] = ones);
            set_weights(g, lb, w[h + "ln_1.bias"] = zeros);
            w[h + "k.weight"] = w[a + "uk.weight"];
            w[h + "v.weight"] = w[a + "uv.weight"];
            w[h + "k.bias"] = w[h + "v.bias"] = std::vector<floatM>(size_t(width), 0);
        }
    }
    double tolerance = attn == "mla" ? 2e-5 : 1e-11;         // mla: the two eps of the norms (1e-5, 1e-6) do not cancel
    CHECK(mean_loss(g, b) == doctest::Approx(plain_attention_loss(g, b, w)).epsilon(tolerance));
    gpt_free(g);
}

// ---------------------------------------------------------------------------------------------- training

TEST_CASE("overfits one batch, with every position" * doctest::skip(EMULATED)) {
    backend_init(0);
    for (NamedConfig n : all_configs()) {
        if (n.odd_size) continue;
        n.c.C = 32;
        if (ModelConfig c = n.c; c.HS = 8, supported(c)) n.c.HS = 8;
        GPT g = gpt_allocate(n.c, 4);
        gpt_init(g, 1);
        TestBatch b = random_batch(4, n.c.T, n.c.V, 2);
        double first = backward(g, b), lowest = first;       // (at this rate a loss near 0 can jump up again for a few steps)
        for (int step = 1; step <= 400; step++) {
            gpt_update(g, {0.01, 0.9, 0.95, 1e-8, 0, 1, step, 0});
            lowest = std::min(lowest, backward(g, b));
        }
        INFO(std::string(ATTENTION_NAME), ", ", n.name, ": loss ", first, " -> ", lowest);
        CHECK(first == doctest::Approx(std::log(n.c.V)).epsilon(0.05));    // a fresh model knows nothing: ln V
        CHECK(lowest < 0.1);                                  // the first token of two sequences may coincide, hence not 0
        gpt_free(g);
    }
}

TEST_CASE("the same bits with 1, 2 and 3 threads") {
    // (Emulated, a block of threads is one thread's work, and blocks are shared out: fewer of them do.)
    const int sequences = EMULATED ? 2 : 5, steps = EMULATED ? 2 : 3;
    ModelConfig c;
    c.T = 70;
    c.V = 300;
    c.L = EMULATED ? 1 : 2;
    c.C = 96;
    c.NH = 6;
    c.pos = Position::power;
    std::vector<std::vector<floatM>> first;
    for (int threads : {1, 2, 3}) {
        backend_init(threads);
        GPT g = gpt_allocate(c, sequences);
        gpt_init(g, 4);
        TestBatch b = random_batch(sequences, c.T, c.V, 9);
        for (int step = 1; step <= steps; step++) {
            backward(g, b);
            gpt_update(g, {1e-3, 0.9, 0.95, 1e-8, 0.1, 1, step, 0});
        }
        for (size_t k = 0; k < g.params.size(); k++) {
            std::vector<floatM> w = get_weights(g, g.params[k]);
            if (threads == 1) first.push_back(w);
            INFO(g.params[k].spec.name, " with ", threads, " threads");
            CHECK(w == first[k]);
        }
        gpt_free(g);
    }
    backend_init(0);
}

TEST_CASE("a later token never changes an earlier one, and a short sequence gives the long one's beginning") {
    backend_init(0);
    for (const NamedConfig& n : all_configs()) {
        GPT g = gpt_allocate(n.c, 1);
        init_for_test(g, 3);
        TestBatch b = random_batch(1, n.c.T, n.c.V, 8);
        const int cut = n.c.T - 3;
        auto rows = [&](int T) {
            gpt_loss(g, b.tokens.data(), b.targets.data(), 1, T);
            std::vector<floatM> host(static_cast<size_t>(cut));
            copy_to_host(host.data(), g.losses, host.size() * sizeof(floatM));
            return host;
        };
        std::vector<floatM> whole = rows(n.c.T), prefix = rows(cut);
        b.tokens[size_t(cut)] = (b.tokens[size_t(cut)] + 1) % n.c.V;
        std::vector<floatM> changed = rows(n.c.T);
        for (int t = 0; t < cut; t++) {
            INFO(std::string(ATTENTION_NAME), ", ", n.name, ", position ", t);
            CHECK(double(changed[size_t(t)]) == doctest::Approx(double(whole[size_t(t)])).epsilon(1e-5));
            CHECK(double(prefix[size_t(t)]) == doctest::Approx(double(whole[size_t(t)])).epsilon(1e-5));
        }
        gpt_free(g);
    }
}

TEST_CASE("tensors that variants share start equal") {
    // The same numbers in every variant's binary: a function of seed, name and index alone.
    backend_init(0);
    GPT g = gpt_allocate(awkward_config(Position::learned), 1);
    gpt_init(g, 42);
    for (const char* name : {"wte.weight", "h.1.mlp.fc.weight", "h.1.mlp.gate.weight", "h.0.attn.o.weight"}) {
        if (!find_param(g, name)) continue;                  // another MLP
        const Param& p = *find_param(g, name);
        std::vector<floatM> w = get_weights(g, p);
        for (size_t i : {size_t(0), size_t(5), size_t(17)})
            CHECK(double(w[i]) == doctest::Approx(p.spec.init.a * philox_normal(42, rng_stream(name), i)).epsilon(1e-6));
    }
    for (size_t i = size_t(g.c.V) * size_t(g.c.C); i < find_param(g, "wte.weight")->size; i++) REQUIRE(get_weights(g, g.params[0])[i] == 0);
    gpt_free(g);
}

// ---------------------------------------------------------------------------------------------- counts

TEST_CASE("parameters and FLOPs of norms and MLP, by their formulas; the default MLP has GELU's size") {
    ModelConfig c = awkward_config(Position::rope);
    GPT g = gpt_plan(c, 1);
    const size_t C = size_t(c.C), F = size_t(c.F), L = size_t(c.L);
    const bool gelu = std::string(MLP_NAME) == "gelu", layernorm = std::string(NORM_NAME) == "layernorm";
    if (!gelu && std::string(MLP_NAME) != "swiglu") return;
    size_t mlp = 0, norms = 0;
    for (const Param& p : g.params) {
        if (p.spec.name.find(".mlp.") != std::string::npos) mlp += p.size;
        if (p.spec.name.find("ln_") != std::string::npos) norms += p.size;
    }
    CHECK(mlp == L * (gelu ? 2 * C * F + F + C : 3 * C * F));
    CHECK(norms == (2 * L + 1) * (layernorm ? 2 : 1) * C);
    const double attention = double(g.attention.macs_per_token) + double(c.NH) * (g.attention.d_qk + g.attention.d_v) * c.T;
    CHECK(flops_per_token(g) == 6 * (double(L) * (attention + double((gelu ? 2 : 3) * C * F)) + double(c.V) * double(C)));
    for (int width = 128; width <= 4096; width += 32) {
        c.C = width;
        const double theirs = 8.0 * width * width + 5.0 * width, f = mlp_default_width(c);
        CHECK(std::fabs((gelu ? 2 * width * f + f + width : 3 * width * f) / theirs - 1) < 0.015);
    }
}

// ---------------------------------------------------------------------------------------------- memory for time

TEST_CASE("recomputing GELU and layernorms in the backward changes no bit, and takes less memory") {
    backend_init(0);
    ModelConfig c = awkward_config(Position::rope);
    c.L = 3;
    std::vector<std::vector<floatM>> first;
    size_t bytes = SIZE_MAX;
    for (int recompute : {0, 1, 2}) {
        RunShape run{3};
        run.recompute = recompute;
        GPT g = gpt_allocate(c, run);
        init_for_test(g, 6);
        TestBatch b = random_batch(3, c.T, c.V, 8);
        backward(g, b);
        for (size_t i = 0; i < g.params.size(); i++) {
            std::vector<floatM> d = get_gradient(g, g.params[i]);
            if (recompute == 0) first.push_back(d);
            CHECK_MESSAGE(d == first[i], g.params[i].spec.name, " with --recompute ", recompute);
        }
        bool less = recompute == 0;                          // an MLP may have nothing to compute again
        for (const BufferSpec& b : block_saved(g.c)) less |= b.recompute == recompute;
        for (const NamedPart& part : g.parts)
            for (const BufferSpec& b : part.spec.saved) less |= b.recompute == recompute;
        CHECK(less == (planned_bytes(g) < bytes));
        bytes = planned_bytes(g);
        gpt_free(g);
    }
}
