// The PTX interpreter's own tests, on small PTX written by hand: each group of instructions, and that it
// finds what it must (test/ptx/ptx.h lists that). The kernels themselves: `make ptx-check`.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "runtime/device/bf16.h"
#include "runtime/run/error.h"
#include "test/ptx/ptx.h"

namespace {
// A kernel k(in, out, n): %in, %out: addresses, %n: an int, %t: the thread, %mine: out + 4 t. The body is
// what is tested.
std::string source(const std::string& body, const std::string& shared = "") {
    return ".version 9.0\n.target sm_90\n.address_size 64\n.extern .shared .align 1024 .b8 dyn_smem[];\n"
           ".visible .entry k(\n.param .u64 k_param_0,\n.param .u64 k_param_1,\n.param .u32 k_param_2\n)\n.maxntid "
           "256, 1, 1\n{\n"
           ".reg .pred %p<9>;\n.reg .b16 %h<9>;\n.reg .b32 %r<40>;\n.reg .f32 %f<20>;\n.reg .b64 %rd<9>;\n.reg .f64 "
           "%fd<9>;\n"
           ".reg .b64 %in;\n.reg .b64 %out;\n.reg .b64 %mine;\n.reg .b32 %n;\n.reg .b32 %t;\n" +
           shared +
           "ld.param.u64 %in, [k_param_0];\nld.param.u64 %out, [k_param_1];\nld.param.u32 %n, [k_param_2];\n"
           "mov.u32 %t, %tid.x;\nmul.wide.u32 %mine, %t, 4;\nadd.s64 %mine, %mine, %out;\n" +
           body + "\nret;\n}\n";
}
struct Options {
    unsigned threads = 32, blocks = 1;
    size_t smem = 0;
    ptx::Order order = ptx::Order::forward;
    std::string shared = {};
};

std::vector<uint32_t> run(const std::string& body, std::vector<uint32_t> in, int n, const Options& o = {}) {
    const ptx::Module m = ptx::module_of("hand.ptx", source(body, o.shared));
    REQUIRE(m.entries.size() == 1);
    const ptx::Kernel kernel = ptx::parse_kernel(m, m.entries[0]);
    std::vector<uint32_t> out(std::max(256u, o.threads * o.blocks));
    in.resize(std::max<size_t>(in.size(), 256));
    alignas(16) static uint32_t aligned[4096];    // ld.v4 and cp.async need 16 bytes
    memcpy(aligned, in.data(), in.size() * 4);
    const uint32_t* from = aligned;
    uint32_t* to = out.data();
    ptx::Launch launch{.grid = {o.blocks},
                       .block = {o.threads},
                       .dynamic_shared = o.smem,
                       .arguments = {&from, &to, &n},
                       .sizes = {8, 8, 4},
                       .order = o.order,
                       .seed = 3};
    ptx::run(kernel, launch);
    return out;
}
std::string error_of(const std::string& body, const Options& o = {}) {
    try {
        run(body, {}, 5, o);
    } catch (const Error& e) { return e.what(); }
    return "no error";
}
#define CHECK_ERROR(part, ...)                       \
    do {                                             \
        const std::string e = error_of(__VA_ARGS__); \
        INFO(e);                                     \
        CHECK(e.find(part) != std::string::npos);    \
    } while (0)

uint32_t bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
float number(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}
// The bits that one thread's code leaves in %r0, for operands in %r1, %r2, %r3.
uint32_t value(const std::string& code, uint32_t a, uint32_t b = 0, uint32_t c = 0) {
    return run("ld.global.u32 %r1, [%in];\nld.global.u32 %r2, [%in+4];\nld.global.u32 %r3, [%in+8];\n" + code +
                   "\nst.global.u32 [%mine], %r0;",
               {a, b, c}, 0, {.threads = 1})[0];
}
float float_value(const std::string& code, float a, float b = 0, float c = 0) {
    return number(value("mov.b32 %f1, %r1;\nmov.b32 %f2, %r2;\nmov.b32 %f3, %r3;\n" + code + "\nmov.b32 %r0, %f0;",
                        bits(a), bits(b), bits(c)));
}
const char* ADDRESS =
    "shl.b32 %r9, %t, 4;\nmov.u32 %r8, dyn_smem;\nadd.s32 %r8, %r8, %r9;\ncvt.u64.u32 %rd1, %r9;\nadd.s64 %rd1, %rd1, "
    "%in;\n";
}    // namespace

