/* SPDX-License-Identifier: MIT */
/* Rules, credentials, and sessions: a client of GnuTLS on the other side, all in memory. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"
#include "tls/tls.h"

static char folder[] = "/tmp/platter-tls-XXXXXX";

static void file_write(const char *name, const char *text, size_t times)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "w");
    assert_non_null(f);
    while (times-- > 0) {
        assert_true(fputs(text, f) >= 0);
    }
    assert_int_equal(fclose(f), 0);
}

static int folder_make(void **state)
{
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int file_remove(const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return unlink(path);
}

static int folder_remove(void **state)
{
    (void)file_remove("keys.psk");
    (void)file_remove("ca-cert.pem");
    (void)file_remove("dh-params.pem");
    return rmdir(folder);
}

/* ---- rules ---- */

static void the_first_rule_that_fits_decides(void **state)
{
    char match[16] = "C=GB,CN=bob";
    const struct tls_authz_rule rules[] = {
        {match, false, false},
        {"C=GB,*", true, true},
        {"*", true, false},
        {"C=FR,CN=eve", false, true},
    };
    TlsAuthz *a = tls_authz_make("a", rules, 4, true, NULL);

    assert_non_null(a);
    match[0] = 'X'; /* it is a copy */
    assert_false(tls_authz_allows(a, "C=GB,CN=bob"));
    assert_true(tls_authz_allows(a, "C=GB,CN=bobby"));
    assert_true(tls_authz_allows(a, "C=GB,"));
    assert_false(tls_authz_allows(a, "C=FR,CN=eve")); /* the third came first */
    tls_authz_free(a);
}

static void where_no_rule_fits_the_policy_decides(void **state)
{
    const struct tls_authz_rule rule = {"*", false, true}; /* not a pattern */
    Error *err = NULL;

    for (int allow = 0; allow < 2; allow++) {
        TlsAuthz *a = tls_authz_make("a", &rule, 1, allow, NULL);

        assert_int_equal(tls_authz_allows(a, "CN=x"), allow);
        assert_true(tls_authz_allows(a, "*"));
        tls_authz_free(a);
    }
    assert_null(tls_authz_make("many", &rule, TLS_AUTHZ_RULES_MAX + 1, true, &err));
    assert_int_equal(error_get_errno(err), E2BIG);
    error_free(err);
}

/* ---- credentials ---- */

static void load_fails(enum tls_creds_kind kind, enum tls_endpoint endpoint, const char *user,
                       const char *priority, const char *text)
{
    const struct tls_creds_options o = {
        .size = sizeof(o),
        .kind = kind,
        .endpoint = endpoint,
        .dir = folder,
        .username = user,
        .priority = priority,
    };
    Error *err = NULL;

    assert_null(tls_creds_load("creds0", &o, &err));
    if (strstr(error_get_pretty(err), text) == NULL) {
        fail_msg("'%s' is not in '%s'", text, error_get_pretty(err));
    }
    error_free(err);
}

static void keys_of_users_are_found_by_whole_names(void **state)
{
    static const char keys[] = "al:00\nalice:0a0B\nbad:xyz\nempty:\r\nlast:ff";
    gnutls_datum_t key = {0};

    assert_int_equal(tls_psk_find(keys, "alice", &key), 0);
    assert_int_equal(key.size, 2);
    assert_memory_equal(key.data, "\x0a\x0b", 2);
    gnutls_free(key.data);
    assert_int_equal(tls_psk_find(keys, "last", &key), 0);
    gnutls_free(key.data);
    assert_int_equal(tls_psk_find(keys, "lice", &key), -ENOENT);
    assert_int_equal(tls_psk_find(keys, "alic", &key), -ENOENT);
    assert_int_equal(tls_psk_find(keys, "", &key), -ENOENT);
    assert_int_equal(tls_psk_find(keys, "al:00\nalice", &key), -ENOENT);
    assert_int_equal(tls_psk_find(keys, "bad", &key), -EINVAL);
    assert_int_equal(tls_psk_find(keys, "empty", &key), -EINVAL);
}

