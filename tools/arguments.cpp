// Command lines of the tools; see arguments.h. Values are read as strictly as the trainer's.
#include "tools/arguments.h"

#include <charconv>
#include <cmath>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "runtime/run/options.h"

static std::string value_text(const Argument& a) {
    return std::visit([](auto* v) -> std::string {
        using V = std::remove_pointer_t<decltype(v)>;
        if constexpr (std::is_same_v<V, bool>) return "";
        else if constexpr (std::is_same_v<V, std::string>) return *v;
        else if constexpr (std::is_same_v<V, double>) return format("%g", *v);
        else return std::to_string(*v);
    }, a.value);
}

static void print_help(const std::vector<Argument>& table, const std::string& usage) {
    printf("%s\n", usage.c_str());
    for (const Argument& a : table) {
        std::string shown = value_text(a);
        printf("  --%-14s %-6s %s%s\n", a.name, a.arg, a.help, shown.empty() ? "" : (" [" + shown + "]").c_str());
    }
}

static void set_value(const Argument& a, const std::string& text) {
    std::visit([&](auto* v) {
        using V = std::remove_pointer_t<decltype(v)>;
        if constexpr (std::is_same_v<V, bool>) *v = true;
        else if constexpr (std::is_same_v<V, std::string>) *v = text;
        else {
            V x{};
            auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
            ensure_usage(error == std::errc() && end == text.data() + text.size() && std::isfinite(double(x)),
                         "--%s: '%s' is not %s", a.name, printable(text).c_str(),
                         std::is_same_v<V, double> ? "a number"
                         : std::is_unsigned_v<V>   ? "a whole number, 0 or more"
                                                   : "a whole number");
            if constexpr (!std::is_unsigned_v<V>)
                ensure_usage(double(x) >= a.min && double(x) <= a.max, "--%s: %s is out of range (%g to %g)", a.name,
                             text.c_str(), a.min, a.max);
            *v = x;
        }
    }, a.value);
}

bool arguments_parse(const std::vector<Argument>& table, const std::string& usage, int argc, char** argv, std::vector<std::string>& words,
                     std::vector<std::string>* given) {
    std::vector<std::string> names = {"--help"};
    for (const Argument& a : table) names.push_back(std::string("--") + a.name);
    for (int i = 1; i < argc; i++) {
        const std::string word = argv[i];
        if (word == "--help" || word == "-h") return print_help(table, usage), false;
        if (!word.starts_with("--")) {
            ensure_usage(word == "-" || !word.starts_with("-"), "%s: unknown option; --help lists them", printable(word).c_str());
            words.push_back(word);
            continue;
        }
        const size_t equals = word.find('=');
        const std::string name = word.substr(0, equals);
        const Argument* found = nullptr;
        for (const Argument& a : table)
            if (name == std::string("--") + a.name) found = &a;
        if (!found) {
            const std::string near = nearest_name(name, names);
            fail_usage("%s: unknown option; %s", printable(name).c_str(),
                       near.empty() ? "--help lists them" : ("did you mean " + near + "?").c_str());
        }
        const bool is_switch = std::holds_alternative<bool*>(found->value);
        ensure_usage(!is_switch || equals == std::string::npos, "--%s takes no value", found->name);
        ensure_usage(is_switch || equals != std::string::npos || i + 1 < argc, "--%s: needs a value", found->name);
        set_value(*found, is_switch ? "" : equals != std::string::npos ? word.substr(equals + 1) : argv[++i]);
        if (given) given->push_back(found->name);
    }
    return true;
}