TEST_CASE("ptx: integers") {
    CHECK(value("add.s32 %r0, %r1, %r2;", 0xffffffff, 3) == 2);
    CHECK(value("sub.s32 %r0, %r1, 7;", 3) == uint32_t(-4));
    CHECK(value("mad.lo.s32 %r0, %r1, %r2, %r3;", 7, uint32_t(-3), 1) == uint32_t(-20));
    CHECK(value("mul.hi.s32 %r0, %r1, %r2;", uint32_t(-2), 5) == 0xffffffff);
    CHECK(value("mul.wide.s32 %rd1, %r1, %r2;\nshr.u64 %rd1, %rd1, 8;\ncvt.u32.u64 %r0, %rd1;", uint32_t(-256), 3) ==
          uint32_t(-3));
    CHECK(value("div.s32 %r0, %r1, %r2;", uint32_t(-7), 2) == uint32_t(-3));
    CHECK(value("div.u32 %r0, %r1, %r2;", uint32_t(-7), 2) == 0x7ffffffc);
    CHECK(value("rem.s32 %r0, %r1, %r2;", uint32_t(-7), 2) == uint32_t(-1));
    CHECK(value("shr.s32 %r0, %r1, %r2;", 0x80000000, 40) == 0xffffffff);
    CHECK(value("shr.u32 %r0, %r1, %r2;", 0x80000000, 31) == 1);
    CHECK(value("shl.b32 %r0, %r1, %r2;", 1, 32) == 0);
    CHECK(value("bfi.b32 %r0, %r1, %r2, 16, 16;", 0x1234, 0xabcd5678) == 0x12345678);
    CHECK(value("min.s32 %r0, %r1, %r2;", uint32_t(-1), 1) == uint32_t(-1));
    CHECK(value("min.u32 %r0, %r1, %r2;", uint32_t(-1), 1) == 1);
    CHECK(
        value(
            "setp.lt.s32 %p1, %r1, %r2;\nsetp.lt.u32 %p2, %r1, %r2;\nxor.pred %p3, %p1, %p2;\nselp.u32 %r0, 5, 6, %p3;",
            uint32_t(-1), 1) == 5);
    CHECK(value("mov.b32 {%h1, %h2}, %r1;\nmov.b32 %r0, {%h2, %h1};", 0x12345678) == 0x56781234);
    CHECK(value("cvt.s64.s32 %rd1, %r1;\nshr.u64 %rd1, %rd1, 32;\ncvt.u32.u64 %r0, %rd1;", 0x80000000) == 0xffffffff);
}

