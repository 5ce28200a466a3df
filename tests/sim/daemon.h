/* SPDX-License-Identifier: MIT */
/*
 * Gate G7: a whole daemon with its disks, sockets and clock in one thread, from one seed. Clients
 * are actors of the simulated machine: they step at moments of its agenda, as peers, and judge what
 * they hear. The daemon runs in the thread of the test until it is asked to quit, or its power is
 * cut.
 */
#ifndef TESTS_SIM_DAEMON_H
#define TESTS_SIM_DAEMON_H

#include <jansson.h>

#include "control/service.h"
#include "daemon_model.h"
#include "os/sim/sim_machine.h"

#define US INT64_C(1000)
#define MS (1000 * US)
#define SEC (1000 * MS)

#define DISKS 2 /* raw and qcow2, that clients write */
#define MEDIA 2 /* that are changed in the third backend */
#define NBD_CLIENTS_MAX 4
#define QMP_CLIENTS_MAX 3
#define OVERLAYS_MAX 6
#define DISK_FILES (DISKS + MEDIA + OVERLAYS_MAX)
#define RAW_PATH "/sim/raw"
#define QCOW2_PATH "/sim/q"
#define NBD_PATH "/sim/nbd.sock"

/* What a self-test of the gate does wrong on purpose. */
enum daemon_fault {
    FAULT_NONE,
    FAULT_DROP_ANSWER,   /* an NBD answer is lost on its way */
    FAULT_DOUBLE_ANSWER, /* one comes twice */
    FAULT_FLIP_BYTE,     /* in what was read */
    FAULT_LOSE_REPLY,    /* of QMP */
    FAULT_LOSE_OOB,      /* of a command out of band */
    FAULT_LOSE_FLUSHED,  /* a sector after the cut */
    FAULT_LOSE_LATER,    /* one after another cut */
    FAULT_EMPTY_FLUSH,   /* the disk says that it flushed */
    FAULT_CORRUPT_IMAGE, /* a reference count after the cut */
    FAULT_LEAK_FD,       /* a descriptor stays open */
};

struct daemon_run;

/* ---- NBD client: daemon_nbd.c ---- */

struct nbd_ask {
    bool used;
    bool wrong; /* must be refused */
    uint16_t type;
    bool fua;
    uint64_t cookie;
    unsigned first, count; /* sectors */
    struct model_op *op;   /* NULL: of a medium, or nothing to follow */
    uint8_t *data;         /* owned: what was read */
    unsigned bytes_left;   /* that no chunk has told yet */
    uint32_t error;        /* of a chunk */
    bool status;           /* was told */
};

#define NBD_ASKS_MAX 10

enum nbd_client_state { NBD_AWAY, NBD_GREETING, NBD_OPTIONS, NBD_TRANSMITS };

struct nbd_client {
    struct daemon_run *run;
    unsigned id;
    int fd;
    enum nbd_client_state state;
    unsigned disk; /* DISKS: the backend of media */
    bool structured;
    bool context;
    bool ended; /* has said good-bye for ever */
    uint8_t *in, *out;
    size_t in_bytes, out_bytes, in_room, out_room;
    struct nbd_ask asks[NBD_ASKS_MAX];
    uint64_t next_cookie;
    uint64_t answered;
};

void nbd_client_begin(struct nbd_client *c, struct daemon_run *run, unsigned id);
/* Close the connection, if there is one; what nobody answered is abandoned. */
void nbd_client_drop(struct nbd_client *c);
void nbd_client_end(struct nbd_client *c);
unsigned nbd_client_asking(const struct nbd_client *c);
/* daemon_nbd_ask.c: make a request and put it into the client's output. */
void nbd_client_ask(struct nbd_client *c);
uint8_t *nbd_client_out(struct nbd_client *c, size_t bytes);
/* daemon_nbd_reply.c: take one message out of the input; false: it is not whole yet. */
bool nbd_client_take(struct nbd_client *c);
bool nbd_client_take_option(struct nbd_client *c);

/* ---- QMP client: daemon_qmp.c ---- */

#define QMP_ASKS_MAX 4
#define QMP_JOBS_MAX 8

struct qmp_ask {
    uint64_t id;
    bool has_id;      /* its reply carries it */
    bool refused;     /* it must be an error */
    bool oob;         /* its reply need not wait for those of others */
    unsigned overlay; /* that it makes; 0: none */
};