static void faults_of_files_are_told_with_their_names(void **state)
{
    load_fails(TLS_CREDS_PSK, TLS_ENDPOINT_SERVER, NULL, NULL, "keys.psk: No such file");
    file_write("keys.psk", "alice:00112233445566778899aabbccddeeff\nbad:xx\n", 1);
    load_fails(TLS_CREDS_PSK, TLS_ENDPOINT_CLIENT, NULL, NULL, "Username qemu not found in PSK");
    load_fails(TLS_CREDS_PSK, TLS_ENDPOINT_CLIENT, "bob", NULL, "Username bob not found in PSK");
    load_fails(TLS_CREDS_PSK, TLS_ENDPOINT_CLIENT, "bad", NULL, "bad in PSK file");
    load_fails(TLS_CREDS_PSK, TLS_ENDPOINT_CLIENT, "a:b", NULL, "username 'a:b'");
    load_fails(TLS_CREDS_PSK, TLS_ENDPOINT_SERVER, "alice", NULL, "username should not be set");
    load_fails(TLS_CREDS_PSK, TLS_ENDPOINT_SERVER, NULL, "BOGUS", "'creds0': bad priority 'BOGUS");
    load_fails(TLS_CREDS_X509, TLS_ENDPOINT_SERVER, NULL, NULL, "ca-cert.pem: No such file");
    file_write("ca-cert.pem", "junk\n", 1);
    load_fails(TLS_CREDS_X509, TLS_ENDPOINT_SERVER, NULL, NULL, "server-cert.pem: No such file");
    load_fails(TLS_CREDS_X509, TLS_ENDPOINT_CLIENT, NULL, NULL, "CA certificate list /");
    file_write("ca-cert.pem", "0123456789abcdef", (TLS_FILE_BYTES_MAX >> 4) + 1);
    load_fails(TLS_CREDS_X509, TLS_ENDPOINT_CLIENT, NULL, NULL, "ca-cert.pem are longer than");
    file_write("dh-params.pem", "junk\n", 1);
    load_fails(TLS_CREDS_ANON, TLS_ENDPOINT_SERVER, NULL, NULL, "Unable to load DH parameters");
    file_write("dh-params.pem", "", 0);
    load_fails(TLS_CREDS_ANON, TLS_ENDPOINT_SERVER, NULL, NULL, "Unable to load DH parameters");
    assert_int_equal(file_remove("dh-params.pem"), 0);
}

/* ---- sessions ---- */

/* A server's session with keys.psk, and a client of GnuTLS. */
struct pair {
    TlsCreds *creds;
    struct tls_session *server;
    uint8_t in[TLS_IN_BYTES], out[2][TLS_OUT_BYTES];
    gnutls_session_t client;
    gnutls_psk_client_credentials_t psk;
    uint8_t to_client[4 * TLS_OUT_BYTES];
    size_t head, tail;
    bool deaf;      /* what the client says gets lost */
    size_t at_once; /* bytes that arrive together */
};

static ssize_t client_pull(gnutls_transport_ptr_t ptr, void *buf, size_t bytes)
{
    struct pair *p = ptr;
    size_t n = p->tail - p->head < bytes ? p->tail - p->head : bytes;

    if (n == 0) {
        gnutls_transport_set_errno(p->client, EAGAIN);
        return -1;
    }
    memcpy(buf, p->to_client + p->head, n);
    p->head += n;
    return (ssize_t)n;
}

static void server_out(struct pair *p)
{
    void *data;
    size_t n;

    if (p->head == p->tail) {
        p->head = p->tail = 0;
    }
    while ((n = tls_session_take_out(p->server, &data)) > 0) {
        assert_true(n <= sizeof(p->to_client) - p->tail);
        memcpy(p->to_client + p->tail, data, n);
        p->tail += n;
    }
}

static int handshake_ret; /* what the server's last step said */
static char received[4096];
static size_t received_bytes;
static bool up;

/* What arrives is worked on at once, as far as it goes. */
static void server_take(struct pair *p)
{
    if (!up) {
        handshake_ret = tls_session_handshake(p->server);
        up = handshake_ret == 0;
    }
    while (up) {
        int64_t n = tls_session_read(p->server, received + received_bytes,
                                     sizeof(received) - received_bytes);

        if (n <= 0) {
            handshake_ret = (int)n;
            return;
        }
        received_bytes += (size_t)n;
    }
}

