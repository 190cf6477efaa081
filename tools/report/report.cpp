// report: runs of a comparison -> a table on the terminal, report.md, report.csv, loss.svg and loss.png.
//   build/report runs/NAME [more runs or folders] [--out DIR] [--baseline qkv] [--no-plot]
// Reads what the trainer wrote (config.json, metrics.jsonl) and the token shards (for the unigram baseline); trains nothing.
#include <cstdio>
#include <cstring>
#include <unistd.h>
#include "tools/report/report_plot.h"

struct ReportOptions { std::vector<std::string> folders; std::string out, baseline = "qkv"; bool plot = true, help = false; };

static const char* USAGE =
    "report RUNS... [options]: compares finished runs\n"
    "  RUNS               a comparison's folder (runs/NAME) or single runs\n"
    "  --out DIR          where report.md, report.csv, loss.svg, loss.png go; default: the first RUNS\n"
    "  --baseline NAME    variant that differences are taken to; default: qkv\n"
    "  --no-plot          no picture\n";

static ReportOptions parse(int argc, char** argv) {
    ReportOptions o;
    for (int i = 1; i < argc; i++) {
        std::string a = argv[i];
        auto value = [&]() -> std::string {
            ensure_usage(i + 1 < argc, "%s needs a value; see report --help", a.c_str());
            return argv[++i];
        };
        if (a == "--help" || a == "-h") o.help = true;
        else if (a == "--out") o.out = value();
        else if (a == "--baseline") o.baseline = value();
        else if (a == "--no-plot") o.plot = false;
        else if (a[0] == '-') fail_usage("%s: no such option; see report --help", a.c_str());
        else o.folders.push_back(a);
    }
    ensure_usage(o.help || !o.folders.empty(), "which runs? report runs/NAME; see report --help");
    if (!o.folders.empty() && o.out.empty()) o.out = o.folders[0];
    return o;
}

// One line per run, everything as measured: for a spreadsheet or another plot. Names hold no comma or quote (checked here).
static std::string csv(const std::vector<Row>& rows, const std::string& baseline) {
    std::string s = "run,variant,pos,seed,steps,finished,parameters,parameters_non_embedding,cache_bytes_per_token,flops_per_token,"
                    "tokens_per_second,seconds,val_loss,bits_per_byte,val_loss_minus_" + plain_name(baseline) + "\n";
    for (auto& row : rows) {
        const Row* base = find_row(rows, baseline, row.pos);
        for (auto& r : row.runs) {
            PairedDifference d;
            if (base) d = difference_to({row.attn, row.pos, {r}}, *base);
            s += plain_name(r.name) + "," + plain_name(row.attn) + "," + plain_name(row.pos) + format(",%lld,%lld,%d", (long long)r.seed, (long long)r.last_step, r.finished());
            for (double v : {r.parameters, r.parameters_non_embedding, r.cache_bytes_per_token, r.flops_per_token, r.tokens_per_second, r.seconds,
                             r.val_loss(), r.bits_per_byte, d.mean})
                s += std::isnan(v) ? std::string(",") : format(",%.10g", v);
            s += "\n";
        }
    }
    return s;
}

// "Baselines" sentence; bits per byte of the unigram model follow from a run's own ratio of bits per byte to nats.
static std::string baselines(const std::vector<Row>& rows, double& unigram, std::vector<std::string>& problems) {
    unigram = NOT_MEASURED;
    const Run* run = nullptr;
    for (auto& row : rows)
        for (auto& r : row.runs)
            if (!run && r.vocab_size > 0) run = &r;
    if (!run) return "No run says how large its vocabulary is, so there are no baselines.";
    try {
        unigram = unigram_baseline(*run);
    } catch (const std::exception& e) {
        problems.push_back(std::string("The unigram baseline could not be computed: ") + e.what());
    }
    double bits_per_nat = run->bits_per_byte / run->val_loss();
    auto line = [&](double nats) { return show(nats, "%.4f nats") + (std::isnan(bits_per_nat * nats) ? "" : format(" (%.4f bits per byte)", bits_per_nat * nats)); };
    return "To beat: uniform over the vocabulary, ln " + show(run->vocab_size, "%.0f") + " = " + line(std::log(run->vocab_size)) +
           "; frequencies of single tokens (unigram, add-one) " + line(unigram) + ".";
}

