// See reading.h.
#include "tools/report/reading.h"

#include <algorithm>
#include <set>

#include "tools/report/text.h"

std::string matching_words(const std::string& matching) {
    if (matching == "params") return "same number of parameters outside the embeddings";
    if (matching == "cache") return "same cache per token";
    if (matching == "flops") return "same training FLOPs";
    return "same layout (width, depth, heads); sizes differ";
}

std::string read_data(const Comparison& c) {
    if (c.different_data.size() < 2) return "";
    std::string s = format(
        "Not ranked against each other: the runs saw %zu different data sets, and losses on different data cannot be compared. "
        "There is one table for each: ",
        c.different_data.size());
    std::vector<std::string> list;
    for (auto& d : c.different_data) list.push_back(d.empty() ? "(a run that does not say which data)" : d);
    return s + join(list, "; ") + ".";
}

// ---- differences

static std::string with_interval(const std::string& name, const Difference& d) {
    return name + " " + show_signed(d.seeds.mean) +
           (std::isnan(d.corrected_half) ? "" : " " + show_interval(d.seeds.mean, d.corrected_half));
}

std::string read_differences(const Section& s, const Comparison& c) {
    std::vector<std::string> better, worse, same, few, unpaired;
    size_t pairs_low = SIZE_MAX, pairs_high = 0;
    for (size_t i = 0; i < s.rows.size(); i++) {
        const Difference& d = s.differences[i];
        if (s.rows[i].base == int(i)) continue;
        if (s.rows[i].base >= 0 && d.seeds.n == 0) unpaired.push_back(short_name(s, s.rows[i]));
        std::vector<std::string>* list = d.verdict == Verdict::better           ? &better
                                         : d.verdict == Verdict::worse          ? &worse
                                         : d.verdict == Verdict::not_told_apart ? &same
                                         : d.verdict == Verdict::too_few_seeds  ? &few
                                                                                : nullptr;
        if (!list) continue;
        list->push_back(with_interval(short_name(s, s.rows[i]), d));
        if (list == &few) continue;
        pairs_low = std::min(pairs_low, d.seeds.n);
        pairs_high = std::max(pairs_high, d.seeds.n);
    }
    std::string text;
    if (pairs_high > 0) {
        std::string pairs = pairs_low == pairs_high ? std::to_string(pairs_high) : format("%zu to %zu", pairs_low, pairs_high);
        text = format(
            "Against %s, over %s paired seeds (intervals and verdicts corrected for %zu comparison%s, chance of any false one at most "
            "%.3g%%): ",
            c.baseline.c_str(), pairs.c_str(), s.tests, s.tests == 1 ? "" : "s", 100 * c.alpha);
        std::vector<std::string> parts;
        if (!worse.empty()) parts.push_back("worse: " + join(worse, ", "));
        if (!better.empty()) parts.push_back("better: " + join(better, ", "));
        if (!same.empty()) parts.push_back("not told apart: " + join(same, ", ") + " (the interval holds 0)");
        text += join(parts, "; ") + ".";
        if (c.plan.looks > 1)
            text += format(" The number of seeds was not fixed in advance (SEEDS=auto): up to %lld looks, each at its share of %g%%.",
                           (long long)c.plan.looks, 100 * c.alpha * double(c.plan.looks));
    }
    if (!few.empty()) {
        text += (text.empty() ? "" : " ") + std::string("Too few seeds for a verdict against ") + c.baseline + ": " + join(few, ", ") +
                ". " +
                format("One seed gives no interval, two give one with a single degree of freedom; a verdict needs %zu: SEEDS=%zu.",
                       SEEDS_FOR_VERDICT, SEEDS_FOR_VERDICT);
    }
    if (!unpaired.empty()) text += (text.empty() ? "" : " ") + std::string("Without a finished pair: ") + join(unpaired, ", ") + ".";
    return text;
}

