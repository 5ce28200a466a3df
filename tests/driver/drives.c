/* SPDX-License-Identifier: MIT */
/* The table of the property suite: a line for each driver and setting. */
#include "suite.h"

#include <stddef.h>

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)

#define ODD (3 * MIB + 1000)
#define QCOW2 (3 * MIB + 1536)
#define Q_USUAL (D_PERSISTS | D_TWO | D_SECTORS)
#define Q_SIM (D_PERSISTS | D_SIM | D_SECTORS)

/* clang-format off */
const struct drive drives[] = {
    /* name              options (@: file, #: size)                          dir         facts                                                    size, file size */
    {"null-co",          "driver=null-co,size=#",                            NULL,       D_UNTOUCHED | D_TWO,                                      MIB, 0},
    {"null-aio-zeroes",  "driver=null-aio,size=#,read-zeroes=on",            NULL,       D_ZEROES | D_TWO,                                         MIB, 0},
    {"mem",              "driver=mem,size=#",                                NULL,       D_RESIZE | D_TWO,                                         ODD, 0},
    {"raw-mem",          "driver=raw,file.driver=mem,file.size=#",           NULL,       D_RESIZE | D_TWO,                                         ODD, 0},
    {"raw-window-mem",   "driver=raw,offset=777,size=1048576,file.driver=mem,file.size=#", NULL, D_TWO,                                            MIB, ODD},
    {"file-ring",        "driver=file,filename=@",                           "/tmp",     D_RESIZE | D_PERSISTS | D_TWO,                            ODD, 0},
    {"file-threads",     "driver=file,filename=@,aio=threads",               "/tmp",     D_RESIZE | D_PERSISTS | D_TWO | D_THREADS,                ODD, 0},
    {"file-in-memory",   "driver=file,filename=@",                           "/dev/shm", D_RESIZE | D_PERSISTS | D_TWO,                            ODD, 0},
    {"file-direct",      "driver=file,filename=@,cache.direct=on",           "/var/tmp", D_RESIZE | D_PERSISTS | D_TWO | D_DIRECT,                 ODD, 0},
    {"file-native",      "driver=file,filename=@,cache.direct=on,aio=native", "/var/tmp", D_RESIZE | D_PERSISTS | D_TWO | D_DIRECT,                3 * MIB, 0},
    {"file-detect-zeroes", "driver=file,filename=@,detect-zeroes=unmap",     "/tmp",     D_RESIZE | D_PERSISTS | D_TWO,                            ODD, 0},
    {"raw-file",         "driver=raw,file.driver=file,file.filename=@",      "/tmp",     D_RESIZE | D_PERSISTS | D_TWO,                            ODD, 0},
    {"raw-offset-file",  "driver=raw,offset=1048576,file.driver=file,file.filename=@", "/tmp", D_RESIZE | D_PERSISTS | D_TWO,                      2 * MIB, 3 * MIB},
    {"raw-odd-direct",   "driver=raw,offset=1500,size=1048576,file.driver=file,file.filename=@,cache.direct=on", "/var/tmp", D_PERSISTS | D_TWO | D_DIRECT, MIB, ODD},
    {"loop-4k",          "driver=host_device,filename=@",                    "/var/tmp", D_PERSISTS | D_TWO | D_LOOP,                              3 * MIB, 3 * MIB + 1536},
    {"loop-4k-direct",   "driver=host_device,filename=@,cache.direct=on",    "/var/tmp", D_PERSISTS | D_TWO | D_LOOP | D_DIRECT,                   3 * MIB, 3 * MIB + 1536},
    {"qcow2",            "driver=qcow2,file.driver=file,file.filename=@",    "/tmp",     Q_USUAL | D_RESIZE | D_COMPRESSED,                        QCOW2, 0, "driver=qcow2,size=#", 65536, NULL},
    {"qcow2-threads",    "driver=qcow2,file.driver=file,file.filename=@,file.aio=threads", "/tmp", Q_USUAL | D_RESIZE | D_THREADS,                    QCOW2, 0, "driver=qcow2,size=#,cluster_size=16384", 16384, NULL},
    {"qcow2-tiny",       "driver=qcow2,l2-cache-size=1024,refcount-cache-size=2048,file.driver=file,file.filename=@", "/tmp", Q_USUAL | D_RESIZE | D_COMPRESSED | D_SNAPSHOTS, QCOW2, 0, "driver=qcow2,size=#,cluster_size=512,refcount_bits=64", 512, NULL},
    {"qcow2-v2",         "driver=qcow2,file.driver=file,file.filename=@",    "/tmp",     Q_USUAL | D_COMPRESSED | D_SNAPSHOTS,                     QCOW2, 0, "driver=qcow2,size=#,compat=0.10,cluster_size=4096", 4096, NULL},
    {"qcow2-lazy",       "driver=qcow2,file.driver=file,file.filename=@",    "/dev/shm", Q_USUAL | D_RESIZE,                                       QCOW2, 0, "driver=qcow2,size=#,lazy_refcounts=on,cluster_size=4096,refcount_bits=1", 4096, NULL},
    {"qcow2-lazy-snapshots", "driver=qcow2,file.driver=file,file.filename=@", "/dev/shm", Q_USUAL | D_COMPRESSED | D_SNAPSHOTS,                    QCOW2, 0, "driver=qcow2,size=#,lazy_refcounts=on,cluster_size=4096", 4096, NULL},
    {"qcow2-zstd",       "driver=qcow2,file.driver=file,file.filename=@",    "/dev/shm", Q_USUAL | D_RESIZE | D_COMPRESSED,                        QCOW2, 0, "driver=qcow2,size=#,compression_type=zstd,cluster_size=8192", 8192, NULL},
    {"qcow2-subclusters", "driver=qcow2,file.driver=file,file.filename=@",   "/dev/shm", Q_USUAL | D_RESIZE | D_COMPRESSED | D_SNAPSHOTS,          QCOW2, 0, "driver=qcow2,size=#,extended_l2=on,cluster_size=16384", 16384, NULL},
    {"qcow2-subclusters-large", "driver=qcow2,file.driver=file,file.filename=@", "/dev/shm", Q_USUAL | D_RESIZE | D_COMPRESSED,                   QCOW2, 0, "driver=qcow2,size=#,extended_l2=on,cluster_size=131072", 131072, NULL},
    {"qcow2-keep",       "driver=qcow2,discard-no-unref=on,file.driver=file,file.filename=@", "/dev/shm", Q_USUAL | D_RESIZE | D_COMPRESSED | D_SNAPSHOTS, QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"qcow2-direct",     "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/var/tmp", Q_USUAL | D_RESIZE | D_DIRECT,                QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"qcow2-backing",    "driver=qcow2,file.driver=file,file.filename=@",    "/tmp",     Q_USUAL | D_RESIZE | D_COMPRESSED | D_SNAPSHOTS,          QCOW2, 0, "driver=qcow2,size=#,cluster_size=16384,backing_file=@.base,backing_fmt=qcow2", 16384, "driver=qcow2,cluster_size=4096"},
    {"qcow2-backing-raw", "driver=qcow2,file.driver=file,file.filename=@",   "/dev/shm", Q_USUAL | D_RESIZE,                                       QCOW2, 0, "driver=qcow2,size=#,backing_file=@.base,backing_fmt=raw", 65536, "driver=raw"},
    {"qcow2-backing-subclusters", "driver=qcow2,file.driver=file,file.filename=@", "/dev/shm", Q_USUAL | D_RESIZE | D_COMPRESSED | D_SNAPSHOTS,   QCOW2, 0, "driver=qcow2,size=#,extended_l2=on,cluster_size=65536,backing_file=@.base,backing_fmt=qcow2", 65536, "driver=qcow2"},
    {"qcow2-data-file",  "driver=qcow2,file.driver=file,file.filename=@",    "/dev/shm", Q_USUAL | D_RESIZE,                                       QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096,data_file=@.data", 4096, NULL},
    {"qcow2-data-raw",   "driver=qcow2,file.driver=file,file.filename=@",    "/dev/shm", Q_USUAL | D_RESIZE,                                       QCOW2, 0, "driver=qcow2,size=#,data_file=@.data,data_file_raw=on", 65536, NULL},
#ifdef PLATTER_HAVE_LIBNBD
    {"nbd",              "driver=nbd,server.type=unix,server.path=@.nbd",    "/tmp",     D_PERSISTS | D_TWO | D_EXPORT,                            3 * MIB, 0},
    {"nbd-connections",  "driver=nbd,server.type=unix,server.path=@.nbd,connections=4", "/dev/shm", D_PERSISTS | D_TWO | D_EXPORT,                 ODD, 0},
    {"nbd-threads",      "driver=nbd,server.type=unix,server.path=@.nbd,connections=2", "/tmp", D_PERSISTS | D_TWO | D_EXPORT | D_THREADS,         ODD, 0},
#endif
    {"throttle",         "driver=throttle,throttle-group=limits,file.driver=mem,file.size=#", NULL, D_RESIZE | D_TWO,                              ODD, 0},
    {"copy-on-read",     "driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename=@", "/dev/shm", Q_USUAL | D_RESIZE,      QCOW2, 0, "driver=qcow2,size=#,cluster_size=16384,backing_file=@.base,backing_fmt=qcow2", 16384, "driver=qcow2,cluster_size=4096"},
    {"copy-on-read-raw", "driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename=@", "/tmp", Q_USUAL,                     QCOW2, 0, "driver=qcow2,size=#,extended_l2=on,backing_file=@.base,backing_fmt=raw", 65536, "driver=raw"},
    {"blkdebug",         "driver=blkdebug,image.driver=mem,image.size=#",    NULL,       D_RESIZE | D_TWO,                                         ODD, 0},
    {"blkdebug-limits",  "driver=blkdebug,align=4096,max-transfer=12288,opt-write-zero=8192,max-write-zero=16384,opt-discard=8192,max-discard=24576,image.driver=file,image.filename=@", "/dev/shm", D_PERSISTS | D_TWO, 3 * MIB, 0},
    {"blkdebug-delays",  "driver=blkdebug,inject-delay.0.event=none,inject-delay.0.latency-ns=1,image.driver=file,image.filename=@", "/dev/shm", D_RESIZE | D_PERSISTS | D_TWO, ODD, 0},
    {"qcow2-on-blkdebug", "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=@", "/dev/shm", Q_USUAL | D_RESIZE | D_COMPRESSED, QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"blklogwrites",     "driver=blklogwrites,log.driver=mem,log.size=1073741824,file.driver=file,file.filename=@", "/dev/shm", D_PERSISTS | D_TWO, 3 * MIB, 0},
    {"blkverify",        "driver=blkverify,raw.driver=mem,raw.size=#,test.driver=file,test.filename=@", "/dev/shm", D_RESIZE | D_TWO,              ODD, 0},
    {"blkverify-qcow2",  "driver=blkverify,raw.driver=qcow2,raw.file.driver=file,raw.file.filename=@,test.driver=mem,test.size=#", "/dev/shm", D_RESIZE | D_TWO | D_SECTORS, QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"sim",              "driver=file,filename=@",                           "/sim",     D_RESIZE | D_PERSISTS | D_SIM,                            ODD, 0},
    {"sim-direct",       "driver=file,filename=@,cache.direct=on",           "/sim",     D_RESIZE | D_PERSISTS | D_SIM,                            ODD, 0},
    {"sim-errors",       "driver=file,filename=@",                           "/sim",     D_PERSISTS | D_SIM | D_ERRORS | D_PAGE_CACHE,             ODD, 0},
    {"sim-direct-errors", "driver=file,filename=@,cache.direct=on",          "/sim",     D_PERSISTS | D_SIM | D_ERRORS,                            ODD, 0},
    {"sim-qcow2",        "driver=qcow2,file.driver=file,file.filename=@",    "/sim",     Q_SIM | D_RESIZE | D_COMPRESSED,                          QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"sim-qcow2-errors", "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/sim", Q_SIM | D_ERRORS,                            QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"sim-qcow2-backing-errors", "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/sim", Q_SIM | D_ERRORS | D_COMPRESSED,     QCOW2, 0, "driver=qcow2,size=#,cluster_size=16384,extended_l2=on,backing_file=@.base,backing_fmt=qcow2", 16384, "driver=qcow2"},
    {"sim-qcow2-data-errors", "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/sim", Q_SIM | D_ERRORS,                       QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096,data_file=@.data", 4096, NULL},
    {"sim-qcow2-lazy-errors", "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/sim", Q_SIM | D_ERRORS,                       QCOW2, 0, "driver=qcow2,size=#,cluster_size=512,lazy_refcounts=on", 512, NULL},
    {"sim-qcow2-cut",    "driver=qcow2,file.driver=file,file.filename=@",    "/sim",     Q_SIM | D_CUT | D_COMPRESSED,                             MIB, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"sim-qcow2-lazy-cut", "driver=qcow2,file.driver=file,file.filename=@",  "/sim",     Q_SIM | D_CUT,                                            MIB, 0, "driver=qcow2,size=#,cluster_size=512,lazy_refcounts=on", 512, NULL},
    {"sim-qcow2-backing-cut", "driver=qcow2,file.driver=file,file.filename=@", "/sim",   Q_SIM | D_CUT | D_COMPRESSED,                             MIB, 0, "driver=qcow2,size=#,cluster_size=65536,extended_l2=on,backing_file=@.base,backing_fmt=qcow2", 65536, "driver=qcow2"},
    {"sim-qcow2-data-cut", "driver=qcow2,file.driver=file,file.filename=@",  "/sim",     Q_SIM | D_CUT,                                            MIB, 0, "driver=qcow2,size=#,cluster_size=4096,data_file=@.data", 4096, NULL},
    {"sim-qcow2-cut-errors", "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/sim", Q_SIM | D_CUT | D_ERRORS,                MIB, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"sim-cut",          "driver=raw,file.driver=file,file.filename=@",      "/sim",     D_PERSISTS | D_SIM | D_CUT,                               MIB, 0},
    {"sim-direct-cut",   "driver=file,filename=@,cache.direct=on",           "/sim",     D_PERSISTS | D_SIM | D_CUT,                               MIB, 0},
    {"sim-cut-errors",   "driver=file,filename=@",                           "/sim",     D_PERSISTS | D_SIM | D_CUT | D_ERRORS | D_PAGE_CACHE,     MIB, 0},
    {0},
};
/* clang-format on */
