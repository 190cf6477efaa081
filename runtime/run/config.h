// What the model is: sizes and positions. Plain data; the same numbers go into config.json.
// Names follow the field: T context, V vocabulary (Vp padded), L layers, C width, NH heads, NKV key/value heads, HS head size.
#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <vector>

enum class Position { learned, sinusoidal, rope, alibi, power, none };

// An option that an attention variant has of its own, declared in its file (ATTENTION_OPTIONS). Its name begins with the variant's,
// without underscores: mla-dc, qvka-tied. Its value is ModelConfig::own[i], with i the option's place in the variant's table.
struct VariantOption {
    enum Kind { number, flag, choice } kind;
    const char *name, *help;
    int max = 1;                         // of a number, which may be 0 to max, or AUTO
    std::vector<const char*> choices;    // the value is an index
};
using VariantOptions = std::vector<VariantOption>;
inline constexpr int AUTO = -1;          // a number that attention_defaults is to choose from the other sizes
inline constexpr int MAX_OWN = 8;
inline VariantOption own_number(const char* name, int max, const char* help) { return {VariantOption::number, name, help, max, {}}; }
inline VariantOption own_flag(const char* name, const char* help) { return {VariantOption::flag, name, help, 1, {}}; }
inline VariantOption own_choice(const char* name, std::vector<const char*> choices, const char* help) {
    return {VariantOption::choice, name, help, 1, choices};
}

struct ModelConfig {
    int T = 128;                         // context: longest sequence
    int V = 256;                         // vocabulary of the tokenizer
    int L = 4, C = 128, NH = 4;          // layers, width, query heads
    int NKV = 0;                         // key/value heads; 0: the variant's default
    int HS = 0;                          // head size; 0: C / NH. NH * HS need not equal C
    int F = 0;                           // MLP width; 0: 4 C
    Position pos = Position::rope;
    double rope_theta = 10000;
    int own[MAX_OWN] = {AUTO, AUTO, AUTO, AUTO, AUTO, AUTO, AUTO, AUTO};     // the variant's own options, by the enum in its file
    // Padded so that the head's product has aligned rows. The padding never gets any probability.
    int Vp() const { return (V + 127) / 128 * 128; }
};

const char* position_name(Position p);
Position position_from_name(const std::string& name);   // fails with the list of names
// Sets flags and choices that are still AUTO: a flag to off, a choice to the first.
void own_defaults(ModelConfig& c, std::span<const VariantOption> table);
std::string json_key(const char* option);                                   // "mla-dc" -> "mla_dc"

// What the program that reads the options was built with.
struct Program {
    const char *attn = "", *norm = "layernorm", *mlp = "gelu";
    std::span<const VariantOption> own = {}; // the variant's
    std::string variants = {};           // all there are, "qkv mqa ..": their options are known, though not accepted
    std::string name() const;            // "qv", "qv-rmsnorm-swiglu": attention, and norm and MLP where they are not the defaults
};
