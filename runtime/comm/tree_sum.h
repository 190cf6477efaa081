// out[i] = the sum over n parts of parts[k][i], added as a balanced binary tree over the parts: ((0+1)+(2+3))+((4+5)+6).
// The left subtree holds the largest power of two below n. So with n = 2^k parts, each itself the tree sum of 2^m leaves,
// the result has the same bits as the tree over all 2^(k+m) leaves: the number of ranks does not change a sum
// (--deterministic-ranks).
// out may be one of the parts. Bytes moved: (n + 1) per element, as partial sums stay in the L1 cache: bound by memory.
#pragma once
#include <algorithm>
#include <cstddef>
#include <utility>

template <class T> void tree_sum(T* out, const T* const* parts, int n, size_t count) {
    constexpr size_t BLOCK = 512;
    constexpr int LEVELS = 20;                                        // 2^20 parts
    alignas(64) T memory[LEVELS + 1][BLOCK];
    if (n == 1 && out != parts[0]) std::copy(parts[0], parts[0] + count, out);
    for (size_t begin = 0; begin < count && n > 1; begin += BLOCK) {
        const size_t length = std::min(BLOCK, count - begin);
        // A binary counter: node[level] is the finished sum of 2^level parts while bit `level` of the number of parts taken is set.
        const T* node[LEVELS + 1];
        T* own[LEVELS + 1];
        for (int level = 0; level <= LEVELS; level++) own[level] = memory[level];
        int additions_left = n - 1;
        auto add = [&](T* spare, const T* left, const T* right) {
            T* to = --additions_left == 0 ? out + begin : spare;      // the last one is the result
#ifdef __clang__                                        // `to` may be left, right or apart, never shifted against them
#pragma clang loop vectorize(assume_safety)
#else
#pragma GCC ivdep
#endif
            for (size_t i = 0; i < length; i++) to[i] = left[i] + right[i];
            return to;
        };
        for (unsigned taken = 0; taken < unsigned(n); taken++) {
            const T* sum = parts[taken] + begin;
            int level = 0;
            for (unsigned bits = taken; bits & 1; bits >>= 1, level++) sum = add(own[LEVELS], node[level], sum);
            if (level > 0) std::swap(own[level], own[LEVELS]);        // its memory now belongs to this level
            node[level] = sum;
        }
        const T* sum = nullptr;                                       // if n is not a power of two: the incomplete subtrees, smallest first
        for (int level = 0; (unsigned(n) >> level) != 0; level++)
            if (unsigned(n) >> level & 1) sum = sum ? add(own[LEVELS], node[level], sum) : node[level];
    }
}
