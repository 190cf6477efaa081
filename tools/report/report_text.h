// The words and tables of the report: one table, and sentences that say what the numbers can and cannot tell.
// The rules of reading (what counts as a difference, as flat, as overfitting) are the named constants below.
#pragma once
#include <string>
#include <vector>
#include "tools/report/report_runs.h"

// Standard deviation of the final validation loss between seeds, small models (docs: about 0.015 nats). Used where only one seed
// was trained and the spread can not be measured.
inline constexpr double SEED_SD = 0.015;
// Two runs, one each: their difference has sd sqrt(2) * SEED_SD, and 95% of chance differences lie within 1.96 of it.
inline const double ONE_SEED_LIMIT = 1.96 * std::sqrt(2.0) * SEED_SD;
inline constexpr double FLAT_SLOPE = 0.02;          // nats per doubling: more training would change less than a seed does
inline constexpr double OVERFIT_RISE = 0.01;        // nats above its own minimum
inline constexpr double EARLY = 0.10, LAST = 0.10;  // fractions of the tokens: "early" is at 10%, the slope is over the last 10%

inline std::string show(double v, const char* fmt) { return std::isnan(v) ? "-" : format(fmt, v); }

inline std::string show_count(double n) {           // 1.048M: four digits, so that variants can be told apart
    if (std::isnan(n)) return "-";
    if (n >= 1e9) return format("%#.4gG", n / 1e9);
    if (n >= 1e6) return format("%#.4gM", n / 1e6);
    if (n >= 1e4) return format("%#.4gk", n / 1e3);
    return format("%.0f", n);
}

struct Table { std::vector<std::string> header; std::vector<std::vector<std::string>> rows; std::vector<char> highlight; };

inline bool several_seeds(const std::vector<Row>& rows) {
    for (auto& row : rows)
        if (row.runs.size() >= 2) return true;
    return false;
}

inline double row_mean(const Row& row, double Run::*field) { return mean(per_seed(row, [&](const Run& r) { return r.*field; })); }

inline std::string show_difference(const Row& row, const Row* base) {
    if (!base || std::isnan(row_val_loss(row))) return "-";
    if (base == &row) return "0";
    PairedDifference d = difference_to(row, *base);
    if (d.n < 2) return show(d.mean, "%+.4f");
    return format("%+.4f [%+.4f, %+.4f]", d.mean, d.mean - d.half_width, d.mean + d.half_width);
}

inline Table results_table(const std::vector<Row>& rows, const std::string& baseline) {
    bool seeds = several_seeds(rows);
    Table t;
    t.header = {"variant", "pos", "params", "non-embedding", "cache B/token", "FLOPs/token", "tokens/s"};
    if (seeds) t.header.insert(t.header.end(), {"seeds", "val loss, mean ± sd"});
    else t.header.push_back("val loss");
    t.header.insert(t.header.end(), {"bits/byte", "vs " + baseline + (seeds ? " [95%]" : "")});
    std::string last_pos;
    for (auto& row : rows) {
        bool unfinished = false;
        for (auto& r : row.runs) unfinished |= !r.finished();
        auto losses = per_seed(row, [](const Run& r) { return r.val_loss(); }, true);
        std::string loss = show(row_val_loss(row), "%.4f");
        if (losses.size() >= 2) loss += format(" ± %.4f", sample_sd(losses));
        if (unfinished && !std::isnan(row_val_loss(row))) loss += "*";
        std::vector<std::string> cells = {row.attn, row.pos, show_count(row_mean(row, &Run::parameters)),
                                          show_count(row_mean(row, &Run::parameters_non_embedding)),
                                          show(row_mean(row, &Run::cache_bytes_per_token), "%.0f"),
                                          show_count(row_mean(row, &Run::flops_per_token)),
                                          show_count(row_mean(row, &Run::tokens_per_second))};
        if (seeds) cells.push_back(std::to_string(row.runs.size()));
        cells.insert(cells.end(), {loss, show(row_mean(row, &Run::bits_per_byte), "%.4f"),
                                   show_difference(row, find_row(rows, baseline, row.pos))});
        t.rows.push_back(cells);
        t.highlight.push_back(row.pos != last_pos && !std::isnan(row_val_loss(row)));     // rows are sorted: the first is the best
        last_pos = row.pos;
    }
    return t;
}

