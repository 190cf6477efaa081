// build/generate-VARIANT RUN: text from a trained model, token by token, with the variant's own cache (model/decode.h).
//   generate-qv runs/x --prompt "Once"        streams the text        cat poem | generate-qv runs/x     continues it
//   generate-qv runs/x                        on a terminal: talk to the model
// A text is a function of (checkpoint, prompt, options, seed, sample's number). It does not depend on --samples, on the
// threads or on how the prompt was cut. When the context is full, the older half is forgotten and the newer half read
// again; a note on standard error says so.
#include <poll.h>
#include <unistd.h>

#include "model/decode.h"
#include "model/load.h"
#include "model/program.h"
#include "model/sample.h"
#include "runtime/run/files.h"
#include "runtime/run/rundir.h"
#include "tools/arguments.h"
#include "tools/open_run.h"
#include "tools/tool_main.h"

namespace {
struct GenerateOptions {
    std::string prompt, prompt_file, tokenizer;
    int tokens = 200, samples = 1, context = 0, threads = 0;
    Sampling sampling;
    uint64_t seed = 1;
    bool only_new = false, past_end = false, quiet = false, dry_run = false;
};

// The tokens of every sample so far, what the model has yet to read of them, and the next token's logits.
struct Session {
    Decoder& d;
    const GenerateOptions& o;
    std::vector<std::vector<int>> ids;
    std::vector<NewToken> unread;
    std::vector<floatX> logits;
    uint64_t drawn = 0;                          // tokens drawn so far: the random numbers' index
    int64_t forgotten_at = -1;                   // length at which the context was full for the first time
    double read_s = 0, write_s = 0;
    int64_t tokens_read = 0, tokens_written = 0;
};

void add_token(Session& s, int sample, int token) {
    s.ids[size_t(sample)].push_back(token);
    s.unread.push_back({sample, token});
}

// Lets the model read what it has not read yet.
void read_on(Session& s) {
    std::vector<size_t> coming(s.ids.size());
    for (const NewToken& t : s.unread) coming[size_t(t.sequence)]++;
    for (size_t i = 0; i < s.ids.size(); i++) {
        if (size_t(s.d.length[i]) + coming[i] <= size_t(s.d.shape.capacity)) continue;
        if (s.forgotten_at < 0) s.forgotten_at = s.d.length[i];
        std::erase_if(s.unread, [&](const NewToken& t) { return size_t(t.sequence) == i; });
        s.d.length[i] = 0;
        const size_t keep = std::max<size_t>(1, std::min(s.ids[i].size(), size_t(s.d.shape.capacity) / 2));
        for (size_t k = s.ids[i].size() - keep; k < s.ids[i].size(); k++) s.unread.push_back({int(i), s.ids[i][k]});
    }
    decoder_next_logits(s.d, s.unread, s.logits);
    s.unread.clear();
}

// Up to o.tokens more tokens for every sample; each goes to take(sample, token), which returns whether the sample continues.
template <class Take> void write_on(Session& s, Take take) {
    std::vector<char> going(s.ids.size(), 1);
    const size_t V = size_t(s.d.g.c.V);
    for (int i = 0; i < s.o.tokens && !stop_requested(); i++) {
        const double start = now_s();
        const int64_t reading = int64_t(s.unread.size());
        read_on(s);
        (i == 0 ? s.read_s : s.write_s) += now_s() - start;
        (i == 0 ? s.tokens_read : s.tokens_written) += reading;
        bool any = false;
        for (size_t sample = 0; sample < s.ids.size(); sample++) {
            if (!going[sample]) continue;
            const double u = philox_uniform(s.o.seed, rng_stream("generate"), uint64_t(sample) << 40 | (s.drawn + uint64_t(i)));
            const int token = choose_token(s.logits.data() + sample * V, int(V), s.o.sampling, u);
            going[sample] = take(sample, token);
            if (!going[sample]) continue;
            add_token(s, int(sample), token);
            any = true;
        }
        if (!any) break;
    }
    s.drawn += uint64_t(s.o.tokens);
}

std::string read_all(FILE* f, const std::string& where) {
    std::string text;
    char piece[65536];
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0 && !stop_requested();) {
        text.append(piece, n);
        ensure_usage(text.size() <= size_t(64) << 20, "%s: a prompt of more than 64 MiB", where.c_str());
    }
    return text;
}

// One line from the terminal, without blocking signals; false at the end of input or when asked to stop.
bool read_line(std::string& line) {
    line.clear();
    for (;;) {
        pollfd p{0, POLLIN, 0};
        if (stop_requested()) return false;
        if (poll(&p, 1, 100) <= 0) continue;
        char c;
        if (read(0, &c, 1) <= 0) return false;
        if (c == '\n') return true;
        line += c;
    }
}

