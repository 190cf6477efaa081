// Pages with numbers from reports; see fill.h.
#include "tools/report/fill.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "runtime/run/error.h"
#include "runtime/run/files.h"

namespace fs = std::filesystem;
using nlohmann::json;

static constexpr size_t LARGEST_REPORT = 64 << 20;

// "## Same cache > ### Differences to qkv": the heading below a heading.
static std::string lines_of_table(const std::string& report, const std::string& path) {
    std::vector<std::string> headings;
    for (size_t begin = 0, end; begin <= path.size(); begin = end + 3) {
        end = std::min(path.find(" > ", begin), path.size());
        headings.push_back(path.substr(begin, end - begin));
    }
    std::istringstream lines(report);
    std::string line, table;
    size_t found = 0;
    while (std::getline(lines, line)) {
        if (found < headings.size()) {
            const std::string& heading = headings[found];
            if (found > 0 && line.find_first_not_of('#') <= headings[found - 1].find_first_not_of('#') && line[0] == '#') break;
            found += line == heading || line.rfind(heading + ";", 0) == 0 || line.rfind(heading + " ", 0) == 0;
        } else if (line.rfind("|", 0) == 0) {
            table += line + "\n";
        } else if (!table.empty() || line.rfind("#", 0) == 0) {
            break;
        }
    }
    ensure(!table.empty(), "no table below a line '%s'", printable(path).c_str());
    table.pop_back();
    return table;
}

// Losses and differences with four digits, as the tables have them; counts whole.
static std::string shown(const json& value, const std::string& field) {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_array() && value.size() == 2) return "[" + shown(value[0], "difference") + ", " + shown(value[1], "difference") + "]";
    ensure(value.is_number(), "'%s' is not measured", printable(field).c_str());
    const double x = value.get<double>();
    if (field == "difference") return std::abs(x) < 0.00005 ? "0.0000" : format("%+.4f", x);
    if (field == "p" || field == "corrected_p") return x < 0.0001 ? "below 0.0001" : format("%.4f", x);
    for (const char* count :
         {"pairs", "seeds", "tests", "cache_bytes_per_token", "parameters_non_embedding", "flops_per_token", "seeds_to_tell_0.01"})
        if (field == count) return format("%.0f", x);
    return format("%.4f", x);
}

static const json& find_section(const json& report, const std::string& matching) {
    for (const json& s : report.at("sections"))
        if (s.at("matching") == matching) return s;
    fail("no section with matching '%s'", printable(matching).c_str());
}

static const json& find_row(const json& section, const std::string& row) {
    const json* found = row == "-" ? &section : nullptr;
    for (const json& r : section.at("rows"))
        if (r.at("row") == row) found = &r;
    ensure(found, "no row '%s'", printable(row).c_str());
    return *found;
}

static std::string number(const json& report, const std::string& matching, const std::string& row, const std::string& field) {
    const json& found = find_row(find_section(report, matching), row);
    ensure(found.contains(field), "no field '%s'", printable(field).c_str());
    return shown(found.at(field), field);
}

// What a row is, in the words of a claim.
static std::string verdict_of(const json& row) {
    ensure(row.contains("verdict"), "has no verdict");
    std::string verdict = row["verdict"];
    std::replace(verdict.begin(), verdict.end(), ' ', '-');
    return verdict;
}
static std::string side_of(const json& row) {
    const json interval = row.value("interval", json());
    ensure(interval.is_array() && interval.size() == 2 && interval[0].is_number() && interval[1].is_number(), "has no interval");
    return interval[0].get<double>() > 0 ? "above-0" : interval[1].get<double>() < 0 ? "below-0" : "around-0";
}

static void check_claim(const json& section, const std::string& claim, const std::vector<std::string>& rows) {
    ensure(!rows.empty(), "a claim is {{holds NAME MATCHING CLAIM ROW...}}");
    if (claim == "order") {
        for (size_t i = 1; i < rows.size(); i++)
            ensure(find_row(section, rows[i - 1]).at("val_loss") < find_row(section, rows[i]).at("val_loss"),
                   "the page says that %s ends below %s, and it does not", printable(rows[i - 1]).c_str(), printable(rows[i]).c_str());
        return;
    }
    const std::vector<std::string> claims = {"better", "worse", "not-told-apart", "above-0", "below-0", "around-0"};
    ensure(std::find(claims.begin(), claims.end(), claim) != claims.end(),
           "a claim is order, better, worse, not-told-apart, above-0, below-0 or around-0, not '%s'", printable(claim).c_str());
    for (const std::string& row : rows) {
        const std::string found = claim.ends_with("-0") ? side_of(find_row(section, row)) : verdict_of(find_row(section, row));
        ensure(found == claim, "the page says that %s is %s, and it is %s", printable(row).c_str(), claim.c_str(),
               printable(found).c_str());
    }
}

static json read_report(const fs::path& folder) {
    const std::string path = (folder / "report.json").string();
    return json_parse(file_read(path, LARGEST_REPORT), path);
}

static std::string fill_hole(const std::string& hole, const fs::path& folder) {
    std::istringstream words(hole);
    std::string first, name;
    words >> first;
    if (first == "table") {
        std::string heading;
        words >> name;
        std::getline(words >> std::ws, heading);
        const fs::path report = name.ends_with(".md") ? folder / name : folder / name / "report.md";
        return lines_of_table(file_read(report.string(), LARGEST_REPORT), heading);
    }
    if (first == "holds") {
        std::string matching, claim;
        std::vector<std::string> rows;
        ensure(bool(words >> name >> matching >> claim), "a claim is {{holds NAME MATCHING CLAIM ROW...}}");
        for (std::string row; words >> row;) rows.push_back(row);
        check_claim(find_section(read_report(folder / name), matching), claim, rows);
        return "";
    }
    std::string matching, row, field, more;
    ensure(words >> matching >> row >> field && !(words >> more), "a hole is {{NAME MATCHING ROW FIELD}} or {{table NAME HEADING}}");
    return number(read_report(folder / first), matching, row, field);
}

std::string fill_page(const std::string& template_path) {
    std::istringstream lines(file_read(template_path, LARGEST_REPORT));
    const fs::path folder = fs::path(template_path).parent_path();
    std::string line, page;
    for (int number = 1; std::getline(lines, line); number++) {
        const bool had_hole = line.find("{{") != std::string::npos;
        for (size_t begin; (begin = line.find("{{")) != std::string::npos;) {
            const size_t end = line.find("}}", begin);
            ensure(end != std::string::npos, "%s:%d: {{ without }}", template_path.c_str(), number);
            try {
                line.replace(begin, end + 2 - begin, fill_hole(line.substr(begin + 2, end - begin - 2), folder));
            } catch (const std::exception& e) {
                fail("%s:%d: %s", template_path.c_str(), number, e.what());
            }
        }
        if (!had_hole || line.find_first_not_of(' ') != std::string::npos) page += line + "\n";      // nothing but claims: no line
    }
    return page;
}