inline size_t display_width(const std::string& s) {      // UTF-8: continuation bytes take no column
    size_t n = 0;
    for (unsigned char c : s) n += (c & 0xC0) != 0x80;
    return n;
}

// Text left, numbers right; bold header and the best of each position in green when `colour`.
inline std::string table_for_terminal(const Table& t, bool colour) {
    std::vector<size_t> width;
    for (auto& h : t.header) width.push_back(display_width(h));
    for (auto& row : t.rows)
        for (size_t c = 0; c < row.size(); c++) width[c] = std::max(width[c], display_width(row[c]));
    auto line = [&](const std::vector<std::string>& cells, const char* style) {
        std::string s;
        for (size_t c = 0; c < cells.size(); c++) {
            std::string space(width[c] - display_width(cells[c]), ' ');
            s += (c ? "  " : "") + (c < 2 ? cells[c] + space : space + cells[c]);
        }
        return colour && *style ? style + s + "\033[0m\n" : s + "\n";
    };
    std::string out = line(t.header, "\033[1m");
    for (size_t r = 0; r < t.rows.size(); r++) {
        if (r && t.rows[r][1] != t.rows[r - 1][1]) out += "\n";
        out += line(t.rows[r], t.highlight[r] ? "\033[32m" : "");
    }
    return out;
}

inline std::string markdown_cell(const std::string& s) {       // a bar would end the cell
    std::string out;
    for (char c : s) {
        if (c == '|') out += '\\';
        out += c;
    }
    return out;
}

inline std::string table_for_markdown(const Table& t) {
    std::string out = "|", rule = "|";
    for (size_t c = 0; c < t.header.size(); c++) out += format(" %s |", markdown_cell(t.header[c]).c_str()), rule += c < 2 ? "---|" : "---:|";
    out += "\n" + rule + "\n";
    for (size_t r = 0; r < t.rows.size(); r++) {
        out += "|";
        const char* bold = t.highlight[r] ? "**" : "";
        for (auto& cell : t.rows[r]) out += format(" %s%s%s |", bold, markdown_cell(cell).c_str(), bold);
        out += "\n";
    }
    return out;
}

inline std::string join(const std::vector<std::string>& parts, const char* between) {
    std::string s;
    for (size_t i = 0; i < parts.size(); i++) s += (i ? between : "") + parts[i];
    return s;
}

// Mean over the seeds of the first validation loss at or after `fraction` of the row's own tokens.
inline double early_val_loss(const Row& row, double fraction) {
    std::vector<double> values;
    for (auto& run : row.runs)
        for (size_t i = 0; i < run.val.loss.size(); i++)
            if (run.val.tokens[i] > 0 && run.val.tokens[i] >= fraction * run.val.tokens.back()) { values.push_back(run.val.loss[i]); break; }
    return mean(values);
}

inline double row_slope(const Row& row) {
    return mean(per_seed(row, [](const Run& r) { return slope_per_doubling(r.val.tokens, r.val.loss, LAST).per_doubling; }));
}

