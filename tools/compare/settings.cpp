// See settings.h.
#include "tools/compare/settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <regex>
#include <sstream>

#include "runtime/run/config.h"
#include "runtime/run/error.h"

std::string RowSpec::file_name() const {
    std::string s;
    for (char c : name) {
        if (c == ':' || c == ',') s += '.';
        else if (c != '=') s += c;
    }
    return s;
}

std::vector<std::string> split_words(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> words;
    for (std::string w; in >> w;) words.push_back(w);
    return words;
}

std::string number_word(double x) {
    char text[64];
    const auto end = std::to_chars(text, text + sizeof text, x).ptr;
    return std::string(text, end);
}

// ---- the environment

static std::string text_of(const char* name, const std::string& otherwise) {
    const char* value = getenv(name);
    return value && *value ? value : otherwise;
}
static bool flag_of(const char* name) {
    const std::string value = text_of(name, "");
    ensure_usage(value.empty() || value == "0" || value == "1", "%s=%s: give 1, or leave it out", name, value.c_str());
    return value == "1";
}
// True when all of the word is a whole number.
static bool reads_whole(const std::string& word, int64_t& x) {
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), x);
    return error == std::errc() && end == word.data() + word.size();
}
static int64_t whole_of(const char* name, int64_t otherwise, int64_t low, int64_t high) {
    const std::string value = text_of(name, "");
    if (value.empty()) return otherwise;
    int64_t x = 0;
    ensure_usage(reads_whole(value, x) && x >= low && x <= high, "%s=%s: give a whole number from %lld to %lld", name, value.c_str(),
                 (long long)low, (long long)high);
    return x;
}
static double number_of(const char* name, double otherwise) {
    const std::string value = text_of(name, "");
    if (value.empty()) return otherwise;
    double x = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), x);
    ensure_usage(error == std::errc() && end == value.data() + value.size() && std::isfinite(x) && x > 0, "%s=%s: give a number above 0",
                 name, value.c_str());
    return x;
}

// "3 5 8": rising, from the number that a verdict takes.
static std::vector<int64_t> looks_of(const char* name, const char* otherwise) {
    const std::string value = text_of(name, otherwise);
    std::vector<int64_t> looks;
    for (const std::string& word : split_words(value)) {
        int64_t n = 0;
        ensure_usage(reads_whole(word, n) && n >= (looks.empty() ? LEAST_LOOK : looks.back() + 1) && n <= 9999,
                     "%s=%s: give rising numbers of seeds from %lld on, such as \"%s\"", name, value.c_str(), (long long)LEAST_LOOK,
                     otherwise);
        looks.push_back(n);
    }
    ensure_usage(!looks.empty(), "%s is blank: give numbers of seeds, such as \"%s\"", name, otherwise);
    return looks;
}

struct Preset { const char* name; Size size; };
static const Preset PRESETS[] = {
    //           layers width heads context batch_tokens steps  lr  warmup val_tokens val_every
    {"tiny", {2, 64, 4, 64, 512, 60, 3e-3, 5, 4096, 0}},             // seconds, for tests
    {"default", {4, 128, 4, 128, 1024, 900, 4e-3, 50, 32768, 0}},    // chosen by the sweep in docs/LOG.md
    {"small", {6, 384, 6, 256, 16384, 2000, 1e-3, 100, 131072, 0}},
    {"base", {12, 768, 12, 1024, 524288, 4800, 6e-4, 256, 1048576, 0}},    // GPT-2 124M, 2.5G tokens: 20 per parameter
};