std::string read_seeds(const Section& s, const Comparison& c) {
    if (std::isnan(s.seed_sd)) {
        for (auto& row : s.rows)
            if (!std::isnan(row_loss(row)))
                return "The spread between seeds was not measured here. Elsewhere, for scale: the same model trained from different "
                       "seeds ended with a standard deviation of "
                       "0.012 nats (three seeds, SIZE=default) to 0.033 (five seeds, SIZE=tiny), and differences paired by seed with one "
                       "of 0.002 to 0.014 (docs/LOG.md, "
                       "\"The spread between seeds\"). What it is for these runs takes more seeds to say.";
        return "";
    }
    std::string text = format("Between seeds the loss of a row has a standard deviation of %.4f nats", s.seed_sd);
    if (std::isnan(s.paired_sd)) return text + " (pooled over the rows).";
    text += format(", its difference to %s paired by seed %.4f (both pooled over the rows).", c.baseline.c_str(), s.paired_sd);
    size_t n = seeds_to_tell(s.paired_sd, DELTA, c.alpha / double(std::max<size_t>(1, s.tests)));
    return text + format(" With that spread %s seeds would tell a difference of %g nats with 80%% probability at the corrected level.",
                         n ? std::to_string(n).c_str() : "more than 10000", DELTA);
}

std::string read_text_interval(const Section& s, const Comparison& c) {
    std::vector<std::string> holds;
    const Difference* any = nullptr;
    size_t told = 0;
    double context = NOT_MEASURED;
    for (size_t i = 0; i < s.rows.size(); i++) {
        const Difference& d = s.differences[i];
        if (std::isnan(d.text.half_width)) continue;
        any = &d;
        context = number_at(s.rows[i].runs[0].options, "context");
        if (std::abs(d.text.mean) <= d.text.half_width) holds.push_back(short_name(s, s.rows[i]));
        else told++;
    }
    if (!any) return "";
    std::string block = format("%zu neighbouring sequences", any->text.per_block);
    if (!std::isnan(context)) block += format(" (%.0f tokens)", double(any->text.per_block) * context);
    std::string text = format(
        "The interval over text is another thing: it pairs the %zu validation sequences and says how the difference to %s of these very "
        "weights would vary "
        "over more text of the same kind, not over another training. Sequences are consecutive windows of documents and so resemble "
        "their neighbours; the interval takes "
        "means of blocks of %s as independent, which is too narrow where likeness reaches further.",
        any->sequences, c.baseline.c_str(), block.c_str());
    text += holds.empty() ? format(" It excludes 0 for all %zu.", told) : " It holds 0 for: " + join(holds, ", ") + ".";
    return text;
}

// ---- curves

// Mean over the seeds of the first validation loss at or after `fraction` of the row's own tokens.
static double early_val_loss(const Row& row, double fraction) {
    std::vector<double> values;
    for (auto& run : row.runs)
        for (size_t i = 0; i < run.val.loss.size(); i++)
            if (run.val.tokens[i] > 0 && run.val.tokens[i] >= fraction * run.val.tokens.back()) {
                values.push_back(run.val.loss[i]);
                break;
            }
    return mean(values);
}

template <class Get> static double mean_over_runs(const Row& row, Get get) {
    std::vector<double> values;
    for (auto& r : row.runs)
        if (double v = get(r); !std::isnan(v)) values.push_back(v);
    return mean(values);
}

