// report.html: one file that opens from disk without a network. Tables, drawings, samples, commands; see document.h.
#include "tools/report/document.h"
#include "tools/report/reading.h"
#include "tools/report/tables.h"
#include "tools/report/text.h"

static constexpr int RELOAD_SECONDS = 10;

static std::string style() {
    return R"(:root{color-scheme:light dark;--paper:#fff;--ink:#222;--quiet:#5a5a5a;--line:#ddd;--soft:#f5f5f3;--good:#00664b;--bad:#a33a00}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1240px;margin:0 auto;padding:16px}
h1{font-size:1.6em;margin:.3em 0}h2{font-size:1.25em;margin:1.8em 0 .5em;border-top:1px solid var(--line);padding-top:.8em}
h3{font-size:1.05em;margin:1.4em 0 .4em}
p,li{max-width:80ch}.note{color:var(--quiet);font-size:.9em}
.scroll{overflow-x:auto;margin:.6em 0;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:.9em;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:.35em .7em;text-align:right;border-bottom:1px solid var(--line)}th{font-weight:600;color:var(--quiet)}
th.l,td.l{text-align:left}td:first-child,th:first-child{position:sticky;left:0;background:var(--paper);font-weight:600}
td.good{color:var(--good);font-weight:600}td.bad{color:var(--bad);font-weight:600}tr.base td{background:var(--soft)}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:18px;align-items:start;margin:.8em 0}
.wide{grid-column:1/-1}figure{margin:0}svg{width:100%;height:auto;display:block;font-family:inherit}
pre{background:var(--soft);padding:.8em;overflow-x:auto;font-size:.85em;border-radius:6px;margin:.4em 0}
pre.sample{white-space:pre-wrap;overflow-wrap:anywhere}
.bar{height:10px;background:var(--line);border-radius:5px;overflow:hidden;max-width:560px}
.bar i{display:block;height:100%;background:#0072B2}
.alarm{border-left:4px solid var(--bad);padding:.4em .8em;background:var(--soft)}
summary{cursor:pointer;margin:.6em 0;font-weight:600}dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1em;font-size:.9em}
dt{color:var(--quiet)}dd{margin:0;overflow-wrap:anywhere}
)" + colour_rules(false) +
           "@media "
           "(prefers-color-scheme:dark){:root{--paper:#161616;--ink:#e8e8e8;--quiet:#a8a8a8;--line:#3a3a3a;--soft:#202020;--good:#2fd0a0;"
           "--bad:#ff8a3d}\n" +
           colour_rules(true) +
           "}\n@media (max-width:520px){main{padding:10px}dl{grid-template-columns:1fr}dt{margin-top:.4em}body{font-size:15px}}\n";
}

static std::string figures(const std::vector<Picture>& pictures, const char* kind = "") {
    std::string s;
    for (auto& p : pictures)
        s += std::string("<figure") + (*kind ? std::string(" class=\"") + kind + "\"" : "") + ">" + inline_svg(p) + "</figure>\n";
    return s;
}

static std::string paragraphs(const std::vector<std::string>& list) {
    std::string s = "<ul>\n";
    for (auto& p : list) s += "<li>" + escape_markup(p) + "</li>\n";
    return s + "</ul>\n";
}

// The last sample of each row, of its first run that has one; rows in the order of the table.
static std::string samples(const Comparison& c) {
    std::string s;
    for (auto& section : c.sections) {
        if (section.matching != "layout") continue;
        for (auto& row : section.rows)
            for (auto& run : row.runs)
                if (!run.sample.empty()) {
                    std::string prompt = text_at(run.options, "prompt");
                    for (char& ch : prompt)
                        if (ch == '\n') ch = ' ';
                    if (prompt.find_first_not_of(' ') != std::string::npos) prompt = ", prompt \"" + prompt + "\"";
                    else prompt.clear();
                    s += "<h3>" + escape_markup(row.name() + ", " + row.pos + format(", seed %lld", (long long)run.seed) + prompt) +
                         "</h3>\n<pre class=\"sample\">" + escape_markup(run.sample) + "</pre>\n";
                    break;
                }
    }
    return s.empty() ? s
                     : "<h2>Samples</h2>\n<p class=\"note\">What the models write at the end of their training. A sample is an "
                       "impression, not a measurement.</p>\n" +
                           s;
}

