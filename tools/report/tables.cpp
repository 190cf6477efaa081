// See tables.h.
#include "tools/report/tables.h"

#include <algorithm>

std::string verdict_words(const Difference& d) {
    switch (d.verdict) {
        case Verdict::baseline: return "baseline";
        case Verdict::too_few_seeds: return d.seeds.n == 1 ? "one seed" : "two seeds";
        case Verdict::not_told_apart: return "not told apart";
        case Verdict::better: return "better";
        case Verdict::worse: return "worse";
        case Verdict::none: break;
    }
    return "-";
}

static Tone tone_of(const Difference& d) {
    return d.verdict == Verdict::better     ? Tone::better
           : d.verdict == Verdict::worse    ? Tone::worse
           : d.verdict == Verdict::baseline ? Tone::quiet
                                            : Tone::plain;
}

std::string precision_of(const Section& s) {
    std::string common;
    for (auto& row : s.rows)
        for (auto& run : row.runs) {
            if (common.empty()) common = run.precision;
            if (run.precision != common) return "mixed";
        }
    return common;
}

// The same first columns everywhere; positions and settings only where rows differ in them.
static bool any_settings(const Section& s) {
    return std::any_of(s.rows.begin(), s.rows.end(), [](const Row& r) { return !r.settings.empty(); });
}
static bool any_positions(const Section& s) {
    return std::any_of(s.rows.begin(), s.rows.end(), [&](const Row& r) { return r.pos != s.rows[0].pos; });
}
// The settings come first only where they tell rows of one name apart (a sweep); else last, where a narrow screen cuts them off.
static bool settings_first(const Section& s) {
    return any_settings(s) && std::any_of(s.rows.begin(), s.rows.end(), [&](const Row& r) { return short_name(s, r) != r.label; });
}
static Table start(const Section& s) {
    Table t;
    t.header = {"variant"};
    if (any_positions(s)) t.header.push_back("pos");
    if (settings_first(s)) t.header.push_back("settings");
    t.left = t.header.size();
    return t;
}
static void end_header(Table& t, const Section& s) {
    if (any_settings(s) && !settings_first(s)) t.header.push_back("settings");
}
static void add_row(Table& t, const Section& s, size_t i, std::vector<std::string> cells) {
    const Row& row = s.rows[i];
    if (settings_first(s)) cells.insert(cells.begin(), row.settings);
    else if (any_settings(s)) cells.push_back(row.settings);
    if (any_positions(s)) cells.insert(cells.begin(), row.pos);
    cells.insert(cells.begin(), row.label);
    if (!t.rows.empty() && s.rows[t.last].pos != row.pos) t.breaks.push_back(t.rows.size());
    t.last = i;
    t.rows.push_back(std::move(cells));
    t.tones.push_back(tone_of(s.differences[i]));
}

// "3 of 4": pairs of runs, and how many runs there are when some have no partner.
static std::string show_pairs(const Row& row, const Difference& d) {
    size_t seeds = seeds_of(row);
    return d.seeds.n == seeds ? std::to_string(seeds) : format("%zu of %zu", d.seeds.n, seeds);
}

static std::string cache_of(const Section& s, const Row& row) {
    std::string cell = show(row_mean(row, &Run::cache_bytes_per_token), "%.0f");
    return precision_of(s) == "mixed" && !row.runs.empty() ? cell + " " + row.runs[0].precision : cell;
}
static std::string cache_header(const Section& s) {
    std::string precision = precision_of(s);
    return "cache B/token" + (precision.empty() || precision == "mixed" ? "" : ", " + precision);
}

Table results_table(const Section& s, const Comparison& c) {
    Table t = start(s);
    const bool seeds = several_seeds(s);
    t.header.push_back(seeds ? "val loss, mean ± sd" : "val loss");
    t.header.insert(t.header.end(), {"vs " + c.baseline, "verdict"});
    if (seeds) t.header.push_back("seeds");
    t.header.insert(t.header.end(), {cache_header(s), "non-embedding", "bits/byte"});
    end_header(t, s);
    for (size_t i = 0; i < s.rows.size(); i++) {
        const Row& row = s.rows[i];
        const Difference& d = s.differences[i];
        std::vector<double> losses = finished_losses(row);
        std::string loss = show(row_loss(row), "%.4f");
        if (losses.size() >= 2) loss += format(" ± %.4f", sample_sd(losses));
        if (losses.size() < row.runs.size() && !std::isnan(row_loss(row))) loss += "*";
        std::vector<std::string> cells = {loss, d.verdict == Verdict::baseline ? "0" : show_signed(d.seeds.mean), verdict_words(d)};
        if (seeds) cells.push_back(std::to_string(seeds_of(row)));
        cells.insert(cells.end(), {cache_of(s, row), show_count(row_mean(row, &Run::parameters_non_embedding)),
                                   show(row_mean(row, &Run::bits_per_byte), "%.4f")});
        add_row(t, s, i, cells);
    }
    return t;
}

