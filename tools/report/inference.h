// What differences of losses can and cannot say: Student's t, paired differences over seeds, Holm's correction for the number of
// comparisons, the interval over validation text, and how many seeds would tell a difference of a given size.
// Pure functions of numbers. Two intervals are kept apart because they answer different questions:
//   over seeds   another training of the same two models on the same text: which of the two is lower then?
//   over text    these very weights on other text of the same kind: which of the two is lower there?
#pragma once
#include <cstddef>
#include <vector>

// I_x(a, b), the regularised incomplete beta function, by its continued fraction [DLMF 8.17.22], to 1e-14.
double incomplete_beta(double a, double b, double x);
// P(|T| >= |t|) and the t with P(T <= t) = p, for Student's distribution with df degrees of freedom.
double student_t_two_sided(double t, double df);
double student_t_quantile(double p, double df);

// a[i] and b[i] share a seed: same initial values where shapes agree, same batches. Their difference removes that common part.
// Under the assumption that differences are normal, mean / (sd / sqrt(n)) is Student's t with n - 1 degrees of freedom.
struct PairedDifference {
    size_t n;                // pairs
    double mean, sd;         // NaN: not measured (sd needs two pairs)
    double p;                // two-sided, of "the true difference is 0"; NaN below two pairs
};
PairedDifference paired_difference(const std::vector<double>& a, const std::vector<double>& b);
// Half the width of the interval that holds the true difference with probability 1 - alpha.
double half_width(const PairedDifference& d, double alpha);

// Holm's step-down test [Holm 1979] of all hypotheses "difference i is 0", so that the chance of any false rejection is at most
// alpha: p_(1) <= ... <= p_(m); reject while p_(i) <= alpha / (m - i + 1). NaN: no test, not counted.
struct Holm {
    size_t tests = 0;                    // m
    std::vector<double> adjusted;        // p values to be read against alpha; NaN where there was none
    std::vector<char> rejected;
    std::vector<double> level;           // at which difference i was tested: its 1 - level interval excludes 0 exactly when rejected
};
Holm holm(const std::vector<double>& p, double alpha);

// Smallest number of paired seeds with which a true difference of `delta` is told from 0 with probability `power`, when paired
// differences have the standard deviation sd: (t_{1-alpha/2, n-1} + t_{power, n-1}) sd / sqrt(n) <= delta. 0: more than 10000.
size_t seeds_to_tell(double sd, double delta, double alpha, double power = 0.8);

// Interval of a mean over consecutive, hence dependent, values: the means of about sqrt(n) blocks of about sqrt(n) neighbours are
// taken as independent [batch means, Conway 1963]. Right when dependence does not reach further than a block.
struct BlockMean {
    size_t blocks = 0, per_block = 0;    // 0: fewer than 8 values, no interval
    double mean, half_width;
};
BlockMean block_mean(const std::vector<double>& values, double alpha);