std::string read_curves(const Section& s, const std::vector<const Row*>& rows) {
    std::vector<std::string> slopes, overfit;
    std::vector<double> early, final;
    std::vector<const Row*> ordered;
    bool falling = false;
    for (const Row* row : rows) {
        double slope = mean_over_runs(*row, [](const Run& r) { return slope_per_doubling(r.val.tokens, r.val.loss, LAST).per_doubling; });
        if (!std::isnan(slope)) {
            slopes.push_back(short_name(s, *row) + " " + show_signed(slope, 3));
            falling |= slope < -FLAT_SLOPE;
        }
        double rise = mean_over_runs(*row, [](const Run& r) {
            return r.val.loss.empty() ? NOT_MEASURED : r.val_loss() - *std::min_element(r.val.loss.begin(), r.val.loss.end()); });
        if (rise > OVERFIT_RISE) overfit.push_back(short_name(s, *row) + format(" by %.3f", rise));
        if (double v = early_val_loss(*row, EARLY); !std::isnan(v)) {
            early.push_back(v);
            final.push_back(row_loss(*row));
            ordered.push_back(row);
        }
    }
    std::string text = "Too few validations in the last tenth of the training to say whether the curves have flattened.";
    if (!slopes.empty()) {
        text = format("Slope of the validation loss over the last %.0f%% of the tokens, in nats per doubling of the training: ",
                      100 * LAST) +
               join(slopes, ", ") + ". ";
        text +=
            falling
                ? "The curves have not flattened: this order is one of models still learning, and longer training can change it."
                : format("Within %.2f: the curves have flattened under this learning-rate schedule (a decayed rate flattens any curve).",
                         FLAT_SLOPE);
    }
    if (!overfit.empty()) text += " Overfitting: the final validation loss is above its own minimum for " + join(overfit, ", ") + ".";
    if (ordered.size() >= 2) {
        auto names = [&](const std::vector<double>& values) {
            std::vector<std::string> list;
            for (size_t i : ascending_order(values)) list.push_back(short_name(s, *ordered[i]));
            return join(list, " < ");
        };
        size_t pairs = ordered.size() * (ordered.size() - 1) / 2, swapped = swapped_pairs(early, final);
        text += format(" Order of the means at %.0f%% of the tokens: %s. At the end: %s. ", 100 * EARLY, names(early).c_str(),
                       names(final).c_str());
        text += swapped ? format("%zu of %zu pairs changed places.", swapped, pairs) : std::string("No pair changed places.");
    }
    return text;
}

// ---- all of it

static std::string read_sizes(const std::vector<const Row*>& group, const Section& s, const Comparison& c) {
    double low = 0, high = 0;
    for (const Row* row : group) {
        const Row* base = base_of(s, *row);
        double relative =
            base ? 100 * (row_mean(*row, &Run::parameters_non_embedding) / row_mean(*base, &Run::parameters_non_embedding) - 1)
                 : NOT_MEASURED;
        if (std::isnan(relative)) continue;
        low = std::min(low, relative);
        high = std::max(high, relative);
    }
    if (high - low <= 1) return "";
    return format("Size differs within this table: parameters outside the embeddings lie between %+.0f%% and %+.0f%% of %s's.", low, high,
                  c.baseline.c_str());
}

static std::string read_rates(const Section& s, const Comparison& c) {
    std::vector<std::string> list;
    for (auto& row : s.rows) {
        const Row* base = base_of(s, row);
        auto own = row.identity.find("lr");
        if (!base || base == &row || own == row.identity.end()) continue;
        if (auto theirs = base->identity.find("lr"); theirs != base->identity.end() && theirs->second != own->second)
            list.push_back(row.label + " " + own->second + " (" + c.baseline + " " + theirs->second + ")");
    }
    if (list.empty()) return "";
    return "Learning rates differ: " + join(list, ", ") +
           ". That is fair when each was tuned (the picture of loss against rate shows it), and not otherwise.";
}

