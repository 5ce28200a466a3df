/* SPDX-License-Identifier: MIT */
/* The commands of QMP clients: a table of texts with holes that chance fills. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "util/mem.h"

enum { NOT_STRICT = 1, SNAPSHOT = 2, REFUSED = 4 };

struct template
{
    unsigned weight;
    unsigned flags;
    const char *name;
    const char *arguments; /* $B backend, $W one that is written, $N node, $J job, $S number, $M
                              medium, $I rate, $O number of the overlay, $T name of its node */
};

static const struct template templates[] = {
    {4, 0, "query-status", ""},
    {4, 0, "query-block", ""},
    {3, 0, "query-blockstats", ""},
    {2, 0, "query-blockstats", "'query-nodes': true"},
    {2, 0, "query-block-latency", ""},
    {1, 0, "query-block-export-stats", ""},
    {4, 0, "query-named-block-nodes", ""},
    {3, 0, "query-jobs", ""},
    {1, 0, "query-block-jobs", ""},
    {2, 0, "query-block-exports", ""},
    {1, 0, "query-version", ""},
    {1, 0, "query-commands", ""},
    {1, 0, "query-chardev", ""},
    {1, 0, "query-iothreads", ""},
    {1, 0, "qom-list", "'path': '/objects'"},
    {2, REFUSED, "no-such-command", ""},
    {2, REFUSED, "query-status", "'x': 1"},
    {2, REFUSED, "blockdev-del", "'node-name': 5"},
    {2, REFUSED, "blockdev-add", "'driver': 'file', 'node-name': 'e', 'filename': '/etc/passwd'"},
    {2, 0, "stop", ""},
    {4, 0, "cont", ""},
    /* limits */
    {5, 0, "block_set_io_throttle",
     "'id': '$W', 'bps': 0, 'bps_rd': 0, 'bps_wr': 0, 'iops': $I, 'iops_rd': 0, 'iops_wr': 0"},
    {3, 0, "block_set_io_throttle",
     "'id': '$W', 'bps': 0, 'bps_rd': 0, 'bps_wr': $I000, 'iops': 0, 'iops_rd': 0, 'iops_wr': 0, "
     "'group': 'tg0'"},
    {3, 0, "block_set_io_throttle",
     "'id': '$W', 'bps': 0, 'bps_rd': 0, 'bps_wr': 0, 'iops': 0, 'iops_rd': 0, 'iops_wr': 0"},
    {3, 0, "qom-set", "'path': '/objects/tg0', 'property': 'limits', 'value': {'iops-total': $I}"},
    {2, 0, "block_set_io_throttle",
     "'id': '$W', 'bps': $I000, 'bps_rd': 0, 'bps_wr': 0, 'iops': 0, 'iops_rd': 0, 'iops_wr': 0, "
     "'group': 'tg$S'"},
    {1, 0, "object-add", "'qom-type': 'throttle-group', 'id': 'tg$S'"},
    {1, 0, "object-del", "'id': 'tg$S'"},
    {1, 0, "object-add", "'qom-type': 'iothread', 'id': 'io$S'"},
    /* what is counted */
    {1, 0, "block-latency-histogram-set", "'id': '$B', 'boundaries': [1000, 100000, 10000000]"},
    {1, 0, "block-set-accounting", "'id': '$B', 'account-failed': true, 'intervals': [1, 60]"},
    {1, 0, "block-set-write-threshold", "'node-name': 'f0', 'write-threshold': $S000"},
    /* error policies */
    {3, 0, "block-set-io-error-policy", "'device': '$W', 'rerror': 'report', 'werror': 'report'"},
    {3, NOT_STRICT, "block-set-io-error-policy",
     "'device': '$W', 'rerror': 'stop', 'werror': 'stop'"},
    {2, NOT_STRICT, "block-set-io-error-policy", "'device': '$W', 'werror': 'enospc'"},
    /* media */
    {4, NOT_STRICT, "blockdev-open-tray", "'id': '$B'"},
    {4, NOT_STRICT, "blockdev-close-tray", "'id': '$B'"},
    {4, NOT_STRICT, "blockdev-open-tray", "'id': 'cd', 'force': true"},
    {4, NOT_STRICT, "blockdev-remove-medium", "'id': 'cd'"},
    {6, NOT_STRICT, "blockdev-insert-medium", "'id': 'cd', 'node-name': '$M'"},
    {4, NOT_STRICT, "blockdev-close-tray", "'id': 'cd'"},
    {2, NOT_STRICT, "eject", "'id': 'cd', 'force': true"},
    {1, NOT_STRICT, "blockdev-remove-medium", "'id': 'b0'"},
    {2, NOT_STRICT, "blockdev-insert-medium", "'id': 'b0', 'node-name': 'd0'"},
    {4, NOT_STRICT, "blockdev-change-medium",
     "'id': 'cd', 'filename': '/sim/$M', 'format': 'raw', 'force': true"},
    {2, NOT_STRICT, "blockdev-change-medium",
     "'id': 'cd', 'filename': '/sim/$M', 'format': 'raw', 'read-only-mode': 'read-only'"},
    {1, NOT_STRICT, "eject", "'id': 'cd'"},
    /* the graph */
    {3, 0, "blockdev-insert-filter",
     "'node-name': 'd0', 'options': {'driver': 'throttle', 'throttle-group': 'tg0', 'node-name': "
     "'t0'}"},
    {3, 0, "blockdev-remove-filter", "'node-name': 't0'"},
    {2, 0, "blockdev-reopen",
     "'options': [{'driver': 'raw', 'node-name': 'd0', 'file': 'f0', 'detect-zeroes': 'on'}]"},
    {2, 0, "blockdev-reopen",
     "'options': [{'driver': 'raw', 'node-name': 'd0', 'file': 'f0', 'discard': 'unmap'}]"},
    {1, 0, "blockdev-reopen",
     "'options': [{'driver': 'mem', 'node-name': 'n$S', 'size': 65536, 'read-only': true}]"},
    {1, REFUSED, "blockdev-reopen",
     "'options': [{'driver': 'raw', 'node-name': 'd0', 'file': 'no-such-node'}]"},
    {2, 0, "block_resize", "'node-name': 'n$S', 'size': $S00000"},
    {1, REFUSED, "block_resize", "'device': 'cd', 'size': 65536"},
    {2, 0, "blockdev-add", "'driver': 'mem', 'size': 65536, 'node-name': 'n$S'"},
    {2, 0, "blockdev-add", "'driver': 'file', 'filename': '/sim/new$S', 'node-name': 'n$S'"},
    {3, 0, "blockdev-del", "'node-name': 'n$S'"},
    {1, 0, "blockdev-del", "'node-name': '$N'"},
    {1, 0, "block-export-add", "'type': 'nbd', 'id': 'x$S', 'node-name': 'n$S', 'writable': true"},
    {2, 0, "block-export-del", "'id': 'x$S'"},
    {1, NOT_STRICT, "nbd-server-stop", ""},
    {3, NOT_STRICT, "nbd-server-start",
     "'addr': {'type': 'unix', 'data': {'path': '/sim/nbd.sock'}}, 'max-connections': 10"},
    {1, NOT_STRICT, "block-export-del", "'id': 'e0', 'mode': 'hard'"},
    {2, NOT_STRICT, "block-export-add",
     "'type': 'nbd', 'id': 'e0', 'name': 'b0', 'node-name': 'b0', 'writable': true"},
    {1, 0, "blockdev-backend-add", "'name': 'bx$S', 'node-name': 'n$S'"},
    {1, 0, "blockdev-backend-del", "'id': 'bx$S'"},
    /* bitmaps and snapshots */
    {4, 0, "block-dirty-bitmap-add", "'node': 'd1', 'name': 'bm$S', 'persistent': true"},
    {2, 0, "block-dirty-bitmap-add", "'node': '$N', 'name': 'bm$S', 'granularity': 4096"},
    {3, 0, "block-dirty-bitmap-remove", "'node': 'd1', 'name': 'bm$S'"},
    {2, 0, "block-dirty-bitmap-clear", "'node': '$N', 'name': 'bm$S'"},
    {1, 0, "block-dirty-bitmap-disable", "'node': '$N', 'name': 'bm$S'"},
    {1, 0, "block-dirty-bitmap-enable", "'node': '$N', 'name': 'bm$S'"},
    {1, 0, "block-dirty-bitmap-merge", "'node': 'd1', 'target': 'bm1', 'bitmaps': ['bm2', 'bm3']"},
    {4, 0, "blockdev-snapshot-internal-sync", "'device': 'b1', 'name': 's$S'"},
    {3, 0, "blockdev-snapshot-delete-internal-sync", "'device': 'b1', 'name': 's$S'"},
    {3, SNAPSHOT, "blockdev-snapshot-sync",
     "'device': 'b1', 'snapshot-file': '/sim/ov$O', 'snapshot-node-name': 'ov$O'"},
    {3, 0, "transaction",
     "'actions': [{'type': 'block-dirty-bitmap-add', 'data': {'node': 'd1', 'name': 'bm$S'}}, "
     "{'type': 'block-dirty-bitmap-clear', 'data': {'node': 'd1', 'name': 'bm1'}}, "
     "{'type': 'blockdev-snapshot-internal-sync', 'data': {'device': 'b1', 'name': 's$S'}}]"},
    {2, REFUSED, "transaction",
     "'actions': [{'type': 'block-dirty-bitmap-add', 'data': {'node': 'd0', 'name': 'bt'}}, "
     "{'type': 'abort', 'data': {}}]"},
    /* jobs */
    {4, 0, "blockdev-create",
     "'job-id': '$J', 'options': {'driver': 'file', 'filename': '/sim/new$S', 'size': 65536}"},
    {2, 0, "blockdev-create",
     "'job-id': '$J', 'options': {'driver': 'qcow2', 'file': 'n$S', 'size': 65536}"},
    {2, 0, "x-blockdev-amend", "'job-id': '$J', 'node-name': 'd1', 'options': {'driver': 'qcow2'}"},
    {3, 0, "x-blockdev-amend",
     "'job-id': '$J', 'node-name': 'd1', 'options': {'driver': 'qcow2', 'lazy_refcounts': true}"},
    {3, 0, "x-blockdev-amend",
     "'job-id': '$J', 'node-name': 'd1', 'options': {'driver': 'qcow2', 'lazy_refcounts': false}"},
    {2, 0, "x-blockdev-amend",
     "'job-id': '$J', 'node-name': 'd1', 'options': {'driver': 'qcow2', 'refcount_bits': 64}"},
    {2, 0, "x-blockdev-amend",
     "'job-id': '$J', 'node-name': 'd1', 'options': {'driver': 'qcow2', 'refcount_bits': 16}"},
    {2, 0, "job-pause", "'id': '$J'"},
    {3, 0, "job-resume", "'id': '$J'"},
    {2, 0, "job-cancel", "'id': '$J'"},
    {1, 0, "job-complete", "'id': '$J'"},
    {1, 0, "job-finalize", "'id': '$J'"},
    {5, 0, "job-dismiss", "'id': '$J'"},
    {1, 0, "block-job-set-speed", "'device': '$J', 'speed': $I"},
};

