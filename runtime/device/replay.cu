// Work that repeats, recorded once as a CUDA graph and replayed: device_repeat (backend.h), for models so small that
// launching their kernels one by one (about 2.5 us each on the host) takes longer than the kernels themselves.
//
//   first time     launched one by one: algorithms are chosen, and the launches are counted
//   second time    recorded (stream capture), made executable, launched: one call for all of it
//   from then on   replayed: the host code runs as always, but its launches are compared with the recorded ones instead
//                  of made. What differs in an argument, or in where a copy comes from, is changed in the executable
//                  graph; then that is launched. If anything else differs, it is recorded anew.
//
// So no value can be baked in: the learning rate, the step's number, the seeds of the rounding and the tokens reach the
// graph the way they reach the kernels otherwise, and no layer knows of graphs. The host's code still runs, tens of
// nanoseconds a launch; what is saved is the launches. The bits are the same: the same kernels in the same order with the
// same arguments.
// The work may run twice in one repetition (a replay that fails is followed by a recording): it must do nothing but queue.
// It must not wait for the device, nor allocate. One process only: a rank's collectives would have to be recorded too.
// Under BACKEND=emu the recording is a list, so that all of this but the calls of CUDA itself runs in the tests; those run
// on a stand-in (test/fakes/fake_cudart.cpp).
#include "runtime/device/replay.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "layers/cuda_common.cuh"
#include "runtime/device/backend.h"

namespace {
using Bytes = std::vector<unsigned char>;
template <class T> void add(Bytes& to, const T& value) {
    const auto* p = reinterpret_cast<const unsigned char*>(&value);
    to.insert(to.end(), p, p + sizeof value);
}

// ---------------------------------------------------------------------------------------------- the graph
#if defined(BACKEND_EMU)
struct Node {                                    // a kernel with its arguments, or a copy, or zeros
    KernelCall call;
    std::vector<Bytes> arguments;
    void* device = nullptr;
    const void* from = nullptr;
    size_t bytes = 0;

