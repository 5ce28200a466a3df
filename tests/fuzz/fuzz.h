/* SPDX-License-Identifier: MIT */
/* What the fuzz targets share: a cursor over the input and a world without files. */
#ifndef PLATTER_TESTS_FUZZ_H
#define PLATTER_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/platter.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* A fault of ours, not of the input. */
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fuzz_fault(__FILE__, __LINE__, #condition);                                            \
        }                                                                                          \
    } while (0)
_Noreturn void fuzz_fault(const char *file, int line, const char *what);

/* Reads past the end give zeroes. */
struct fuzz_in {
    const uint8_t *data;
    size_t bytes;
};
uint8_t fuzz_u8(struct fuzz_in *in);
uint16_t fuzz_u16(struct fuzz_in *in);
uint32_t fuzz_u32(struct fuzz_in *in);
uint64_t fuzz_u64(struct fuzz_in *in);
/* Up to bytes of what is left, as memory of exactly that size (so that a sanitizer sees a read
 * behind it); the caller frees it. */
uint8_t *fuzz_take(struct fuzz_in *in, size_t bytes, size_t *ret_bytes);
/* All that is left, as text. */
char *fuzz_text(struct fuzz_in *in);

/* An instance with a memory limit (0: the default) whose loop runs on epoll in this thread. */
Platter *fuzz_platter(uint64_t memory_limit_bytes);
/* Put a table in force in which no file can be opened, looked at or removed and no socket made. */
void fuzz_close_world(void);
/* But this: fd (the caller's, as long as it may be opened) under the name path; NULL: none. */
void fuzz_let_open(const char *path, int fd);

#endif