static Size read_size(const std::string& name) {
    const Preset* preset = std::find_if(std::begin(PRESETS), std::end(PRESETS), [&](const Preset& p) { return p.name == name; });
    ensure_usage(preset != std::end(PRESETS), "SIZE=%s: choose tiny, default, small or base", name.c_str());
    Size s = preset->size;
    const int64_t MANY = 1000000000000;
    struct {
        const char* name;
        int64_t* to;
    } numbers[] = {{"LAYERS", &s.layers},
                   {"WIDTH", &s.width},
                   {"HEADS", &s.heads},
                   {"CONTEXT", &s.context},
                   {"BATCH_TOKENS", &s.batch_tokens},
                   {"STEPS", &s.steps},
                   {"VAL_TOKENS", &s.val_tokens}};
    for (auto [variable, to] : numbers) *to = whole_of(variable, *to, 1, MANY);
    s.lr = number_of("LR", s.lr);
    s.warmup = whole_of("WARMUP", std::min(s.warmup, s.steps / 10), 0, MANY);
    s.val_every = whole_of("VAL_EVERY", std::max<int64_t>(1, s.steps / 10), 0, MANY);
    return s;
}

static void check_words(const Settings& s) {
    auto is_name_letter = [](char c) { return isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-'; };
    ensure_usage(std::all_of(s.name.begin(), s.name.end(), is_name_letter) && isalnum(static_cast<unsigned char>(s.name[0])),
                 "NAME=%s: use letters, digits, . _ -", s.name.c_str());
    ensure_usage(!s.words.empty() && !s.positions.empty() && !s.matchings.empty(), "VARIANTS, POS and MATCH each need a word");
    for (const std::string& p : s.positions) position_from_name(p);
    for (const std::string& m : s.matchings)
        ensure_usage(m == "layout" || m == "params" || m == "cache" || m == "flops", "MATCH: %s: choose of layout, params, cache, flops",
                     m.c_str());
}

Suffix read_suffix(const std::string& suffix) {
    static const std::regex pattern("(.*)-(cpu|emu|cuda)-(fp32|bf16|fp64)(-naive)?");
    std::smatch found;
    if (!std::regex_match(suffix, found, pattern)) return {suffix};
    return {found[1].str() + found[4].str(), found[2], found[3]};
}

Settings read_settings() {
    Settings s;
    s.size_name = text_of("SIZE", "default");
    s.size = read_size(s.size_name);
    s.words = split_words(text_of("VARIANTS", "qkv mqa gqa mla qv qv_ka gta"));
    s.positions = split_words(text_of("POS", "rope"));
    s.matchings = split_words(text_of("MATCH", "layout"));
    if (text_of("SEEDS", "") == "auto") s.looks = looks_of("LOOKS", "3 5 8");
    else s.seeds = whole_of("SEEDS", 0, 1, 9999);
    s.first_seed = whole_of("FIRST_SEED", 1, 1, 1000000000);
    s.minutes = number_of("MINUTES", 10);
    s.schedule = text_of("SCHEDULE", "cosine");
    s.final_fraction = text_of("FINAL_FRACTION", "0");           // 0 lets the curves end flat (docs/LOG.md)
    s.data = text_of("DATA", "");
    s.suffix = text_of("SUFFIX", "");
    const Suffix trainers = read_suffix(s.suffix);
    s.name = text_of("NAME", "compare-" + s.size_name + (trainers.backend == "cpu" ? trainers.parts : s.suffix));
    s.build = text_of("BUILD", "build");
    s.runs_dir = text_of("RUNS_DIR", "runs");
    s.baseline = text_of("BASELINE", "qkv");
    s.records = text_of("RECORDS", "");
    s.rates_file = text_of("RATES", "docs/study/learning_rates.json");
    s.extra = split_words(text_of("EXTRA", ""));
    s.branch_from = text_of("BRANCH_FROM", "");
    s.launch = split_words(text_of("LAUNCH", ""));
    s.threads = int(whole_of("THREADS", 0, 0, 4096));
    s.at_once = int(whole_of("AT_ONCE", 0, 1, 4096));
    s.cache_bytes = whole_of("CACHE", 0, 1, int64_t(1) << 40);
    s.lr_given = !text_of("LR", "").empty();
    s.tune = flag_of("TUNE");
    s.tune_steps = whole_of("TUNE_STEPS", s.size.steps, 1, 1000000000000);
    s.fresh = flag_of("FRESH");
    s.keep_going = flag_of("KEEP_GOING");
    s.dry_run = flag_of("DRY_RUN");
    s.report = text_of("REPORT", "1") != "0";
    check_words(s);
    return s;
}