static ssize_t client_push(gnutls_transport_ptr_t ptr, const void *buf, size_t bytes)
{
    struct pair *p = ptr;

    for (size_t done = 0; done < bytes && !p->deaf;) {
        size_t room;
        void *in = tls_session_in(p->server, &room);
        size_t n = bytes - done < p->at_once ? bytes - done : p->at_once;

        assert_true(room >= n);
        memcpy(in, (const uint8_t *)buf + done, n);
        tls_session_arrived(p->server, n);
        done += n;
        server_take(p);
    }
    return (ssize_t)bytes;
}

static int client_ready(gnutls_transport_ptr_t ptr, unsigned ms)
{
    const struct pair *p = ptr;

    return p->tail > p->head;
}

static struct pair *pair_new(const char *user, const char *key, size_t at_once)
{
    const struct tls_creds_options o = {
        .size = sizeof(o), .kind = TLS_CREDS_PSK, .endpoint = TLS_ENDPOINT_SERVER, .dir = folder};
    gnutls_datum_t hex = {(unsigned char *)key, (unsigned)strlen(key)};
    struct pair *p = calloc(1, sizeof(*p));
    void *out[2];

    assert_non_null(p);
    file_write("keys.psk", "alice:00112233445566778899aabbccddeeff\n", 1);
    p->at_once = at_once;
    p->creds = tls_creds_load("t", &o, NULL);
    assert_non_null(p->creds);
    out[0] = p->out[0];
    out[1] = p->out[1];
    p->server = tls_session_new(p->creds, p->in, out);
    assert_non_null(p->server);
    handshake_ret = -EAGAIN;
    received_bytes = 0;
    up = false;
    assert_int_equal(gnutls_psk_allocate_client_credentials(&p->psk), 0);
    assert_int_equal(gnutls_psk_set_client_credentials(p->psk, user, &hex, GNUTLS_PSK_KEY_HEX), 0);
    assert_int_equal(gnutls_init(&p->client, GNUTLS_CLIENT | GNUTLS_NONBLOCK), 0);
    assert_int_equal(gnutls_priority_set_direct(p->client, "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK", NULL),
                     0);
    assert_int_equal(gnutls_credentials_set(p->client, GNUTLS_CRD_PSK, p->psk), 0);
    gnutls_transport_set_ptr(p->client, p);
    gnutls_transport_set_pull_function(p->client, client_pull);
    gnutls_transport_set_pull_timeout_function(p->client, client_ready);
    gnutls_transport_set_push_function(p->client, client_push);
    return p;
}

static void pair_free(struct pair *p)
{
    gnutls_deinit(p->client);
    gnutls_psk_free_client_credentials(p->psk);
    tls_session_free(p->server);
    tls_creds_free(p->creds);
    free(p);
}

/* The client's result, once neither side goes on. */
static int shake(struct pair *p)
{
    int rc;

    do {
        rc = gnutls_handshake(p->client);
        server_out(p);
    } while (rc == GNUTLS_E_AGAIN && p->tail > p->head);
    return rc;
}

