/* SPDX-License-Identifier: MIT */
/*
 * The server's side of TLS (src/tls/session.c), which is what a client of the NBD server speaks to
 * after NBD_OPT_STARTTLS, handshake and records. An input is a byte that says which credentials
 * there are, then frames: what an honest client of GnuTLS has to say, whole, cut, harmed, twice or
 * late; records with heads of the input's choice; any bytes; the end of the stream.
 *
 * Whatever comes: a session that wants more has room for it, makes no more of what came than a
 * few records, and when it has failed it stays so. Nothing waits for a clock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gnutls/gnutls.h>

#include "fuzz.h"
#include "tls/tls.h"
#include "util/bytes.h"
#include "util/checked.h"

#define FRAMES_MAX 48
#define QUEUE_BYTES (128u * 1024u)
#define ANSWER_BYTES_MAX (64u * 1024u) /* to one piece that came */

static const char psk_line[] = "u:00112233445566778899aabbccddeeff\n";
static TlsCreds *creds[2]; /* anonymous, pre-shared key */

struct queue {
    uint8_t bytes[QUEUE_BYTES];
    size_t head, tail;
};

struct fuzz {
    struct tls_session *session;
    void *in, *out[2];
    bool up, dead, ended;
    gnutls_session_t client;
    gnutls_anon_client_credentials_t anon;
    gnutls_psk_client_credentials_t psk;
    bool client_up, client_dead;
    struct queue *to_server, *to_client;
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct tls_creds_options options = {
        .size = sizeof(options), .kind = TLS_CREDS_ANON, .endpoint = TLS_ENDPOINT_SERVER};
    int fd = memfd_create("keys", 0);

    FUZZ_CHECK(fd >= 0 && write(fd, psk_line, sizeof(psk_line) - 1) == sizeof(psk_line) - 1 &&
               lseek(fd, 0, SEEK_SET) == 0);
    fuzz_close_world();
    creds[0] = tls_creds_load("a", &options, NULL);
    options.kind = TLS_CREDS_PSK;
    options.dir = "/keys";
    fuzz_let_open("/keys/" TLS_PSK_FILE, fd);
    creds[1] = tls_creds_load("p", &options, NULL);
    fuzz_let_open(NULL, -1);
    close(fd);
    FUZZ_CHECK(creds[0] != NULL && creds[1] != NULL);
    return 0;
}

/* ---- queues: what does not fit is lost ---- */

static void queue_put(struct queue *q, const void *data, size_t bytes)
{
    bytes = min_u64(bytes, QUEUE_BYTES - q->tail);
    memcpy(q->bytes + q->tail, data, bytes);
    q->tail += bytes;
}

static size_t queue_take(struct queue *q, void *data, size_t bytes)
{
    bytes = min_u64(bytes, q->tail - q->head);
    memcpy(data, q->bytes + q->head, bytes);
    q->head += bytes;
    if (q->head == q->tail) {
        q->head = q->tail = 0;
    }
    return bytes;
}

/* ---- the server ---- */

static void take_answers(struct fuzz *f)
{
    size_t all = 0;
    void *data;
    size_t n;

    while ((n = tls_session_take_out(f->session, &data)) > 0) {
        queue_put(f->to_client, data, n);
        all += n;
        FUZZ_CHECK(all <= ANSWER_BYTES_MAX);
    }
}

/* As far as it gets with what came. */
static void serve(struct fuzz *f)
{
    static uint8_t buf[16384];
    int64_t n = 0;

    if (!f->up && !f->dead) {
        int rc = tls_session_handshake(f->session);

        f->up = rc == 0 && tls_session_check_peer(f->session, NULL, NULL) == 0;
        f->dead = rc != -EAGAIN && !f->up;
        FUZZ_CHECK(rc <= 0 && (rc != -EAGAIN || !f->ended));
    }
    while (f->up && !f->dead && (n = tls_session_read(f->session, buf, sizeof(buf))) != -EAGAIN) {
        FUZZ_CHECK(n <= (int64_t)sizeof(buf));
        f->dead = n <= 0;
    }
    FUZZ_CHECK(n != -EAGAIN || !f->ended);
    if (f->dead && f->up) { /* it stays so */
        FUZZ_CHECK(tls_session_read(f->session, buf, sizeof(buf)) <= 0);
    }
    take_answers(f);
}

