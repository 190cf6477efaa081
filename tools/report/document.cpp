// See document.h. The HTML page is in page.cpp.
#include "tools/report/document.h"

#include <algorithm>

#include "runtime/run/options.h"
#include "tools/report/reading.h"
#include "tools/report/tables.h"
#include "tools/report/text.h"

using nlohmann::json;
using nlohmann::ordered_json;

// ---- words that several documents share

// "Baselines" sentence; bits per byte of the unigram model follow from a run's own ratio of bits per byte to nats.
static std::string to_beat(const Section& s, double unigram) {
    const Run* run = nullptr;
    for (auto& row : s.rows)
        for (auto& r : row.runs)
            if (!run && r.vocab_size > 0) run = &r;
    if (!run) return "No run says how large its vocabulary is, so there are no baselines.";
    double bits_per_nat = run->bits_per_byte / run->val_loss();
    auto line = [&](double nats) {
        return show(nats, "%.4f nats") + (std::isnan(bits_per_nat * nats) ? "" : format(" (%.4f bits per byte)", bits_per_nat * nats));
    };
    return "To beat: uniform over the vocabulary, ln " + show(run->vocab_size, "%.0f") + " = " + line(std::log(run->vocab_size)) +
           "; frequencies of single tokens (unigram, add-one) " + line(unigram) + ".";
}

std::string section_title(const Comparison& c, const Section& s) {
    std::string title = matching_words(s.matching);
    title[0] = char(toupper(title[0]));
    bool one_position = true;
    for (auto& row : s.rows) one_position = one_position && row.pos == s.rows[0].pos;
    if (one_position) title += "; positions: " + s.rows[0].pos;
    if (c.different_data.size() > 1) title += "; data " + text_at(s.rows[0].runs[0].options, "data");
    return title;
}

static bool has_differences(const Section& s) {
    return std::any_of(s.differences.begin(), s.differences.end(),
                       [](const Difference& d) { return d.seeds.n >= 2 || !std::isnan(d.text.half_width); });
}

static const char* TABLE_NOTE =
    "Losses in nats per token, on the same validation tokens; lower is better. The cache is what decoding keeps per token, over all "
    "layers, in the type named. "
    "Parameters, cache and FLOPs as the runs recorded them; tokens/s: median over the steps, whatever else the machine was doing.";

std::string command_of(const Run& run) {
    static const json defaults = json::parse(options_to_json(Options{}));
    std::string s = "build/train-" + run.attn;
    for (auto& [key, value] : run.options.items()) {
        if (defaults.contains(key) && defaults[key] == value) continue;
        std::string flag = " --" + key, text = text_at(run.options, key.c_str());
        std::replace(flag.begin(), flag.end(), '_', '-');
        if (value.is_boolean()) {
            if (value.get<bool>()) s += flag;
            continue;
        }
        if (text.empty()) continue;
        bool plain = text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/+:=,") == std::string::npos;
        std::string quoted = "'";
        for (char ch : text) quoted += ch == '\'' ? "'\\''" : std::string(1, ch);
        s += flag + " " + (plain ? text : quoted + "'");
    }
    return s;
}

std::string progress_words(const Comparison& c, double now) {
    if (!c.plan.running()) return "";
    std::string s = format("%lld of %lld runs", (long long)c.plan.finished, (long long)c.plan.total);
    double done = double(c.plan.finished), left = double(c.plan.total) - done, each = NOT_MEASURED;
    if (c.plan.started > 0 && done > 0 && now > double(c.plan.started)) {
        each = (now - double(c.plan.started)) / done;
    } else {
        std::vector<double> seconds;
        for (auto& section : c.sections)
            for (auto& row : section.rows)
                for (auto& r : row.runs)
                    if (r.finished() && !std::isnan(r.seconds)) seconds.push_back(r.seconds);
        each = mean(seconds);
    }
    return std::isnan(each) ? s : s + ", about " + show_duration(left * each) + " left";
}

// ---- terminal

std::string for_terminal(const Document& d, bool colour) {
    const Comparison& c = d.comparison;
    constexpr size_t WIDTH = 110;
    std::string out = "\n";
    if (std::string refusal = read_data(c); !refusal.empty()) out += wrap(refusal, WIDTH) + "\n";
    for (size_t i = 0; i < c.sections.size(); i++) {
        const Section& s = c.sections[i];
        out += section_title(c, s) + "\n\n";
        out += table_for_terminal(results_table(s, c), colour) + "\n";
        if (has_differences(s)) out += table_for_terminal(differences_table(s, c), colour) + "\n";
        out += wrap(to_beat(s, d.unigram[i]), WIDTH);
        for (auto& p : honest_reading(s, c, d.unigram[i])) out += "\n" + wrap(p, WIDTH);
        if (i + 1 < c.sections.size()) out += "\n";
    }
    for (auto& p : d.problems) out += "\n" + wrap("Note: " + p, WIDTH);
    return out;
}

// ---- Markdown