// Which differences mean something.
inline std::string read_differences(const std::vector<const Row*>& rows, const Row& base) {
    std::vector<std::string> beyond, within, unpaired;
    std::vector<std::vector<double>> groups;
    size_t comparisons = 0, pairs = 0;
    for (const Row* row : rows) {
        groups.push_back(per_seed(*row, [](const Run& r) { return r.val_loss(); }, true));
        if (row == &base) continue;
        PairedDifference d = difference_to(*row, base);
        std::string text = row->attn + show(d.mean, " %+.4f");
        if (d.n == 0) { unpaired.push_back(row->attn); continue; }
        comparisons++;
        pairs = std::max(pairs, d.n);
        double limit = d.n >= 2 ? d.half_width : ONE_SEED_LIMIT;
        (std::abs(d.mean) > limit ? beyond : within).push_back(text);
    }
    std::string s;
    if (comparisons && pairs < 2) {
        s = format("One seed per variant. Two trainings of the same model that differ only in the seed end about %.3f nats apart (standard "
                   "deviation, small models), so a single difference below about %.2f nats can be chance, and one seed cannot say how large "
                   "the spread is here.", SEED_SD, ONE_SEED_LIMIT);
        s += beyond.empty() ? " No variant differs from " + base.attn + " by more than that."
                            : " Beyond that limit, against " + base.attn + ": " + join(beyond, ", ") + ".";
        if (!within.empty()) s += " Not told apart: " + join(within, ", ") + ".";
        s += " For a claim train at least three seeds: SEEDS=3.";
    } else if (comparisons) {
        s = format("%zu paired seeds; the spread between seeds within a variant is %s nats (pooled sd).", pairs, show(pooled_sd(groups), "%.4f").c_str());
        s += beyond.empty() ? " No 95% interval of a difference to " + base.attn + " excludes zero."
                            : " The 95% interval excludes zero for: " + join(beyond, ", ") + ".";
        if (!within.empty()) s += " Not told apart from " + base.attn + ": " + join(within, ", ") + ".";
        if (comparisons > 1) s += format(" With %zu intervals of 95%% each, at least one excludes zero by chance in up to %.0f%% of such tables.", comparisons,
                                         100 * (1 - std::pow(0.95, double(comparisons))));
        if (pairs == 2) s += " An interval from two seeds rests on a single degree of freedom: three or more are needed for a claim.";
    }
    if (!unpaired.empty()) s += " Without a finished pair: " + join(unpaired, ", ") + ".";
    return s;
}

// Have the curves ended? Did their order hold?
inline std::string read_curves(const std::vector<const Row*>& rows) {
    std::vector<std::string> slopes, overfit;
    std::vector<double> early, final;
    std::vector<const Row*> ordered;
    bool falling = false, measured = false;
    for (const Row* row : rows) {
        double slope = row_slope(*row);
        if (!std::isnan(slope)) {
            slopes.push_back(row->attn + format(" %+.3f", slope));
            measured = true;
            falling |= slope < -FLAT_SLOPE;
        }
        double rise = mean(per_seed(*row, [](const Run& r) {
            return r.val.loss.empty() ? NOT_MEASURED : r.val_loss() - *std::min_element(r.val.loss.begin(), r.val.loss.end()); }));
        if (rise > OVERFIT_RISE) overfit.push_back(row->attn + format(" by %.3f", rise));
        if (!std::isnan(early_val_loss(*row, EARLY))) {
            early.push_back(early_val_loss(*row, EARLY));
            final.push_back(row_val_loss(*row));
            ordered.push_back(row);
        }
    }
    std::string s;
    if (measured) {
        s = format("Slope of the validation loss over the last %.0f%% of the tokens, in nats per doubling of the training: ", 100 * LAST) + join(slopes, ", ") + ". ";
        s += falling ? "The curves have not flattened: this order is one of models still learning, and longer training can change it."
                     : format("Within %.2f: the curves have flattened under this learning-rate schedule (a decayed rate flattens any curve).", FLAT_SLOPE);
    } else {
        s = "Too few validations in the last tenth of the training to say whether the curves have flattened.";
    }
    if (!overfit.empty()) s += " Overfitting: the final validation loss is above its own minimum for " + join(overfit, ", ") + ".";
    if (ordered.size() >= 2) {
        auto names = [&](const std::vector<double>& values) {
            std::vector<std::string> list;
            for (size_t i : ascending_order(values)) list.push_back(ordered[i]->attn);
            return join(list, " < ");
        };
        size_t pairs = ordered.size() * (ordered.size() - 1) / 2, swapped = swapped_pairs(early, final);
        s += format(" Order at %.0f%% of the tokens: %s. Final order: %s. ", 100 * EARLY, names(early).c_str(), names(final).c_str());
        s += swapped ? format("%zu of %zu pairs changed places.", swapped, pairs) : std::string("No pair changed places.");
    }
    return s;
}