void print_plan(const OpenedRun& run, const Decoder& planned, const GenerateOptions& o) {
    const ModelConfig& c = planned.g.c;
    fprintf(stderr, "%s, attention %s, positions %s: %s parameters, step %lld\n", run.dir.c_str(), ATTENTION_NAME, position_name(c.pos),
            human_count(double(count_params(planned.g, true))).c_str(), (long long)run.step);
    fprintf(stderr, "cache   %zu bytes per token, %s for %d x %d tokens", cache_bytes_per_token(planned.g),
            human_bytes(double(decoder_cache_bytes(planned))).c_str(), o.samples, planned.shape.capacity);
    for (const CacheSpec& s : planned.g.attention.cache)
        fprintf(stderr, "%s %s %d x %d", &s == &planned.g.attention.cache[0] ? ":" : ",", s.name.c_str(), s.heads,
                s.width);
    fprintf(stderr, "\n");
    if (!planned.g.attention.cache_note.empty()) fprintf(stderr, "        %s\n", planned.g.attention.cache_note.c_str());
    fprintf(stderr, "memory  %s in buffers\n", human_bytes(double(planned_bytes(planned.g))).c_str());
}

int end_of_text(const OpenedRun& run, const GenerateOptions& o) { return o.past_end ? -1 : int(run.tokenizer.special_id("<|endoftext|>")); }
std::string text_of(const OpenedRun& run, int token) {
    const uint32_t id = uint32_t(token);
    return tokenizer_decode(run.tokenizer, &id, 1);
}

void print_speed(const Session& s) {
    if (s.forgotten_at >= 0)
        fprintf(stderr, "the context of %d tokens was full: its older half was forgotten (--context N holds more)\n", s.d.shape.capacity);
    if (s.o.quiet || s.tokens_read == 0) return;
    fprintf(stderr, "read %lld tokens at %.0f tokens/s", (long long)s.tokens_read, double(s.tokens_read) / s.read_s);
    if (s.tokens_written > 0)
        fprintf(stderr, ", wrote %lld at %.0f tokens/s (%.2f ms each)", (long long)s.tokens_written,
                double(s.tokens_written) / s.write_s, 1e3 * s.write_s / double(s.tokens_written));
    fprintf(stderr, "\n");
}

void talk(Session& s, const OpenedRun& run) {
    fprintf(stderr, "Write, and the model continues. An empty line lets it write on; /new forgets everything; Ctrl-C or Ctrl-D ends.\n");
    std::string line;
    for (;;) {
        write_out("> ");
        if (!read_line(line)) break;
        if (line == "/new") {
            s.ids[0].clear();
            s.unread.clear();
            s.d.length[0] = 0;
            continue;
        }
        if (!line.empty() || s.ids[0].empty()) {
            const std::vector<uint32_t> ids = tokenizer_encode(run.tokenizer, line + "\n", true);
            if (ids.size() > size_t(s.d.shape.capacity)) {
                fprintf(stderr, "%zu tokens are more than the context of %d holds; a shorter line, or --context\n",
                        ids.size(), s.d.shape.capacity);
                continue;
            }
            for (uint32_t id : ids) add_token(s, 0, int(id));
        }
        std::string last;
        write_on(s, [&](size_t, int token) {
            if (token == end_of_text(run, s.o)) return false;
            write_out(last = text_of(run, token));
            return true;
        });
        if (last.empty() || last.back() != '\n') write_out("\n");
        if (stop_requested()) break;
    }
    write_out("\n");
}

// The options, and the run's folder in `words`; which were given in `given`. False after --help.
bool read_options(GenerateOptions& o, int argc, char** argv, std::vector<std::string>& words, std::vector<std::string>& given) {
    std::vector<Argument> table = {
        {"prompt", "TEXT", "the text to continue; default: a file or standard input; on a terminal: talk", &o.prompt},
        {"prompt-file", "FILE", "or the text in a file; - for standard input", &o.prompt_file},
        {"tokens", "N", "tokens to write", &o.tokens, 0, 1e9},
        {"temperature", "X", "0: always the likeliest token", &o.sampling.temperature, 0, 1e3},
        {"top-k", "N", "draw from the N likeliest; 0: all", &o.sampling.top_k, 0, 1e9},
        {"top-p", "X", "draw from the fewest that reach this probability; 1: all", &o.sampling.top_p, 0, 1},
        {"min-p", "X", "draw from those at least X times as likely as the likeliest; 0: all", &o.sampling.min_p, 0, 1},
        {"seed", "N", "the same number, the same text", &o.seed},
        {"samples", "N", "texts, written one after the other", &o.samples, 1, 4096},
        {"context", "N", "tokens that the cache holds; 0: the context of the training", &o.context, 0, 1 << 22},
        {"tokenizer", "FILE", "where the run's tokenizer is now", &o.tokenizer},
        {"threads", "N", "0: all", &o.threads, 0, 4096},
        {"only-new", "", "do not write the prompt itself", &o.only_new},
        {"past-end", "", "go on after the end-of-text token", &o.past_end},
        {"quiet", "", "nothing on standard error", &o.quiet},
        {"dry-run", "", "print the memory and stop", &o.dry_run}};
    if (!arguments_parse(table, format("generate-%s RUN [options]    text from a trained model", ATTENTION_NAME), argc,
                         argv, words, &given))
        return false;
    ensure_usage(words.size() == 1, words.empty() ? "which run? give its folder, such as runs/NAME"
                                                  : "one run at a time; options begin with --");
    return true;
}

