// report: the runs of a comparison -> tables on the terminal, report.md, report.html, pictures (.svg, .png), report.csv, report.json;
// and small records of runs, from which all of it is made again. Trains nothing.
//   build/report runs/NAME [more runs or folders] [--out DIR] [--baseline qkv] [--no-plot] [--quiet]
//   build/report --record runs/NAME docs/study/NAME
//   build/report --fill docs/study/page.md --out docs/STUDY.md
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/run/files.h"
#include "tools/arguments.h"
#include "tools/report/document.h"
#include "tools/report/fill.h"
#include "tools/report/reading.h"
#include "tools/report/record.h"
#include "tools/report/text.h"
#include "tools/one_line.h"

namespace fs = std::filesystem;

struct ReportOptions { Selection selection; std::string out; bool no_plot = false, record = false, fill = false, quiet = false; };

static const char* USAGE =
    "report RUNS... [options]: compares runs\n"
    "  RUNS               a comparison's folder (runs/NAME), single runs, or a folder of records\n"
    "report --record RUNS DIR: keeps a small record of every finished run in DIR; `report DIR` makes everything again from it\n"
    "report --fill TEMPLATE --out PAGE: a page with numbers and tables from reports in its holes (tools/report/fill.h)";

static bool parse(int argc, char** argv, ReportOptions& o) {
    const std::vector<Argument> table = {
        {"out", "DIR", "where report.md, report.html, report.csv, report.json and the pictures go; default: the first RUNS", &o.out},
        {"baseline", "NAME", "variant or row that differences are taken to; default: comparison.json's, else qkv", &o.selection.baseline},
        {"alpha", "A", "chance of any false verdict in a table, divided by comparison.json's \"looks\"", &o.selection.alpha, 1e-9, 0.499},
        {"no-plot", "", "no pictures beside the report", &o.no_plot},
        {"quiet", "", "nothing on the terminal: for refreshing report.html while a comparison runs", &o.quiet},
        {"record", "", "see above", &o.record},
        {"fill", "", "see above", &o.fill}};
    std::vector<std::string>& folders = o.selection.folders;
    if (!arguments_parse(table, USAGE, argc, argv, folders)) return false;
    ensure_usage(!folders.empty(), "which runs? report runs/NAME; see report --help");
    ensure_usage(!o.record || folders.size() == 2, "report --record RUNS DIR: give the runs and the folder for their records");
    ensure_usage(!o.fill || (folders.size() == 1 && !o.out.empty()), "report --fill TEMPLATE --out PAGE: give both");
    if (o.out.empty()) o.out = folders[0];
    return true;
}