static void arrive(struct fuzz *f, const uint8_t *data, size_t bytes)
{
    while (bytes > 0 && !f->dead && !f->ended) {
        size_t room;
        uint8_t *in = tls_session_in(f->session, &room);
        size_t n = min_u64(room, bytes);

        FUZZ_CHECK(room > 0 && room <= TLS_IN_BYTES);
        memcpy(in, data, n);
        tls_session_arrived(f->session, n);
        data += n;
        bytes -= n;
        serve(f);
    }
}

/* ---- the honest client ---- */

static ssize_t client_push(gnutls_transport_ptr_t ptr, const void *data, size_t bytes)
{
    queue_put(((struct fuzz *)ptr)->to_server, data, bytes);
    return (ssize_t)bytes;
}

static ssize_t client_pull(gnutls_transport_ptr_t ptr, void *data, size_t bytes)
{
    struct fuzz *f = ptr;
    size_t n = queue_take(f->to_client, data, bytes);

    if (n == 0) {
        gnutls_transport_set_errno(f->client, EAGAIN);
        return -1;
    }
    return (ssize_t)n;
}

static int client_ready(gnutls_transport_ptr_t ptr, unsigned ms)
{
    const struct queue *q = ((struct fuzz *)ptr)->to_client;

    return q->tail > q->head;
}

static void client_begin(struct fuzz *f, bool psk)
{
    static const gnutls_datum_t key = {(unsigned char *)"00112233445566778899aabbccddeeff", 32};

    FUZZ_CHECK(gnutls_init(&f->client, GNUTLS_CLIENT | GNUTLS_NONBLOCK) == 0);
    FUZZ_CHECK(gnutls_priority_set_direct(f->client,
                                          psk ? "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK"
                                              : "NORMAL:+ANON-ECDH:+ANON-DH",
                                          NULL) == 0);
    if (psk) {
        FUZZ_CHECK(gnutls_psk_allocate_client_credentials(&f->psk) == 0);
        FUZZ_CHECK(gnutls_psk_set_client_credentials(f->psk, "u", &key, GNUTLS_PSK_KEY_HEX) == 0);
        FUZZ_CHECK(gnutls_credentials_set(f->client, GNUTLS_CRD_PSK, f->psk) == 0);
    } else {
        FUZZ_CHECK(gnutls_anon_allocate_client_credentials(&f->anon) == 0);
        FUZZ_CHECK(gnutls_credentials_set(f->client, GNUTLS_CRD_ANON, f->anon) == 0);
    }
    gnutls_transport_set_ptr(f->client, f);
    gnutls_transport_set_push_function(f->client, client_push);
    gnutls_transport_set_pull_function(f->client, client_pull);
    gnutls_transport_set_pull_timeout_function(f->client, client_ready);
    gnutls_handshake_set_timeout(f->client, GNUTLS_INDEFINITE_TIMEOUT);
}

/* Its next step, with what the server has answered. */
static void client_step(struct fuzz *f)
{
    uint8_t buf[1024];

    if (!f->client_up && !f->client_dead) {
        int rc = gnutls_handshake(f->client);

        f->client_up = rc == 0;
        f->client_dead = rc < 0 && gnutls_error_is_fatal(rc);
    }
    for (int i = 0; f->client_up && !f->client_dead && i < 64; i++) {
        ssize_t n = gnutls_record_recv(f->client, buf, sizeof(buf));

        f->client_dead = n == 0 || (n < 0 && gnutls_error_is_fatal((int)n));
        if (n <= 0) {
            break;
        }
    }
}

/* ---- frames ---- */

static void frame_client(struct fuzz *f, struct fuzz_in *in)
{
    static uint8_t buf[QUEUE_BYTES];
    uint8_t how = fuzz_u8(in);
    size_t n;

    client_step(f);
    n = queue_take(f->to_server, buf, how & 1 ? fuzz_u16(in) : sizeof(buf));
    for (int i = how >> 1 & 3; n > 0 && i > 0; i--) {
        uint16_t at = fuzz_u16(in);

        buf[at % n] ^= fuzz_u8(in);
    }
    arrive(f, buf, n);
    if (how & 8) {
        arrive(f, buf, n);
    }
}