TEST_CASE("ptx: floats, their rounding, denormals and NaNs") {
    const float tiny = 1e-40f, nan = NAN, third = 1.0f / 3;
    CHECK(float_value("fma.rn.ftz.f32 %f0, %f1, %f2, %f3;", third, 3.0f, -1.0f) == std::fma(third, 3.0f, -1.0f));
    CHECK(float_value("mul.ftz.f32 %f0, %f1, %f2;\nadd.ftz.f32 %f0, %f0, %f3;", third, 3.0f, -1.0f) == 0.0f);
    CHECK(float_value("fma.rm.ftz.f32 %f0, %f1, 0f3F800000, %f2;", 1.0f, -0x1p-30f) == std::nextafter(1.0f, 0.0f));
    CHECK(float_value("fma.rn.ftz.f32 %f0, %f1, 0f3F800000, %f2;", 1.0f, -0x1p-30f) == 1.0f);
    CHECK(float_value("add.ftz.f32 %f0, %f1, %f2;", tiny, 0.0f) == 0.0f);
    CHECK(float_value("add.f32 %f0, %f1, %f2;", tiny, 0.0f) == tiny);
    CHECK(bits(float_value("mul.ftz.f32 %f0, %f1, %f2;", -1e-20f, 1e-20f)) == 0x80000000);
    CHECK(bits(float_value("sub.ftz.f32 %f0, %f1, %f2;", INFINITY, INFINITY)) == 0x7fffffff);
    CHECK(float_value("max.ftz.f32 %f0, %f1, %f2;", nan, -2.0f) == -2.0f);
    CHECK(bits(float_value("max.ftz.f32 %f0, %f1, %f2;", -0.0f, 0.0f)) == 0);
    CHECK(float_value("div.rn.ftz.f32 %f0, %f1, %f2;", 1.0f, 3.0f) == third);
    CHECK(float_value("ex2.approx.ftz.f32 %f0, %f1;", -1.5f) == float(std::exp2(-1.5)));
    CHECK(float_value("ex2.approx.ftz.f32 %f0, %f1;", -INFINITY) == 0.0f);
    CHECK(float_value("ex2.approx.ftz.f32 %f0, %f1;", -130.0f) == 0.0f);
    CHECK(float_value("rsqrt.approx.ftz.f32 %f0, %f1;", 4.0f) == 0.5f);
    CHECK(float_value("cvt.ftz.sat.f32.f32 %f0, %f1;", nan) == 0.0f);
    CHECK(float_value("cvt.ftz.sat.f32.f32 %f0, %f1;", 1.5f) == 1.0f);
    CHECK(float_value("cvt.rn.f32.s32 %f0, %r1;", number(uint32_t(-5))) == -5.0f);
    CHECK(value("mov.b32 %f1, %r1;\nsetp.lt.ftz.f32 %p1, %f1, %f1;\nsetp.geu.ftz.f32 %p2, %f1, %f1;\nand.pred %p3, "
                "%p1, %p2;\n"
                "selp.u32 %r4, 1, 0, %p2;\nselp.u32 %r0, 9, %r4, %p1;",
                bits(nan)) == 1);
    for (int moved : {0, 2}) {    // the approximate ones, as far off as a GPU's may be
        ptx::approximate_ulp = moved;
        int off = 0;
        for (float x : {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f, 0.8f}) {
            int ulp = int(bits(float_value("ex2.approx.ftz.f32 %f0, %f1;", x)) - bits(float(std::exp2(double(x)))));
            CHECK(std::abs(ulp) <= moved);
            off += ulp != 0;
        }
        CHECK((off > 0) == (moved > 0));
    }
    ptx::approximate_ulp = 0;
}

TEST_CASE("ptx: bf16 rounds to nearest even, and the first operand goes to the upper half") {
    for (uint32_t u : {0x3f800000u, 0x3f808000u, 0x3f818000u, 0x3f808001u, 0x3f817fffu, 0x7f7fffffu, 0xff800000u,
                       0x00000001u, 0x80018000u}) {
        const uint32_t want = float_to_bf16_bits(number(u));
        CHECK(value("mov.b32 %f1, %r1;\nmov.b32 %f2, %r2;\n{ cvt.rn.bf16x2.f32 %r0, %f1, %f2;}", u, bits(1.0f)) ==
              (want << 16 | 0x3f80));
        CHECK(value("mov.b32 %f1, %r1;\ncvt.rn.bf16.f32 %h1, %f1;\nmov.b32 %r0, {%h1, 0};", u) == want);
    }
    CHECK(value("mov.b32 %f1, %r1;\ncvt.rn.bf16.f32 %h1, %f1;\nmov.b32 %r0, {%h1, 0};", 0x7f800001) == 0x7fff);
}

