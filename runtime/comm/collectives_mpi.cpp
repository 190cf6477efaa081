// Reduce-scatter, all-gather and all-reduce of tensors in host memory, by non-blocking messages between pairs of ranks. See comm.h.
//
// Direct exchange: piece r of every rank goes straight to rank r, which adds the N values in the order of tree_sum.h. An
// all-gather sends a rank's own piece to all others. Every rank sends (N-1)/N of the tensor and receives as much, the
// least there can be (Patarasuk and Yuan 2009). A ring moves as much, in N-1 dependent steps, but adds in ring order.
// A tensor is sent in chunks, a few at a time, so that the memory for arriving values is bounded however large the tensor.
// Only the oldest few requests move. As all ranks make them in the same order, the oldest one can always finish.
// MPI moves data only inside its calls (no progress thread), so comm_poll between layers and every wait advance all
// requests.
// Not for GPUs: collectives_nccl.cpp.
#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "runtime/comm/mpi.h"
#include "runtime/comm/tree_sum.h"

static constexpr size_t LARGEST_CHUNK = size_t(512) << 10;      // bytes of one message of values to add: added while in the L2 cache
static constexpr size_t SMALLEST_CHUNK = size_t(4) << 10;
static constexpr size_t GATHER_CHUNK = size_t(4) << 20;         // these go straight to their place
// Bytes for arriving values. More only if SMALLEST_CHUNK requires it (above 256 ranks).
static constexpr size_t ARRIVALS = size_t(8) << 20;
static constexpr int WINDOW = 4;                                // chunks of a request under way
static constexpr int MOVING = 2;                                // requests under way

enum class Phase { reduce, gather, done };
struct Chunk {                                                  // one chunk under way
    size_t index = 0;
    bool busy = false;
    std::vector<MPI_Request> arriving, leaving;                 // at most size - 1 each
    std::vector<char> values;                                   // reduce: (size - 1, chunk elements), by rank without us
};
struct Exchange {
    Phase phase;
    bool gather_after;                                          // all-reduce: both phases
    char* data;
    size_t total, piece, chunk;                                 // elements: all, of one rank (the last ones may have fewer), of one message
    Number type;
    const char* collective;
    std::string what;
    int tag;
    size_t chunks = 0, posted = 0, completed = 0;               // of the phase
    Chunk* under_way = nullptr;                                 // WINDOW of them, while it moves
};

static std::deque<Exchange> exchanges;                          // not done, oldest first
static CommRequest first_request = 0;                           // number of exchanges[0]
static Chunk slots[MOVING][WINDOW];
static std::vector<Chunk*> free_slots;

void tensors_start() {
    for (auto& row : slots) free_slots.push_back(row);
}
void tensors_finish() {
    for (auto& row : slots)
        for (Chunk& c : row) c = Chunk();
    free_slots.clear();
}
const char* tensors_name() { return "MPI"; }
void comm_start_devices() {}
bool comm_sums_by_tree() { return true; }

// ---------------------------------------------------------------------------------------------- one request
static size_t bytes_of(Number type) { return type == Number::f64 ? 8 : type == Number::f32 ? 4 : 2; }
static MPI_Datatype bytes_as(Number type) { return type == Number::f64 ? MPI_DOUBLE : type == Number::f32 ? MPI_FLOAT : MPI_UINT16_T; }

// Elements of rank r's piece that chunk `index` holds, and where they begin.
struct Span { size_t begin, length; };
static Span span_of(const Exchange& x, int r, size_t index) {
    const size_t begin = std::min(x.total, size_t(r) * x.piece), end = std::min(x.total, begin + x.piece);
    const size_t from = std::min(end, begin + index * x.chunk);
    return {from, std::min(x.chunk, end - from)};
}

static void begin_phase(Exchange& x, Phase phase) {
    const size_t room = ARRIVALS / (size_t(MOVING * WINDOW) * size_t(comm.size - 1));
    x.phase = phase;
    x.chunk = (phase == Phase::gather ? GATHER_CHUNK : std::clamp(room, SMALLEST_CHUNK, LARGEST_CHUNK)) / bytes_of(x.type);
    x.posted = x.completed = 0;
    x.chunks = ceil_div(x.piece, x.chunk);
}

// Every rank begins with another partner, so that not all of them send to the same one at once.
static void post_chunk(Exchange& x, Chunk& c, size_t index) {
    const size_t element = bytes_of(x.type);
    const MPI_Datatype type = bytes_as(x.type);
    const Span mine = span_of(x, comm.rank, index);
    c.index = index;
    c.busy = true;
    c.arriving.clear();
    c.leaving.clear();
    if (x.phase == Phase::reduce && c.values.size() < size_t(comm.size - 1) * x.chunk * element)
        c.values.resize(size_t(comm.size - 1) * x.chunk * element);
    for (int s = 1; s < comm.size; s++) {
        const int from = (comm.rank + comm.size - s) % comm.size;
        const Span arriving = x.phase == Phase::reduce ? mine : span_of(x, from, index);
        void* to = x.phase == Phase::reduce ? &c.values[size_t(from < comm.rank ? from : from - 1) * x.chunk * element]
                                            : x.data + arriving.begin * element;
        if (arriving.length) mpi_check(MPI_Irecv(to, int(arriving.length), type, from, x.tag, comm.tensors, &c.arriving.emplace_back()));
    }
    for (int s = 1; s < comm.size; s++) {
        const int to = (comm.rank + s) % comm.size;
        const Span leaving = x.phase == Phase::reduce ? span_of(x, to, index) : mine;
        if (leaving.length)
            mpi_check(MPI_Isend(x.data + leaving.begin * element, int(leaving.length), type, to, x.tag, comm.tensors,
                                &c.leaving.emplace_back()));
    }
}