static void frame_record(struct fuzz *f, struct fuzz_in *in)
{
    static const uint8_t types[] = {20, 21, 22, 23, 24, 0, 255, 22};
    uint8_t how = fuzz_u8(in);
    int8_t lie = (int8_t)fuzz_u8(in);
    uint8_t head[5] = {types[how & 7], 3, how >> 3 & 7};
    size_t n;
    uint8_t *data = fuzz_take(in, how & 64 ? fuzz_u16(in) : fuzz_u8(in), &n);

    store_be16(head + 3, (uint16_t)(n + (how & 128 ? (size_t)(lie * 256) : 0)));
    arrive(f, head, sizeof(head));
    arrive(f, data, n);
    free(data);
}

static void frame_raw(struct fuzz *f, struct fuzz_in *in)
{
    size_t n;
    uint8_t *data = fuzz_take(in, fuzz_u8(in), &n);

    arrive(f, data, n);
    free(data);
}

/* What the client does when both are up, and what the server says then. */
static void frame_talk(struct fuzz *f, struct fuzz_in *in)
{
    static const uint8_t zeroes[16384];
    uint8_t how = fuzz_u8(in);

    if (f->client_up && !f->client_dead) {
        switch (how & 7) {
        case 0:
            (void)gnutls_bye(f->client, GNUTLS_SHUT_WR);
            break;
        case 1:
            (void)gnutls_session_key_update(f->client, how & 8 ? GNUTLS_KU_PEER : 0);
            break;
        case 2:
            (void)gnutls_alert_send(f->client, how & 8 ? GNUTLS_AL_FATAL : GNUTLS_AL_WARNING,
                                    how >> 4);
            break;
        case 3: /* in TLS 1.2: a handshake in the handshaken */
            f->client_up = false;
            break;
        default:
            (void)gnutls_record_send(f->client, zeroes, fuzz_u16(in) % sizeof(zeroes));
            break;
        }
    }
    if (f->up && !f->dead && (how & 128)) {
        size_t n = min_u64(tls_session_room(f->session), fuzz_u16(in) % sizeof(zeroes));

        f->dead = n > 0 && tls_session_write(f->session, zeroes, n) < 0;
        take_answers(f);
    }
}

static void frame_end(struct fuzz *f, struct fuzz_in *in)
{
    if (!f->dead && !f->ended) {
        f->ended = true;
        tls_session_arrived(f->session, 0);
        serve(f);
        FUZZ_CHECK(f->dead);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static void (*const kinds[])(struct fuzz *, struct fuzz_in *) = {
        frame_client, frame_client, frame_client, frame_record,
        frame_raw,    frame_talk,   frame_talk,   frame_end};
    static struct queue queues[2];
    struct fuzz_in in = {data, bytes};
    struct fuzz f = {.to_server = &queues[0], .to_client = &queues[1]};
    bool psk = fuzz_u8(&in) & 1;

    queues[0].head = queues[0].tail = queues[1].head = queues[1].tail = 0;
    f.in = malloc(TLS_IN_BYTES);
    f.out[0] = malloc(TLS_OUT_BYTES);
    f.out[1] = malloc(TLS_OUT_BYTES);
    FUZZ_CHECK(f.in != NULL && f.out[0] != NULL && f.out[1] != NULL);
    f.session = tls_session_new(creds[psk], f.in, f.out);
    FUZZ_CHECK(f.session != NULL);
    client_begin(&f, psk);
    for (int i = 0; i < FRAMES_MAX && in.bytes > 0 && !f.dead; i++) {
        kinds[fuzz_u8(&in) & 7](&f, &in);
    }
    if (f.up) {
        tls_session_bye(f.session);
        take_answers(&f);
    }
    tls_session_free(f.session);
    gnutls_deinit(f.client);
    if (f.anon != NULL) {
        gnutls_anon_free_client_credentials(f.anon);
    }
    if (f.psk != NULL) {
        gnutls_psk_free_client_credentials(f.psk);
    }
    free(f.in);
    free(f.out[0]);
    free(f.out[1]);
    return 0;
}