    void set(const KernelCall& c) {
        call = c;
        arguments.clear();
        for (int i = 0; c.sizes[i]; i++) {
            const auto* p = static_cast<const unsigned char*>(c.arguments[i]);
            arguments.emplace_back(p, p + c.sizes[i]);
        }
    }
    void run() {
        if (!call.run) return void(from ? memcpy(device, from, bytes) : memset(device, 0, bytes));
        std::vector<void*> pointers;
        for (Bytes& a : arguments) pointers.push_back(a.data());
        call.arguments = pointers.data();
        call.run(call);
    }
};
using NodeId = size_t;
struct Graph { std::vector<Node> nodes; };

void graph_begin(Graph& g) { g.nodes.clear(); }
NodeId graph_kernel(Graph& g, const KernelCall& c) {
    g.nodes.emplace_back();
    g.nodes.back().set(c);
    return g.nodes.size() - 1;
}
NodeId graph_copy(Graph& g, void* device, const void* from, size_t bytes) {
    g.nodes.push_back({{}, {}, device, from, bytes});
    return g.nodes.size() - 1;
}
void graph_zero(Graph& g, void* device, size_t bytes) { graph_copy(g, device, nullptr, bytes); }
void graph_end(Graph&) {}
void graph_set_kernel(Graph& g, NodeId n, const KernelCall& c) { g.nodes[n].set(c); }
void graph_set_copy(Graph& g, NodeId n, void*, const void* from, size_t) { g.nodes[n].from = from; }
void graph_launch(Graph& g) { for (Node& n : g.nodes) n.run(); }
void graph_free(Graph& g) { g.nodes.clear(); }
#else
using NodeId = cudaGraphNode_t;
struct Graph {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
};
#define graph_check(expression) cuda_check_at(expression, #expression " (--cuda-graphs off trains without)", __FILE__, __LINE__)

// Relaxed: copy_to_device asks an event of an earlier copy, which the other modes may forbid in a thread that records.
void graph_begin(Graph&) { graph_check(cudaStreamBeginCapture(compute_stream(), cudaStreamCaptureModeRelaxed)); }
// What the next work on the stream would wait for: the work just recorded.
NodeId last_node() {
    cudaStreamCaptureStatus status;
    const cudaGraphNode_t* nodes = nullptr;
    size_t count = 0;
#if CUDART_VERSION >= 13000
    const cudaGraphEdgeData* edges = nullptr;                // not wanted, but without it some edges would be an error
    graph_check(cudaStreamGetCaptureInfo(compute_stream(), &status, nullptr, nullptr, &nodes, &edges, &count));
#else
    graph_check(cudaStreamGetCaptureInfo_v2(compute_stream(), &status, nullptr, nullptr, &nodes, &count));
#endif
    ensure(status == cudaStreamCaptureStatusActive && count == 1, "CUDA graph: %zu nodes at the end of a recording, not one", count);
    return nodes[0];
}
dim3 dim(const unsigned (&d)[3]) { return dim3(d[0], d[1], d[2]); }
NodeId graph_kernel(Graph&, const KernelCall& c) {
    graph_check(cudaLaunchKernel(c.kernel, dim(c.grid), dim(c.threads), const_cast<void**>(c.arguments), c.smem_bytes, compute_stream()));
    return last_node();
}
NodeId graph_copy(Graph&, void* device, const void* from, size_t bytes) {
    graph_check(cudaMemcpyAsync(device, from, bytes, cudaMemcpyHostToDevice, compute_stream()));
    return last_node();
}
void graph_zero(Graph&, void* device, size_t bytes) { graph_check(cudaMemsetAsync(device, 0, bytes, compute_stream())); }
void graph_end(Graph& g) {
    graph_check(cudaStreamEndCapture(compute_stream(), &g.graph));
    graph_check(cudaGraphInstantiateWithFlags(&g.executable, g.graph, 0));
}
// Changes what the next launch does, not a launch that is under way [CUDA Runtime API, cudaGraphExecKernelNodeSetParams].
void graph_set_kernel(Graph& g, NodeId n, const KernelCall& c) {
    cudaKernelNodeParams p = {};
    p.func = const_cast<void*>(c.kernel);
    p.gridDim = dim(c.grid);
    p.blockDim = dim(c.threads);
    p.sharedMemBytes = unsigned(c.smem_bytes);
    p.kernelParams = const_cast<void**>(c.arguments);
    graph_check(cudaGraphExecKernelNodeSetParams(g.executable, n, &p));
}
void graph_set_copy(Graph& g, NodeId n, void* device, const void* from, size_t bytes) {
    graph_check(cudaGraphExecMemcpyNodeSetParams1D(g.executable, n, device, from, bytes, cudaMemcpyHostToDevice));
}
void graph_launch(Graph& g) { graph_check(cudaGraphLaunch(g.executable, compute_stream())); }
void graph_free(Graph& g) {
    if (g.executable) graph_check(cudaGraphExecDestroy(g.executable));
    if (g.graph) graph_check(cudaGraphDestroy(g.graph));
    g = {};
}
#endif

// ---------------------------------------------------------------------------------------------- recording and replaying

// `what` must be the same in every repetition; `values` may change.
struct Operation {
    Bytes what, values;
    NodeId node;
};
enum class Mode { off, counting, recording, replaying };
}  // namespace

struct Recording {
    std::vector<Operation> operations;
    Graph graph;
    bool ready = false, given_up = false;
    int times_recorded = 0;
};

