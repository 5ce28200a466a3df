/* SPDX-License-Identifier: MIT */
/* Prints the first bytes of a disk: cc read_disk.c $(pkg-config --cflags --libs platter) */
#include <platter/backend.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    Error *err = NULL;
    Platter *pl = argc == 2 ? platter_new(NULL, &err) : NULL;
    BlockBackend *blk = NULL;
    unsigned char buf[16];
    int got;

    if (argc != 2) {
        fprintf(stderr, "usage: read_disk IMAGE\n");
        return 2;
    }
    blk = pl ? blk_new_open(pl, "disk", argv[1], NULL, NULL, 0, &err) : NULL;
    if (!blk) {
        fprintf(stderr, "read_disk: %s\n", error_get_pretty(err));
        error_free(err);
        platter_free(pl);
        return 1;
    }
    got = blk_pread(blk, 0, buf, sizeof(buf));
    printf("%lld bytes:", (long long)blk_getlength(blk));
    for (int i = 0; i < got; i++) {
        printf(" %02x", buf[i]);
    }
    printf("\n");
    blk_unref(blk);
    platter_free(pl);
    return got < 0;
}
