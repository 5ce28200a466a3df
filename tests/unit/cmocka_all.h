/* SPDX-License-Identifier: MIT */
/* cmocka needs these four before it, in this order. */
#ifndef PLATTER_TESTS_CMOCKA_ALL_H
#define PLATTER_TESTS_CMOCKA_ALL_H

/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#endif