struct qmp_job {
    char id[16];
    char status[16];
};

struct qmp_client {
    struct daemon_run *run;
    unsigned id;
    int fd;
    bool greeted, negotiated;
    bool oob;     /* asked for commands out of band */
    bool garbled; /* said nonsense: what comes back has no number */
    char *in, *out;
    size_t in_bytes, out_bytes, in_room, out_room;
    struct qmp_ask asks[QMP_ASKS_MAX];
    unsigned asking;
    uint64_t next_id;
    uint64_t replies;
    struct qmp_job jobs[QMP_JOBS_MAX];
    unsigned wind_up; /* of the operator: how far it is */
};

void qmp_client_begin(struct qmp_client *c, struct daemon_run *run, unsigned id);
void qmp_client_drop(struct qmp_client *c);
void qmp_client_end(struct qmp_client *c);
/* daemon_qmp_judge.c: a line from the daemon. */
void qmp_client_hear(struct qmp_client *c, const char *line);
/* daemon_qmp_commands.c: a command as text (malloc'd), and what to expect of it. */
char *qmp_command_make(struct daemon_run *run, uint64_t id, struct qmp_ask *ret_ask);
/* The commands that let everything end, one after the other; NULL: that was all. */
char *qmp_command_wind_up(struct daemon_run *run, unsigned step, uint64_t id);

/* ---- one seed ---- */

struct daemon_run {
    uint64_t seed;
    enum daemon_fault fault;
    bool fault_done;
    struct sim_rng rng;
    struct sim_world *world;
    struct sim_machine *machine;
    struct service service;
    bool strict;   /* nothing is made to fail, and nobody touches the trays */
    bool over;     /* no new requests: everything is to be answered */
    bool dead;     /* the power is cut: nobody hears or judges any more */
    bool cut;      /* this life ends by a cut */
    bool errors;   /* the injector is about */
    unsigned life; /* 0: the first */
    int64_t born_ns;
    int64_t over_ns;
    struct model disks[DISKS];
    struct model media[MEDIA]; /* never written */
    unsigned template;         /* of the qcow2 image */
    unsigned overlays;         /* the next one's number, from 1 */
    unsigned overlays_known;   /* the last one that was told to be there */
    unsigned top;              /* that the daemon was begun with; 0: the image itself */
    bool flush_failed;         /* at the end of this life */
    struct nbd_client nbd[NBD_CLIENTS_MAX];
    struct qmp_client qmp[QMP_CLIENTS_MAX];
    unsigned nbd_clients, qmp_clients;
    struct sim_disk *kept[DISK_FILES]; /* what the life left */
    uint64_t hash;
    char wrong[400]; /* empty: nothing */
};

/* The first thing that is not as it must be. */
void daemon_wrong(struct daemon_run *run, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* It becomes part of the trace. */
void daemon_trace(struct daemon_run *run, const char *what, unsigned who, const void *data,
                  size_t bytes);
bool daemon_verbose(void);
uint64_t daemon_below(struct daemon_run *run, uint64_t below);
bool daemon_chance(struct daemon_run *run, unsigned percent);
/* Whether the self-test strikes here: once. */
bool daemon_strikes(struct daemon_run *run, enum daemon_fault fault);

/* daemon_disks.c */
/* Files into the world: those that the last life left, or new ones. */
void daemon_disks_make(struct daemon_run *run);
/* Copies of all files as they are, or after a power cut. */
void daemon_disks_keep(struct daemon_run *run, bool cut);
/* Whether the copies hold what they must: all that was answered, or after a cut what is durable. It
 * is known then what the disks hold, and which overlay is on top. */
void daemon_disks_judge(struct daemon_run *run, bool cut);
/* Into the folder PLATTER_KEEP, for whoever looks into a failure. */
void daemon_disks_save(const struct daemon_run *run);
void daemon_disks_drop(struct daemon_run *run);
const char *daemon_disk_path(unsigned file, char buf[32]);
/* The images that runs begin with; before the first and after the last. */
void daemon_templates_make(void);
void daemon_templates_free(void);

/* daemon_run.c: a whole run; run is filled with what came out. */
void daemon_run(struct daemon_run *run, uint64_t seed, enum daemon_fault fault);

#endif