static void echo(size_t at_once)
{
    struct pair *p = pair_new("alice", "00112233445566778899aabbccddeeff", at_once);
    const struct tls_authz_rule rule = {"alice", false, true};
    TlsAuthz *yes = tls_authz_make("yes", &rule, 1, false, NULL);
    TlsAuthz *no = tls_authz_make("no", &rule, 0, false, NULL);
    static char big[16384], back[16384];
    Error *err = NULL;
    size_t got = 0;

    assert_int_equal(shake(p), 0);
    assert_true(up);
    assert_int_equal(tls_session_check_peer(p->server, yes, NULL), 0);
    assert_int_equal(gnutls_record_send(p->client, "hello", 5), 5);
    assert_int_equal(received_bytes, 5);
    assert_memory_equal(received, "hello", 5);
    assert_int_equal(handshake_ret, -EAGAIN);

    /* As much as there is room for, and no more is ever needed. */
    memset(big, 'b', sizeof(big));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tls_session_room(p->server), sizeof(big));
        assert_int_equal(tls_session_write(p->server, big, sizeof(big)), 0);
    }
    assert_int_equal(tls_session_room(p->server), 0);
    server_out(p);
    assert_int_equal(tls_session_room(p->server), sizeof(big));
    while (got < 3 * sizeof(big)) {
        ssize_t n = gnutls_record_recv(p->client, back, sizeof(back));

        assert_true(n > 0 && back[0] == 'b' && back[n - 1] == 'b');
        got += (size_t)n;
    }

    /* A key update is answered, and the orderly end is an end. */
    assert_int_equal(gnutls_session_key_update(p->client, GNUTLS_KU_PEER), 0);
    assert_int_equal(gnutls_bye(p->client, GNUTLS_SHUT_WR), 0);
    assert_int_equal(handshake_ret, 0);

    assert_int_equal(tls_session_check_peer(p->server, no, &err), -EACCES);
    assert_string_equal(error_get_pretty(err), "'no' does not allow the client 'alice'");
    error_free(err);
    tls_authz_free(yes);
    tls_authz_free(no);
    pair_free(p);
}

static void bytes_go_both_ways(void **state)
{
    echo(TLS_IN_BYTES);
}

static void bytes_may_come_one_by_one(void **state)
{
    echo(1);
}

static void a_wrong_key_and_an_unknown_user_are_told_alike(void **state)
{
    int told[2];

    for (int i = 0; i < 2; i++) {
        struct pair *p =
            pair_new(i == 0 ? "alice" : "nobody", "ff112233445566778899aabbccddeeff", TLS_IN_BYTES);

        assert_true(shake(p) < 0);
        assert_false(up);
        assert_int_equal(handshake_ret, -EPROTO);
        told[i] = gnutls_alert_get(p->client);
        pair_free(p);
    }
    assert_int_equal(told[0], told[1]);
}

static void nonsense_ends_a_session(void **state)
{
    static const char *const texts[] = {"GET / HTTP/1.0\r\n\r\n", "\x16\x03\x01\xff\xff",
                                        "\x80\x80\x01\x03\x01", "\x16\x03\x01\x00\x05"};

    for (size_t i = 0; i < 4; i++) {
        struct pair *p = pair_new("alice", "00112233", TLS_IN_BYTES);
        size_t room;

        for (int times = 0; times < 8 && handshake_ret == -EAGAIN; times++) {
            memcpy(tls_session_in(p->server, &room), texts[i], 5 + (i == 0) * 13);
            tls_session_arrived(p->server, 5 + (i == 0) * 13);
            handshake_ret = tls_session_handshake(p->server);
        }
        if (handshake_ret == -EAGAIN) { /* still waiting for the rest of a record: it has a bound */
            tls_session_arrived(p->server, 0);
            handshake_ret = tls_session_handshake(p->server);
        }
        assert_true(handshake_ret < 0 && handshake_ret != -EAGAIN);
        pair_free(p);
    }
}

static void an_end_without_farewell_is_an_error(void **state)
{
    struct pair *p = pair_new("alice", "00112233445566778899aabbccddeeff", TLS_IN_BYTES);
    char buf[8];

    assert_int_equal(shake(p), 0);
    tls_session_arrived(p->server, 0);
    assert_int_equal(tls_session_read(p->server, buf, sizeof(buf)), -ECONNRESET);
    pair_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_rule_that_fits_decides),
        cmocka_unit_test(where_no_rule_fits_the_policy_decides),
        cmocka_unit_test(keys_of_users_are_found_by_whole_names),
        cmocka_unit_test(faults_of_files_are_told_with_their_names),
        cmocka_unit_test(bytes_go_both_ways),
        cmocka_unit_test(bytes_may_come_one_by_one),
        cmocka_unit_test(a_wrong_key_and_an_unknown_user_are_told_alike),
        cmocka_unit_test(nonsense_ends_a_session),
        cmocka_unit_test(an_end_without_farewell_is_an_error),
    };

    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