/* What stands for a hole. */
static void fill(struct daemon_run *run, char hole, char *to, size_t room)
{
    static const char *const backends[] = {"b0", "b1", "cd", "bx1"};
    static const char *const nodes[] = {"d0", "d1", "f0", "m0", "t0", "ov1", "n1"};
    static const char *const media[] = {"m0", "m1"};
    static const unsigned rates[] = {5, 100, 1000, 20000};

    switch (hole) {
    case 'B':
        snprintf(to, room, "%s", backends[daemon_below(run, ARRAY_SIZE(backends))]);
        break;
    case 'W':
        snprintf(to, room, "b%u", (unsigned)daemon_below(run, DISKS));
        break;
    case 'N':
        snprintf(to, room, "%s", nodes[daemon_below(run, ARRAY_SIZE(nodes))]);
        break;
    case 'M':
        snprintf(to, room, "%s", media[daemon_below(run, ARRAY_SIZE(media))]);
        break;
    case 'J':
        snprintf(to, room, "j%u", (unsigned)daemon_below(run, 3));
        break;
    case 'I':
        snprintf(to, room, "%u", rates[daemon_below(run, ARRAY_SIZE(rates))]);
        break;
    case 'O':
        snprintf(to, room, "%u", run->overlays);
        break;
    default:
        snprintf(to, room, "%u", 1 + (unsigned)daemon_below(run, 3));
        break;
    }
}

