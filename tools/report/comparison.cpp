// From run folders and records to rows and differences; see comparison.h.
#include "tools/report/comparison.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "runtime/run/options.h"

namespace fs = std::filesystem;
using nlohmann::json;

// ---- small questions

const Run* run_of_seed(const Row& row, int64_t seed) {
    for (auto& r : row.runs)
        if (r.seed == seed && r.finished()) return &r;
    return nullptr;
}
const Row* base_of(const Section& s, const Row& row) { return row.base < 0 ? nullptr : &s.rows[size_t(row.base)]; }

std::string short_name(const Section& s, const Row& row) {
    int same = 0;
    for (auto& r : s.rows) same += r.label == row.label && r.pos == row.pos;
    return same > 1 ? row.name() : row.label;
}

std::vector<double> finished_losses(const Row& row) {
    std::vector<double> values;
    std::set<int64_t> seen;
    for (auto& r : row.runs)
        if (r.finished() && seen.insert(r.seed).second) values.push_back(r.val_loss());
    return values;
}
double row_loss(const Row& row) {
    std::vector<double> values = finished_losses(row);
    if (values.empty())
        for (auto& r : row.runs)
            if (!std::isnan(r.val_loss())) values.push_back(r.val_loss());
    return mean(values);
}
double row_mean(const Row& row, double Run::*field) {
    std::vector<double> values;
    for (auto& r : row.runs)
        if (!std::isnan(r.*field)) values.push_back(r.*field);
    return mean(values);
}
size_t seeds_of(const Row& row) {
    std::set<int64_t> seeds;
    for (auto& r : row.runs) seeds.insert(r.seed);
    return seeds.size();
}
bool several_seeds(const Section& s) {
    for (auto& row : s.rows)
        if (seeds_of(row) >= 2) return true;
    return false;
}

// ---- the plan

// ["--mla-dc", "64", "--qvka-tied"] -> {mla_dc: 64, qvka_tied: true}
static std::map<std::string, std::string> options_of(const json& list) {
    std::map<std::string, std::string> out;
    std::string key;
    for (auto& item : list.is_array() ? list : json::array()) {
        std::string s = item.is_string() ? item.get<std::string>() : item.dump();
        if (s.starts_with("--")) {
            key = s.substr(2);
            std::replace(key.begin(), key.end(), '-', '_');
            out[key] = "true";
        } else if (!key.empty()) {
            out[key] = s;
            key.clear();
        }
    }
    return out;
}

Plan read_plan(const json& j) {
    Plan p;
    if (!j.is_object()) return p;
    p.baseline = text_at(j, "baseline");
    p.text = text_at(j, "text");
    p.command = text_at(j, "command");
    // Older ones do not say the precision, which was fp32; now the machine may choose another.
    if (const size_t end = p.command.rfind("make compare"); end != std::string::npos && p.command.find("PRECISION=") == std::string::npos)
        p.command.insert(end, "PRECISION=fp32 ");
    p.note = text_at(j, "plan");
    p.finished = integer_at(j, "finished");
    p.total = integer_at(j, "total");
    p.started = integer_at(j, "started");
    p.looks = std::max<int64_t>(1, integer_at(j, "looks"));
    auto rows = j.find("rows");
    if (rows != j.end() && rows->is_array())
        for (auto& r : *rows)
            if (!text_at(r, "row").empty())
                p.rows.push_back({text_at(r, "row"), text_at(r, "variant"),
                                  r.contains("options") ? options_of(r["options"]) : std::map<std::string, std::string>{}});
    auto runs = j.find("runs");
    if (runs != j.end() && runs->is_array())
        for (auto& r : *runs)
            if (std::string run = text_at(r, "run"), row = text_at(r, "row"); !run.empty() && !row.empty()) p.row_of[run] = row;
    return p;
}

