#include "base/number.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

bool parse_u64(struct bytes b, uint64_t *out)
{
    if (b.n == 0 || b.n > 20) return false;
    if (b.p[0] == '0') {
        *out = 0;
        return b.n == 1;
    }
    uint64_t v = 0;
    for (size_t i = 0; i < b.n; i++) {
        if (b.p[i] < '0' || b.p[i] > '9') return false;
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(b.p[i] - '0'), &v)) return false;
    }
    *out = v;
    return true;
}

bool parse_i64(struct bytes b, int64_t *out)
{
    uint64_t magnitude;
    if (b.n && b.p[0] == '-') {
        if (!parse_u64(bytes_make(b.p + 1, b.n - 1), &magnitude)) return false;
        if (magnitude == 0 || magnitude > (uint64_t)INT64_MAX + 1) return false;
        *out = (int64_t)(0 - magnitude);
        return true;
    }
    if (!parse_u64(b, &magnitude) || magnitude > INT64_MAX) return false;
    *out = (int64_t)magnitude;
    return true;
}

/* strtod() needs a terminator; what does not fit here is no number anybody meant. */
static bool terminated(struct bytes b, char *text, size_t room)
{
    if (b.n == 0 || b.n >= room) return false;
    unsigned char first = (unsigned char)b.p[0];
    if (first == ' ' || (first >= '\t' && first <= '\r')) return false;
    memcpy(text, b.p, b.n);
    text[b.n] = '\0';
    return true;
}

bool parse_double(struct bytes b, double *out)
{
    char text[512], *end;
    if (!terminated(b, text, sizeof text)) return false;
    errno = 0;
    double v = strtod(text, &end);
    if (end != text + b.n || isnan(v)) return false;
    if (errno == ERANGE && (v == HUGE_VAL || v == -HUGE_VAL || fpclassify(v) == FP_ZERO)) return false;
    *out = v;
    return true;
}

bool parse_long_double(struct bytes b, long double *out)
{
    char text[LONG_DOUBLE_TEXT_MAX], *end;
    if (!terminated(b, text, sizeof text)) return false;
    errno = 0;
    long double v = strtold(text, &end);
    if (end != text + b.n || isnan(v)) return false;
    if (errno == ERANGE && (v == HUGE_VALL || v == -HUGE_VALL || fpclassify(v) == FP_ZERO)) return false;
    *out = v;
    return true;
}

bool parse_memory(struct bytes b, int64_t *out)
{
    size_t digits = 0;
    while (digits < b.n && ((b.p[digits] >= '0' && b.p[digits] <= '9') || (digits == 0 && b.p[0] == '-'))) digits++;
    static const struct {
        struct bytes unit;
        int64_t factor;
    } units[] = {
        {{"", 0}, 1},           {{"b", 1}, 1},           {{"k", 1}, 1000},
        {{"kb", 2}, 1 << 10},   {{"m", 1}, 1000 * 1000}, {{"mb", 2}, 1 << 20},
        {{"g", 1}, 1000000000}, {{"gb", 2}, 1 << 30},
    };
    int64_t v;
    if (!parse_i64(bytes_make(b.p, digits), &v)) return false;
    struct bytes unit = bytes_make(b.p + digits, b.n - digits);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (bytes_ieq(unit, units[i].unit)) return !__builtin_mul_overflow(v, units[i].factor, out);
    return false;
}

static size_t digits_of(uint64_t v)
{
    size_t n = 1;
    for (; v >= 10000; v /= 10000) n += 4;
    return n + (v >= 10) + (v >= 100) + (v >= 1000);
}

/* Two digits a division, from the last to the first. */
size_t format_u64(char *out, uint64_t v)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142"
                                "43444546474849505152535455565758596061626364656667686970717273747576777879808182838485"
                                "8687888990919293949596979899";
    size_t n = digits_of(v), at = n;
    for (; v >= 100; v /= 100) {
        at -= 2;
        memcpy(out + at, pairs + v % 100 * 2, 2);
    }
    if (v >= 10)
        memcpy(out, pairs + v * 2, 2);
    else
        out[0] = (char)('0' + v);
    return n;
}

size_t format_i64(char *out, int64_t v)
{
    if (v >= 0) return format_u64(out, (uint64_t)v);
    *out = '-';
    return 1 + format_u64(out + 1, 0 - (uint64_t)v);
}

size_t format_double(char *out, double v)
{
    if (isnan(v)) return (size_t)sprintf(out, "nan");
    if (isinf(v)) return (size_t)sprintf(out, v < 0 ? "-inf" : "inf");
    if (v == 0) return (size_t)sprintf(out, signbit(v) ? "-0" : "0");
    /* Integers below 2^52 are exact, and printing them as integers is much cheaper. */
    if (v > -4503599627370496.0 && v < 4503599627370496.0 && v == (double)(int64_t)v)
        return format_i64(out, (int64_t)v);
    return (size_t)snprintf(out, NUMBER_TEXT_MAX, "%.17g", v);
}

size_t format_long_double(char *out, long double v)
{
    if (isinf(v)) return (size_t)sprintf(out, v < 0 ? "-inf" : "inf");
    size_t n = (size_t)snprintf(out, LONG_DOUBLE_TEXT_MAX, "%.17Lf", v);
    if (memchr(out, '.', n)) {
        while (out[n - 1] == '0') n--;
        if (out[n - 1] == '.') n--;
    }
    if (n == 2 && out[0] == '-' && out[1] == '0') {
        out[0] = '0';
        n = 1;
    }
    return n;
}
