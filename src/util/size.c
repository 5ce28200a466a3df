/* SPDX-License-Identifier: MIT */
/*
 * Numbers and sizes as people write them. Everything is whole-number arithmetic, so that a size
 * means the same bytes on every machine and in every locale.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/checked.h"
#include "util/error.h"
#include "util/size.h"

/* Longest piece of a bad text that a message repeats. */
#define SHOWN_MAX 64

static const char suffixes[] = "b, k, M, G, T, P, E";
static const char digits[] = "0123456789";

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* Power of two that a suffix stands for, or -1. */
static int suffix_shift(char suffix)
{
    static const char upper[] = "BKMGTPE";
    const char *at = suffix ? strchr(upper, toupper((unsigned char)suffix)) : NULL;

    return at ? (int)(at - upper) * 10 : -1;
}

/* Digits in a base at *p, moving it behind them. 0, -EINVAL (no digit), -ERANGE (too large). */
static int digits_parse(const char **p, unsigned base, uint64_t *ret)
{
    const char *start = *p;
    uint64_t value = 0;
    bool fits = true;

    for (;; (*p)++) {
        int digit = hex_value(**p);

        if (digit < 0 || (unsigned)digit >= base) {
            break;
        }
        fits =
            fits && checked_mul(value, base, &value) && checked_add(value, (uint64_t)digit, &value);
    }
    if (*p == start) {
        return -EINVAL;
    }
    *ret = value;
    return fits ? 0 : -ERANGE;
}

/* A number without sign or suffix: decimal or 0x. */
static int unsigned_parse(const char **p, bool *ret_hex, uint64_t *ret)
{
    *ret_hex = (*p)[0] == '0' && ((*p)[1] == 'x' || (*p)[1] == 'X');
    if (*ret_hex) {
        *p += 2;
        return digits_parse(p, 16, ret);
    }
    return digits_parse(p, 10, ret);
}

/* The digits behind a point, as bytes of a unit of 2^shift, rounded to the nearest. Digits beyond
 * the 18th cannot change a byte count that people mean. */
static uint64_t fraction_bytes(const char *p, int shift)
{
    uint64_t numerator = 0;
    uint64_t denominator = 1;
    uint64_t bytes = 0;

    for (int i = 0; i < 18 && is_digit(p[i]); i++) {
        numerator = numerator * 10 + (uint64_t)(p[i] - '0');
        denominator *= 10;
    }
    for (int bit = 0; bit < shift; bit++) {
        numerator *= 2;
        bytes = bytes * 2 + (numerator >= denominator);
        numerator -= numerator >= denominator ? denominator : 0;
    }
    return bytes + (numerator * 2 >= denominator);
}

static int size_parse_raw(const char *text, char default_suffix, uint64_t *ret_bytes)
{
    const char *p = text;
    uint64_t whole;
    uint64_t part = 0;
    bool hex;
    int shift;
    int ret = unsigned_parse(&p, &hex, &whole);

    if (ret == -EINVAL) {
        return ret;
    }
    if (*p == '.' && !hex) {
        const char *zeroes = p + 1 + strspn(p + 1, "0");
        const char *end = p + 1 + strspn(p + 1, digits);

        shift = suffix_shift(*end != '\0' ? *end : default_suffix);
        if (zeroes != end && shift <= 0) {
            return -EINVAL; /* "1.5" alone, "1.5b": a part of a byte means nothing */
        }
        part = fraction_bytes(p + 1, shift);
        p = end + (*end != '\0');
    } else if (*p == '\0') {
        shift = suffix_shift(default_suffix);
    } else if (!hex) {
        shift = suffix_shift(*p);
        p++;
    } else {
        return -EINVAL;
    }
    if (shift < 0 || *p != '\0') {
        return -EINVAL;
    }
    if (ret < 0 || !checked_mul(whole, UINT64_C(1) << shift, &whole) ||
        !checked_add(whole, part, &whole) || whole > INT64_MAX) {
        return -ERANGE;
    }
    *ret_bytes = whole;
    return 0;
}

int size_parse(const char *text, char default_suffix, const char *what, uint64_t *ret_bytes,
               Error **errp)
{
    int ret = size_parse_raw(text, default_suffix, ret_bytes);

    if (ret == -ERANGE) {
        error_set(errp, ERANGE, "%s '%.*s' is too large", what, SHOWN_MAX, text);
        error_set_hint(errp, "The largest is 9223372036854775807 bytes, just under 8E");
    } else if (ret < 0) {
        error_set(errp, EINVAL, "%s '%.*s' is not a size", what, SHOWN_MAX, text);
        error_set_hint(errp, "Write a number and perhaps a suffix of %s, like 512, 64k or 10G",
                       suffixes);
    }
    return ret;
}

const char *size_skip_sign(const char *text)
{
    text += strspn(text, " \t\n\v\f\r");
    return text + (*text == '+');
}

int size_refuse(int ret, const char *text, const char *name, Error **errp)
{
    if (ret == -ERANGE) {
        return error_set(errp, ERANGE, "Value '%.*s' is out of range for parameter '%.64s'",
                         SHOWN_MAX, text, name);
    }
    error_set(errp, EINVAL, "Parameter '%.64s' expects a non-negative number below 2^64", name);
    error_set_hint(errp, "'%.*s' is none; a suffix is one of %s", SHOWN_MAX, text, suffixes);
    error_add_compat_hint(
        errp, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-");
    error_add_compat_hint(errp, "and exabytes, respectively.");
    return ret;
}

int size_of_parameter(const char *text, const char *name, uint64_t *ret_bytes, Error **errp)
{
    int ret = size_parse_raw(size_skip_sign(text), 'b', ret_bytes);

    return ret < 0 ? size_refuse(ret, text, name, errp) : ret;
}

int number_parse(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *ret,
                 Error **errp)
{
    const char *p = text;
    uint64_t value = 0;
    bool hex;
    int rc = unsigned_parse(&p, &hex, &value);

    if (rc == -EINVAL || *p != '\0') {
        return error_set(errp, EINVAL, "%s '%.*s' is not a number", what, SHOWN_MAX, text);
    }
    if (rc < 0 || value < min || value > max) {
        return error_set(errp, ERANGE, "%s '%.*s' is out of range: it must be %llu to %llu", what,
                         SHOWN_MAX, text, (unsigned long long)min, (unsigned long long)max);
    }
    *ret = value;
    return 0;
}

const char *size_format(uint64_t bytes, char *buf, size_t buf_bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    /* 999.5 would be rounded to four digits. */
    while (value >= 999.5) {
        value /= 1024;
        unit++;
    }
    snprintf(buf, buf_bytes, "%.3g %s", value, units[unit]);
    return buf;
}

bool id_wellformed(const char *id)
{
    if (!isascii((unsigned char)id[0]) || !isalpha((unsigned char)id[0])) {
        return false;
    }
    for (const char *p = id + 1; *p; p++) {
        if (!isascii((unsigned char)*p) || !(isalnum((unsigned char)*p) || strchr("-._", *p))) {
            return false;
        }
    }
    return true;
}

int id_check(const char *id, Error **errp)
{
    if (id_wellformed(id)) {
        return 0;
    }
    error_set(errp, EINVAL, "Parameter 'id' expects an identifier");
    error_set_hint(errp, "'%.*s' is not a letter, then letters, digits, '-', '.' and '_'",
                   SHOWN_MAX, id);
    error_add_compat_hint(errp, "Identifiers consist of letters, digits, '-', '.', '_', starting "
                                "with a letter.");
    return -EINVAL;
}
