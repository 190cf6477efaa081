// Numbers and lines as text: what every table, sentence and picture shares.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "runtime/run/error.h"

inline std::string show(double v, const char* fmt) {
    if (std::isnan(v)) return "-";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
    return format(fmt, v);
#pragma GCC diagnostic pop
}

// "+0.0363", "-0.0121", and "0.0000" for what rounds to it: a sign there would say something that was not measured.
inline std::string show_signed(double v, int digits = 4) {
    if (std::isnan(v)) return "-";
    std::string s = format("%+.*f", digits, v);
    return s.find_first_of("123456789") == std::string::npos ? s.substr(1) : s;
}
inline std::string show_interval(double middle, double half, int digits = 4) {
    if (std::isnan(middle) || std::isnan(half)) return "-";
    return "[" + show_signed(middle - half, digits) + ", " + show_signed(middle + half, digits) + "]";
}

inline std::string show_count(double n) {           // 1.048M: four digits, so that variants can be told apart
    if (std::isnan(n)) return "-";
    if (n >= 1e9) return format("%#.4gG", n / 1e9);
    if (n >= 1e6) return format("%#.4gM", n / 1e6);
    if (n >= 1e4) return format("%#.4gk", n / 1e3);
    return format("%.0f", n);
}

inline std::string show_p(double p) { return std::isnan(p) ? "-" : p < 0.0001 ? "< 0.0001" : format("%.4f", p); }

inline std::string show_duration(double seconds) {
    long long s = std::llround(seconds);
    return s >= 3600 ? format("%lldh%02lldm", s / 3600, s % 3600 / 60)
           : s >= 60 ? format("%lldm%02llds", s / 60, s % 60)
                     : format("%llds", s);
}

inline std::string join(const std::vector<std::string>& parts, const char* between) {
    std::string s;
    for (size_t i = 0; i < parts.size(); i++) s += (i ? between : "") + parts[i];
    return s;
}

inline size_t display_width(const std::string& s) {      // UTF-8: continuation bytes take no column
    size_t n = 0;
    for (unsigned char c : s) n += (c & 0xC0) != 0x80;
    return n;
}

// Breaks text into lines of at most `width`, for the terminal.
inline std::string wrap(const std::string& text, size_t width) {
    std::string out, word;
    size_t column = 0;
    for (char c : text + " ") {
        if (c != ' ') {
            word += c;
            continue;
        }
        if (column && column + 1 + display_width(word) > width) {
            out += "\n";
            column = 0;
        } else if (column) {
            out += " ";
            column++;
        }
        out += word;
        column += display_width(word);
        word.clear();
    }
    return out + "\n";
}

// Text for HTML and SVG: markup escaped, control characters and broken UTF-8 replaced, so that a hostile run cannot break the page.
inline std::string escape_markup(const std::string& s) {
    std::string out;
    for (size_t i = 0; i < s.size();) {
        unsigned char c = static_cast<unsigned char>(s[i]);
        size_t length = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xF0 && c < 0xF5 ? 4 : 0;
        bool whole = length > 0 && i + length <= s.size();
        for (size_t k = 1; whole && k < length; k++) whole = (static_cast<unsigned char>(s[i + k]) & 0xC0) == 0x80;
        if (!whole || (c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
            out += "\xEF\xBF\xBD";
            i++;
            continue;
        }
        if (c == '<') out += "&lt;";
        else if (c == '>') out += "&gt;";
        else if (c == '&') out += "&amp;";
        else if (c == '"') out += "&quot;";
        else out += s.substr(i, length);
        i += length;
    }
    return out;
}
