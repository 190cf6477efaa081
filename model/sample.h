// Choosing the next token from logits in the usual way: temperature, then top-k, top-p [Holtzman et al. 2020], min-p
// [Nguyen et al. 2024], each applied to what the one before left; then one draw. Host only.
#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

struct Sampling {
    double temperature = 0.8;        // 0: the likeliest token, the first of equals
    int top_k = 0;                   // keep the k likeliest; 0: all
    double top_p = 1;                // keep the fewest whose probabilities reach p; 1: all
    double min_p = 0;                // keep those at least this times as likely as the likeliest; 0: all
};

// u: uniform in [0, 1).
template <class T> int choose_token(const T* logits, int V, const Sampling& s, double u) {
    int best = 0;
    for (int i = 1; i < V; i++)
        if (double(logits[i]) > double(logits[best])) best = i;
    if (s.temperature == 0) return best;
    const double top = double(logits[best]);
    std::vector<int> kept(static_cast<size_t>(V));
    std::iota(kept.begin(), kept.end(), 0);
    auto likelier = [&](int a, int b) { return double(logits[a]) != double(logits[b]) ? double(logits[a]) > double(logits[b]) : a < b; };
    auto weight = [&](int id) { return std::exp((double(logits[id]) - top) / s.temperature); };
    auto total = [&] {
        double sum = 0;
        for (int id : kept) sum += weight(id);
        return sum;
    };
    if (s.top_k > 0 && s.top_k < V) {
        std::nth_element(kept.begin(), kept.begin() + (s.top_k - 1), kept.end(), likelier);
        kept.resize(size_t(s.top_k));
    }
    if (s.top_p < 1) {
        std::sort(kept.begin(), kept.end(), likelier);
        const double enough = s.top_p * total();
        size_t n = 0;
        for (double sum = 0; n < kept.size() && sum < enough;) sum += weight(kept[n++]);
        kept.resize(std::max<size_t>(n, 1));
    }
    if (s.min_p > 0) std::erase_if(kept, [&](int id) { return id != best && weight(id) < s.min_p; });
    std::sort(kept.begin(), kept.end());                     // so that the draw does not depend on how the others were dropped
    const double sum = total();
    for (int id : kept) {
        u -= weight(id) / sum;
        if (u < 0) return id;
    }
    return best;                                             // u was within rounding of 1
}
