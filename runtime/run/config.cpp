// Names of positions, values of a variant's own options; see config.h.
#include "runtime/run/config.h"

#include <algorithm>

#include "runtime/run/error.h"

static constexpr const char* NAMES[] = {"learned", "sinusoidal", "rope", "alibi", "power", "none"};   // in the order of Position

const char* position_name(Position p) { return NAMES[int(p)]; }

Position position_from_name(const std::string& name) {
    std::string all;
    for (int i = 0; i < int(std::size(NAMES)); i++) {
        if (name == NAMES[i]) return Position(i);
        all += std::string(i ? ", " : "") + NAMES[i];
    }
    fail_usage("position '%s' is unknown; choose one of: %s", name.c_str(), all.c_str());
}

void own_defaults(ModelConfig& c, std::span<const VariantOption> table) {
    ensure(table.size() <= MAX_OWN, "a variant has %zu options of its own; MAX_OWN in runtime/run/config.h is %d", table.size(), MAX_OWN);
    for (size_t i = 0; i < table.size(); i++)
        if (table[i].kind != VariantOption::number && c.own[i] == AUTO) c.own[i] = 0;
}

std::string Program::name() const {
    const Program plain;
    std::string text = attn;
    if (std::string(norm) != plain.norm) text += std::string("-") + norm;
    if (std::string(mlp) != plain.mlp) text += std::string("-") + mlp;
    return text;
}

std::string json_key(const char* option) {
    std::string key = option;
    std::replace(key.begin(), key.end(), '-', '_');
    return key;
}
