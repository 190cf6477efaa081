// Where a step's time goes: the operations of layers/ and attention/sdpa.h under their own names, each call timed while `timed::on` is set.
// model/gpt.h and the variant, included after this file, are timed without knowing it. Only for bench_step.cpp; on the CPU a call
// returns when its work is done, so its time is the operation's.
#pragma once
#include <chrono>
#include <map>
#include <string>

#include "attention/sdpa.h"
#include "layers/adamw.h"
#include "layers/copy.h"
#include "layers/crossentropy.h"
#include "layers/embedding.h"
#include "layers/layernorm.h"
#include "layers/linear.h"
#include "layers/rmsnorm.h"
#include "layers/rope.h"
#include "layers/swiglu.h"
#include "runtime/run/clock.h"

namespace timed {
inline bool on = false;
inline std::map<std::string, double> seconds;

struct Call {                                                // a temporary: it lives to the end of the call's statement
    const char* name;
    double begin = now_s();
    explicit Call(const char* what) : name(what) {}
    ~Call() { if (on) seconds[name] += now_s() - begin; }
};
}  // namespace timed

#define linear_forward(...) (timed::Call("linear, forward"), linear_forward(__VA_ARGS__))
#define linear_backward_input(...) (timed::Call("linear, dx"), linear_backward_input(__VA_ARGS__))
#define linear_backward_weight(...) (timed::Call("linear, dw and db"), linear_backward_weight(__VA_ARGS__))
#define gelu_forward(...) (timed::Call("GELU again"), gelu_forward(__VA_ARGS__))
#define sdpa_forward(...) (timed::Call("attention, forward"), sdpa_forward(__VA_ARGS__))
#define sdpa_backward(...) (timed::Call("attention, backward"), sdpa_backward(__VA_ARGS__))
#define layernorm_forward(...) (timed::Call("norms, forward"), layernorm_forward(__VA_ARGS__))
#define residual_layernorm_forward(...) (timed::Call("norms, forward"), residual_layernorm_forward(__VA_ARGS__))
#define layernorm_backward(...) (timed::Call("norms, backward"), layernorm_backward(__VA_ARGS__))
#define rmsnorm_forward(...) (timed::Call("norms, forward"), rmsnorm_forward(__VA_ARGS__))
#define residual_rmsnorm_forward(...) (timed::Call("norms, forward"), residual_rmsnorm_forward(__VA_ARGS__))
#define rmsnorm_backward(...) (timed::Call("norms, backward"), rmsnorm_backward(__VA_ARGS__))
#define rope_forward(...) (timed::Call("rotation, copies"), rope_forward(__VA_ARGS__))
#define rope_backward(...) (timed::Call("rotation, copies"), rope_backward(__VA_ARGS__))
#define copy_forward(...) (timed::Call("rotation, copies"), copy_forward(__VA_ARGS__))
#define copy_backward(...) (timed::Call("rotation, copies"), copy_backward(__VA_ARGS__))
#define swiglu_forward(...) (timed::Call("SwiGLU"), swiglu_forward(__VA_ARGS__))
#define swiglu_backward(...) (timed::Call("SwiGLU"), swiglu_backward(__VA_ARGS__))
#define embedding_forward(...) (timed::Call("embedding"), embedding_forward(__VA_ARGS__))
#define embedding_backward(...) (timed::Call("embedding"), embedding_backward(__VA_ARGS__))
#define crossentropy_forward_backward(...) (timed::Call("softmax and loss"), crossentropy_forward_backward(__VA_ARGS__))
#define adamw_update(...) (timed::Call("AdamW"), adamw_update(__VA_ARGS__))
#define sum_squares(...) (timed::Call("norm of the gradient"), sum_squares(__VA_ARGS__))
#define norm_of_sums(...) (timed::Call("norm of the gradient"), norm_of_sums(__VA_ARGS__))