// "0.0040" and "0.004" are the same value, "64" and "64.0" too.
static bool same_value(const std::string& a, const std::string& b) {
    if (a == b) return true;
    char *end_a, *end_b;
    double x = strtod(a.c_str(), &end_a), y = strtod(b.c_str(), &end_b);
    return !a.empty() && !b.empty() && *end_a == 0 && *end_b == 0 && x == y;
}

// The planned row that a run belongs to: as its folder is listed; else by its variant and all its options, of several the one with
// the most options.
static const PlannedRow* planned_row(const Run& run, const Plan& plan) {
    const PlannedRow* best = nullptr;
    auto listed = plan.row_of.find(run.name);
    for (auto& row : plan.rows) {
        if (listed != plan.row_of.end() && listed->second == row.row) return &row;
        bool fits = row.variant == run.attn;
        for (auto& [key, value] : row.options) {
            std::string own = key == "pos" ? run.pos : text_at(run.options, key.c_str());
            if (auto it = run.identity.find(key); own.empty() && it != run.identity.end()) own = it->second;
            fits = fits && same_value(own, value);
        }
        if (fits && (!best || row.options.size() > best->options.size())) best = &row;
    }
    return best;
}
std::string row_of(const Run& run, const Plan& plan) {
    const PlannedRow* row = planned_row(run, plan);
    return row ? row->row : "";
}

// ---- rows

// mla owns mla_dc, qv_ka owns qvka_dctx: an option that begins with the variant's name without underscores.
static bool owns(const std::string& variant, const std::string& key) {
    std::string stem;
    for (char c : variant)
        if (c != '_') stem += c;
    return key.starts_with(stem + "_");
}

// Options of the attention's own size: they make a row what it is and need not agree with the baseline's.
static bool is_size(const std::string& key) { return key == "kv_heads" || key == "mlp_width" || key == "head_dim"; }

static std::string default_of(const std::string& key) {
    static const json defaults = json::parse(options_to_json(Options{}));
    return text_at(defaults, key.c_str());
}

static std::string value_of(const std::map<std::string, std::string>& m, const std::string& key) {
    auto it = m.find(key);
    return it == m.end() ? "" : it->second;
}

// An option that some variant owns says nothing about a run of another variant.
static std::set<std::string> variants_of(const std::vector<Run>& runs) {
    std::set<std::string> names;
    for (auto& r : runs) names.insert(r.attn);
    return names;
}
static bool concerns(const std::string& key, const std::string& variant, const std::set<std::string>& variants) {
    if (owns(variant, key)) return true;
    for (auto& other : variants)
        if (owns(other, key)) return false;
    return true;
}

std::vector<Row> group_runs(std::vector<Run> runs, const Plan& plan, Problems& problems) {
    const std::set<std::string> variants = variants_of(runs);
    std::map<std::string, std::set<std::string>> values;          // over all runs that a key concerns
    for (auto& run : runs)
        for (auto& [key, value] : run.identity)
            if (concerns(key, run.attn, variants)) values[key].insert(value);
    // A key that only some of the runs have differs too.
    std::set<std::string> differing;
    for (auto& [key, set] : values) {
        bool everywhere = true;
        for (auto& run : runs)
            everywhere = everywhere && (run.identity.count(key) || run.identity.empty() || !concerns(key, run.attn, variants));
        if (set.size() > 1 || !everywhere) differing.insert(key);
    }

    std::map<std::vector<std::string>, Row> rows;
    std::stable_sort(runs.begin(), runs.end(),
                     [](const Run& a, const Run& b) { return std::tie(a.seed, a.name) < std::tie(b.seed, b.name); });
    for (auto& run : runs) {
        // The options that a planned row's name already says.
        const std::map<std::string, std::string>* named = nullptr;
        for (auto& row : plan.rows)
            if (row.row == run.row) named = &row.options;
        std::vector<std::string> key = {run.pos, run.attn, run.row};
        Row fresh{
            .attn = run.attn, .pos = run.pos, .label = run.row.empty() ? run.attn : run.row, .settings = {}, .identity = {}, .runs = {}};
        for (auto& k : differing) {
            if (!concerns(k, run.attn, variants)) continue;
            std::string value = value_of(run.identity, k);
            key.push_back(k + "=" + value);
            fresh.identity[k] = value;
            const bool said = named && named->count(k);
            const bool off = (is_size(k) || owns(run.attn, k)) && (value == "-1" || value == default_of(k));    // -1: as the variant says
            std::string shown = k;
            std::replace(shown.begin(), shown.end(), '_', '-');
            if (!value.empty() && !said && !off) fresh.settings += (fresh.settings.empty() ? "" : " ") + shown + "=" + value;
        }
        Row& row = rows.try_emplace(key, std::move(fresh)).first->second;
        if (!row.runs.empty() && row.runs.back().seed == run.seed && run.seed >= 0)
            problems.push_back(format("%s and %s are the same variant, options and seed: only the first is counted.",
                                      row.runs.back().dir.c_str(), run.dir.c_str()));
        row.runs.push_back(std::move(run));
    }
    std::vector<Row> sorted;
    for (auto& [key, row] : rows) sorted.push_back(std::move(row));
    std::stable_sort(sorted.begin(), sorted.end(), [](const Row& a, const Row& b) {
        if (a.pos != b.pos) return a.pos < b.pos;
        double x = row_loss(a), y = row_loss(b);
        return !std::isnan(x) && (std::isnan(y) || x < y);
    });
    return sorted;
}

