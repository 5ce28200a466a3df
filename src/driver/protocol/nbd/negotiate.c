/* SPDX-License-Identifier: MIT */
/*
 * From an address to a handle that is ready, and what the server says of its export. Nothing that
 * the server says is believed without a check, and it has bounded time to say it.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "nbd.h"
#include "os/nbd_refusal.h"
#include "util/checked.h"
#include "util/error.h"

#define NEGOTIATION_NS_MAX (30 * NBD_NS_PER_S)
#define BLOCK_MIN_MAX UINT32_C(65536) /* the protocol's limit */
#define PAYLOAD_BYTES_MAX (UINT32_C(32) << 20)
#define PREFERRED_DEFAULT UINT32_C(4096)

/* ---- what the server said ---- */

static int bad_facts(const struct nbd_target *target, const char *what, uint64_t value,
                     Error **errp)
{
    return error_set(errp, EINVAL, "The NBD server '%s' gives its export a bad %s: %" PRIu64,
                     target->shown, what, value);
}

static uint64_t block_size(struct nbd_handle *h, int type)
{
    int64_t bytes = libnbd()->get_block_size(h, type);

    return bytes > 0 ? (uint64_t)bytes : 0; /* 0: not said */
}

static int read_block_sizes(struct nbd_handle *h, const struct nbd_target *target,
                            struct nbd_facts *f, Error **errp)
{
    uint64_t min = block_size(h, LIBNBD_SIZE_MINIMUM);
    uint64_t preferred = block_size(h, LIBNBD_SIZE_PREFERRED);
    uint64_t max = block_size(h, LIBNBD_SIZE_MAXIMUM);

    min = min == 0 ? 1 : min;
    if (min > BLOCK_MIN_MAX || (min & (min - 1)) != 0) {
        return bad_facts(target, "minimum block size", min, errp);
    }
    preferred = preferred == 0 ? PREFERRED_DEFAULT : preferred;
    if (preferred < min || preferred > UINT32_MAX || (preferred & (preferred - 1)) != 0) {
        preferred = min > PREFERRED_DEFAULT ? min : PREFERRED_DEFAULT; /* only a wish */
    }
    max = max == 0 || max > PAYLOAD_BYTES_MAX ? PAYLOAD_BYTES_MAX : max;
    if (max < min) {
        return bad_facts(target, "maximum block size", max, errp);
    }
    f->block_min = (uint32_t)min;
    f->block_preferred = (uint32_t)preferred;
    f->payload_max = (uint32_t)(max - max % min);
    return 0;
}

static int read_facts(struct nbd_handle *h, const struct nbd_target *target, struct nbd_facts *ret,
                      Error **errp)
{
    struct nbd_facts f = {
        .read_only = libnbd()->is_read_only(h) != 0, /* also when it cannot be told */
        .flush = libnbd()->can_flush(h) > 0,
        .fua = libnbd()->can_fua(h) > 0,
        .trim = libnbd()->can_trim(h) > 0,
        .zero = libnbd()->can_zero(h) > 0,
        .fast_zero = libnbd()->can_fast_zero(h) > 0,
        .multi_conn = libnbd()->can_multi_conn(h) > 0,
        .status = libnbd()->can_meta_context(h, target->context) > 0,
    };
    int64_t size = libnbd()->get_size(h);

    if (size < 0) {
        return error_set(errp, EINVAL, "The NBD server '%s' gives its export no usable size: %s",
                         target->shown, libnbd()->get_error());
    }
    if (read_block_sizes(h, target, &f, errp) < 0) {
        return -EINVAL;
    }
    if (target->context_given != NULL && !f.status) {
        return error_set(errp, EINVAL, "The NBD server '%s' has no metadata context '%s'",
                         target->shown, target->context);
    }
    /* clients are to leave an odd end alone */
    f.size_bytes = (uint64_t)size - (uint64_t)size % f.block_min;
    *ret = f;
    return 0;
}

bool nbdc_facts_cover(const struct nbd_facts *now, const struct nbd_facts *before)
{
    return now->size_bytes == before->size_bytes && now->block_min <= before->block_min &&
           now->payload_max >= before->payload_max && now->read_only <= before->read_only &&
           now->flush >= before->flush && now->fua >= before->fua && now->trim >= before->trim &&
           now->zero >= before->zero && now->fast_zero >= before->fast_zero &&
           now->status >= before->status;
}

/* ---- connecting ---- */

static struct nbd_handle *make_handle(const struct nbd_target *target, Error **errp)
{
    struct nbd_handle *h;

