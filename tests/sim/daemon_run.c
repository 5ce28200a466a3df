/* SPDX-License-Identifier: MIT */
/* A run: the daemon lives up to LIVES_MAX times, each but the first over what a power cut left. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <platter/platter.h>

#include "control/monitor.h"
#include "daemon.h"
#include "util/mem.h"

#define LIVES_MAX 5
#define TURNS_MAX 2000000
#define ANSWER_NS (120 * SEC)   /* of the machine's time, after which there is no answer */
#define PATIENCE_NS (900 * SEC) /* and no end */

/* ---- what all use ---- */

bool daemon_verbose(void)
{
    return getenv("PLATTER_TRACE") != NULL;
}

void daemon_wrong(struct daemon_run *run, const char *fmt, ...)
{
    va_list ap;
    size_t n;

    if (run->wrong[0]) {
        return;
    }
    snprintf(run->wrong, sizeof(run->wrong), "life %u, %lld us: ", run->life,
             run->world ? (long long)(sim_world_now_ns(run->world) / US) : 0);
    n = strlen(run->wrong);
    va_start(ap, fmt);
    vsnprintf(run->wrong + n, sizeof(run->wrong) - n, fmt, ap);
    va_end(ap);
}

static void hash_bytes(uint64_t *hash, const void *data, size_t bytes)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < bytes; i++) {
        *hash = (*hash ^ p[i]) * UINT64_C(0x100000001b3);
    }
}

void daemon_trace(struct daemon_run *run, const char *what, unsigned who, const void *data,
                  size_t bytes)
{
    int64_t now = sim_world_now_ns(run->world);

    hash_bytes(&run->hash, &now, sizeof(now));
    hash_bytes(&run->hash, what, strlen(what));
    hash_bytes(&run->hash, &who, sizeof(who));
    hash_bytes(&run->hash, data, bytes);
    if (daemon_verbose()) {
        bool text = strncmp(what, "qmp", 3) == 0 && bytes > 8;

        fprintf(stderr, "%u %lld %s %u: %zu %.*s%s", run->life, (long long)(now / US), what, who,
                bytes, text ? (int)(bytes < 300 ? bytes : 300) : 0, text ? (const char *)data : "",
                text && bytes < 300 ? "" : "\n");
        for (size_t i = 0; !text && strncmp(what, "nbd a", 5) == 0 && i < bytes; i++) {
            fprintf(stderr, "%02x%s", ((const uint8_t *)data)[i], i + 1 == bytes ? "\n" : "");
        }
    }
}

uint64_t daemon_below(struct daemon_run *run, uint64_t below)
{
    return sim_rng_below(&run->rng, below);
}

bool daemon_chance(struct daemon_run *run, unsigned percent)
{
    return sim_rng_percent(&run->rng, percent);
}

bool daemon_strikes(struct daemon_run *run, enum daemon_fault fault)
{
    if (run->fault != fault || run->fault_done) {
        return false;
    }
    run->fault_done = true;
    return true;
}

/* ---- what happens to the daemon ---- */