// Which row is `row` compared with? Of the baseline's rows at its position those that agree in every option that both have; the
// variant's own options and sizes may differ, and so may the learning rate, which is tuned for each variant, but a baseline row
// that agrees in them too is preferred. When several are equally near there is none: no guess.
void find_baselines(std::vector<Row>& rows, const std::string& baseline, const Plan& plan, Problems& problems) {
    bool by_label = false;
    for (auto& row : rows) by_label = by_label || row.label == baseline;
    auto is_base = [&](const Row& r) { return by_label ? r.label == baseline : r.attn == baseline; };
    std::set<std::string> planned = plan.matched;        // options that rows were planned to differ in
    for (auto& row : plan.rows)
        for (auto& [key, value] : row.options) planned.insert(key);
    std::vector<std::string> without;
    for (auto& row : rows) {
        row.base = -1;
        int best = INT32_MAX, ties = 0, candidates = 0;
        for (size_t b = 0; b < rows.size(); b++) {
            const Row& base = rows[b];
            if (!is_base(base) || base.pos != row.pos) continue;
            candidates++;
            if (&base == &row) {
                best = -1;
                row.base = int(b);
                continue;
            }
            int soft = 0;
            bool fits = true;
            for (auto& [key, value] : row.identity) {
                if (!base.identity.count(key) || same_value(value, value_of(base.identity, key))) continue;
                if (is_size(key) || owns(row.attn, key) || owns(base.attn, key) || key == "lr" || planned.count(key)) soft++;
                else fits = false;
            }
            if (!fits || soft > best) continue;
            ties = soft == best ? ties + 1 : 1;
            best = soft;
            row.base = int(b);
        }
        if (best >= 0 && ties > 1) row.base = -1;
        if (candidates && row.base < 0) without.push_back(row.name());
    }
    if (without.empty()) return;
    std::string list;
    for (auto& name : without) list += (list.empty() ? "" : "; ") + name;
    problems.push_back("No difference is taken for: " + list + ". No run of the baseline " + baseline +
                       ", or more than one, has the same other options.");
}

// ---- differences

