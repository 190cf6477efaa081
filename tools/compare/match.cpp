// See match.h.
#include "tools/compare/match.h"

#include <cmath>

#include "runtime/run/error.h"

static constexpr double PARAMS_TOLERANCE = 0.005, CACHE_TOLERANCE = 0.05;

// The numbers of a cell with `more` options; false when the trainer refuses them.
static bool try_options(const Settings& s, const Cell& cell, const std::vector<std::string>& more, const Place& place, Numbers& numbers) {
    std::vector<Cell> one = {cell};
    one[0].matched.insert(one[0].matched.end(), more.begin(), more.end());
    try {
        ask_cells(s, one, false, place);
    } catch (const Error&) {
        return false;
    }
    numbers = one[0].numbers;
    return true;
}

static void add(Cell& cell, const std::vector<std::string>& more, const Numbers& numbers) {
    cell.matched.insert(cell.matched.end(), more.begin(), more.end());
    cell.numbers = numbers;
}

static double relative(double got, double want) { return std::fabs(got - want) / want; }

// Parameters are linear in the MLP's width: two questions give the line, a third checks the answer.
static void match_params(const Settings& s, Cell& cell, int64_t target, const Place& place) {
    const int64_t width = 4 * s.size.width;
    Numbers a, b;
    ensure(try_options(s, cell, {"--mlp-width", std::to_string(width)}, place, a) &&
               try_options(s, cell, {"--mlp-width", std::to_string(width + 64)}, place, b),
           "MATCH: %s: the trainer refuses --mlp-width", cell.row.name.c_str());
    const double slope = double(b.parameters_non_embedding - a.parameters_non_embedding) / 64;
    const int64_t wanted = width + std::llround(double(target - a.parameters_non_embedding) / slope);
    ensure_usage(wanted >= 1,
                 "MATCH: %s has %lld parameters without any MLP, more than the %lld to match; leave it out, or make it smaller with "
                 "options of its own",
                 cell.row.name.c_str(), (long long)(a.parameters_non_embedding - std::llround(slope * double(width))), (long long)target);
    Numbers found;
    const std::vector<std::string> option = {"--mlp-width", std::to_string(wanted)};
    ensure(try_options(s, cell, option, place, found), "MATCH: %s: the trainer refuses --mlp-width %lld", cell.row.name.c_str(),
           (long long)wanted);
    ensure(relative(double(found.parameters_non_embedding), double(target)) <= PARAMS_TOLERANCE,
           "MATCH: %s: %lld parameters at --mlp-width %lld, wanted %lld to 0.5%%", cell.row.name.c_str(),
           (long long)found.parameters_non_embedding, (long long)wanted, (long long)target);
    add(cell, wanted == width ? std::vector<std::string>{} : option, found);
}

// Ways to another cache, those that change least first. The variant's own widths are handled beside: their value follows from a line.
static std::vector<std::vector<std::string>> cache_candidates(const Settings& s) {
    const int64_t heads = s.size.heads, head = s.size.width / heads;
    auto text = [](int64_t n) { return std::to_string(n); };
    std::vector<std::vector<std::string>> list = {{}};
    for (int64_t n = heads; n >= 1; n--)
        if (heads % n == 0) list.push_back({"--kv-heads", text(n)});
    for (int64_t n = heads - 1; n >= 1; n--) list.push_back({"--heads", text(n), "--head-dim", text(head)});
    for (int64_t n = 1; n <= 2 * heads; n++)
        if (s.size.width % n == 0) list.push_back({"--heads", text(n), "--head-dim", text(s.size.width / n)});
    for (int64_t n = 8; n <= 2 * head; n += 4) list.push_back({"--head-dim", text(n)});
    return list;
}

static void match_cache(const Settings& s, Cell& cell, int64_t target, const Place& place) {
    double best = 1e30;
    std::vector<std::string> best_options;
    Numbers best_numbers;
    auto consider = [&](const std::vector<std::string>& options) {           // true: exact, nothing can be better
        Numbers n;
        if (best == 0 || !try_options(s, cell, options, place, n)) return best == 0;
        const double miss = relative(double(n.cache_bytes_per_token), double(target));
        if (miss < best) {
            best = miss;
            best_options = options;
            best_numbers = n;
        }
        return best == 0;
    };
    const auto candidates = cache_candidates(s);
    size_t i = 0;
    for (; i < candidates.size() && (i == 0 || candidates[i][0] == "--kv-heads"); i++) consider(candidates[i]);
    for (const OwnOption& o : trainer_options(s, cell.row.variant)) {        // widths of its own: cache is linear in each
        if (best == 0) break;
        std::string prefix = "--" + cell.row.variant + "-";
        std::erase(prefix, '_');
        Numbers low, high;
        if (!o.name.starts_with(prefix) || o.argument != "N") continue;
        if (!try_options(s, cell, {o.name, "16"}, place, low) || !try_options(s, cell, {o.name, "32"}, place, high)) continue;
        const double slope = double(high.cache_bytes_per_token - low.cache_bytes_per_token) / 16;
        const int64_t value = slope > 0 ? 16 + std::llround(double(target - low.cache_bytes_per_token) / slope) : 0;
        if (value >= 1) consider({o.name, std::to_string(value)});
    }
    for (; i < candidates.size() && best > 0; i++) consider(candidates[i]);
    ensure_usage(best <= CACHE_TOLERANCE,
                 "MATCH=cache: %s comes no nearer than %.0f%% to %lld bytes per token; give CACHE=BYTES, or leave it out",
                 cell.row.name.c_str(), 100 * best, (long long)target);
    add(cell, best_options, best_numbers);
}

std::vector<Cell> matched_cells(const Settings& s, const std::string& matching, const std::vector<Cell>& layout, const Place& place) {
    std::vector<Cell> cells = layout;
    for (Cell& c : cells) {
        const Cell* base = nullptr;
        for (const Cell& b : layout)
            if (b.row.name == s.baseline && b.pos == c.pos) base = &b;
        ensure_usage(base, "MATCH=%s needs the baseline %s among VARIANTS", matching.c_str(), s.baseline.c_str());
        const Numbers before = c.numbers;
        c.matching = matching;
        if (matching == "cache") match_cache(s, c, s.cache_bytes > 0 ? s.cache_bytes : base->numbers.cache_bytes_per_token / 2, place);
        if (matching == "params" || matching == "cache") match_params(s, c, base->numbers.parameters_non_embedding, place);
        if (matching == "flops") c.steps = std::llround(double(c.steps) * base->numbers.flops_per_token / c.numbers.flops_per_token);
        c.seconds *= c.numbers.flops_per_token / before.flops_per_token * double(c.steps) / double(base->steps);
    }
    return cells;
}