TEST_CASE("ptx: lanes part at branches and meet again; loops of different lengths") {
    const std::string loop =
        "mov.u32 %r1, 0;\nmov.u32 %r2, 0;\n$loop:\nsetp.ge.u32 %p1, %r1, %t;\n@%p1 bra $end;\nadd.s32 %r2, %r2, %r1;\n"
        "add.s32 %r1, %r1, 1;\nbra.uni $loop;\n$end:\nst.global.u32 [%mine], %r2;";
    const std::vector<uint32_t> sums = run(loop, {}, 0, {.threads = 70});
    for (uint32_t t = 0; t < 70; t++) CHECK(sums[t] == (t ? t * (t - 1) / 2 : 0));
    // Half of the lanes take another way to the shuffle: it waits for them.
    const std::string parted =
        "setp.lt.u32 %p1, %t, 16;\nmov.u32 %r1, 100;\n@!%p1 bra $low;\nmov.u32 %r1, %t;\n$low:\n"
        "shfl.sync.bfly.b32 %r2|%p2, %r1, 16, 31, -1;\nst.global.u32 [%mine], %r2;";
    const std::vector<uint32_t> met = run(parted, {}, 0);
    for (uint32_t t = 0; t < 32; t++) CHECK(met[t] == (t < 16 ? 100 : t - 16));
    CHECK(run("setp.gt.u32 %p1, %t, 3;\n@%p1 ret;\nst.global.u32 [%mine], 7;", {}, 0)[4] == 0);
}

TEST_CASE("ptx: shuffles and votes") {
    auto shuffled = [](const std::string& operands) {
        return run("shfl.sync." + operands + ";\nst.global.u32 [%mine], %r1;", {}, 0);
    };
    const auto up = shuffled("up.b32 %r1|%p1, %t, 3, 0, -1"), down = shuffled("down.b32 %r1, %t, 2, 31, -1");
    const auto part = shuffled("down.b32 %r1, %t, 2, 7199, -1"),
               one = shuffled("idx.b32 %r1, %t, 9, 6175, -1");    // widths 4 and 8
    for (uint32_t t = 0; t < 32; t++) {
        CHECK(up[t] == (t < 3 ? t : t - 3));
        CHECK(down[t] == (t > 29 ? t : t + 2));
        CHECK(part[t] == (t % 4 > 1 ? t : t + 2));
        CHECK(one[t] == t / 8 * 8 + 1);
    }
    const std::string votes =
        "and.b32 %r1, %t, 1;\nsetp.eq.s32 %p1, %r1, 1;\nvote.sync.ballot.b32 %r2, %p1, -1;\nvote.sync.any.pred %p2, "
        "%p1, -1;\n"
        "vote.sync.all.pred %p3, %p1, -1;\nselp.u32 %r3, 1, 0, %p2;\nselp.u32 %r4, 1, 0, %p3;\nadd.s32 %r2, %r2, %r3;\n"
        "sub.s32 %r2, %r2, %r4;\nst.global.u32 [%mine], %r2;";
    CHECK(run(votes, {}, 0)[7] == 0xaaaaaaab);
    CHECK_ERROR("which takes no part",
                "setp.gt.u32 %p1, %t, 7;\n@%p1 bra $end;\nshfl.sync.idx.b32 %r1, %t, 20, 31, 255;\n$end:");
    CHECK_ERROR("not in its own mask", "shfl.sync.idx.b32 %r1, %t, 2, 31, 255;");
    CHECK_ERROR("have exited", "setp.gt.u32 %p1, %t, 7;\n@%p1 ret;\nshfl.sync.idx.b32 %r1, %t, 2, 31, -1;");
    CHECK_ERROR(
        "waits for ever",
        "setp.gt.u32 %p1, %t, 7;\n@%p1 bra $other;\nshfl.sync.idx.b32 %r1, %t, 2, 31, -1;\n$other:\nbar.sync 0;");
}