template <class T> static void add_arrived(const Exchange& x, const Chunk& c) {
    const Span mine = span_of(x, comm.rank, c.index);
    T* own = reinterpret_cast<T*>(x.data) + mine.begin;
    std::vector<const T*> parts;
    for (int r = 0; r < comm.size; r++)
        parts.push_back(r == comm.rank ? own : reinterpret_cast<const T*>(c.values.data()) + size_t(r < comm.rank ? r : r - 1) * x.chunk);
    tree_sum(own, parts.data(), comm.size, mine.length);
}

static bool all_complete(std::vector<MPI_Request>& requests) {
    int complete = 1;
    if (!requests.empty()) mpi_check(MPI_Testall(int(requests.size()), requests.data(), &complete, MPI_STATUSES_IGNORE));
    if (complete) requests.clear();
    return complete != 0;
}

// Adds what has arrived, posts what follows. Returns whether anything happened.
static bool advance(Exchange& x) {
    bool moved = false;
    for (int w = 0; w < WINDOW; w++) {
        Chunk& c = x.under_way[w];
        if (!c.busy) continue;
        if (!c.arriving.empty() && all_complete(c.arriving)) {
            moved = true;
            if (x.phase == Phase::reduce && x.type == Number::f64) add_arrived<double>(x, c);
            if (x.phase == Phase::reduce && x.type == Number::f32) add_arrived<float>(x, c);
        }
        if (c.arriving.empty() && all_complete(c.leaving)) {
            c.busy = false;
            x.completed++;
            moved = true;
        }
    }
    for (int w = 0; w < WINDOW && x.posted < x.chunks; w++) {
        Chunk& c = x.under_way[w];
        if (c.busy) continue;
        post_chunk(x, c, x.posted++);
        moved = true;
    }
    if (x.completed == x.chunks) {
        moved = true;
        if (x.phase == Phase::reduce && x.gather_after) begin_phase(x, Phase::gather);
        else x.phase = Phase::done;
    }
    return moved;
}

void tensors_advance() {
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < exchanges.size(); i++) {
            Exchange& x = exchanges[i];
            if (x.phase == Phase::done) continue;
            if (!x.under_way) {
                if (free_slots.empty()) break;
                x.under_way = free_slots.back();
                free_slots.pop_back();
            }
            if (!advance(x)) continue;
            moved = true;
            comm.progress++;
            if (x.phase == Phase::done) free_slots.push_back(x.under_way);
        }
    }
    for (; !exchanges.empty() && exchanges.front().phase == Phase::done; first_request++) exchanges.pop_front();
}

bool tensors_oldest(std::string& collective, std::string& what) {
    if (exchanges.empty()) return false;
    collective = exchanges.front().collective;
    what = exchanges.front().what;
    return true;
}

// ---------------------------------------------------------------------------------------------- requests
static CommRequest start(const char* collective, Phase phase, bool gather_after, void* data, size_t total, size_t piece,
                         Number type, const char* what) {
    if (comm.size == 1 || total == 0) return -1;
    ensure(phase == Phase::gather || type != Number::bf16, "%s of %s: sums are made of f32 or f64, not of bf16", collective, what);
    Exchange x;
    x.gather_after = gather_after;
    x.data = static_cast<char*>(data);
    x.total = total;
    x.piece = piece;
    x.type = type;
    x.collective = collective;
    x.what = what;
    const CommRequest request = first_request + CommRequest(exchanges.size());
    x.tag = request % 32768;                                    // the least that MPI_TAG_UB may be is 32767
    begin_phase(x, phase);
    exchanges.push_back(std::move(x));
    tensors_advance();
    return request;
}
CommRequest comm_reduce_scatter(void* data, size_t piece, Number type, const char* what) {
    return start("reduce-scatter", Phase::reduce, false, data, piece * size_t(comm.size), piece, type, what);
}
CommRequest comm_all_gather(void* data, size_t piece, Number type, const char* what) {
    return start("all-gather", Phase::gather, false, data, piece * size_t(comm.size), piece, type, what);
}
CommRequest comm_all_reduce(void* data, size_t n, Number type, const char* what) {
    return start("all-reduce", Phase::reduce, true, data, n, ceil_div(n, size_t(comm.size)), type, what);
}

void comm_wait(CommRequest& request) {
    if (request >= first_request && size_t(request - first_request) < exchanges.size()) {
        const Exchange x = exchanges[size_t(request - first_request)];       // its name, for the message
        wait_until(
            [&] { return request < first_request || exchanges[size_t(request - first_request)].phase == Phase::done; },
            x.collective, x.what.c_str());
    }
    request = -1;
}
void comm_poll() {
    if (comm.size == 1) return;
    tensors_advance();
    answer_roll_call();
}