// The paragraphs under the table, one or more per position. `unigram` may be NaN.
inline std::vector<std::string> honest_reading(const std::vector<Row>& rows, const std::string& baseline, double unigram) {
    std::vector<std::string> out, positions, beaten;
    for (auto& row : rows)
        if (positions.empty() || positions.back() != row.pos) positions.push_back(row.pos);
    for (auto& pos : positions) {
        std::vector<const Row*> group;
        for (auto& row : rows)
            if (row.pos == pos) group.push_back(&row);
        std::string head = positions.size() > 1 ? pos + ": " : "";
        const Row* base = find_row(rows, baseline, pos);
        if (!base) out.push_back(head + "No " + baseline + " run, so there is nothing to take differences to.");
        else if (std::string s = read_differences(group, *base); !s.empty()) out.push_back(head + s);
        out.push_back(head + read_curves(group));
        for (const Row* row : group) {
            double loss = row_val_loss(*row);
            if (loss >= unigram) beaten.push_back(row->attn + " (" + pos + ")");
            // MLA always has its own rotary part, whatever --pos says of the rest.
            if (row->attn == "mla" && group.size() > 1 && (pos == "learned" || pos == "sinusoidal" || pos == "none"))
                out.push_back(head + "mla keeps its own rotary positions here while the others have none: this difference is one of positions as "
                              "much as of attention. Compare mla under rope, alibi or power.");
        }
        if (base) {
            double low = 0, high = 0, own = row_mean(*base, &Run::parameters_non_embedding);
            for (const Row* row : group) {
                double relative = 100 * (row_mean(*row, &Run::parameters_non_embedding) / own - 1);
                if (!std::isnan(relative)) low = std::min(low, relative), high = std::max(high, relative);
            }
            if (high - low > 1)
                out.push_back(head + format("The variants share width, depth, learning rate and batches, not size: their parameters outside the embeddings "
                                            "lie between %+.0f%% and %+.0f%% of %s's.", low, high, baseline.c_str()));
        }
    }
    if (!beaten.empty()) out.push_back("Not better than the frequencies of single tokens (unigram baseline): " + join(beaten, ", ") + ". Train longer.");
    return out;
}

// What was trained, on what: taken from the first run; differing values are problems, listed elsewhere.
inline std::vector<std::pair<std::string, std::string>> setup_facts(const std::vector<Row>& rows) {
    auto all = [&](auto get) {                                   // distinct non-empty values, in order
        std::vector<std::string> list;
        for (auto& row : rows)
            for (auto& run : row.runs)
                if (std::string s = get(run); !s.empty() && std::find(list.begin(), list.end(), s) == list.end()) list.push_back(s);
        return list.empty() ? std::string("-") : join(list, "; ");
    };
    const Run& first = rows[0].runs[0];
    auto option = [&](const char* key) { std::string s = text_at(first.options, key); return s.empty() ? std::string("-") : s; };
    double tokens = number_at(first.options, "batch_tokens") * double(first.steps < 0 ? NOT_MEASURED : double(first.steps));
    return {
        {"data", option("data") + ", " + show_count(first.train_tokens) + " training and " + show_count(first.val_tokens) + " validation tokens, vocabulary " +
                     show(first.vocab_size, "%.0f")},
        {"data fingerprint", all([](const Run& r) { return r.fingerprint; })},
        {"size", "layers " + option("layers") + ", width " + option("width") + ", heads " + option("heads") + ", context " + option("context")},
        {"training", option("steps") + " steps of " + option("batch_tokens") + " tokens = " + show_count(tokens) + " tokens (" +
                         show(tokens / first.train_tokens, "%.1f") + " passes over the data)"},
        {"learning rate", option("lr") + ", schedule " + option("schedule") + ", warm-up " + option("warmup") + " steps, down to " +
                              option("final_fraction") + " of it; weight decay " + option("weight_decay") + ", gradient clip " + option("grad_clip")},
        {"seeds", all([](const Run& r) { return r.seed < 0 ? "" : std::to_string(r.seed); })},
        {"machine", all([](const Run& r) { return r.cpu.empty() ? "" : r.cpu + (r.threads.empty() ? "" : ", " + r.threads + " threads"); })},
        {"build", all([](const Run& r) {
            std::vector<std::string> parts;
            for (const std::string& part : {r.commit.empty() ? "" : "commit " + r.commit, r.compiler, r.backend, r.precision})
                if (!part.empty()) parts.push_back(part);
            return join(parts, ", ");
        })},
    };
}