    if (libnbd() == NULL) {
        error_set(errp, ENOENT, "The NBD client needs libnbd, which is not installed");
        return NULL;
    }
    h = libnbd()->create();
    if (h == NULL) {
        error_set(errp, ENOMEM, "No NBD handle: %s", libnbd()->get_error());
        return NULL;
    }
    /* nbd_set_pread_initialize stays on: a server may leave out what it was to send */
    if (libnbd()->set_export_name(h, target->address.export_name) < 0 ||
        libnbd()->add_meta_context(h, target->context) < 0 ||
        (target->tls_creds == NULL && libnbd()->set_tls(h, LIBNBD_TLS_DISABLE) < 0)) {
        error_set(errp, EINVAL, "The NBD server '%s' cannot be asked: %s", target->shown,
                  libnbd()->get_error());
        libnbd()->close(h);
        return NULL;
    }
    if (target->tls_creds != NULL &&
        tls_libnbd_set(h, target->tls_creds, target->address.path ? NULL : target->address.host,
                       target->tls_hostname, errp) < 0) {
        libnbd()->close(h);
        return NULL;
    }
    return h;
}

static int connect_failed(const struct nbd_target *target, int err, Error **errp)
{
    if (err == 0) { /* the name of the host: a text of its own */
        return error_set(errp, EINVAL, "Failed to connect to '%s': %s", target->shown,
                         libnbd()->get_error());
    }
    return error_set_errno(errp, err, "Failed to connect to '%s'", target->shown);
}

static bool is_network_error(int err)
{
    return err == ECONNREFUSED || err == ETIMEDOUT || err == EHOSTUNREACH || err == ENETUNREACH;
}

static int negotiation_failed(const struct nbd_target *target, const struct nbd_hearing *hearing,
                              Error **errp)
{
    int err = libnbd()->get_errno();
    int rc;

    if (is_network_error(err)) {
        return connect_failed(target, err, errp);
    }
    rc = nbd_refusal_set(hearing, NBD_REFUSED_GO, errp);
    if (rc == -ENOENT) {
        error_set_hint(errp, "The server at '%s' has no export '%s'", target->shown,
                       target->address.export_name);
    }
    if (rc == 0) {
        rc = error_set(errp, err > 0 ? err : EIO, "The NBD server '%s' cannot be used: %s",
                       target->shown, libnbd()->get_error());
        nbd_hearing_tell(hearing, errp);
    }
    return rc;
}

static int begin(struct nbd_handle *h, const struct nbd_target *target,
                 const struct nbd_hearing *hearing, Error **errp)
{
    const struct nbdc_address *a = &target->address;
    int rc = a->path != NULL ? libnbd()->aio_connect_unix(h, a->path)
                             : libnbd()->aio_connect_tcp(h, a->host, a->port);

    if (rc == 0) {
        return 0;
    }
    rc = nbd_refusal_set(hearing, NBD_REFUSED_GO, errp); /* it may get that far at once */
    return rc < 0 ? rc : connect_failed(target, libnbd()->get_errno(), errp);
}

static int drive_co(struct nbd_handle *h, const struct nbd_target *target,
                    const struct nbd_hearing *hearing, int64_t deadline_ns, Error **errp)
{
    while (libnbd()->aio_is_connecting(h) > 0) {
        struct nbd_sleep sleep = {.co = coroutine_self()};
        int rc = nbdc_sleep_co(&sleep, libnbd()->aio_get_fd(h), libnbd()->aio_get_direction(h),
                               deadline_ns);

        if (rc <= 0) {
            return error_set_errno(errp, rc < 0 ? -rc : ETIMEDOUT, "Failed to connect to '%s'",
                                   target->shown);
        }
        nbdc_handle_notify(h, (unsigned)rc);
    }
    return libnbd()->aio_is_ready(h) > 0 ? 0 : negotiation_failed(target, hearing, errp);
}

struct nbd_handle *nbdc_negotiate_co(const struct nbd_target *target, int64_t deadline_ns,
                                     struct nbd_facts *ret_facts, int *ret_rc, Error **errp)
{
    int64_t latest_ns = aio_clock_ns() + NEGOTIATION_NS_MAX;
    struct nbd_handle *h = make_handle(target, errp);
    struct nbd_hearing hearing = {0};
    int rc;

    if (h == NULL) {
        *ret_rc = -EINVAL;
        return NULL;
    }
    nbd_hearing_begin(&hearing, h);
    rc = begin(h, target, &hearing, errp);
    if (rc == 0) {
        rc = drive_co(h, target, &hearing, deadline_ns < latest_ns ? deadline_ns : latest_ns, errp);
    }
    nbd_hearing_end(&hearing, h);
    if (rc == 0) {
        rc = read_facts(h, target, ret_facts, errp);
    }
    if (rc < 0) {
        *ret_rc = rc;
        libnbd()->close(h);
        return NULL;
    }
    return h;
}