/* The text with its holes filled and its quotes made JSON's. */
static void expand(struct daemon_run *run, const char *from, char *to, size_t room)
{
    size_t n = 0;

    for (; *from && n + 16 < room; from++) {
        if (*from == '$') {
            fill(run, *++from, to + n, room - n);
            n += strlen(to + n);
        } else {
            to[n++] = *from == '\'' ? '"' : *from;
        }
    }
    to[n] = '\0';
}

static char *command_text(const char *name, const char *arguments, uint64_t id)
{
    char *text;

    if (asprintf(&text, "{\"execute\": \"%s\", \"arguments\": {%s}, \"id\": %llu}\n", name,
                 arguments, (unsigned long long)id) < 0) {
        abort();
    }
    return text;
}

static bool fits(const struct daemon_run *run, const struct template *t)
{
    return !(run->strict && (t->flags & NOT_STRICT)) &&
           !((t->flags & SNAPSHOT) && run->overlays > OVERLAYS_MAX);
}

char *qmp_command_make(struct daemon_run *run, uint64_t id, struct qmp_ask *ret_ask)
{
    const struct template *t = templates;
    char arguments[600];
    unsigned sum = 0;
    uint64_t pick;

    for (unsigned i = 0; i < ARRAY_SIZE(templates); i++) {
        sum += fits(run, &templates[i]) ? templates[i].weight : 0;
    }
    pick = daemon_below(run, sum);
    for (; !fits(run, t) || pick >= t->weight; t++) {
        pick -= fits(run, t) ? t->weight : 0;
    }
    expand(run, t->arguments, arguments, sizeof(arguments));
    ret_ask->refused = t->flags & REFUSED;
    ret_ask->overlay = t->flags & SNAPSHOT ? run->overlays : 0;
    return command_text(t->name, arguments, id);
}

