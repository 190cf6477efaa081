// Attention maps of a prompt as one SVG picture: a row of squares for each layer, a square for each head. In a square, row i
// shows how token i distributes its attention over itself and the tokens before it (darker: more). Pointing at a cell shows
// the two tokens and the weight.
#pragma once
#include "model/decode.h"
#include "tokenizer/tokenizer.h"

inline std::string svg_text(const std::string& bytes) {
    std::string out;
    for (unsigned char c : bytes) {
        if (c == '&') out += "&amp;";
        else if (c == '<') out += "&lt;";
        else if (c == '"') out += "&quot;";
        else if (c == '\n') out += "\\n";
        else if (c >= 0x20 && c < 0x7f) out += char(c);
        else out += format("\\x%02x", c);                    // a token may end inside a character
    }
    return out;
}

// d: made with keep_weights and a chunk as long as the prompt; it has not read anything yet.
inline std::string attention_map_svg(Decoder& d, const Tokenizer& tokenizer, const std::vector<int>& ids) {
    const ModelConfig& c = d.g.c;
    const int n = int(ids.size()), cell = std::max(2, std::min(12, 240 / n)), side = n * cell, gap = 14, left = 30, top = 30;
    std::vector<NewToken> tokens;
    std::vector<std::string> names;
    for (int id : ids) {
        tokens.push_back({0, id});
        const uint32_t one = uint32_t(id);
        names.push_back(svg_text(tokenizer_decode(tokenizer, &one, 1)));
    }
    decoder_pass(d, tokens.data(), n);
    const int width = left + c.NH * (side + gap), height = top + c.L * (side + gap);
    std::string svg = format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
        "font-family=\"sans-serif\" font-size=\"10\">\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
        width, height);
    for (int h = 0; h < c.NH; h++) svg += format("<text x=\"%d\" y=\"%d\">head %d</text>\n", left + h * (side + gap), top - 8, h);
    const size_t capacity = size_t(d.shape.capacity);
    std::vector<floatM> weights(size_t(n) * size_t(c.NH) * capacity);
    for (int l = 0; l < c.L; l++) {
        copy_to_host(weights.data(), d.attention_weights[size_t(l)], weights.size() * sizeof(floatM));
        const int y = top + l * (side + gap);
        svg += format("<text x=\"2\" y=\"%d\">%d</text>\n", y + side / 2, l);
        for (int h = 0; h < c.NH; h++) {
            const int x = left + h * (side + gap);
            svg += format("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#bbb\"/>\n", x, y, side, side);
            for (int i = 0; i < n; i++)
                for (int j = 0; j <= i; j++) {
                    const double weight = double(weights[(size_t(i) * size_t(c.NH) + size_t(h)) * capacity + size_t(j)]);
                    if (weight < 0.005) continue;
                    svg += format(
                        "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#104e8b\" "
                        "fill-opacity=\"%.3f\"><title>%s &#8594; %s %.3f</title></rect>\n",
                        x + j * cell, y + i * cell, cell, cell, std::sqrt(weight), names[size_t(i)].c_str(),
                        names[size_t(j)].c_str(), weight);
                }
        }
    }
    return svg + "</svg>\n";
}