static Difference difference_to(const Row& row, const Row& base) {
    Difference d;
    std::vector<double> a, b, per_sequence;
    std::set<int64_t> seen;
    for (auto& run : row.runs) {
        const Run* other = run_of_seed(base, run.seed);
        if (!run.finished() || !other || !seen.insert(run.seed).second) continue;
        a.push_back(run.val_loss());
        b.push_back(other->val_loss());
        if (run.sequences.empty() || run.sequences.size() != other->sequences.size()) continue;
        if (per_sequence.empty()) per_sequence.assign(run.sequences.size(), 0);
        if (per_sequence.size() != run.sequences.size()) continue;
        d.text_seeds++;
        for (size_t i = 0; i < per_sequence.size(); i++) per_sequence[i] += run.sequences[i] - other->sequences[i];
    }
    d.seeds = paired_difference(a, b);
    d.sequences = per_sequence.size();
    for (double& v : per_sequence) v /= double(d.text_seeds);
    d.text = block_mean(per_sequence, 0.05);
    return d;
}

// While seeds are missing (a comparison in progress) a mean over other seeds would rank by luck: where a row has pairs with its
// baseline, its place is the baseline's loss plus the paired difference.
void sort_rows(std::vector<Row>& rows) {
    std::vector<double> place;
    for (auto& row : rows) {
        const Row* base = row.base < 0 || &rows[size_t(row.base)] == &row ? nullptr : &rows[size_t(row.base)];
        double paired = base ? row_loss(*base) + difference_to(row, *base).seeds.mean : NOT_MEASURED;
        place.push_back(std::isnan(paired) ? row_loss(row) : paired);
    }
    std::vector<size_t> order = ascending_order(place), now(rows.size());
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return rows[a].pos < rows[b].pos; });
    std::vector<Row> sorted;
    for (size_t i = 0; i < order.size(); i++) now[order[i]] = i;
    for (size_t i : order) sorted.push_back(std::move(rows[i]));
    for (auto& row : sorted)
        if (row.base >= 0) row.base = int(now[size_t(row.base)]);
    rows = std::move(sorted);
}

void analyse(Section& s, double alpha) {
    s.differences.assign(s.rows.size(), {});
    std::vector<double> p(s.rows.size(), NOT_MEASURED);
    std::vector<std::vector<double>> within;
    double squares = 0, df = 0;
    for (size_t i = 0; i < s.rows.size(); i++) {
        within.push_back(finished_losses(s.rows[i]));
        if (s.rows[i].base < 0 || s.rows[i].base == int(i)) continue;
        Difference& d = s.differences[i] = difference_to(s.rows[i], s.rows[size_t(s.rows[i].base)]);
        d.half = half_width(d.seeds, alpha);
        p[i] = d.seeds.p;
        if (d.seeds.n < 2) continue;
        squares += d.seeds.sd * d.seeds.sd * double(d.seeds.n - 1);
        df += double(d.seeds.n - 1);
    }
    s.seed_sd = pooled_sd(within);
    s.paired_sd = df > 0 ? std::sqrt(squares / df) : NOT_MEASURED;
    Holm h = holm(p, alpha);
    s.tests = h.tests;
    for (size_t i = 0; i < s.rows.size(); i++) {
        Difference& d = s.differences[i];
        if (s.rows[i].base == int(i)) d.verdict = Verdict::baseline;
        if (d.seeds.n > 0 && d.seeds.n < SEEDS_FOR_VERDICT) d.verdict = Verdict::too_few_seeds;
        if (std::isnan(p[i])) continue;
        d.corrected_p = h.adjusted[i];
        d.corrected_half = half_width(d.seeds, h.level[i]);
        d.seeds_needed = seeds_to_tell(d.seeds.sd, DELTA, alpha / double(h.tests));
        if (d.seeds.n < SEEDS_FOR_VERDICT) continue;
        d.verdict = !h.rejected[i] ? Verdict::not_told_apart : d.seeds.mean < 0 ? Verdict::better : Verdict::worse;
    }
}

// ---- loading

