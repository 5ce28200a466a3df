/* SPDX-License-Identifier: MIT */
/* platter io: the lines that commands print. */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "tools/io/io.h"

const char *io_size_text(double value, char *buf, size_t size)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    char number[64];
    size_t unit = 0;
    size_t len;

    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(number, sizeof(number), "%.3f", value);
    len = strlen(number);
    if (len > 4 && strcmp(number + len - 4, ".000") == 0) {
        number[len - 4] = '\0';
    }
    snprintf(buf, size, "%s %s", number, units[unit]);
    return buf;
}

static const char *time_text(int64_t ns, bool machine, char *buf, size_t size)
{
    unsigned hundredths = (unsigned)(ns / 10000000 % 100);
    uint64_t seconds = (uint64_t)(ns / 1000000000);
    unsigned hours = (unsigned)(seconds / 3600);
    unsigned minutes = (unsigned)(seconds / 60 % 60);

    if (machine || hours || minutes) {
        snprintf(buf, size, "%u:%02u:%02u.%02u", hours, minutes, (unsigned)(seconds % 60),
                 hundredths);
    } else {
        snprintf(buf, size, "%02u.%02u sec", (unsigned)seconds, hundredths);
    }
    return buf;
}

void io_report(struct io_session *s, const struct io_result *r)
{
    int64_t ns = aio_clock_ns() - r->start_ns;
    double seconds = (double)(ns > 0 ? ns : 1) / 1e9;
    char bytes_text[32], rate_text[32], time[32];

    if (r->quiet) {
        return;
    }
    time_text(ns, r->machine, time, sizeof(time));
    if (r->machine) {
        fprintf(s->cli->out, "%" PRIu64 ",1,%s,%.3f,%.3f\n", r->bytes, time,
                (double)r->bytes / seconds, 1 / seconds);
        return;
    }
    fprintf(s->cli->out, "%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n", r->verb,
            r->bytes, r->bytes, r->offset);
    fprintf(s->cli->out, "%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n",
            io_size_text((double)r->bytes, bytes_text, sizeof(bytes_text)), time,
            io_size_text((double)r->bytes / seconds, rate_text, sizeof(rate_text)), 1 / seconds);
}

void io_mismatch(struct io_session *s, uint64_t offset, uint64_t bytes)
{
    fprintf(s->cli->out, "Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes\n",
            offset, bytes);
}

void io_dump(struct io_session *s, const unsigned char *buf, uint64_t offset, uint64_t bytes)
{
    FILE *out = s->cli->out;

    for (uint64_t at = 0; at < bytes; at += 16) {
        uint64_t row = bytes - at < 16 ? bytes - at : 16;

        fprintf(out, "%08" PRIx64 ":  ", offset + at);
        for (uint64_t i = 0; i < row; i++) {
            fprintf(out, "%02x ", buf[at + i]);
        }
        fputc(' ', out);
        for (uint64_t i = 0; i < row; i++) {
            unsigned char c = buf[at + i];

            fputc(isascii(c) && isalnum(c) ? c : '.', out);
        }
        fputc('\n', out);
    }
}