std::vector<std::string> honest_reading(const Section& s, const Comparison& c, double unigram) {
    std::vector<std::string> out, beaten;
    auto add = [&](const std::string& text) { if (!text.empty()) out.push_back(text); };
    add(read_differences(s, c));
    add(read_seeds(s, c));
    add(read_text_interval(s, c));
    if (s.rows.size() > 2)
        add("Rows are sorted by their mean loss. Verdicts are against the baseline only: two neighbours in the table were not tested "
            "against each other.");
    add(read_rates(s, c));
    std::set<std::string> positions;
    for (auto& row : s.rows) positions.insert(row.pos);
    for (auto& pos : positions) {
        std::vector<const Row*> group;
        bool base = false;
        for (auto& row : s.rows)
            if (row.pos == pos) {
                group.push_back(&row);
                base |= row.base >= 0;
            }
        std::string head = positions.size() > 1 ? pos + ": " : "";
        if (!base) add(head + "No " + c.baseline + " run, so there is nothing to take differences to.");
        add(head + read_curves(s, group));
        for (const Row* row : group) {
            if (row_loss(*row) >= unigram) beaten.push_back(short_name(s, *row) + " (" + pos + ")");
            // MLA always has its own rotary part, whatever --pos says of the rest.
            if (row->attn == "mla" && group.size() > 1 && (pos == "learned" || pos == "sinusoidal" || pos == "none"))
                add(head +
                    "mla keeps its own rotary positions here while the others have none: this difference is one of positions as much as "
                    "of attention. "
                    "Compare mla under rope, alibi or power.");
        }
        if (std::string text = read_sizes(group, s, c); !text.empty()) add(head + text);
    }
    if (!beaten.empty())
        add("Not better than the frequencies of single tokens (unigram baseline): " + join(beaten, ", ") + ". Train longer.");
    return out;
}

std::vector<std::pair<std::string, std::string>> setup_facts(const Section& s) {
    auto all = [&](auto get) {                                   // distinct non-empty values, in order
        std::vector<std::string> list;
        for (auto& row : s.rows)
            for (auto& run : row.runs)
                if (std::string v = get(run); !v.empty() && std::find(list.begin(), list.end(), v) == list.end()) list.push_back(v);
        return list.empty() ? std::string("-") : join(list, ", ");
    };
    auto option = [&](const char* key) { return all([&](const Run& r) { return text_at(r.options, key); }); };
    const Run& first = s.rows[0].runs[0];
    std::string tokens = all([](const Run& r) {
        double n = number_at(r.options, "batch_tokens") * double(r.steps);
        return r.steps < 0 || std::isnan(n) ? std::string()
                                            : show_count(n) + " tokens (" + show(n / r.train_tokens, "%.1f") + " passes over the data)";
    });
    return {
        {"data", option("data") + ": " + show_count(first.train_tokens) + " training and " + show_count(first.val_tokens) +
                     " validation tokens, vocabulary " + show(first.vocab_size, "%.0f")},
        {"data fingerprint", s.data.empty() ? "-" : s.data},
        {"size",
         "layers " + option("layers") + "; width " + option("width") + "; heads " + option("heads") + "; context " + option("context")},
        {"training", option("steps") + " steps of " + option("batch_tokens") + " tokens = " + tokens},
        {"learning rate", option("lr") + "; schedule " + option("schedule") + "; warm-up " + option("warmup") + " steps, down to " +
                              option("final_fraction") + " of it; weight decay " + option("weight_decay") + "; gradient clip " +
                              option("grad_clip")},
        {"positions", all([](const Run& r) { return r.pos; })},
        {"seeds", all([](const Run& r) { return r.seed < 0 ? "" : std::to_string(r.seed); })},
        {"machine",
         all([](const Run& r) { return r.cpu.empty() ? "" : r.cpu + (r.threads.empty() ? "" : ", " + r.threads + " threads"); })},
        {"build", all([](const Run& r) {
             std::vector<std::string> parts;
             for (const std::string& part : {r.commit.empty() ? "" : "commit " + r.commit, r.compiler, r.backend, r.precision})
                 if (!part.empty()) parts.push_back(part);
             return join(parts, ", ");
         })},
    };
}

std::vector<std::string> mixed_origins(const Comparison& c) {
    std::set<std::string> commits, kinds;
    for (auto& s : c.sections)
        for (auto& row : s.rows)
            for (auto& r : row.runs) {
                commits.insert(r.commit);
                kinds.insert(r.backend + " " + r.precision);
            }
    std::vector<std::string> out;
    if (commits.size() > 1)
        out.push_back(format("The runs were made by %zu versions of the source (commits differ, see the setup).", commits.size()));
    if (kinds.size() > 1) out.push_back("The runs differ in backend or precision: small differences of loss may come from that.");
    return out;
}