TEST_CASE("ptx: barriers of a block, and between two of its warps") {
    // Each thread reads what the last one wrote.
    const std::string body =
        "shl.b32 %r1, %t, 2;\nmov.u32 %r2, dyn_smem;\nadd.s32 %r3, %r2, %r1;\nst.shared.u32 [%r3], %t;\nBARRIER"
        "sub.s32 %r4, 508, %r1;\nadd.s32 %r4, %r4, %r2;\nld.shared.u32 %r5, [%r4];\nst.global.u32 [%mine], %r5;";
    auto with = [&](const std::string& barrier) {
        std::string s = body;
        return s.replace(s.find("BARRIER"), 7, barrier);
    };
    for (ptx::Order order : {ptx::Order::forward, ptx::Order::reverse, ptx::Order::random}) {
        const Options o{.threads = 128, .smem = 512, .order = order};
        const std::vector<uint32_t> got = run(with("bar.sync 0;\n"), {}, 0, o);
        for (uint32_t t = 0; t < 128; t++) CHECK(got[t] == 127 - t);
        CHECK_ERROR("were never written", with(""), o);
        const std::string hand_over =
            "shl.b32 %r1, %t, 2;\nmov.u32 %r2, dyn_smem;\nadd.s32 %r3, %r2, %r1;\nsetp.lt.u32 %p1, %t, 32;\n"
            "@!%p1 bra $use;\nst.shared.u32 [%r3], 77;\nbar.arrive 1, 64;\nret;\n$use:\nbar.sync 1, 64;\n"
            "ld.shared.u32 %r5, [%r3+-128];\nst.global.u32 [%mine], %r5;";
        CHECK(run(hand_over, {}, 0, {.threads = 64, .smem = 256, .order = order})[40] == 77);
    }
    CHECK_ERROR("have exited before the barrier", "setp.eq.s32 %p1, %t, 3;\n@%p1 ret;\nbar.sync 0;");
    CHECK_ERROR("not all threads reach", "setp.gt.u32 %p1, %t, 31;\n@%p1 ret;\nbar.sync 0;", {.threads = 64});
    CHECK_ERROR("others wait for", "setp.gt.u32 %p1, %t, 31;\nselp.u32 %r1, 64, 96, %p1;\nbar.sync 2, %r1;",
                {.threads = 64});
    CHECK_ERROR("waits for ever: lane", "setp.gt.u32 %p1, %t, 7;\n@%p1 bra $b;\nbar.sync 0;\nret;\n$b:\nbar.sync 0;");
}

TEST_CASE("ptx: memory of every width, alignment, bounds, what was never written") {
    const std::string widths =
        "ld.global.v2.u32 {%r1, %r2}, [%in];\nld.global.u16 %h1, [%in+2];\nld.global.u64 %rd1, [%in+8];\nmov.u32 %r8, "
        "dyn_smem;\n"
        "st.shared.v2.u32 [%r8+8], {%r2, %r1};\nst.shared.u16 [%r8], %h1;\nst.shared.u16 [%r8+2], %h1;\nld.shared.u32 "
        "%r3, [%r8];\n"
        "ld.shared.u64 %rd2, [%r8+8];\nxor.b64 %rd3, %rd1, %rd2;\nshr.u64 %rd3, %rd3, 32;\ncvt.u32.u64 %r4, %rd3;\n"
        "ld.global.s32 %rd4, [%in+4];\nshr.u64 %rd4, %rd4, 32;\ncvt.u32.u64 %r6, %rd4;\nadd.s32 %r4, %r4, %r6;\n"
        "xor.b32 %r5, %r4, %r3;\nst.global.u32 [%mine], %r5;";
    CHECK(run(widths, {0x11112222, 0x80000005, 3, 0x1000}, 0, {.threads = 1, .smem = 64})[0] ==
          (((0x1000u ^ 0x11112222u) - 1) ^ 0x11111111u));
    CHECK_ERROR("not aligned to 16 bytes", "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%in+8];");
    CHECK_ERROR("not aligned to 8 bytes", "mov.u32 %r8, dyn_smem;\nst.shared.v2.u32 [%r8+4], {%t, %t};", {.smem = 64});
    CHECK_ERROR("of 64 bytes of shared memory", "mov.u32 %r8, dyn_smem;\nst.shared.u32 [%r8+64], %t;", {.smem = 64});
    CHECK_ERROR("of 64 bytes of shared memory", "st.shared.u32 [0], %t;", {.smem = 64});
    CHECK_ERROR("never written", "mov.u32 %r8, dyn_smem;\nld.shared.u32 %r1, [%r8];", {.smem = 64});
    CHECK_ERROR("of 20 bytes of arguments", "ld.param.u32 %r1, [k_param_2+4];");
    CHECK_ERROR("global address", "mov.u64 %rd1, 0;\nld.global.u32 %r1, [%rd1];");
    const std::string own = ".shared .align 4 .b8 mine[100];\n";    // dynamic memory begins behind it
    CHECK(run("mov.u32 %r1, mine;\nmov.u32 %r2, dyn_smem;\nsub.s32 %r3, %r2, %r1;\nst.global.u32 [%mine], %r3;", {}, 0,
              {.shared = own})[0] == 1024);
    const std::string e = error_of("ld.global.u32 %r1, [%in+2];", {.threads = 40});
    CHECK(e.find("k (hand.ptx:") != std::string::npos);
    CHECK(e.find("thread (0,0,0)") != std::string::npos);
}

