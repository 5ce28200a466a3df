/* SPDX-License-Identifier: MIT */
/*
 * The connections of a node, and what happens when one is lost.
 *
 * A call whose connection was lost may or may not have been done by the server. With a reconnect
 * delay it is sent again over a new connection, at most until the delay has passed since the call
 * met the first loss; without one it fails.
 *
 * P1: Read and block status may be sent again: they change nothing.
 * P2: Write, zero and trim may be sent again as long as the call has not been answered: done twice
 *     they leave what done once leaves, and nobody may rely on the order of writes that overlap a
 *     call in flight. What no client can rule out is a server that still acts on the lost
 *     connection after it has served the new one; whoever sets a delay says that this server ends
 *     a connection with the requests on it.
 * P3: Flush may be sent again: it covers all writes that were answered before it, over whatever
 *     connection. That holds while the server keeps across its restart what it has acknowledged,
 *     as one over a file of a kernel that lives on does. This, too, is what a delay says.
 * P4: A new connection counts only when its export can do all that the first one could, and has
 *     its size (nbdc_facts_cover): what the node was told at open stays true.
 *
 * Nothing runs while no call waits: a lost connection is made again by the next call that wants it,
 * one at a time for each connection, with a pause that doubles and is short again after a call was
 * served.
 */
#include <errno.h>

#include "loop/context.h"
#include "nbd.h"
#include "util/error.h"

#define PAUSE_NS_MIN (20 * NBD_NS_PER_S / 1000)
#define PAUSE_NS_MAX (1 * NBD_NS_PER_S)
#define LAST_TRY_NS (NBD_NS_PER_S / 10) /* before a deadline: what the last attempt has left */

static void conn_init(struct nbd_conn *conn)
{
    co_mutex_init(&conn->connecting);
    atomic_init(&conn->pause_ns, PAUSE_NS_MIN);
}

/* A reference, or NULL while down. */
static struct nbd_link *conn_get(struct nbd_pool *pool, struct nbd_conn *conn)
{
    struct nbd_link *link;

    os_mutex_lock(&pool->lock);
    link = conn->link;
    if (link != NULL) {
        nbdc_link_ref(link);
    }
    os_mutex_unlock(&pool->lock);
    return link;
}

/* The link is lost (L3); whoever notices first takes it out. */
static void conn_drop(struct nbd_pool *pool, struct nbd_conn *conn, struct nbd_link *link)
{
    bool ours;

    os_mutex_lock(&pool->lock);
    ours = conn->link == link;
    if (ours) {
        conn->link = NULL;
        conn->down_since_ns = aio_clock_ns();
    }
    os_mutex_unlock(&pool->lock);
    if (ours) {
        nbdc_link_unref(link);
    }
}

static void conn_served(struct nbd_conn *conn)
{
    if (atomic_load_explicit(&conn->pause_ns, memory_order_relaxed) != PAUSE_NS_MIN) {
        atomic_store(&conn->pause_ns, PAUSE_NS_MIN);
    }
}

/* After an attempt, however it ended, the next one is not made before a pause. */
static void conn_set_pause(struct nbd_conn *conn)
{
    int64_t pause_ns = atomic_load(&conn->pause_ns);

    conn->next_try_ns = aio_clock_ns() + pause_ns;
    atomic_store(&conn->pause_ns, pause_ns * 2 > PAUSE_NS_MAX ? PAUSE_NS_MAX : pause_ns * 2);
}

