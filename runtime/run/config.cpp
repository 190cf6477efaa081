// Names of positions; see config.h.
#include "runtime/run/config.h"

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
