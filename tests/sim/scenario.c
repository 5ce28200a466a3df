/* SPDX-License-Identifier: MIT */
/* How a scenario runs, and what is wrong with a result. */
#include "scenarios.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/coroutine.h>

void scenario_wrong(struct scenario_run *r, const char *text)
{
    if (!r->wrong[0]) {
        snprintf(r->wrong, sizeof(r->wrong), "%s", text);
    }
}

int scenario_result(struct scenario_run *r, const char *what, int rc)
{
    bool expected = rc >= 0 || rc == -r->injected || (rc == -EIO && r->eio_ok);
    char text[sizeof(r->wrong)];

    if (getenv("PLATTER_TRACE")) { /* for whoever looks into a failure */
        fprintf(stderr, "%s: %d\n", what, rc);
    }
    if (rc < 0) {
        r->failures++;
    }
    if (rc == -EBADMSG || !expected) {
        snprintf(text, sizeof(text), "%.100s: %s", what,
                 rc == -EBADMSG ? "wrong bytes as good" : strerror(-rc));
        scenario_wrong(r, text);
    }
    return rc;
}

int scenario_error(struct scenario_run *r, int rc, Error **err)
{
    if (rc < 0 && getenv("PLATTER_TRACE")) {
        fprintf(stderr, "%s: %s\n", strerror(-rc), *err ? error_get_pretty(*err) : "no Error");
    }
    if ((rc < 0) != (*err != 0)) {
        scenario_wrong(r, "result and Error do not agree");
    }
    error_free(*err);
    *err = 0;
    return rc;
}

void scenario_begin(const struct scenario *s, struct scenario_run *r, uint64_t seed)
{
    uint64_t bytes = s->largest_bytes ? s->largest_bytes : s->disk_bytes;

    harness_begin(&r->h, seed, bytes ? bytes : SCENARIO_DISK_BYTES, &s->file);
    r->h.no_flush = s->no_flush;
    r->h.wrote_through = s->write_through;
    if (s->prepare) {
        harness_own++;
        s->prepare(r, s);
        harness_own--;
    }
}

unsigned scenario_end(const struct scenario *s, struct scenario_run *r)
{
    struct sim_rng rng = {.state = 1};
    unsigned left;

    harness_close(&r->h);
    if (r->h.judge) {
        const char *wrong = harness_verify(&r->h, 0, &rng);

        if (wrong) {
            scenario_wrong(r, wrong);
        }
    }
    left = harness_end(&r->h);
    if (s->finish) {
        s->finish(r);
    }
    return left;
}

void scenario_steps(const struct scenario *s, struct scenario_run *r)
{
    if (OP(r, harness_platter(&r->h)) < 0) {
        return;
    }
    if (s->options) {
        if (OP(r, harness_open(&r->h, s->options, BDRV_O_RDWR | s->flags)) < 0) {
            return;
        }
        if (s->write_through) {
            blk_set_enable_write_cache(r->h.blk, false);
        }
    }
    s->steps(r);
}

struct co_call {
    struct scenario_run *r;
    int (*fn)(struct scenario_run *r);
    int rc;
    bool done;
};

static void co_entry(void *opaque)
{
    struct co_call *call = opaque;

    call->rc = call->fn(call->r);
    call->done = true;
}

int scenario_in_co(struct scenario_run *r, int (*fn)(struct scenario_run *r))
{
    struct co_call call = {.r = r, .fn = fn};
    Coroutine *co = coroutine_create(co_entry, &call);

    if (!co) {
        return -ENOMEM;
    }
    coroutine_enter(co);
    while (!call.done) {
        aio_poll(platter_get_main_context(r->h.pl), true);
    }
    return call.rc;
}

const struct scenario_list *scenario_list_find(const char *name)
{
    if (!name || strcmp(name, scenarios_plain.name) == 0) {
        return &scenarios_plain;
    }
    if (strcmp(name, scenarios_qcow2.name) == 0) {
        return harness_has_driver("qcow2") ? &scenarios_qcow2 : NULL;
    }
    fprintf(stderr, "no scenarios '%s'\n", name);
    abort();
}

void scenario_list_run(const struct scenario_list *list, void (*fn)(const struct scenario *s))
{
    const char *only = getenv("PLATTER_SCENARIO");

    for (size_t i = 0; i < list->count; i++) {
        if (!only || strcmp(only, list->scenarios[i].name) == 0) {
            fn(&list->scenarios[i]);
        }
    }
}
