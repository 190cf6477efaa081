// How the CPU's attention is divided among threads. This is arithmetic only, so that the balance can be tested for any
// number of threads. A head's queries, or its keys, are cut into parts of equal area in the causal triangle: queries up
// to t make t^2 / 2 pairs, keys from t on make (T - t)^2 / 2. No sum depends on the cut (sdpa.cpp), so it may depend on
// the number of threads.
#pragma once
#include <algorithm>
#include <cmath>

struct Range { int begin, end; };
enum class Triangle { queries, keys };

inline int units(int T, int unit) { return (T + unit - 1) / unit; }

// Part `part` of `parts` of T positions, its borders multiples of `unit`; it may be empty. As many parts as units: one each.
inline Range triangle_part(Triangle side, int T, int unit, int part, int parts) {
    auto border = [&](int p) {
        double share = double(p) / parts, at = side == Triangle::queries ? std::sqrt(share) : 1 - std::sqrt(1 - share);
        return p >= parts ? T : std::min(T, (parts == units(T, unit) ? p : int(std::lround(at * T / unit))) * unit);
    };
    return {border(part), border(part + 1)};
}
// The largest come first: the last queries, the first keys. Then a late task is a small one.
inline Range triangle_task(Triangle side, int T, int unit, int task, int parts) {
    return triangle_part(side, T, unit, side == Triangle::queries ? parts - 1 - task : task, parts);
}

// With TASKS_PER_THREAD tasks per thread, the threads that end first are idle for a small part of the time only. More
// parts than half the number of units would be uneven, so then every unit is a part.
inline constexpr int TASKS_PER_THREAD = 8;
inline int parts_per_head(int heads, int T, int unit, int threads) {
    int wanted = threads > 1 ? (TASKS_PER_THREAD * threads + heads - 1) / heads : 1, most = units(T, unit);
    return 2 * wanted > most ? (wanted > 1 ? most : 1) : wanted;
}

// While one task has the whole head, the backward's five products (S, dP, dV, dK, dQ) share S and dP. When a head is cut,
// by queries for dQ and by keys for dK and dV, S and dP are computed twice: seven products instead of five, which is worth
// it when there are too few heads for the threads.
inline constexpr int WHOLE_PRODUCTS = 5, QUERY_PRODUCTS = 3, KEY_PRODUCTS = 4;
inline bool split_heads(int heads, int threads) {
    double whole = double(WHOLE_PRODUCTS) * ((heads + threads - 1) / threads);
    double split = double(QUERY_PRODUCTS + KEY_PRODUCTS) * heads / threads;
    return threads > 1 && 1.1 * split < whole;
}
