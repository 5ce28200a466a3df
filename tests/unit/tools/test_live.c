/* SPDX-License-Identifier: MIT */
/* tools/serve/live.h: the text of the live line. */
#include "../cmocka_all.h"

#include "tools/serve/live.h"

static void text_of_a_second(void **state)
{
    struct nbd_server_stats from = {
        .read_requests = 5, .read_bytes = 100, .latency_total_ns = 7000};
    struct nbd_server_stats to = from;
    char text[160];

    serve_live_text(&from, &to, 1000000000, text, sizeof(text));
    assert_string_equal(text, "0 clients  read 0 B/s  write 0 B/s  0 requests/s  0.0 us each");
    to.connections = 1;
    to.read_requests += 150;
    to.write_requests += 50;
    to.read_bytes += 3 << 20;
    to.write_bytes += 1 << 20;
    to.latency_total_ns += 200 * 12500;
    serve_live_text(&from, &to, 2000000000, text, sizeof(text));
    assert_string_equal(text,
                        "1 client  read 1.5 MiB/s  write 512 KiB/s  100 requests/s  12.5 us each");
    serve_live_text(&from, &to, 0, text, sizeof(text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_of_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