std::string for_markdown(const Document& d) {
    const Comparison& c = d.comparison;
    std::string md = "# Comparison " + c.name + "\n\n";
    if (std::string refusal = read_data(c); !refusal.empty()) md += "**" + refusal + "**\n\n";
    if (c.plan.running()) md += format("Unfinished: %lld of %lld runs.\n\n", (long long)c.plan.finished, (long long)c.plan.total);
    for (auto& [file, words] : d.files) md += "![" + words + "](" + file + ")\n\n";
    for (size_t i = 0; i < c.sections.size(); i++) {
        const Section& s = c.sections[i];
        md += "## " + section_title(c, s) + "\n\n" + table_for_markdown(results_table(s, c)) + "\n" + TABLE_NOTE + "\n\n" +
              to_beat(s, d.unigram[i]) + "\n\n";
        if (has_differences(s)) md += "### Differences to " + c.baseline + "\n\n" + table_for_markdown(differences_table(s, c)) + "\n";
        md += "### What this says, and what it does not\n\n";
        for (auto& p : honest_reading(s, c, d.unigram[i])) md += "- " + p + "\n";
        md += "\n### Sizes and speed\n\n" + table_for_markdown(sizes_table(s)) + "\n### Setup\n\n";
        for (auto& [key, value] : setup_facts(s)) md += "- " + key + ": " + value + "\n";
        md += "\n";
    }
    if (!d.problems.empty()) {
        md += "## Problems\n\n";
        for (auto& p : d.problems) md += "- " + p + "\n";
        md += "\n";
    }
    if (!c.plan.command.empty()) md += "The comparison again: `" + c.plan.command + "`\n";
    return md + "This report again: `" + d.again + "`\n";
}

// ---- for other programs

// Fields hold no comma or quote: anything unusual becomes '_'.
static std::string plain(std::string s) {
    for (char& ch : s)
        if (!isalnum(static_cast<unsigned char>(ch)) && !strchr("-.:= ", ch)) ch = '_';
    return s;
}

std::string for_csv(const Comparison& c) {
    std::string s =
        "matching,row,run,variant,pos,settings,seed,steps,finished,parameters,parameters_non_embedding,cache_bytes_per_token,flops_per_"
        "token,"
        "tokens_per_second,seconds,val_loss,bits_per_byte,val_loss_minus_" +
        plain(c.baseline) + "\n";
    for (auto& section : c.sections)
        for (auto& row : section.rows)
            for (auto& r : row.runs) {
                const Row* base = base_of(section, row);
                const Run* other = base ? run_of_seed(*base, r.seed) : nullptr;
                double difference = other && r.finished() ? r.val_loss() - other->val_loss() : NOT_MEASURED;
                s += section.matching + "," + plain(row.label) + "," + plain(r.name) + "," + plain(row.attn) + "," + plain(row.pos) +
                     "," + plain(row.settings) + format(",%lld,%lld,%d", (long long)r.seed, (long long)r.last_step, r.finished());
                for (double v : {r.parameters, r.parameters_non_embedding, r.cache_bytes_per_token, r.flops_per_token,
                                 r.tokens_per_second, r.seconds, r.val_loss(), r.bits_per_byte, difference})
                    s += std::isnan(v) ? std::string(",") : format(",%.10g", v);
                s += "\n";
            }
    return s;
}

std::string for_json(const Comparison& c) {
    auto number = [](double v) { return std::isfinite(v) ? ordered_json(v) : ordered_json(nullptr); };
    auto interval = [&](double middle, double half) {
        return std::isfinite(middle) && std::isfinite(half) ? ordered_json{middle - half, middle + half} : ordered_json(nullptr);
    };
    ordered_json j = {{"name", c.name}, {"baseline", c.baseline}, {"alpha", c.alpha}, {"sections", ordered_json::array()}};
    for (auto& s : c.sections) {
        ordered_json section = {{"matching", s.matching}, {"data", s.data}, {"tests", s.tests}, {"sd_between_seeds", number(s.seed_sd)},
                                {"sd_of_paired_difference", number(s.paired_sd)}, {"rows", ordered_json::array()}};
        for (size_t i = 0; i < s.rows.size(); i++) {
            const Row& row = s.rows[i];
            const Difference& d = s.differences[i];
            section["rows"].push_back({{"row", row.label},
                                       {"variant", row.attn},
                                       {"pos", row.pos},
                                       {"settings", row.settings},
                                       {"seeds", seeds_of(row)},
                                       {"val_loss", number(row_loss(row))},
                                       {"bits_per_byte", number(row_mean(row, &Run::bits_per_byte))},
                                       {"cache_bytes_per_token", number(row_mean(row, &Run::cache_bytes_per_token))},
                                       {"parameters_non_embedding", number(row_mean(row, &Run::parameters_non_embedding))},
                                       {"flops_per_token", number(row_mean(row, &Run::flops_per_token))},
                                       {"pairs", d.seeds.n},
                                       {"difference", number(d.seeds.mean)},
                                       {"sd", number(d.seeds.sd)},
                                       {"interval", interval(d.seeds.mean, d.half)},
                                       {"corrected_interval", interval(d.seeds.mean, d.corrected_half)},
                                       {"p", number(d.seeds.p)},
                                       {"corrected_p", number(d.corrected_p)},
                                       {"text_interval", interval(d.text.mean, d.text.half_width)},
                                       {"seeds_to_tell_0.01", d.seeds_needed},
                                       {"verdict", verdict_words(d)}});
        }
        j["sections"].push_back(section);
    }
    return j.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}