/* One attempt. 0 or -errno. */
static int conn_try_co(struct nbd_pool *pool, struct nbd_conn *conn, int64_t deadline_ns,
                       Error **errp)
{
    struct nbd_facts facts;
    struct nbd_handle *h;
    struct nbd_link *link;
    bool first = pool->n_conns == 0;
    int rc = 0;

    h = nbdc_negotiate_co(&pool->target, deadline_ns, &facts, &rc, errp);
    conn_set_pause(conn);
    if (h == NULL) {
        return rc;
    }
    if (!first && !nbdc_facts_cover(&facts, &pool->facts)) { /* P4 */
        libnbd()->close(h);
        return error_set(errp, EINVAL, "The export at '%s' is not what it was", pool->target.shown);
    }
    link = nbdc_link_new(h);
    if (link == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (first) {
        pool->facts = facts;
    }
    os_mutex_lock(&pool->lock);
    conn->link = link;
    os_mutex_unlock(&pool->lock);
    return 0;
}

/* When the next attempt is to be made: after the pause, but a last one just before the deadline.
 * -1: there is no time for another. */
static int64_t conn_next_try_ns(const struct nbd_conn *conn, int64_t deadline_ns)
{
    int64_t last_ns = deadline_ns - LAST_TRY_NS;

    if (conn->next_try_ns <= deadline_ns) {
        return conn->next_try_ns;
    }
    return aio_clock_ns() < last_ns ? last_ns : -1;
}

/* Attempts until the deadline, at least one unless there is no time for another. */
static int conn_retry_co(struct nbd_pool *pool, struct nbd_conn *conn, int64_t deadline_ns,
                         Error **errp)
{
    for (;;) {
        Error *err = NULL;
        int64_t now_ns = aio_clock_ns();
        int64_t next_ns = conn->next_try_ns;
        int rc;

        if (next_ns > now_ns) {
            next_ns = conn_next_try_ns(conn, deadline_ns);
            if (next_ns < 0) {
                return error_set(errp, ENOTCONN, "No connection to '%s'", pool->target.shown);
            }
            rc = next_ns > now_ns ? co_sleep_ns(next_ns - now_ns) : 0;
            if (rc < 0) {
                return error_set_errno(errp, -rc, "No connection to '%s'", pool->target.shown);
            }
        }
        rc = conn_try_co(pool, conn, deadline_ns > now_ns ? deadline_ns : INT64_MAX, &err);
        if (rc == 0 || conn_next_try_ns(conn, deadline_ns) < 0) {
            error_propagate(errp, err);
            return rc;
        }
        error_free(err);
    }
}

/* Until when calls wait for a connection that is down. */
static int64_t conn_deadline_ns(struct nbd_pool *pool, struct nbd_conn *conn)
{
    int64_t since_ns;

    os_mutex_lock(&pool->lock);
    since_ns = conn->down_since_ns;
    os_mutex_unlock(&pool->lock);
    return since_ns + pool->reconnect_delay_ns;
}

/* A reference to a link that was up a moment ago. */
static int conn_up_co(struct nbd_pool *pool, struct nbd_conn *conn, struct nbd_link **ret_link)
{
    struct nbd_link *link = conn_get(pool, conn);
    int rc = 0;

    if (link == NULL) {
        co_mutex_lock(&conn->connecting);
        link = conn_get(pool, conn);
        if (link == NULL) {
            rc = conn_retry_co(pool, conn, conn_deadline_ns(pool, conn), NULL);
            link = conn_get(pool, conn);
        }
        co_mutex_unlock(&conn->connecting);
    }
    *ret_link = link;
    return link != NULL ? 0 : rc < 0 ? rc : -ENOTCONN;
}

/* The least busy one; each context prefers one of its own. */
static struct nbd_conn *pick(struct nbd_pool *pool)
{
    unsigned at, n = pool->n_conns;
    struct nbd_conn *best;

    if (n == 1) {
        return &pool->conns[0];
    }
    at = aio_context_slot(aio_context_current()) % n;
    best = &pool->conns[at];
    for (unsigned i = 1; i < n && atomic_load(&best->calls) > 0; i++) {
        struct nbd_conn *conn = &pool->conns[(at + i) % n];

        if (atomic_load(&conn->calls) < atomic_load(&best->calls)) {
            best = conn;
        }
    }
    return best;
}

/* Over one connection; *ret_lost: it was lost on the way, another attempt makes sense. */
static int call_once_co(struct nbd_pool *pool, struct nbd_call *call, bool *ret_lost)
{
    struct nbd_conn *conn = pick(pool);
    struct nbd_link *link;
    int rc;

    *ret_lost = false;
    atomic_fetch_add(&conn->calls, 1);
    rc = conn_up_co(pool, conn, &link);
    if (rc < 0) {
        rc = -EIO;
    } else {
        rc = nbdc_link_call_co(link, call, ret_lost);
        if (*ret_lost) {
            conn_drop(pool, conn, link);
            rc = -EIO;
        } else {
            conn_served(conn);
        }
        nbdc_link_unref(link);
    }
    atomic_fetch_sub(&conn->calls, 1);
    return rc;
}

/* A server that takes each new connection and drops it on each call does not hold a call up for
 * ever: its own first loss counts too. */
int nbdc_pool_call_co(struct nbd_pool *pool, struct nbd_call *call)
{
    int64_t deadline_ns = 0;
    bool lost;
    int rc;

    for (;;) {
        rc = call_once_co(pool, call, &lost);
        if (!lost) {
            return rc;
        }
        if (deadline_ns == 0) {
            deadline_ns = aio_clock_ns() + pool->reconnect_delay_ns;
        }
        if (aio_clock_ns() >= deadline_ns) {
            return rc;
        }
    }
}

int nbdc_pool_open_co(struct nbd_pool *pool, unsigned n, Error **errp)
{
    int64_t deadline_ns = aio_clock_ns() + pool->open_timeout_ns;
    int rc;

    os_mutex_init(&pool->lock);
    for (unsigned i = 0; i < n; i++) {
        conn_init(&pool->conns[i]);
    }
    rc = conn_retry_co(pool, &pool->conns[0], deadline_ns, errp);
    if (rc < 0) {
        os_mutex_fini(&pool->lock);
        return rc;
    }
    pool->n_conns = 1;
    /* Further ones are a wish: a server may want fewer. */
    for (unsigned i = 1; i < n && pool->facts.multi_conn; i++) {
        if (conn_try_co(pool, &pool->conns[i], INT64_MAX, NULL) < 0) {
            break;
        }
        pool->n_conns = i + 1;
    }
    return 0;
}

void nbdc_pool_close(struct nbd_pool *pool)
{
    for (unsigned i = 0; i < pool->n_conns; i++) {
        nbdc_link_unref(pool->conns[i].link);
    }
    os_mutex_fini(&pool->lock);
}