char *qmp_command_wind_up(struct daemon_run *run, unsigned step, uint64_t id)
{
    static const struct {
        const char *name;
        const char *arguments;
    } steps[] = {
        {"block_set_io_throttle",
         "'id': 'b0', 'bps': 0, 'bps_rd': 0, 'bps_wr': 0, 'iops': 0, 'iops_rd': 0, 'iops_wr': 0"},
        {"block_set_io_throttle",
         "'id': 'b1', 'bps': 0, 'bps_rd': 0, 'bps_wr': 0, 'iops': 0, 'iops_rd': 0, 'iops_wr': 0"},
        {"qom-set", "'path': '/objects/tg0', 'property': 'limits', 'value': {}"},
        {"block-set-io-error-policy", "'device': 'b0', 'rerror': 'report', 'werror': 'report'"},
        {"block-set-io-error-policy", "'device': 'b1', 'rerror': 'report', 'werror': 'report'"},
        {"job-resume", "'id': 'j0'"},
        {"job-resume", "'id': 'j1'"},
        {"job-resume", "'id': 'j2'"},
        {"cont", ""},
    };
    char arguments[300];
    bool rest = true;

    if (step < ARRAY_SIZE(steps)) {
        expand(run, steps[step].arguments, arguments, sizeof(arguments));
        return command_text(steps[step].name, arguments, id);
    }
    for (unsigned i = 0; i < run->nbd_clients; i++) {
        rest = rest && run->nbd[i].ended;
    }
    for (unsigned i = 1; i < run->qmp_clients; i++) {
        rest = rest && run->qmp[i].fd < 0;
    }
    return command_text(rest ? "quit" : "cont", "", id);
}
