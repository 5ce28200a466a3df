/* SPDX-License-Identifier: MIT */
/* Sizes as people write them. */
#ifndef PLATTER_UTIL_SIZE_H
#define PLATTER_UTIL_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/error.h>

/* "10G", "1.5M", "512", "0x200", "4k": suffix b, k, M, G, T, P, E (powers of 1024, either case), a
 * fraction of a byte means nothing, but for zeroes. default_suffix: 'b', 'k', 'M', ... for a bare
 * number. Whole text must be the size, no sign, no blanks. 0, -EINVAL (errp names what and the
 * text), -ERANGE above INT64_MAX. what: "size", for the message. */
int size_parse(const char *text, char default_suffix, const char *what, uint64_t *ret_bytes,
               Error **errp);
/* The same with suffix 'b', for a value of the option name, in the words of the reference. */
int size_of_parameter(const char *text, const char *name, uint64_t *ret_bytes, Error **errp);
/* Set errp to what that says of a text that is none, ret: why. Returns ret. */
int size_refuse(int ret, const char *text, const char *name, Error **errp);
/* Behind blanks and a plus sign, which the reference lets stand before a number. */
const char *size_skip_sign(const char *text);
/* A whole decimal or 0x number in [min, max]. */
int number_parse(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *ret,
                 Error **errp);
/* "10 GiB", "1.5 MiB", "512 B": three significant digits. Returns buf. */
const char *size_format(uint64_t bytes, char *buf, size_t buf_bytes);
/* An id: a letter, then letters, digits, '-', '.', '_'. */
bool id_wellformed(const char *id);
/* 0, or -EINVAL with errp. */
int id_check(const char *id, Error **errp);

#endif
