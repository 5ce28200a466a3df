/* SPDX-License-Identifier: MIT */
/* The table of snapshots. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "tools/img/snapshot_list.h"
#include "util/size.h"

/* A text in a column, without a byte that a terminal obeys, and a blank behind it. */
static void put_column(FILE *out, const char *text, size_t width)
{
    size_t bytes = cli_text_bytes(text);

    cli_put_text(out, text);
    fprintf(out, "%*s", bytes < width ? (int)(width - bytes) + 1 : 1, "");
}

static const char *date_text(uint32_t seconds, char *buf, size_t size)
{
    time_t when = (time_t)seconds;
    struct tm tm;

    if (!localtime_r(&when, &tm) || strftime(buf, size, "%Y-%m-%d %H:%M:%S", &tm) == 0) {
        snprintf(buf, size, "%" PRIu32, seconds);
    }
    return buf;
}

static const char *clock_text(uint64_t ns, char *buf, size_t size)
{
    uint64_t seconds = ns / 1000000000;

    snprintf(buf, size, "%02" PRIu64 ":%02u:%02u.%03u", seconds / 3600,
             (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60),
             (unsigned)(ns / 1000000 % 1000));
    return buf;
}

static void print_row(FILE *out, const struct bdrv_snapshot_info *sn)
{
    char bytes[32], date[32], vm_clock[40], icount[24] = "";

    if (sn->icount != UINT64_MAX) {
        snprintf(icount, sizeof(icount), "%" PRIu64, sn->icount);
    }
    put_column(out, sn->id, 9);
    put_column(out, sn->name, 16);
    fprintf(out, "%8s%20s%13s%11s\n", size_format(sn->vm_state_bytes, bytes, sizeof(bytes)),
            date_text(sn->date_sec, date, sizeof(date)),
            clock_text(sn->vm_clock_nsec, vm_clock, sizeof(vm_clock)), icount);
}

void snapshot_list_print(struct cli *cli, const struct bdrv_snapshot_list *list)
{
    if (list->count == 0) {
        return;
    }
    fprintf(cli->out, "Snapshot list:\n%-9s %-16s %8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE",
            "DATE", "VM CLOCK", "ICOUNT");
    for (size_t i = 0; i < list->count; i++) {
        print_row(cli->out, &list->snapshots[i]);
    }
}
