/* SPDX-License-Identifier: MIT */
/*
 * libnbd, loaded when a process first needs it. Linked, it would bring nine further libraries (an
 * XML parser, Unicode tables, the C++ runtime) into every start of the program: 2 MiB and a third
 * of the time that a short command takes.
 */
#ifndef PLATTER_OS_NBD_LIBRARY_H
#define PLATTER_OS_NBD_LIBRARY_H

#include <libnbd.h>

/* The functions that are called, without "nbd_". */
#define LIBNBD_FUNCTIONS(X)                                                                        \
    X(add_meta_context)                                                                            \
    X(aio_block_status)                                                                            \
    X(aio_connect_tcp)                                                                             \
    X(aio_connect_unix)                                                                            \
    X(aio_disconnect)                                                                              \
    X(aio_flush)                                                                                   \
    X(aio_get_direction)                                                                           \
    X(aio_get_fd)                                                                                  \
    X(aio_is_closed)                                                                               \
    X(aio_is_connecting)                                                                           \
    X(aio_is_dead)                                                                                 \
    X(aio_is_negotiating)                                                                          \
    X(aio_is_ready)                                                                                \
    X(aio_notify_read)                                                                             \
    X(aio_notify_write)                                                                            \
    X(aio_opt_info)                                                                                \
    X(aio_pread_structured)                                                                        \
    X(aio_pwrite)                                                                                  \
    X(aio_trim)                                                                                    \
    X(aio_zero)                                                                                    \
    X(can_cache)                                                                                   \
    X(can_df)                                                                                      \
    X(can_fast_zero)                                                                               \
    X(can_flush)                                                                                   \
    X(can_fua)                                                                                     \
    X(can_meta_context)                                                                            \
    X(can_multi_conn)                                                                              \
    X(can_trim)                                                                                    \
    X(can_zero)                                                                                    \
    X(clear_debug_callback)                                                                        \
    X(close)                                                                                       \
    X(connect_tcp)                                                                                 \
    X(connect_unix)                                                                                \
    X(create)                                                                                      \
    X(get_block_size)                                                                              \
    X(get_debug)                                                                                   \
    X(get_errno)                                                                                   \
    X(get_error)                                                                                   \
    X(get_size)                                                                                    \
    X(is_read_only)                                                                                \
    X(is_rotational)                                                                               \
    X(opt_abort)                                                                                   \
    X(opt_list)                                                                                    \
    X(opt_list_meta_context)                                                                       \
    X(poll)                                                                                        \
    X(set_debug)                                                                                   \
    X(set_debug_callback)                                                                          \
    X(set_export_name)                                                                             \
    X(set_opt_mode)                                                                                \
    X(set_tls)                                                                                     \
    X(set_tls_certificates)                                                                        \
    X(set_tls_psk_file)                                                                            \
    X(set_tls_username)                                                                            \
    X(set_tls_verify_peer)

struct libnbd {
#define LIBNBD_MEMBER(name) __typeof__(nbd_##name) *name;
    LIBNBD_FUNCTIONS(LIBNBD_MEMBER)
#undef LIBNBD_MEMBER
    /* What older ones lack: NULL then. */
    int (*set_tls_hostname)(struct nbd_handle *h, const char *hostname);
};

/* NULL: the library is not there, or lacks a function. Who has a handle need not ask. [any]; the
 * first call of a process reads files. */
const struct libnbd *libnbd(void);

#endif