namespace {
// A work that does not keep to its recording is recorded anew; one that never does is launched one by one in the end.
constexpr int MOST_RECORDINGS = 4;

Mode mode = Mode::off;
Recording* now = nullptr;
size_t position = 0, counted = 0;                // replaying: the next operation; counting: launches
int copies = 0;
bool failed = false;                             // this recording or replay is of no use; what is still queued is ignored

// For tests: what was recorded stays as it was, the mistake that replaying must not make. QV_BAKE_IN=arguments | copies
bool baked_in(const char* what) {
    const char* wanted = getenv("QV_BAKE_IN");
    return wanted && strcmp(wanted, what) == 0;
}

template <class Record, class Update> bool take(Bytes what, Bytes values, Record record, Update update) {
    if (mode == Mode::counting) counted++;
    if (mode == Mode::off || mode == Mode::counting) return false;
    if (failed) return true;
    if (mode == Mode::recording) {
        const NodeId node = record();
        now->operations.push_back({std::move(what), std::move(values), node});
        return true;
    }
    if (position == now->operations.size() || now->operations[position].what != what) return failed = true;
    Operation& o = now->operations[position++];
    if (o.values == values) return true;
    update(o.node);
    o.values = std::move(values);
    return true;
}

bool take_kernel(const KernelCall& c) {
    Bytes what, values;
    add(what, c.kernel);
    add(what, c.grid);
    add(what, c.threads);
    add(what, c.smem_bytes);
    for (int i = 0; c.sizes[i]; i++) {
        const auto* p = static_cast<const unsigned char*>(c.arguments[i]);
        values.insert(values.end(), p, p + c.sizes[i]);
    }
    return take(std::move(what), std::move(values), [&] { return graph_kernel(now->graph, c); },
                [&](NodeId n) { if (!baked_in("arguments")) graph_set_kernel(now->graph, n, c); });
}

// The mode of the work that runs, and its end, also by an exception.
struct InMode {
    InMode(Mode m, Recording* r) {
        mode = m;
        now = r;
        position = counted = 0;
        copies = 0;
        failed = false;
        launch_hook = take_kernel;
    }
    ~InMode() {
        launch_hook = nullptr;
        mode = Mode::off;
    }
};

bool record(Recording& r, const std::function<void()>& work) {
    graph_free(r.graph);
    r.operations.clear();
    r.ready = false;
    if (r.times_recorded++ == MOST_RECORDINGS) return r.given_up = true, false;
    device_synchronize();                                    // so that no copy has to wait for its buffer while recording
    const InMode in(Mode::recording, &r);
    graph_begin(r.graph);
    try {
        work();
    } catch (...) {
        graph_end(r.graph);
        throw;
    }
    graph_end(r.graph);
    return r.ready = !failed;
}
bool replay(Recording& r, const std::function<void()>& work) {
    const InMode in(Mode::replaying, &r);
    work();
    return !failed && position == r.operations.size();
}
}  // namespace

bool replay_is_on() { return mode == Mode::recording || mode == Mode::replaying; }

bool replay_takes_copy(void* device, const void* staged, size_t bytes) {
    Bytes what, values;
    add(what, device);
    add(what, bytes);
    add(values, staged);
    if (++copies > STAGING_BUFFERS && mode == Mode::recording) return failed = true;         // a buffer would be needed twice
    return take(std::move(what), std::move(values), [&] { return graph_copy(now->graph, device, staged, bytes); },
                [&](NodeId n) { if (!baked_in("copies")) graph_set_copy(now->graph, n, device, staged, bytes); });
}

bool replay_takes_zero(void* device, size_t bytes) {
    Bytes what;
    add(what, device);
    add(what, bytes);
    return take(std::move(what), {}, [&] { return graph_zero(now->graph, device, bytes), NodeId(); }, [](NodeId) {});
}

bool replay_takes_call(const void* bytes, size_t count) {
    const auto* p = static_cast<const unsigned char*>(bytes);
    return take(Bytes(p, p + count), {}, [] { return NodeId(); }, [](NodeId) {}) && (failed || mode == Mode::replaying);
}

void device_repeat(Repeat& r, const std::function<void()>& work) {
    if (!r.recording) {
        r.recording = std::make_shared<Recording>();
        const InMode in(Mode::counting, nullptr);
        work();
        r.launches = counted;
        return;
    }
    Recording& recording = *r.recording;
    if (!r.wanted || recording.given_up) return work();
    const unsigned staged = staging_position();
    if (!(recording.ready && replay(recording, work)) && !record(recording, work)) return work();
    graph_launch(recording.graph);
    staging_queued(staged);
}
