// build/evaluate-VARIANT RUN...: how well trained models predict a text, one row for each run and context.
//   evaluate-qv runs/a runs/b                      on each run's own validation samples, as the trainer evaluates
//   evaluate-qv runs/a --text book.txt --stride 32   windows that overlap: every token but the first has a long context
//   evaluate-qv runs/a --times "1 2 4"             contexts of 1, 2 and 4 times the trained one (not with learned positions)
//   evaluate-qv runs/a --questions hellaswag.jsonl   multiple choice        --map maps.svg --prompt "..."   attention maps
// The losses are the decoder's (model/decode.h), the same as the trainer's up to rounding. Windows never cross from one shard
// into the next.
// scripts/evaluate.sh makes one table of runs of several variants.
#include <fstream>
#include <sstream>

#include "dataloader/dataloader.h"
#include "model/load.h"
#include "model/program.h"
#include "runtime/run/files.h"
#include "runtime/run/rundir.h"
#include "tools/arguments.h"
#include "tools/attention_map.h"
#include "tools/open_run.h"
#include "tools/questions_score.h"
#include "tools/tool_main.h"

namespace {
struct EvaluateOptions {
    std::string text, data, split = "val", times = "1", sequences, by_position, questions, map, logits, prompt, tokenizer;
    int context = 0, stride = 0, threads = 0;
    int64_t max_tokens = 0;
    bool no_header = false;
};

// A window: its tokens and the one after them; those before `first` were scored by the previous window.
struct Window { std::vector<int> tokens; size_t first; };

std::string corpus_name(const EvaluateOptions& o, const OpenedRun& run) {
    return !o.text.empty() ? o.text : !o.data.empty() ? o.data : run.options.data;
}

// Windows of `context` tokens every `stride` tokens of a piece, the last one shorter; max_tokens 0: all. use() returns
// whether to continue.
template <class Use> bool slide(const std::vector<uint32_t>& piece, size_t context, size_t stride, int64_t max_tokens, Use use) {
    int64_t done = 0;
    for (size_t begin = 0, scored = 0; scored + 1 < piece.size(); begin += stride) {
        const size_t n = std::min(context, piece.size() - 1 - begin);
        if (max_tokens > 0 && done > 0 && done + int64_t(begin + n - scored) > max_tokens) return false;
        if (!use(Window{{piece.begin() + int64_t(begin), piece.begin() + int64_t(begin + n + 1)}, scored - begin})) return false;
        done += int64_t(begin + n - scored);
        scored = begin + n;
    }
    return true;
}

// A text, or shards; windows do not cross the borders of shards. Shards without overlap give the trainer's own samples,
// spread in the same way.
template <class Use> void for_each_window(const EvaluateOptions& o, const OpenedRun& run, int context, int stride, Use use) {
    if (!o.text.empty()) {
        slide(tokenizer_encode(run.tokenizer, file_read(o.text, uint64_t(1) << 32)), size_t(context), size_t(stride), o.max_tokens, use);
        return;
    }
    const Dataset set = dataset_open(corpus_name(o, run), o.split, size_t(context), run.tokenizer.vocab_size());
    if (stride < context) {
        for (const Shard& s : set.shards)
            if (!slide(shard_read_all(s), size_t(context), size_t(stride), o.max_tokens, use)) return;
        return;
    }
    const int64_t max_tokens = o.max_tokens > 0 ? o.max_tokens : o.data.empty() ? run.options.val_tokens : 0, all = int64_t(set.samples);
    const int64_t samples = max_tokens > 0 ? std::clamp<int64_t>(max_tokens / context, 1, all) : all;
    std::vector<int> inputs(static_cast<size_t>(context)), targets(inputs.size());
    for (int64_t i = 0; i < samples; i++) {
        dataset_read(set, size_t(i * all / samples), inputs.data(), targets.data());
        inputs.push_back(targets.back());
        if (!use(Window{inputs, 0})) return;
        inputs.pop_back();
    }
}

struct Result {
    double nats = 0, bytes = 0, tokens = 0;
    std::vector<float> by_window;                            // mean nats of each window's scored tokens
    std::vector<double> position_nats, position_count;
};

void score(Result& r, Decoder& d, const Tokenizer& tokenizer, const Window& w) {
    const size_t n = w.tokens.size() - 1;
    std::vector<NewToken> tokens;
    std::vector<int> targets;
    for (size_t i = 0; i < n; i++) {
        tokens.push_back({0, w.tokens[i]});
        targets.push_back(i >= w.first ? w.tokens[i + 1] : -1);
    }
    d.length[0] = 0;
    const std::vector<double> losses = decoder_losses(d, tokens, targets);
    double sum = 0;
    for (size_t i = w.first; i < n; i++) {
        sum += losses[i];
        r.bytes += double(tokenizer.token_bytes[size_t(targets[i])].size());
        r.position_nats[i] += losses[i];
        r.position_count[i]++;
    }
    r.nats += sum;
    r.tokens += double(n - w.first);
    r.by_window.push_back(float(sum / double(n - w.first)));
}

// Positions in bins that double: 1, 2, 3-4, 5-8, ... as "position,last,tokens,nats".
std::string position_table(const Result& r) {
    std::string csv = "first,last,tokens,nats_per_token\n";
    for (size_t first = 0, last = 1; first < r.position_nats.size(); first = last, last = std::min(last * 2, r.position_nats.size())) {
        double nats = 0, count = 0;
        for (size_t i = first; i < last; i++) nats += r.position_nats[i], count += r.position_count[i];
        if (count > 0) csv += format("%zu,%zu,%.0f,%.4f\n", first + 1, last, count, nats / count);
        if (last == r.position_nats.size()) break;
    }
    return csv;
}

std::vector<int> contexts_of(const EvaluateOptions& o, int trained) {
    if (o.context > 0) return {o.context};
    std::vector<int> list;
    std::istringstream words(o.times);
    for (std::string word; words >> word;) {
        ensure_usage(!word.empty() && word.find_first_not_of("0123456789") == std::string::npos && word.size() < 4 &&
                         atoi(word.c_str()) > 0,
                     "--times: '%s' is not a whole number from 1 to 999", printable(word).c_str());
        list.push_back(atoi(word.c_str()) * trained);
    }
    ensure_usage(!list.empty(), "--times: the value is empty");
    return list;
}

Decoder open_decoder(const OpenedRun& run, DecoderShape shape) {
    const Decoder planned = decoder_plan(run.options.model, shape);
    const size_t have = device_facts().memory_bytes;
    ensure(planned_bytes(planned.g) <= have, "%s: this needs %s and the machine has %s; a smaller --context needs less", run.dir.c_str(),
           human_bytes(double(planned_bytes(planned.g))).c_str(), human_bytes(double(have)).c_str());
    Decoder d = decoder_allocate(run.options.model, shape);
    load_weights(d.g, run.checkpoint + "/model.safetensors");
    return d;
}

void evaluate_text(const EvaluateOptions& o, const OpenedRun& run) {
    for (int context : contexts_of(o, run.options.model.T)) {
        const int stride = o.stride == 0 ? context : o.stride;
        ensure_usage(stride <= context, "--stride: %d is more than the context of %d: tokens would be left out", stride, context);
        Decoder d = open_decoder(run, {1, context, 0});
        Result r;
        r.position_nats.resize(size_t(context));
        r.position_count.resize(size_t(context));
        const double start = now_s();
        for_each_window(o, run, context, stride, [&](const Window& w) {
            score(r, d, run.tokenizer, w);
            return !stop_requested();
        });
        const size_t cache = cache_bytes_per_token(d.g);
        decoder_free(d);
        if (stop_requested()) return;
        ensure_usage(r.tokens > 0, "%s: too short, it has no two tokens", corpus_name(o, run).c_str());
        const double loss = r.nats / r.tokens;
        write_out(format("%-28s %-6s %-10s %8lld %7d %7d %9.0f %9.4f %9.4f %10.3f %9zu %8.0f\n", run.dir.c_str(),
                         ATTENTION_NAME, position_name(run.options.model.pos), (long long)run.step, context, stride,
                         r.tokens, loss, r.nats / std::log(2.0) / r.bytes, std::exp(loss), cache,
                         r.tokens / (now_s() - start)));
        if (!o.by_position.empty()) file_replace(o.by_position, position_table(r));
        if (!o.sequences.empty())
            file_replace(o.sequences, std::string_view(reinterpret_cast<const char*>(r.by_window.data()),
                                                       r.by_window.size() * sizeof(float)));
    }
}

void evaluate_questions(const EvaluateOptions& o, const OpenedRun& run) {
    const std::vector<Question> questions = questions_read(o.questions);
    Decoder d = open_decoder(run, {1, o.context, 0});
    const Scores s = questions_score(d, run.tokenizer, questions);
    decoder_free(d);
    if (stop_requested()) return;
    const double n = double(s.questions);
    write_out(format("%-28s %-6s %-10s %8lld %9lld %9.4f %10.4f %9.4f\n", run.dir.c_str(), ATTENTION_NAME,
                     position_name(run.options.model.pos), (long long)run.step, (long long)s.questions,
                     double(s.right) / n, double(s.right_per_token) / n, double(s.right_per_byte) / n));
}

void write_map(const EvaluateOptions& o, const OpenedRun& run) {
    const std::vector<uint32_t> encoded = tokenizer_encode(run.tokenizer, o.prompt, true);
    ensure_usage(!encoded.empty(), "--map: give a --prompt with text");
    ensure_usage(encoded.size() <= 128, "--map: the prompt has %zu tokens; a picture shows 128 at most", encoded.size());
    const int n = int(encoded.size());
    Decoder d = open_decoder(run, {1, std::max(n, 1), n, true});
    file_replace(o.map, attention_map_svg(d, run.tokenizer, {encoded.begin(), encoded.end()}));
    decoder_free(d);
    write_out(format("%s: %d tokens, %d layers of %d heads\n", o.map.c_str(), n, run.options.model.L, run.options.model.NH));
}

void write_logits(const EvaluateOptions& o, const OpenedRun& run) {
    std::vector<NewToken> tokens;
    for (uint32_t id : tokenizer_encode(run.tokenizer, o.prompt, true)) tokens.push_back({0, int(id)});
    ensure_usage(!tokens.empty(), "--logits: give a --prompt with text");
    Decoder d = open_decoder(run, {1, int(tokens.size()), 0});
    std::vector<float> logits;
    for (floatX x : decoder_logits(d, tokens)) logits.push_back(float(x));
    decoder_free(d);
    file_replace(o.logits, std::string_view(reinterpret_cast<const char*>(logits.data()), logits.size() * sizeof(float)));
    write_out(format("%s: %zu tokens, vocabulary %d\n", o.logits.c_str(), tokens.size(), run.options.model.V));
}

int evaluate_runs(int argc, char** argv) {
    EvaluateOptions o;
    std::vector<std::string> runs;
    std::vector<Argument> table = {
        {"text", "FILE", "the text; default: the run's own validation shards", &o.text},
        {"data", "DIR", "or a folder of shards, made with the run's tokenizer", &o.data},
        {"split", "NAME", "of the shards: val | train", &o.split},
        {"context", "N", "tokens in a window; 0: as trained", &o.context, 0, 1 << 22},
        {"times", "LIST", "or windows of this many times the trained context, e.g. \"1 2 4\"", &o.times},
        {"stride", "N", "tokens from window to window; 0: the window", &o.stride, 0, 1 << 22},
        {"max-tokens", "N", "stop after about this many; 0: all (the run's own text: as trained)", &o.max_tokens, 0, 1e15},
        {"sequences", "FILE", "mean nats of every window, little-endian float32", &o.sequences},
        {"by-position", "FILE", "loss by position in the window, CSV", &o.by_position},
        {"questions", "FILE", "multiple choice instead: HellaSwag's JSON lines", &o.questions},
        {"map", "FILE", "attention maps of --prompt instead: an SVG picture", &o.map},
        {"logits", "FILE", "logits after each token of --prompt instead, (tokens, vocabulary) little-endian float32", &o.logits},
        {"prompt", "TEXT", "for --map and --logits", &o.prompt},
        {"tokenizer", "FILE", "where the runs' tokenizer is now", &o.tokenizer},
        {"threads", "N", "0: all", &o.threads, 0, 4096},
        {"no-header", "", "rows only", &o.no_header}};
    if (!arguments_parse(table,
                         format("evaluate-%s RUN... [options]    losses of trained models on a text", ATTENTION_NAME),
                         argc, argv, runs))
        return EXIT_DONE;
    ensure_usage(!runs.empty(), "which run? give folders such as runs/NAME");
    ensure_usage(o.text.empty() || o.data.empty(), "--text and --data exclude each other");
    const bool one_file = !o.sequences.empty() || !o.by_position.empty() || !o.map.empty() || !o.logits.empty();
    ensure_usage(runs.size() == 1 || !one_file, "--sequences, --by-position, --map and --logits write one file: give one run");
    ensure_usage(
        o.context > 0 || o.times.find(' ') == std::string::npos || (o.sequences.empty() && o.by_position.empty()),
        "--sequences and --by-position write one file: give one context");
    backend_init(o.threads);
    std::vector<OpenedRun> opened;                           // all of them first, so that a wrong one costs no time
    for (const std::string& path : runs) opened.push_back(open_run(path, o.tokenizer, this_program(), "evaluate"));
    for (const OpenedRun& run : opened)
        if (o.questions.empty() && o.map.empty() && o.logits.empty())
            for (int context : contexts_of(o, run.options.model.T)) decoder_plan(run.options.model, {1, context, 0});
    if (!o.no_header && o.map.empty() && o.logits.empty())
        write_out(o.questions.empty() ? format("%-28s %-6s %-10s %8s %7s %7s %9s %9s %9s %10s %9s %8s\n", "run", "attn",
                                               "pos", "step", "context", "stride", "tokens", "nats", "bits/byte",
                                               "perplexity", "cache B/t", "tokens/s")
                                      : format("%-28s %-6s %-10s %8s %9s %9s %10s %9s\n", "run", "attn", "pos", "step",
                                               "questions", "accuracy", "per token", "per byte"));
    for (const OpenedRun& run : opened) {
        if (stop_requested()) break;
        if (!o.map.empty()) write_map(o, run);
        else if (!o.logits.empty()) write_logits(o, run);
        else if (!o.questions.empty()) evaluate_questions(o, run);
        else evaluate_text(o, run);
    }
    return stop_requested() ? EXIT_INTERRUPTED : EXIT_DONE;
}
}  // namespace

int main(int argc, char** argv) { return tool_main(argc, argv, evaluate_runs); }