static void inject(void *opaque)
{
    static const struct {
        uint64_t calls;
        int error;
    } kinds[] = {
        {SIM_CALLS(SIM_CALL_READ), EIO},         {SIM_CALLS(SIM_CALL_WRITE), EIO},
        {SIM_CALLS(SIM_CALL_WRITE), ENOSPC},     {SIM_CALLS(SIM_CALL_FALLOCATE), EIO},
        {SIM_CALLS(SIM_CALL_TRUNCATE), ENOSPC},  {SIM_CALLS(SIM_CALL_OPEN), EMFILE},
        {SIM_CALLS(SIM_CALL_ACCEPT), EMFILE},    {SIM_CALLS(SIM_CALL_RECV), EINTR},
        {SIM_CALLS(SIM_CALL_SEND), EAGAIN},      {SIM_CALLS(SIM_CALL_RECV), ECONNRESET},
        {SIM_CALLS(SIM_CALL_EPOLL_WAIT), EINTR}, {SIM_CALLS(SIM_CALL_LSEEK), EIO},
        {SIM_CALLS(SIM_CALL_SYNC), EIO},
    };
    struct daemon_run *run = opaque;
    struct sim_faults *faults = sim_world_faults(run->world);
    size_t kind = (size_t)daemon_below(run, ARRAY_SIZE(kinds));

    sim_faults_clear(faults);
    if (run->over || run->dead) {
        return;
    }
    if (daemon_chance(run, 60) &&
        (kinds[kind].calls != SIM_CALLS(SIM_CALL_SYNC) || run->seed % 5 == 0)) {
        /* some last until the injector comes again */
        bool lasts = (kinds[kind].calls & SIM_CALLS_FILE) != 0 && daemon_chance(run, 20);
        const struct sim_rule rule = {
            .calls = kinds[kind].calls,
            .error = kinds[kind].error,
            .percent = lasts ? 0 : 5 + (unsigned)daemon_below(run, 60),
            .times = lasts ? 0 : 1 + daemon_below(run, 5),
        };
        sim_faults_add(faults, &rule);
        daemon_trace(run, "fault", (unsigned)kind, NULL, 0);
    }
    if (daemon_chance(run, 30)) {
        const struct sim_rule rule = {
            /* not of writes: half of one may tear a sector, which the model holds for whole */
            .calls = SIM_CALLS(SIM_CALL_READ),
            .short_transfer = true,
            .percent = 20,
        };
        sim_faults_add(faults, &rule);
    }
    sim_machine_after(run->machine, (int64_t)daemon_below(run, 300 * MS), inject, run);
}

static void look_for_answers(void *opaque)
{
    struct daemon_run *run = opaque;

    for (unsigned i = 0; i < run->nbd_clients && !run->dead; i++) {
        if (nbd_client_asking(&run->nbd[i]) > 0) {
            daemon_wrong(run, "nbd %u: %u requests were never answered", i,
                         nbd_client_asking(&run->nbd[i]));
            nbd_client_drop(&run->nbd[i]);
        }
    }
    for (unsigned i = 0; i < run->qmp_clients && !run->dead; i++) {
        if (run->qmp[i].asking > 0 && (i > 0 || run->wrong[0] || run->qmp[i].wind_up == 0)) {
            daemon_wrong(run, "qmp %u: %u commands were never answered", i, run->qmp[i].asking);
            qmp_client_drop(&run->qmp[i]);
        }
    }
}

static void give_up(struct daemon_run *run, const char *why)
{
    daemon_wrong(run, "%s", why);
    fprintf(stderr, "PLATTER_SEED=%llu: %s (%s)\n", (unsigned long long)run->seed, run->wrong, why);
    _exit(1); /* there is no way out of where it hangs */
}

static void no_end(void *opaque)
{
    give_up(opaque, "the daemon does not end");
}

static void on_stall(void *opaque, bool turns)
{
    give_up(opaque,
            turns ? "the loop turns and turns" : "everything waits, and nothing can happen");
}

static void be_over(void *opaque)
{
    struct daemon_run *run = opaque;

    run->over = true;
    sim_faults_clear(sim_world_faults(run->world));
    sim_machine_after(run->machine, ANSWER_NS, look_for_answers, run);
}

static void cut_power(void *opaque)
{
    struct daemon_run *run = opaque;

    if (!run->service.control) {
        return;
    }
    daemon_trace(run, "power cut", 0, NULL, 0);
    daemon_disks_keep(run, true);
    run->dead = true; /* what happens from here on nobody has seen; it ends so that nothing leaks */
    sim_faults_clear(sim_world_faults(run->world));
    for (unsigned i = 0; i < run->nbd_clients; i++) {
        nbd_client_drop(&run->nbd[i]);
    }
    for (unsigned i = 0; i < run->qmp_clients; i++) {
        qmp_client_drop(&run->qmp[i]);
    }
    run->service.control->quit = true;
    aio_notify(run->service.ctx);
}

/* ---- a life ---- */

