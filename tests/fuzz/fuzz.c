/* SPDX-License-Identifier: MIT */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "os/os.h"
#include "util/bytes.h"

void fuzz_fault(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    abort();
}

static void fixed(struct fuzz_in *in, uint8_t *buf, size_t bytes)
{
    size_t have = bytes < in->bytes ? bytes : in->bytes;

    memset(buf, 0, bytes);
    if (have > 0) {
        memcpy(buf, in->data, have);
        in->data += have;
        in->bytes -= have;
    }
}

uint8_t fuzz_u8(struct fuzz_in *in)
{
    uint8_t buf[1];

    fixed(in, buf, sizeof(buf));
    return buf[0];
}

uint16_t fuzz_u16(struct fuzz_in *in)
{
    uint8_t buf[2];

    fixed(in, buf, sizeof(buf));
    return load_be16(buf);
}

uint32_t fuzz_u32(struct fuzz_in *in)
{
    uint8_t buf[4];

    fixed(in, buf, sizeof(buf));
    return load_be32(buf);
}

uint64_t fuzz_u64(struct fuzz_in *in)
{
    uint8_t buf[8];

    fixed(in, buf, sizeof(buf));
    return load_be64(buf);
}

uint8_t *fuzz_take(struct fuzz_in *in, size_t bytes, size_t *ret_bytes)
{
    size_t have = bytes < in->bytes ? bytes : in->bytes;
    uint8_t *copy = malloc(have > 0 ? have : 1);

    FUZZ_CHECK(copy != NULL);
    fixed(in, copy, have);
    *ret_bytes = have;
    return copy;
}

char *fuzz_text(struct fuzz_in *in)
{
    size_t bytes = in->bytes;
    char *text = malloc(bytes + 1);

    FUZZ_CHECK(text != NULL);
    fixed(in, (uint8_t *)text, bytes);
    text[bytes] = '\0';
    return text;
}

Platter *fuzz_platter(uint64_t memory_limit_bytes)
{
    struct aio_context_options ao = {.size = sizeof(ao), .engine = AIO_ENGINE_THREADS};
    AioContext *ctx = aio_context_new(&ao, NULL);
    struct platter_options po = {
        .size = sizeof(po), .main_context = ctx, .memory_limit_bytes = memory_limit_bytes};
    Platter *pl;

    FUZZ_CHECK(ctx != NULL);
    pl = platter_new(&po, NULL);
    FUZZ_CHECK(pl != NULL);
    aio_context_unref(ctx);
    return pl;
}

/* ---- a world without files, but the one ---- */

static struct {
    const char *path;
    int fd;
} the_file;

void fuzz_let_open(const char *path, int fd)
{
    the_file.path = path;
    the_file.fd = fd;
}

static int one_open(const char *path, int flags, mode_t mode)
{
    int fd;

    if (the_file.path == NULL || strcmp(path, the_file.path) != 0) {
        return -ENOENT;
    }
    fd = fcntl(the_file.fd, F_DUPFD_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

static int one_stat(const char *path, struct stat *ret_st)
{
    if (the_file.path == NULL || strcmp(path, the_file.path) != 0) {
        return -ENOENT;
    }
    return fstat(the_file.fd, ret_st) < 0 ? -errno : 0;
}

static int no_unlink(const char *path)
{
    return -ENOENT;
}

static int64_t no_readlink(const char *path, char *buf, size_t size)
{
    return -ENOENT;
}

static int no_socket(int domain, int type, int protocol)
{
    return -EAFNOSUPPORT;
}

/* In place of os/nbd_library.c: libnbd makes sockets of its own, and goes wherever an input says.
 */
struct libnbd;
const struct libnbd *libnbd(void);

const struct libnbd *libnbd(void)
{
    return NULL;
}

/* Stacks are kept: mapping some dozens anew for each input would be most of the work. One that
 * comes back has its guard page, and its top, where the coroutine's struct is, is zeroed. */
#define STACKS_MAX 512
#define STACK_TOP_BYTES 8192u

static struct {
    void *addr[STACKS_MAX];
    size_t bytes; /* of each */
    unsigned n;
    const void *guarded; /* taken last; its guard page is in place */
} stacks;

static int stack_mmap(size_t bytes, int prot, int flags, void **ret_addr)
{
    if (!(flags & MAP_STACK)) {
        return os_linux.mmap(bytes, prot, flags, ret_addr);
    }
    if (bytes != stacks.bytes || stacks.n == 0) {
        stacks.bytes = bytes; /* a size that no buffer has */
        return os_linux.mmap(bytes, prot, flags, ret_addr);
    }
    *ret_addr = stacks.addr[--stacks.n];
    memset((char *)*ret_addr + bytes - STACK_TOP_BYTES, 0, STACK_TOP_BYTES);
    stacks.guarded = *ret_addr;
    return 0;
}

static int stack_munmap(void *addr, size_t bytes)
{
    if (stacks.n == STACKS_MAX || bytes != stacks.bytes) {
        return os_linux.munmap(addr, bytes);
    }
    stacks.addr[stacks.n++] = addr;
    return 0;
}

static int stack_mprotect(void *addr, size_t bytes, int prot)
{
    return addr == stacks.guarded && prot == PROT_NONE ? 0 : os_linux.mprotect(addr, bytes, prot);
}

void fuzz_close_world(void)
{
    static struct os_table table;

    table = os_linux;
    table.open = one_open;
    table.stat = one_stat;
    table.unlink = no_unlink;
    table.readlink = no_readlink;
    table.socket = no_socket;
    table.mmap = stack_mmap;
    table.munmap = stack_munmap;
    table.mprotect = stack_mprotect;
    os_replace(&table);
}
