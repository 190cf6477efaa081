// Loads, stores and asynchronous copies [PTX ISA 9.7.9: ld, ld.global.nc, st, cp.async]. An access of N
// numbers of T must be aligned to all of them together. Global memory is the host's; shared memory has a
// state for each byte (machine.h).
#include <cstring>

#include "test/ptx/forms.h"

// Of AddressSanitizer's run-time library, where the program is linked with it (malloc is its own then): 0, or
// the first byte of these that lies in no allocation.
extern "C" void* __asan_region_is_poisoned(void* begin, size_t bytes) __attribute__((weak));

namespace ptx {
int extra_cycles(const uint32_t* address, int n) {
    int most = 1;
    for (int k = 0; k < n; k++) {
        int here = 0;
        for (int j = 0; j < n; j++) {
            bool first = true;    // a chunk that two lanes read is read once
            for (int e = 0; e < j; e++) first = first && address[e] != address[j];
            here += first && address[j] / 16 % 8 == address[k] / 16 % 8;
        }
        most = here > most ? here : most;
    }
    return most - 1;
}

namespace {
template <class T>
constexpr char width_letter() {
    return sizeof(T) == 8 ? 'd' : sizeof(T) == 4 ? 'w' : 'g';
}

void check_global(const Warp& w, const Instruction& i, int lane, uint64_t at, size_t bytes) {
    if (at % bytes)
        fault(w, i, lane, "global address %#llx is not aligned to %zu bytes", (unsigned long long)at, bytes);
    if (at < 4096) fault(w, i, lane, "global address %#llx", (unsigned long long)at);
    if (__asan_region_is_poisoned && __asan_region_is_poisoned(reinterpret_cast<void*>(at), bytes))
        fault(w, i, lane, "%zu bytes at global address %#llx lie in no allocation", bytes, (unsigned long long)at);
}
// The place of shared address `at` in the block's array.
size_t shared_place(const Warp& w, const Instruction& i, int lane, uint32_t at, size_t bytes) {
    if (at % bytes) fault(w, i, lane, "shared address %u is not aligned to %zu bytes", at - SHARED_BASE, bytes);
    size_t place = size_t(at) - SHARED_BASE, size = w.block->shared.size();
    if (at < SHARED_BASE || place + bytes > size)
        fault(w, i, lane, "%zu bytes at %zd of %zu bytes of shared memory", bytes, ptrdiff_t(place), size);
    return place;
}
bool all_in(const unsigned char* state, size_t bytes, ByteState want) {
    for (size_t k = 0; k < bytes; k++)
        if (state[k] != want) return false;
    return true;
}
void check_readable(const Warp& w, const Instruction& i, int lane, size_t place, size_t bytes) {
    const unsigned char* state = w.block->state.data() + place;
    if (all_in(state, bytes, WRITTEN)) return;
    const char* why = memchr(state, PENDING, bytes) ? "are still being copied to (a cp.async without its wait)"
                                                    : "were never written";
    fault(w, i, lane, "%zu bytes at %zu of shared memory %s", bytes, place, why);
}
void check_writable(const Warp& w, const Instruction& i, int lane, size_t place, size_t bytes) {
    if (memchr(w.block->state.data() + place, PENDING, bytes))
        fault(w, i, lane, "%zu bytes at %zu of shared memory are still being copied to (a cp.async without its wait)",
              bytes, place);
}
// 16-byte accesses are served eight lanes at a time; their bank conflicts are counted.
void count_access(Warp& w, const uint32_t* place, Mask active) {
    for (int begin = 0; begin < LANES; begin += 8) {
        uint32_t address[8];
        int n = 0;
        for (Lanes m(active & 0xffu << begin); m; m.next()) address[n++] = place[m.lane];
        if (n == 0) continue;
        w.block->stats.access_phases++;
        w.block->stats.access_conflicts += uint64_t(extra_cycles(address, n));
    }
}

template <class T, int N, class To = T>
void load_global(Warp& w, const Instruction& i, Mask active) {
    const uint64_t* base = w.cells<uint64_t>(i.from[0]);
    for (Lanes m(active); m; m.next()) {
        uint64_t at = base[m.lane] + uint64_t(i.offset[0]);
        check_global(w, i, m.lane, at, N * sizeof(T));
        T values[N];
        memcpy(values, reinterpret_cast<const void*>(at), sizeof values);
        for (int n = 0; n < N; n++) w.cells<To>(i.to[n])[m.lane] = Cell<To>(values[n]);
    }
}
template <class T, int N>
void store_global(Warp& w, const Instruction& i, Mask active) {
    const uint64_t* base = w.cells<uint64_t>(i.from[0]);
    for (Lanes m(active); m; m.next()) {
        uint64_t at = base[m.lane] + uint64_t(i.offset[0]);
        check_global(w, i, m.lane, at, N * sizeof(T));
        T values[N];
        for (int n = 0; n < N; n++) values[n] = T(w.cells<T>(i.from[1 + n])[m.lane]);
        memcpy(reinterpret_cast<void*>(at), values, sizeof values);
    }
}
template <class T, int N, class To = T>
void load_shared(Warp& w, const Instruction& i, Mask active) {
    const uint32_t* base = w.cells<uint32_t>(i.from[0]);
    uint32_t places[LANES];
    for (Lanes m(active); m; m.next()) {
        size_t place = shared_place(w, i, m.lane, base[m.lane] + uint32_t(i.offset[0]), N * sizeof(T));
        check_readable(w, i, m.lane, place, N * sizeof(T));
        places[m.lane] = uint32_t(place);
        T values[N];
        memcpy(values, w.block->shared.data() + place, sizeof values);
        for (int n = 0; n < N; n++) w.cells<To>(i.to[n])[m.lane] = Cell<To>(values[n]);
    }
    if (N * sizeof(T) == 16) count_access(w, places, active);
}
template <class T, int N>
void store_shared(Warp& w, const Instruction& i, Mask active) {
    const uint32_t* base = w.cells<uint32_t>(i.from[0]);
    uint32_t places[LANES];
    for (Lanes m(active); m; m.next()) {
        size_t place = shared_place(w, i, m.lane, base[m.lane] + uint32_t(i.offset[0]), N * sizeof(T));
        check_writable(w, i, m.lane, place, N * sizeof(T));
        places[m.lane] = uint32_t(place);
        T values[N];
        for (int n = 0; n < N; n++) values[n] = T(w.cells<T>(i.from[1 + n])[m.lane]);
        memcpy(w.block->shared.data() + place, values, sizeof values);
        memset(w.block->state.data() + place, WRITTEN, sizeof values);
    }
    if (N * sizeof(T) == 16) count_access(w, places, active);
}
template <class T, int N, class To = T>
void load_parameter(Warp& w, const Instruction& i, Mask active) {
    size_t at = size_t(i.offset[0]);
    if (at % (N * sizeof(T)) || at + N * sizeof(T) > w.block->parameters.size())
        fault(w, i, lowest(active), "%zu bytes at %zu of %zu bytes of arguments", N * sizeof(T), at,
              w.block->parameters.size());
    T values[N];
    memcpy(values, w.block->parameters.data() + at, sizeof values);
    for (int n = 0; n < N; n++) {
        Cell<To> result[LANES];
        for (Cell<To>& r : result) r = Cell<To>(values[n]);
        store_lanes(w.cells<To>(i.to[n]), result, active);
    }
}

// cp.async: [shared], [global], 16 and, where given, how many bytes to read; the rest becomes zeros, and with
// none to read the global address may be anything.
void copy_async(Warp& w, const Instruction& i, Mask active) {
    const uint32_t* to = w.cells<uint32_t>(i.from[0]);
    const uint64_t* from = w.cells<uint64_t>(i.from[1]);
    const bool sized = i.from_count == 4;
    uint32_t places[LANES];
    for (Lanes m(active); m; m.next()) {
        const int l = m.lane;
        uint32_t bytes = w.cells<uint32_t>(i.from[2])[l], valid = sized ? w.cells<uint32_t>(i.from[3])[l] : bytes;
        if (bytes != 16 || valid > bytes)
            fault(w, i, l, "copies %u bytes, %u of them read: 16 and at most 16 are known", bytes, valid);
        size_t place = shared_place(w, i, l, to[l] + uint32_t(i.offset[0]), bytes);
        uint64_t at = from[l] + uint64_t(i.offset[1]);
        if (valid) check_global(w, i, l, at, bytes);
        check_writable(w, i, l, place, bytes);
        memset(w.block->state.data() + place, PENDING, bytes);
        places[l] = uint32_t(place);
        w.copies.push_back({l, uint32_t(place), at, bytes, valid, w.copy_group[l]});
    }
    count_access(w, places, active);
}
void commit_group(Warp& w, const Instruction&, Mask active) {
    for (Lanes m(active); m; m.next()) w.copy_group[m.lane]++;
}
void wait_group(Warp& w, const Instruction& i, Mask active) {
    finish_copies(w, active, w.cells<uint32_t>(i.from[0])[lowest(active)]);
}
void wait_all(Warp& w, const Instruction& i, Mask active) {
    commit_group(w, i, active);
    finish_copies(w, active, 0);
}

template <class T, int N>
void add_width(Forms& f, const std::string& type) {
    const std::string vector = N == 1 ? "" : N == 2 ? "v2." : "v4.", numbers(N, width_letter<T>());
    f["ld.global." + vector + type] = f["ld.global.nc." + vector + type] = {&load_global<T, N>, numbers + "=A"};
    f["st.global." + vector + type] = {&store_global<T, N>, "=A" + numbers};
    f["ld.shared." + vector + type] = {&load_shared<T, N>, numbers + "=S"};
    f["st.shared." + vector + type] = {&store_shared<T, N>, "=S" + numbers};
    f["ld.param." + vector + type] = {&load_parameter<T, N>, numbers + "=P"};
}
// A load into a 64-bit register extends the number by its type's sign (parse.cpp adds the word).
template <class T, class To>
void add_wide(Forms& f, const std::string& type) {
    f["ld.global." + type + ".wide"] = f["ld.global.nc." + type + ".wide"] = {&load_global<T, 1, To>, "d=A"};
    f["ld.shared." + type + ".wide"] = {&load_shared<T, 1, To>, "d=S"};
    f["ld.param." + type + ".wide"] = {&load_parameter<T, 1, To>, "d=P"};
}
template <class T>
void add_type(Forms& f, const std::string& type) {
    add_width<T, 1>(f, type);
    add_width<T, 2>(f, type);
    if (sizeof(T) < 8) add_width<T, 4>(f, type);
}
}    // namespace

void finish_copies(Warp& w, Mask lanes, uint32_t newest_groups_kept) {
    size_t kept = 0;
    for (PendingCopy& c : w.copies) {
        if (!(lanes >> c.lane & 1) || c.group + newest_groups_kept >= w.copy_group[c.lane]) {
            w.copies[kept++] = c;
            continue;
        }
        unsigned char* to = w.block->shared.data() + c.to;
        if (c.valid_bytes) memcpy(to, reinterpret_cast<const void*>(c.from), c.valid_bytes);
        memset(to + c.valid_bytes, 0, c.bytes - c.valid_bytes);
        memset(w.block->state.data() + c.to, WRITTEN, c.bytes);
    }
    w.copies.resize(kept);
}

void add_memory_forms(Forms& f) {
    add_type<uint8_t>(f, "u8");
    add_type<int8_t>(f, "s8");
    for (const char* t : {"u16", "b16"}) add_type<uint16_t>(f, t);
    add_type<int16_t>(f, "s16");
    for (const char* t : {"u32", "s32", "b32", "f32"}) add_type<uint32_t>(f, t);
    for (const char* t : {"u64", "s64", "b64", "f64"}) add_type<uint64_t>(f, t);
    add_wide<int32_t, int64_t>(f, "s32");
    add_wide<uint32_t, uint64_t>(f, "u32");
    f["cp.async.cg.shared.global"] = {&copy_async, "=SAww"};
    f["cp.async.cg.shared.global/3"] = {&copy_async, "=SAw"};
    f["cp.async.commit_group"] = {&commit_group, "="};
    f["cp.async.wait_group"] = {&wait_group, "=w"};
    f["cp.async.wait_all"] = {&wait_all, "="};
}
}    // namespace ptx
