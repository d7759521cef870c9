#include "base/glob.h"

static int fold(char c, bool ignore_case)
{
    return ignore_case && c >= 'A' && c <= 'Z' ? c + 32 : (unsigned char)c;
}

/* Matches one [...] class whose '[' stands at pattern.p[*at]; leaves *at behind the class.  A class that is not closed
 * ends with the pattern. */
static bool class_match(struct bytes pattern, size_t *at, char c, bool ignore_case)
{
    size_t i = *at + 1;
    bool inverted = i < pattern.n && pattern.p[i] == '^', found = false;
    if (inverted) i++;
    int want = fold(c, ignore_case);
    for (; i < pattern.n && pattern.p[i] != ']'; i++) {
        if (pattern.p[i] == '\\' && i + 1 < pattern.n) {
            if ((unsigned char)pattern.p[++i] == (unsigned char)c) found = true;
        } else if (i + 2 < pattern.n && pattern.p[i + 1] == '-') {
            int low = fold(pattern.p[i], ignore_case), high = fold(pattern.p[i + 2], ignore_case);
            if (low > high) {
                int swap = low;
                low = high;
                high = swap;
            }
            if (want >= low && want <= high) found = true;
            i += 2;
        } else if (fold(pattern.p[i], ignore_case) == want) {
            found = true;
        }
    }
    *at = i < pattern.n ? i + 1 : i;
    return found != inverted;
}

bool glob_match(struct bytes pattern, struct bytes text, bool ignore_case)
{
    if (text.n == 0) return pattern.n == 0; /* as in Redis: a star does not stand for an empty text as a whole */
    size_t p = 0, t = 0;
    size_t star = SIZE_MAX, star_text = 0; /* where to go on when the tail behind the last '*' did not match */
    while (t < text.n || p < pattern.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = ++p;
            star_text = t;
            continue;
        }
        if (p < pattern.n && t < text.n) {
            size_t next = p + 1;
            bool hit;
            if (pattern.p[p] == '?') {
                hit = true;
            } else if (pattern.p[p] == '[') {
                next = p;
                hit = class_match(pattern, &next, text.p[t], ignore_case);
            } else {
                size_t literal = pattern.p[p] == '\\' && p + 1 < pattern.n ? p + 1 : p;
                next = literal + 1;
                hit = fold(pattern.p[literal], ignore_case) == fold(text.p[t], ignore_case);
            }
            if (hit) {
                p = next;
                t++;
                continue;
            }
        }
        if (star == SIZE_MAX || star_text >= text.n) return false;
        p = star;
        t = ++star_text;
    }
    return true;
}
