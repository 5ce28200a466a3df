/* SPDX-License-Identifier: MIT */
/*
 * Leaky buckets, kept as schedules: a bucket that leaks `rate` units a second and holds n of them
 * is empty n / rate from now. A request may go when that is not further away than the bucket's
 * capacity; then its own units are added. Nothing else moves with time, so there is no clock to
 * feed and no rounding that adds up.
 *
 *  capacity without max: a tenth of a second at avg
 *  capacity with max:    max units times the length of the burst
 *  and for a burst longer than a second a second schedule at the rate max, a tenth of a second
 *  deep, so that max is not passed while it lasts.
 */
#include "block/throttle.h"

#include <errno.h>
#include <string.h>

#include "util/checked.h"
#include "util/error.h"

#define NS_PER_SECOND UINT64_C(1000000000)
#define SHORT_BURST_NS (INT64_C(1) * 100000000)

static int limits_check(const struct throttle_limit *l, Error **errp)
{
    if (l->avg > THROTTLE_VALUE_MAX || l->max > THROTTLE_VALUE_MAX) {
        return error_set(errp, EINVAL, "bps/iops/max values must be within [0, %llu]",
                         (unsigned long long)THROTTLE_VALUE_MAX);
    }
    if (l->max_length_s > 1 && l->max == 0) {
        return error_set(errp, EINVAL, "burst length set without burst rate");
    }
    if (l->max != 0 && l->avg == 0) {
        return error_set(errp, EINVAL, "bps_max/iops_max require corresponding bps/iops values");
    }
    if (l->max != 0 && l->max < l->avg) {
        return error_set(errp, EINVAL, "bps_max/iops_max cannot be lower than bps/iops");
    }
    if (l->max_length_s > 1 && l->max_length_s > THROTTLE_VALUE_MAX / l->max) {
        return error_set(errp, EINVAL, "burst length too high for this burst rate");
    }
    return 0;
}

static bool both_given(const struct throttle_config *c, int total)
{
    const struct throttle_limit *l = &c->limits[total];

    return (l[0].avg != 0 && (l[1].avg != 0 || l[2].avg != 0)) ||
           (l[0].max != 0 && (l[1].max != 0 || l[2].max != 0));
}

int throttle_config_check(const struct throttle_config *config, Error **errp)
{
    if (config->size < sizeof(*config)) {
        return error_set(errp, EINVAL, "struct throttle_config of %zu bytes is too small",
                         config->size);
    }
    if (both_given(config, THROTTLE_BPS_TOTAL) || both_given(config, THROTTLE_OPS_TOTAL)) {
        return error_set(errp, EINVAL,
                         "bps/iops/max total values and read/write values cannot be "
                         "used at the same time");
    }
    if (config->ops_unit_bytes != 0 && config->limits[THROTTLE_OPS_TOTAL].avg == 0 &&
        config->limits[THROTTLE_OPS_READ].avg == 0 && config->limits[THROTTLE_OPS_WRITE].avg == 0) {
        return error_set(errp, EINVAL, "iops size requires an iops value to be set");
    }
    for (int i = 0; i < THROTTLE_BUCKETS; i++) {
        if (limits_check(&config->limits[i], errp) < 0) {
            return -EINVAL;
        }
    }
    return 0;
}

void throttle_state_init(struct throttle_state *ts, const struct throttle_config *config,
                         int64_t now_ns)
{
    ts->config = *config;
    for (int i = 0; i < THROTTLE_BUCKETS; i++) {
        ts->buckets[i] = (struct throttle_bucket){.empty_ns = now_ns, .peak_empty_ns = now_ns};
    }
}

/* units / rate in ns; a unit is 1 / scale of what the rate counts. */
static int64_t leak_ns(uint64_t units, uint64_t rate, uint64_t scale)
{
    __extension__ typedef unsigned __int128 u128;
    u128 ns = (u128)units * NS_PER_SECOND / ((u128)rate * scale);

    return ns > INT64_MAX / 4 ? INT64_MAX / 4 : (int64_t)ns;
}

static int64_t capacity_ns(const struct throttle_limit *l)
{
    uint64_t seconds = l->max_length_s > 1 ? l->max_length_s : 1;

    return l->max == 0 ? SHORT_BURST_NS : leak_ns(l->max * seconds, l->avg, 1);
}

static bool peak_is_limited(const struct throttle_limit *l)
{
    return l->max != 0 && l->max_length_s > 1;
}

/* The buckets that a request of a direction goes through: total and its own, bytes and requests. */
static const int *buckets_of(bool is_write)
{
    static const int of[2][4] = {
        {THROTTLE_BPS_TOTAL, THROTTLE_BPS_READ, THROTTLE_OPS_TOTAL, THROTTLE_OPS_READ},
        {THROTTLE_BPS_TOTAL, THROTTLE_BPS_WRITE, THROTTLE_OPS_TOTAL, THROTTLE_OPS_WRITE},
    };

    return of[is_write];
}

bool throttle_limits(const struct throttle_state *ts, bool is_write)
{
    const int *of = buckets_of(is_write);

    for (int i = 0; i < 4; i++) {
        if (ts->config.limits[of[i]].avg != 0) {
            return true;
        }
    }
    return false;
}

int64_t throttle_wait_ns(const struct throttle_state *ts, bool is_write, int64_t now_ns)
{
    const int *of = buckets_of(is_write);
    int64_t wait = 0;

    for (int i = 0; i < 4; i++) {
        const struct throttle_limit *l = &ts->config.limits[of[i]];
        const struct throttle_bucket *b = &ts->buckets[of[i]];
        int64_t ns;

        if (l->avg == 0) {
            continue;
        }
        ns = b->empty_ns - now_ns - capacity_ns(l);
        wait = ns > wait ? ns : wait;
        if (peak_is_limited(l)) {
            ns = b->peak_empty_ns - now_ns - SHORT_BURST_NS;
            wait = ns > wait ? ns : wait;
        }
    }
    return wait;
}

static int64_t later(int64_t empty_ns, int64_t now_ns, int64_t add_ns)
{
    int64_t from = empty_ns > now_ns ? empty_ns : now_ns;

    return from > INT64_MAX - add_ns ? INT64_MAX : from + add_ns;
}

void throttle_account(struct throttle_state *ts, bool is_write, uint64_t bytes, int64_t now_ns)
{
    const int *of = buckets_of(is_write);
    uint64_t unit = ts->config.ops_unit_bytes;

    for (int i = 0; i < 4; i++) {
        const struct throttle_limit *l = &ts->config.limits[of[i]];
        struct throttle_bucket *b = &ts->buckets[of[i]];
        bool in_bytes = of[i] <= THROTTLE_BPS_WRITE;
        bool several = !in_bytes && unit != 0 && bytes > unit;
        uint64_t units = in_bytes || several ? bytes : 1;
        uint64_t scale = several ? unit : 1;

        if (l->avg == 0) {
            continue;
        }
        b->empty_ns = later(b->empty_ns, now_ns, leak_ns(units, l->avg, scale));
        if (peak_is_limited(l)) {
            b->peak_empty_ns = later(b->peak_empty_ns, now_ns, leak_ns(units, l->max, scale));
        }
    }
}