static int empty_flush(int fd)
{
    return 0;
}

static void machine_begin(struct daemon_run *run)
{
    static struct os_table table;
    const struct sim_machine_options opts = {
        .short_percent = (unsigned)daemon_below(run, 3) * 15,
        .socket_bytes = 2048u << daemon_below(run, 6),
        .work_min_ns = 20 * US,
        .work_spread_ns = (int64_t)(1 + daemon_below(run, 40)) * 100 * US,
    };

    run->world = sim_world_new(sim_rng_u64(&run->rng));
    run->machine = run->world ? sim_machine_new(run->world, sim_rng_u64(&run->rng), &opts) : NULL;
    assert(run->machine);
    sim_machine_on_stall(run->machine, TURNS_MAX, on_stall, run);
    table = *sim_machine_table(run->machine);
    if (run->fault == FAULT_EMPTY_FLUSH) {
        table.fdatasync = empty_flush;
    }
    os_replace(&table);
    daemon_disks_make(run);
}

static void option(struct daemon_run *run, enum service_option option, const char *fmt, ...)
{
    Error *err = NULL;
    char text[300];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (service_option(&run->service, option, text, &err) < 0) {
        daemon_wrong(run, "%s: %s", text, error_get_pretty(err));
        error_free(err);
    }
}

static void service_options(struct daemon_run *run)
{
    char top[32] = QCOW2_PATH;

    if (run->top > 0) {
        snprintf(top, sizeof(top), "/sim/ov%u", run->top);
    }
    option(run, SERVICE_OBJECT, "throttle-group,id=tg0");
    option(run, SERVICE_BLOCKDEV, "driver=file,node-name=f0,filename=" RAW_PATH);
    option(run, SERVICE_BLOCKDEV, "driver=raw,node-name=d0,file=f0");
    option(run, SERVICE_BLOCKDEV,
           "driver=qcow2,node-name=d1,discard=unmap,file.driver=file,file.filename=%s", top);
    for (unsigned i = 0; i < MEDIA; i++) {
        option(run, SERVICE_BLOCKDEV,
               "driver=raw,node-name=m%u,read-only=on,file.driver=file,file.filename=/sim/m%u", i,
               i);
    }
    option(run, SERVICE_BACKEND, "b0,node-name=d0");
    option(run, SERVICE_BACKEND, "b1,node-name=d1");
    option(run, SERVICE_BACKEND, "cd,node-name=m0,read-only=on");
    option(run, SERVICE_NBD_SERVER, "addr.type=unix,addr.path=" NBD_PATH);
    option(run, SERVICE_EXPORT, "nbd,id=e0,name=b0,node-name=b0,writable=on");
    option(run, SERVICE_EXPORT, "nbd,id=e1,name=b1,node-name=b1,writable=on");
    option(run, SERVICE_EXPORT, "nbd,id=e2,name=cd,node-name=cd");
    for (unsigned i = 0; i < run->qmp_clients; i++) {
        option(run, SERVICE_CHARDEV, "socket,id=c%u,path=/sim/qmp%u,server=on,wait=off", i, i);
        option(run, SERVICE_MONITOR, "chardev=c%u", i);
    }
}

static bool daemon_begin(struct daemon_run *run)
{
    struct platter_options options = {
        .size = sizeof(options),
        .image_refs = PLATTER_REFS_FOLLOW, /* there is nothing but what we made */
        .event_cb = monitors_platter_event,
    };
    Error *err = NULL;

    service_init(&run->service);
    if (service_begin(&run->service, &err) == 0) {
        options.main_context = run->service.ctx;
        options.event_opaque = run->service.monitors;
        run->service.control->pl = platter_new(&options, &err);
    }
    if (err) {
        daemon_wrong(run, "the daemon cannot begin: %s", error_get_pretty(err));
        error_free(err);
        return false;
    }
    service_options(run);
    return run->wrong[0] == '\0';
}