// Runs of a folder, with their rows: of the folder's own comparison.json, else of the whole comparison's.
static void add_runs(const std::string& folder, const Plan& whole, std::vector<Run>& runs, Problems& problems) {
    std::set<std::string> paths;
    for (auto& entry : fs::directory_iterator(folder))
        if (entry.is_directory() && is_run_folder(entry.path().string())) paths.insert(entry.path().lexically_normal().string());
    const Plan own = read_plan(read_json(folder + "/comparison.json"));
    for (auto& path : paths) {
        runs.push_back(read_run_folder(path, problems));
        runs.back().row = row_of(runs.back(), own);
        if (runs.back().row.empty()) runs.back().row = row_of(runs.back(), whole);
    }
}

Comparison load_comparison(const Selection& selection, Problems& problems) {
    Comparison c;
    std::map<std::string, std::vector<Run>> by_matching;
    std::map<std::string, std::set<std::string>> matched = {{"flops", {"steps"}}};
    for (auto& folder : selection.folders) {
        ensure(fs::is_directory(folder), "%s: not a folder; give a comparison's folder (runs/NAME) or runs", folder.c_str());
        if (is_run_folder(folder)) {
            by_matching["layout"].push_back(read_run_folder(fs::path(folder).lexically_normal().string(), problems));
            continue;
        }
        const Plan plan = read_plan(read_json(folder + "/comparison.json"));
        if (c.plan.rows.empty()) c.plan = plan;
        add_runs(folder, plan, by_matching["layout"], problems);
        for (const char* matching : {"params", "cache", "flops"}) {
            std::string sub = folder + "/match-" + matching;
            if (!fs::is_directory(sub)) continue;
            add_runs(sub, plan, by_matching[matching], problems);
            const Plan own = read_plan(read_json(sub + "/comparison.json"));
            for (auto& row : own.rows)
                for (auto& [key, value] : row.options) matched[matching].insert(key);
            if (c.plan.rows.empty()) c.plan = own;           // without the layout among the matchings
        }
        Problems ignored;                                // a rate at which training fails is a result there
        if (fs::is_directory(folder + "/tune")) add_runs(folder + "/tune", plan, c.tune, ignored);
        json rates = object_at(read_json(folder + "/learning_rates.json"), "rates");
        for (auto& [row, rate] : rates.items())
            if (rate.is_number()) c.rates[row] = rate.get<double>();
    }
    size_t count = 0;
    for (auto& [matching, runs] : by_matching) count += runs.size();
    ensure(count > 0, "%s: no run in it (a folder with config.json and metrics.jsonl); train first: make compare",
           selection.folders[0].c_str());
    c.baseline = !selection.baseline.empty() ? selection.baseline : !c.plan.baseline.empty() ? c.plan.baseline : "qkv";
    c.alpha = selection.alpha / double(c.plan.looks);

    // One section for each data and matching; in a matching without a baseline of its own, the layout's takes part.
    std::vector<std::string> data_keys;
    for (auto& [matching, runs] : by_matching)
        for (auto& run : runs)
            if (std::find(data_keys.begin(), data_keys.end(), run.data_key()) == data_keys.end()) data_keys.push_back(run.data_key());
    if (data_keys.size() > 1) c.different_data = data_keys;
    auto is_base = [&](const Run& r) { return (r.row.empty() ? r.attn : r.row) == c.baseline; };
    for (auto& data : data_keys)
        for (const char* matching : {"layout", "params", "cache", "flops"}) {
            std::vector<Run> runs;
            bool has_base = false;
            for (auto& run : by_matching[matching])
                if (run.data_key() == data) {
                    runs.push_back(run);
                    has_base = has_base || is_base(run);
                }
            if (runs.empty()) continue;
            if (!has_base)
                for (auto& run : by_matching["layout"])
                    if (run.data_key() == data && is_base(run)) runs.push_back(run);
            Section s;
            s.matching = matching;
            s.data = data;
            Plan plan = c.plan;
            plan.matched = matched[matching];
            s.rows = group_runs(std::move(runs), plan, problems);
            find_baselines(s.rows, c.baseline, plan, problems);
            sort_rows(s.rows);
            analyse(s, c.alpha);
            c.sections.push_back(std::move(s));
        }
    return c;
}