static std::string progress(const Comparison& c, double now) {
    std::string words = progress_words(c, now);
    if (words.empty()) return "";
    // Of the run in progress, the part that is done.
    double part = 0;
    std::string current;
    for (auto& s : c.sections)
        for (auto& row : s.rows)
            for (auto& r : row.runs)
                if (!r.finished() && r.steps > 0 && r.last_step >= 0) {
                    part = double(r.last_step) / double(r.steps);
                    current = format("; now %s: step %lld of %lld, validation loss %s", r.name.c_str(), (long long)r.last_step,
                                     (long long)r.steps, show(r.val_loss(), "%.4f").c_str());
                }
    double percent = 100 * std::min(1.0, (double(c.plan.finished) + part) / double(c.plan.total));
    return "<p>" + escape_markup(words + current) + ".</p>\n<div class=\"bar\"><i style=\"width:" + format("%.1f%%", percent) +
           "\"></i></div>\n" + "<p class=\"note\">" +
           format("This page reloads itself every %d seconds until the comparison is done. An early order is no final one.",
                  RELOAD_SECONDS) +
           "</p>\n";
}

std::string for_html(const Document& d, double now) {
    const Comparison& c = d.comparison;
    std::string h =
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
        "content=\"width=device-width,initial-scale=1\">\n";
    if (c.plan.running()) h += format("<meta http-equiv=\"refresh\" content=\"%d\">\n", RELOAD_SECONDS);
    h += "<title>" +
         escape_markup((c.plan.running() ? format("(%lld/%lld) ", (long long)c.plan.finished, (long long)c.plan.total) : "") +
                       "Comparison " + c.name) +
         "</title>\n<style>\n" + style() + "</style></head>\n<body><main>\n<h1>Comparison " + escape_markup(c.name) + "</h1>\n";
    if (!c.plan.text.empty()) h += "<p class=\"note\">" + escape_markup(c.plan.text) + "</p>\n";
    if (std::string refusal = read_data(c); !refusal.empty()) h += "<p class=\"alarm\">" + escape_markup(refusal) + "</p>\n";
    h += progress(c, now);
    if (!c.sections.empty()) {
        const Section& first = c.sections[0];
        h += table_for_html(results_table(first, c));
        if (std::string s = read_differences(first, c); !s.empty()) h += "<p>" + escape_markup(s) + "</p>\n";
    }
    h += "<div class=\"pictures\">\n" + figures(d.gallery.cache) + figures(d.gallery.differences) + "</div>\n";
    if (!d.gallery.curves.empty()) h += "<h2>Curves</h2>\n<div class=\"pictures\">\n" + figures(d.gallery.curves) + "</div>\n";
    if (!d.gallery.rates.empty())
        h += "<h2>Learning rates</h2>\n<p class=\"note\">Runs on a seed that is not used afterwards; the rate was chosen for each row by "
             "its own curve.</p>\n<div class=\"pictures\">\n" +
             figures(d.gallery.rates) + "</div>\n";
    if (!d.gallery.positions.empty())
        h += "<h2>By position in the context</h2>\n<div class=\"pictures\">\n" + figures(d.gallery.positions) + "</div>\n";
    for (size_t i = 0; i < c.sections.size(); i++) {
        const Section& s = c.sections[i];
        h += "<h2>" + escape_markup(section_title(c, s)) + "</h2>\n";
        if (i > 0) h += table_for_html(results_table(s, c));
        h += "<h3>Differences to " + escape_markup(c.baseline) + "</h3>\n" + table_for_html(differences_table(s, c));
        h += "<h3>What this says, and what it does not</h3>\n" + paragraphs(honest_reading(s, c, d.unigram[i]));
        h += "<details><summary>Sizes and speed</summary>\n" + table_for_html(sizes_table(s)) +
             "</details>\n<details><summary>Setup</summary>\n<dl>\n";
        for (auto& [key, value] : setup_facts(s)) h += "<dt>" + escape_markup(key) + "</dt><dd>" + escape_markup(value) + "</dd>\n";
        h += "</dl></details>\n";
    }
    h += samples(c);
    h += std::string("<h2>Make it again</h2>\n<p>") + (c.plan.command.empty() ? "This report" : "The comparison, then this report of it") +
         "; every run by itself is below.</p>\n<pre>" +
         escape_markup((c.plan.command.empty() ? "" : c.plan.command + "\n") + d.again) +
         "</pre>\n<details><summary>Every run</summary>\n<pre>";
    for (auto& s : c.sections)
        for (auto& row : s.rows)
            for (auto& run : row.runs) h += escape_markup(command_of(run)) + "\n";
    h += "</pre></details>\n";
    if (!d.problems.empty()) h += "<h2>Problems</h2>\n" + paragraphs(d.problems);
    return h + "</main></body></html>\n";
}