static void actors_begin(struct daemon_run *run)
{
    int64_t span = 200 * MS + (int64_t)daemon_below(run, 1500 * MS);

    for (unsigned i = 0; i < run->nbd_clients; i++) {
        nbd_client_begin(&run->nbd[i], run, i);
    }
    for (unsigned i = 0; i < run->qmp_clients; i++) {
        qmp_client_begin(&run->qmp[i], run, i);
    }
    if (run->errors) {
        sim_machine_after(run->machine, 50 * MS, inject, run);
    }
    if (run->cut) {
        sim_machine_after(run->machine, (int64_t)daemon_below(run, (uint64_t)span), cut_power, run);
    } else {
        sim_machine_after(run->machine, span, be_over, run);
    }
    sim_machine_after(run->machine, PATIENCE_NS, no_end, run);
}

static void daemon_end(struct daemon_run *run)
{
    if (run->service.control && run->service.control->pl) {
        service_tell_shutdown(&run->service);
    }
    run->flush_failed = service_end(&run->service) < 0;
    service_fini(&run->service);
    for (unsigned i = 0; i < run->nbd_clients; i++) {
        nbd_client_end(&run->nbd[i]);
    }
    for (unsigned i = 0; i < run->qmp_clients; i++) {
        qmp_client_end(&run->qmp[i]);
    }
    if (daemon_strikes(run, FAULT_LEAK_FD)) {
        (void)os->eventfd(0, 0);
    }
    if (sim_machine_open_fds(run->machine) + sim_world_open_fds(run->world) > 0) {
        daemon_wrong(run, "%u descriptors were left open",
                     sim_machine_open_fds(run->machine) + sim_world_open_fds(run->world));
    }
}

static void machine_end(struct daemon_run *run)
{
    bool whole = sim_machine_open_fds(run->machine) + sim_world_open_fds(run->world) == 0;

    os_replace(NULL);
    if (whole) { /* else they are kept for whoever looks into it */
        sim_machine_free(run->machine);
        sim_world_free(run->world);
    }
    run->machine = NULL;
    run->world = NULL;
}

static void live(struct daemon_run *run)
{
    run->over = run->dead = false;
    machine_begin(run);
    if (daemon_begin(run)) {
        actors_begin(run);
        while (!run->service.control->quit) {
            service_turn(&run->service);
        }
    }
    daemon_end(run);
    if (!run->cut) {
        daemon_disks_keep(run, false);
    }
    for (unsigned i = 0; i < DISKS; i++) {
        model_daemon_gone(&run->disks[i]);
    }
    if (run->wrong[0] == '\0') {
        daemon_disks_judge(run, run->cut || run->flush_failed);
    }
    machine_end(run);
}

void daemon_run(struct daemon_run *run, uint64_t seed, enum daemon_fault fault)
{
    *run = (struct daemon_run){
        .seed = seed, .fault = fault, .hash = UINT64_C(0xcbf29ce484222325), .overlays = 1};
    sim_rng_init(&run->rng, seed * UINT64_C(0x9e3779b97f4a7c15) + 1);
    run->strict = seed % 4 == 0;
    run->errors = !run->strict && daemon_chance(run, 70);
    run->nbd_clients = 1 + (unsigned)daemon_below(run, NBD_CLIENTS_MAX);
    run->qmp_clients = 1 + (unsigned)daemon_below(run, QMP_CLIENTS_MAX);
    for (unsigned i = 0; i < DISKS + MEDIA; i++) {
        model_init(i < DISKS ? &run->disks[i] : &run->media[i - DISKS], (uint8_t)(1 + i));
    }
    run->cut = daemon_chance(run, 60);
    live(run);
    while (run->cut && run->wrong[0] == '\0') {
        run->life++;
        run->cut = run->life + 1 < LIVES_MAX && daemon_chance(run, 40);
        live(run);
    }
    if (run->wrong[0]) {
        daemon_disks_save(run);
    }
    daemon_disks_drop(run);
    for (unsigned i = 0; i < DISKS + MEDIA; i++) {
        model_fini(i < DISKS ? &run->disks[i] : &run->media[i - DISKS]);
    }
}