// The prompt's tokens are read once; the other samples take over their cache.
void read_prompt(Session& s, const std::vector<uint32_t>& ids) {
    for (uint32_t id : ids) s.ids[0].push_back(int(id));
    for (size_t i = 0; i + 1 < ids.size(); i++) s.unread.push_back({0, int(ids[i])});
    if (!s.unread.empty()) {
        const double start = now_s();
        decoder_feed(s.d, s.unread, [](size_t, int) {});
        s.read_s = now_s() - start;
        s.tokens_read = int64_t(s.unread.size());
    }
    s.unread.clear();
    for (int i = 0; i < s.o.samples; i++) {
        if (i > 0) decoder_copy(s.d, 0, i);
        s.ids[size_t(i)] = s.ids[0];
        s.unread.push_back({i, int(ids.back())});
    }
}

// One text as it comes; several one after the other when all are done.
void write_samples(Session& s, const OpenedRun& run, const std::string& prompt) {
    std::vector<std::string> texts(size_t(s.o.samples), s.o.only_new ? "" : prompt);
    const bool stream = s.o.samples == 1;
    if (stream) write_out(texts[0]);
    write_on(s, [&](size_t sample, int token) {
        if (token == end_of_text(run, s.o)) return false;
        const std::string text = text_of(run, token);
        texts[sample] += text;
        if (stream) write_out(text);
        return true;
    });
    for (int i = 0; i < s.o.samples && !stream; i++) write_out(format("--- sample %d\n", i + 1) + texts[size_t(i)] + "\n");
    if (stream) write_out("\n");
}

int generate(int argc, char** argv) {
    GenerateOptions o;
    std::vector<std::string> words, given;
    if (!read_options(o, argc, argv, words, given)) return EXIT_DONE;
    auto has = [&](const char* name) { return std::find(given.begin(), given.end(), name) != given.end(); };
    ensure_usage(!has("prompt") || !has("prompt-file"), "--prompt and --prompt-file exclude each other");

    backend_init(o.threads);
    const OpenedRun run = open_run(words[0], o.tokenizer, this_program(), "generate");
    const bool interactive = !has("prompt") && !has("prompt-file") && isatty(0);
    ensure_usage(!interactive || o.samples == 1, "--samples: talking goes with one; give a --prompt for several");
    const Decoder planned = decoder_plan(run.options.model, {o.samples, o.context, 0});
    const size_t have = device_facts().memory_bytes;
    ensure(planned_bytes(planned.g) <= have, "this needs %s and the machine has %s; a smaller --context or --samples needs less",
           human_bytes(double(planned_bytes(planned.g))).c_str(), human_bytes(double(have)).c_str());
    if (o.dry_run) {
        print_plan(run, planned, o);
        return EXIT_DONE;
    }

    std::string prompt = has("prompt")                                ? o.prompt
                         : has("prompt-file") && o.prompt_file != "-" ? file_read(o.prompt_file, 64 << 20)
                         : interactive                                ? ""
                                                                      : read_all(stdin, "standard input");
    if (stop_requested()) return EXIT_INTERRUPTED;
    const std::string shown = prompt;
    if (prompt.empty()) prompt = run.options.prompt;
    std::vector<uint32_t> ids = tokenizer_encode(run.tokenizer, prompt, true);
    if (ids.empty()) ids.push_back(0);
    ensure_usage(interactive || ids.size() <= size_t(planned.shape.capacity),
                 "a prompt of %zu tokens is longer than the context of %d%s", ids.size(), planned.shape.capacity,
                 run.options.model.pos == Position::learned ? ", and learned positions end there"
                                                            : "; --context N makes it longer");

    if (!o.quiet) print_plan(run, planned, o);
    Decoder d = decoder_allocate(run.options.model, {o.samples, o.context, 0});
    load_weights(d.g, run.checkpoint + "/model.safetensors");
    Session s{d, o, std::vector<std::vector<int>>(size_t(o.samples)), {}, {}};
    if (interactive) {
        talk(s, run);
    } else {
        read_prompt(s, ids);
        write_samples(s, run, shown);
    }
    const int code = stop_requested() ? EXIT_INTERRUPTED : EXIT_DONE;
    if (!o.quiet) print_speed(s);
    decoder_free(d);
    return code;
}
}  // namespace

int main(int argc, char** argv) { return tool_main(argc, argv, generate); }