Table differences_table(const Section& s, const Comparison& c) {
    Table t = start(s);
    t.header.insert(t.header.end(), {"vs " + c.baseline, "pairs", format("%.3g%% over seeds", 100 * (1 - c.alpha)),
                                     format("corrected for %zu", s.tests), "p, corrected", "95% over text", "seeds to tell 0.01"});
    end_header(t, s);
    for (size_t i = 0; i < s.rows.size(); i++) {
        const Difference& d = s.differences[i];
        if (d.seeds.n == 0) continue;
        std::string needed = d.seeds.n < 2 ? "-" : d.seeds_needed ? std::to_string(d.seeds_needed) : "> 10000";
        add_row(t, s, i,
                {show_signed(d.seeds.mean), show_pairs(s.rows[i], d), show_interval(d.seeds.mean, d.half),
                 show_interval(d.seeds.mean, d.corrected_half), show_p(d.corrected_p), show_interval(d.text.mean, d.text.half_width),
                 needed});
    }
    return t;
}

Table sizes_table(const Section& s) {
    Table t = start(s);
    t.header.insert(t.header.end(), {"params", "non-embedding", cache_header(s), "FLOPs/token", "tokens/s", "training"});
    end_header(t, s);
    for (size_t i = 0; i < s.rows.size(); i++) {
        const Row& row = s.rows[i];
        double seconds = row_mean(row, &Run::seconds);
        add_row(t, s, i,
                {show_count(row_mean(row, &Run::parameters)), show_count(row_mean(row, &Run::parameters_non_embedding)), cache_of(s, row),
                 show_count(row_mean(row, &Run::flops_per_token)), show_count(row_mean(row, &Run::tokens_per_second)),
                 std::isnan(seconds) ? "-" : show_duration(seconds)});
        t.tones.back() = Tone::plain;
    }
    return t;
}

// ---- forms

std::string table_for_terminal(const Table& t, bool colour) {
    std::vector<size_t> width;
    for (auto& h : t.header) width.push_back(display_width(h));
    for (auto& row : t.rows)
        for (size_t c = 0; c < row.size(); c++) width[c] = std::max(width[c], display_width(row[c]));
    auto line = [&](const std::vector<std::string>& cells, const char* style) {
        std::string s;
        for (size_t c = 0; c < cells.size(); c++) {
            std::string space(width[c] - display_width(cells[c]), ' ');
            s += (c ? "  " : "") + (c < t.left ? cells[c] + space : space + cells[c]);
        }
        return colour && *style ? style + s + "\033[0m\n" : s + "\n";
    };
    std::string out = line(t.header, "\033[1m");
    for (size_t r = 0; r < t.rows.size(); r++) {
        if (std::find(t.breaks.begin(), t.breaks.end(), r) != t.breaks.end()) out += "\n";
        out += line(t.rows[r], t.tones[r] == Tone::better ? "\033[32m" : t.tones[r] == Tone::worse ? "\033[31m" : "");
    }
    return out;
}

static std::string markdown_cell(const std::string& s) {       // a bar would end the cell, a newline the row
    std::string out;
    for (char c : s) {
        if (c == '|') out += '\\';
        out += c == '\n' || c == '\r' ? ' ' : c;
    }
    return out;
}

std::string table_for_markdown(const Table& t) {
    std::string out = "|", rule = "|";
    for (size_t c = 0; c < t.header.size(); c++) {
        out += " " + markdown_cell(t.header[c]) + " |";
        rule += c < t.left ? "---|" : "---:|";
    }
    out += "\n" + rule + "\n";
    for (auto& row : t.rows) {
        out += "|";
        for (auto& cell : row) out += " " + markdown_cell(cell) + " |";
        out += "\n";
    }
    return out;
}

std::string table_for_html(const Table& t) {
    std::string out = "<div class=\"scroll\"><table>\n<tr>";
    auto cell = [&](const char* tag, size_t c, const std::string& s, const std::string& tone) {
        std::string classes = c < t.left ? "l" : tone;
        return std::string("<") + tag + (classes.empty() ? "" : " class=\"" + classes + "\"") + ">" + escape_markup(s) + "</" + tag + ">";
    };
    for (size_t c = 0; c < t.header.size(); c++) out += cell("th", c, t.header[c], "");
    out += "</tr>\n";
    for (size_t r = 0; r < t.rows.size(); r++) {
        out += t.tones[r] == Tone::quiet ? "<tr class=\"base\">" : "<tr>";
        for (size_t c = 0; c < t.rows[r].size(); c++) {
            bool verdict = t.header[c] == "verdict";
            out += cell("td", c, t.rows[r][c],
                        !verdict                     ? ""
                        : t.tones[r] == Tone::better ? "good"
                        : t.tones[r] == Tone::worse  ? "bad"
                                                     : "");
        }
        out += "</tr>\n";
    }
    return out + "</table></div>\n";
}
