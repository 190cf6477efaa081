# Prints the reference values of test/system/test_report_stats.cpp with scipy (1.x): python3 test/golden/make_student_t.py
from scipy import special, stats

print("incomplete beta: a, b, x, value")
for a, b, x in [(0.5, 0.5, 0.3), (1, 0.5, 0.9), (2, 3, 0.25), (10, 0.5, 0.99), (50, 0.5, 0.999), (0.5, 0.5, 1e-6), (5000, 0.5, 0.9997)]:
    print(f"{{{a}, {b}, {x}, {special.betainc(a, b, x):.15g}}},")
print("quantiles: p, df, t")
for p, df in [(0.975, 1), (0.975, 2), (0.975, 4), (0.995, 2), (0.975, 20), (0.9, 3), (0.99, 7.5), (0.975, 100),
              (0.8, 2), (0.9995, 3), (0.975, 1e6)]:
    print(f"{{{p}, {df}, {stats.t.ppf(p, df):.15g}}},")
print("two-sided: t, df, p")
for t, df in [(2.0, 2), (12.7, 1), (0.5, 9), (30, 3), (1e-3, 5)]:
    print(f"{{{t}, {df}, {2 * stats.t.sf(t, df):.15g}}},")
r = stats.ttest_rel([3.821, 3.839, 3.841, 3.830], [3.783, 3.805, 3.804, 3.799])
print("paired:", r.pvalue, r.confidence_interval(0.95), r.confidence_interval(0.99))