TEST_CASE("ptx: a cp.async arrives at its wait, and a missing wait is seen") {
    const std::string copy = std::string(ADDRESS) +
                             "cp.async.cg.shared.global [%r8], [%rd1], 16, %n;\ncp.async.commit_group;\nWAIT"
                             "ld.shared.u32 %r1, [%r8+12];\nst.global.u32 [%mine], %r1;";
    auto with = [&](const std::string& wait) {
        std::string s = copy;
        return s.replace(s.find("WAIT"), 4, wait);
    };
    std::vector<uint32_t> in(128);
    for (uint32_t k = 0; k < 128; k++) in[k] = 1000 + k;
    CHECK(run(with("cp.async.wait_group 0;\n"), in, 16, {.smem = 512})[5] == 1023);
    CHECK(run(with("cp.async.wait_group 0;\n"), in, 8, {.smem = 512})[5] == 0);    // 8 bytes, the rest zeros
    CHECK(run(with("cp.async.wait_group 0;\n"), in, 0, {.smem = 512})[5] == 0);
    CHECK_ERROR("cp.async without its wait", with(""), {.smem = 512});
    CHECK_ERROR("cp.async without its wait", with("cp.async.wait_group 1;\n"), {.smem = 512});
    CHECK_ERROR("cp.async without its wait", with("cp.async.cg.shared.global [%r8], [%rd1], 16, 16;\n"), {.smem = 512});
    CHECK_ERROR("not aligned to 16 bytes", std::string(ADDRESS) + "cp.async.cg.shared.global [%r8+4], [%rd1], 16, 16;",
                {.smem = 1024});
}