// Breaks text into lines of at most `width`, for the terminal.
static std::string wrap(const std::string& text, size_t width) {
    std::string out, word;
    size_t column = 0;
    for (char c : text + " ") {
        if (c != ' ') { word += c; continue; }
        if (column && column + 1 + word.size() > width) out += "\n", column = 0;
        else if (column) out += " ", column++;
        out += word;
        column += word.size();
        word.clear();
    }
    return out + "\n";
}

static void write_file(const std::string& path, const std::string& text) {
    std::ofstream file(path, std::ios::binary);
    file << text;
    file.close();
    ensure(file.good(), "%s: can not write it (%s)", path.c_str(), strerror(errno));
}

static void report(const ReportOptions& o) {
    std::vector<std::string> problems;
    std::vector<Row> rows = group_runs(load_runs(o.folders, problems), problems);
    for (auto& line : differing_options(rows)) problems.push_back("The runs differ in an option besides variant, position and seed; " + line);
    std::set<std::string> fingerprints, commits, kinds;
    for (auto& row : rows)
        for (auto& r : row.runs) fingerprints.insert(r.fingerprint), commits.insert(r.commit), kinds.insert(r.backend + " " + r.precision);
    if (fingerprints.size() > 1) problems.push_back("The runs saw different data (fingerprints differ): their losses can not be compared.");
    if (commits.size() > 1) problems.push_back("The runs were made by different versions of the source (commits differ, see the setup).");

    if (kinds.size() > 1) problems.push_back("The runs differ in backend or precision: small differences of loss may come from that.");

    double unigram;
    std::string baseline_line = baselines(rows, unigram, problems);
    Table table = results_table(rows, o.baseline);
    std::vector<std::string> reading = honest_reading(rows, o.baseline, unigram);

    std::filesystem::create_directories(o.out);
    std::string picture_problem;
    bool has_curves = false;
    for (auto& row : rows) for (auto& r : row.runs) has_curves |= !r.train.loss.empty() || !r.val.loss.empty();
    std::string name = std::filesystem::path(o.out).lexically_normal().filename().string();
    if (name.empty()) name = std::filesystem::path(o.out).lexically_normal().parent_path().filename().string();
    if (o.plot && has_curves) {
        write_plot(o.out, name, rows, o.baseline);
        picture_problem = run_gnuplot(o.out);
    }
    bool picture = o.plot && has_curves && picture_problem.empty();

    std::string md = "# Comparison " + name + "\n\n";
    if (picture) md += "![loss curves](loss.svg)\n\n";
    md += table_for_markdown(table) + "\nLosses in nats per token, on the same validation tokens; lower is better. Parameters, cache and FLOPs as the runs "
          "recorded them. tokens/s: median over the steps, whatever else the machine was doing.\n\n" + baseline_line + "\n\n## What this says, and what it does not\n\n";
    for (auto& p : reading) md += "- " + p + "\n";
    md += "\n## Setup\n\n";
    for (auto& [key, value] : setup_facts(rows)) md += "- " + key + ": " + value + "\n";
    if (!problems.empty()) md += "\n## Problems\n\n";
    for (auto& p : problems) md += "- " + p + "\n";
    write_file(o.out + "/report.md", md);
    write_file(o.out + "/report.csv", csv(rows, o.baseline));

    printf("\n%s\n%s", table_for_terminal(table, isatty(STDOUT_FILENO)).c_str(), wrap(baseline_line, 110).c_str());
    for (auto& p : reading) printf("\n%s", wrap(p, 110).c_str());
    for (auto& p : problems) printf("\n%s", wrap("Note: " + p, 110).c_str());
    if (!picture_problem.empty()) printf("\n%s\n", picture_problem.c_str());
    printf("\n%s/report.md  report.csv%s\n", o.out.c_str(), picture ? "  loss.svg  loss.png  loss.gp" : "");
}

int main(int argc, char** argv) {
    try {
        ReportOptions o = parse(argc, argv);
        if (o.help) printf("%s", USAGE);
        else report(o);
        return EXIT_DONE;
    } catch (const Error& e) {
        fprintf(stderr, "report: %s\n", e.what());
        return e.exit_code;
    } catch (const std::exception& e) {
        fprintf(stderr, "report: %s\n", e.what());
        return EXIT_FAILED;
    }
}