static std::string shell_quote(const std::string& s) {
    if (!s.empty() && s.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/+:=,") == std::string::npos)
        return s;
    std::string q = "'";
    for (char c : s) q += c == '\'' ? "'\\''" : std::string(1, c);
    return q + "'";
}

// PNG beside the SVG, for viewers that show no SVG. "" on success, else what to tell the user.
static std::string write_png(const std::string& svg) {
    if (std::system("command -v rsvg-convert >/dev/null 2>&1") != 0)
        return "rsvg-convert is missing, so the pictures are SVG only. It comes with librsvg2-bin: apt-get install -y librsvg2-bin";
    std::string png = svg.substr(0, svg.size() - 4) + ".png";
    int status = std::system(
        ("rsvg-convert " + shell_quote(fs::absolute(svg).string()) + " -o " + shell_quote(fs::absolute(png).string())).c_str());
    return status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0
               ? ""
               : "rsvg-convert failed (its message is above); the picture is " + svg;
}

// The unigram baseline reads all training tokens: kept for the next refresh, under the fingerprint of what it was computed from.
static double unigram_of(const Section& s, const std::string& out, Problems& problems) {
    const Run* run = nullptr;
    for (auto& row : s.rows)
        for (auto& r : row.runs) {
            if (!std::isnan(r.unigram)) return r.unigram;
            if (!run && r.vocab_size > 0) run = &r;
        }
    if (!run) return NOT_MEASURED;
    std::string file = out + "/unigram.json", key = s.data + ", context " + text_at(run->options, "context");
    nlohmann::json kept = read_json(file);
    if (double v = number_at(kept, key.c_str()); !std::isnan(v) && !s.data.empty()) return v;
    try {
        double v = unigram_baseline(*run);
        if (!kept.is_object()) kept = nlohmann::json::object();
        kept[key] = v;
        file_replace(file, kept.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
        return v;
    } catch (const std::exception& e) {
        problems.push_back(std::string("The unigram baseline could not be computed: ") + e.what());
        return NOT_MEASURED;
    }
}

// Two at once (a comparison refreshes its page after every run) would write the same files: they take turns by a lock on the folder.
// A quiet one that finds another at work leaves it to that one.
static bool take_turn(const ReportOptions& o) {
    if (o.out == o.selection.folders[0] && !fs::is_directory(o.out)) return true;       // load_comparison says what is wrong with it
    fs::create_directories(o.out);
    int fd = open(o.out.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);        // kept open to the end of the program
    ensure(fd >= 0, "%s: %s", o.out.c_str(), strerror(errno));
    return flock(fd, o.quiet ? LOCK_EX | LOCK_NB : LOCK_EX) == 0 || errno != EWOULDBLOCK;
}

static void report(const ReportOptions& o) {
    if (!take_turn(o)) return;
    Document d;
    d.comparison = load_comparison(o.selection, d.problems);
    Comparison& c = d.comparison;
    for (auto& line : mixed_origins(c)) d.problems.push_back(line);
    fs::path where = fs::absolute(o.out).lexically_normal();
    c.name = (where.filename().empty() ? where.parent_path() : where).filename().string();
    for (auto& s : c.sections) d.unigram.push_back(unigram_of(s, o.out, d.problems));
    d.gallery = draw(c);
    d.again = "build/report";
    for (auto& f : o.selection.folders) d.again += " " + shell_quote(f);
    if (o.out != o.selection.folders[0]) d.again += " --out " + shell_quote(o.out);
    if (!o.selection.baseline.empty()) d.again += " --baseline " + shell_quote(o.selection.baseline);

    std::string png_problem;
    struct Sheet { const char* file; const std::vector<Picture>& pictures; size_t columns; const char* words; };
    const Sheet sheets[] = {{"cache", d.gallery.cache, 2, "validation loss against cache"},
                            {"differences", d.gallery.differences, 2, "differences with their intervals"},
                            {"loss", d.gallery.curves, 3, "loss curves"},
                            {"rates", d.gallery.rates, 2, "loss against learning rate"},
                            {"positions", d.gallery.positions, 2, "loss by position in the context"}};
    for (auto& sheet : sheets) {
        if (o.no_plot || sheet.pictures.empty()) continue;
        std::string path = o.out + "/" + sheet.file + ".svg";
        file_replace(path, svg_file(c.name + ": " + sheet.words, sheet.pictures, sheet.columns));
        d.files.push_back({std::string(sheet.file) + ".svg", sheet.words});
        if (!o.quiet && png_problem.empty()) png_problem = write_png(path);
    }
    // Replaced in one step: a browser that reloads never sees half a page.
    file_replace(o.out + "/report.md", for_markdown(d));
    file_replace(o.out + "/report.html", for_html(d, double(time(nullptr))));
    file_replace(o.out + "/report.csv", for_csv(c));
    file_replace(o.out + "/report.json", for_json(c));
    if (o.quiet) return;
    printf("%s", for_terminal(d, isatty(STDOUT_FILENO)).c_str());
    if (!png_problem.empty()) printf("\n%s\n", png_problem.c_str());
    std::string list = o.out + "/report.md  report.html  report.csv  report.json";
    for (auto& [file, words] : d.files) list += "  " + file;
    printf("\n%s\n", list.c_str());
}

static void record(const ReportOptions& o) {
    Problems problems;
    const std::string &from = o.selection.folders[0], &to = o.selection.folders[1];
    size_t written = write_records(from, to, problems);
    if (o.quiet) return;
    for (auto& p : problems) printf("%s\n", p.c_str());
    printf("%zu runs recorded in %s\n", written, to.c_str());
}

int main(int argc, char** argv) {
    return errors_in_one_line("report", [&]() -> int {
        ReportOptions o;
        if (!parse(argc, argv, o)) return EXIT_DONE;
        if (o.record) record(o);
        else if (o.fill) file_replace(o.out, fill_page(o.selection.folders[0]));
        else report(o);
        return EXIT_DONE;
    });
}