TEST_CASE("ptx: ldmatrix and mma give a plain product; partial warps are refused") {
    // Row-major A (16 x 16) and B^T (8 x 16) in shared memory by cp.async; ldmatrix as the kernels use it.
    const std::string product = std::string(ADDRESS) + R"(
        cp.async.cg.shared.global [%r8], [%rd1], 16;
        cp.async.cg.shared.global [%r8+512], [%rd1+512], 16;
        cp.async.wait_all;
        bar.warp.sync -1;
        mov.u32 %r20, dyn_smem;
        rem.u32 %r1, %t, 16; div.u32 %r2, %t, 16; shl.b32 %r1, %r1, 5; shl.b32 %r2, %r2, 4;
        add.s32 %r3, %r20, %r1; add.s32 %r3, %r3, %r2;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r3];
        rem.u32 %r1, %t, 8; shl.b32 %r1, %r1, 5; div.u32 %r2, %t, 8; and.b32 %r2, %r2, 1; shl.b32 %r2, %r2, 4;
        add.s32 %r3, %r20, %r1; add.s32 %r3, %r3, %r2;
        ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r14, %r15}, [%r3+512];
        mov.f32 %f4, 0f3F800000;
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
            {%f0, %f1, %f2, %f3}, {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f4, %f4, %f4, %f4};
        rem.u32 %r1, %t, 4; div.u32 %r2, %t, 4; shl.b32 %r2, %r2, 5; shl.b32 %r1, %r1, 3; add.s32 %r1, %r1, %r2;
        cvt.u64.u32 %rd2, %r1; add.s64 %rd2, %rd2, %out;
        st.global.f32 [%rd2], %f0; st.global.f32 [%rd2+4], %f1;
        st.global.f32 [%rd2+256], %f2; st.global.f32 [%rd2+260], %f3;)";
    std::vector<uint32_t> in(256);
    std::vector<bf16> a(256), b(128);
    for (size_t k = 0; k < 256; k++) a[k] = bf16(float(int(k * 7 % 23) - 11));
    for (size_t k = 0; k < 128; k++) b[k] = bf16(float(int(k * 5 % 17) - 8));
    memcpy(in.data(), a.data(), 512);
    memcpy(in.data() + 128, b.data(), 256);
    const std::vector<uint32_t> got = run(product, in, 0, {.smem = 1024});
    for (size_t row = 0; row < 16; row++)
        for (size_t column = 0; column < 8; column++) {
            float want = 1;
            for (size_t k = 0; k < 16; k++) want += float(a[row * 16 + k]) * float(b[column * 16 + k]);
            CHECK(number(got[row * 8 + column]) == want);
        }
    // .trans: lane l gets (2 (l % 4), l / 4) and the element below.
    const std::string transposed =
        std::string(ADDRESS) +
        "cp.async.cg.shared.global [%r8], [%rd1], 16;\ncp.async.wait_all;\n"
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r1, %r2, %r3, %r4}, [%r8];\nst.global.u32 [%mine], %r3;";
    std::vector<uint32_t> matrices(128);
    for (uint32_t k = 0; k < 256; k++) matrices[k / 2] |= k << 16 * (k % 2);
    const std::vector<uint32_t> of = run(transposed, matrices, 0, {.smem = 512});
    for (uint32_t l = 0; l < 32; l++) {
        const uint32_t first = 128 + 2 * (l % 4) * 8 + l / 4;
        CHECK(of[l] == (first | (first + 8) << 16));
    }
    CHECK_ERROR("not all 32 lanes", transposed, {.threads = 24, .smem = 512});
    CHECK_ERROR("not aligned to 16 bytes", "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [8];", {.smem = 512});
}

TEST_CASE("ptx: what is not known, or not right, is an error") {
    CHECK_ERROR("unknown instruction popc.b32", "popc.b32 %r1, %t;");
    CHECK_ERROR("unknown instruction ld.global.v8.f32", "ld.global.v8.f32 {%f1, %f2}, [%in];");
    CHECK_ERROR("unknown instruction mma.sync.aligned.m16n8k8",
                "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r1}, {%f1};");
    CHECK_ERROR("unknown instruction atom", "atom.global.add.f32 %f1, [%in], %f1;");
    CHECK_ERROR("unknown register %r99", "add.s32 %r99, %t, 1;");
    CHECK_ERROR("another size", "add.s32 %rd1, %t, 1;");
    CHECK_ERROR("another size", "add.s64 %rd1, %rd1, %t;");
    CHECK_ERROR("too many operands", "add.s32 %r1, %t, 1, 2;");
    CHECK_ERROR("needs more operands", "add.s32 %r1, %t;");
    CHECK_ERROR("unknown label", "bra $nowhere;");
    CHECK_ERROR("unknown directive", ".local .align 4 .b8 depot[4];");
    CHECK_ERROR("never written", "add.s32 %r1, %r2, 1;");
    CHECK_ERROR("never written", "setp.gt.u32 %p1, %t, 7;\n@%p1 mov.u32 %r2, 1;\nadd.s32 %r1, %r2, 1;");
    CHECK_ERROR("predicate was never written", "@%p1 mov.u32 %r2, 1;");
    CHECK_ERROR("launched with 512 threads", "", {.threads = 512});
    CHECK_ERROR("the lanes do not agree", "setp.gt.u32 %p1, %t, 7;\n@%p1 bra.uni $x;\n$x:");
}
