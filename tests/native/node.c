/* Engines over temporary directories, ops by ticket, and pairs of engines over a loopback connection. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "native.h"

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *where) {
    (void)stat;
    (void)type;
    (void)where;
    return remove(path);
}

static void remove_tree(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT); }

bool nodes_are_possible(void) {
    char path[] = "/tmp/lockstep-native-XXXXXX", reason[RFS_REASON_BYTES];
    if (!mkdtemp(path)) return false;
    int tree = rfs_tree_open(path);
    bool possible = tree >= 0 && rfs_tree_probe(tree, reason) == 0;
    if (tree >= 0) close(tree);
    rmdir(path);
    return possible;
}

/* ---- events ---------------------------------------------------------------------------------------------------------------- */

static void take_event(struct node *node, const rfs_event *event) {
    CHECK(event->kind > 0 && event->kind < EVENT_KINDS);
    rfs_attributes entry = {0};
    if (event->kind == RFS_EVENT_TICKET && event->result == 0) rfs_take_entry(node->engine, event->ticket, &entry);
    pthread_mutex_lock(&node->lock);
    if (event->kind == RFS_EVENT_TICKET) {
        CHECK(event->ticket && event->ticket < TICKETS);
        CHECK_EQUAL(node->answers[event->ticket], 0); /* exactly once */
        node->answers[event->ticket] = 1;
        node->results[event->ticket] = event->result;
        node->fids[event->ticket] = entry.ino;
    }
    node->events[event->kind]++;
    memcpy(node->text[event->kind], event->text, RFS_REASON_BYTES);
    pthread_cond_broadcast(&node->changed);
    pthread_mutex_unlock(&node->lock);
}

static void *pump(void *argument) {
    struct node *node = argument;
    rfs_event event;
    struct pollfd readable = {.fd = rfs_event_fd(node->engine), .events = POLLIN};
    while (!atomic_load(&node->stopping)) {
        while (rfs_next_event(node->engine, &event)) take_event(node, &event);
        poll(&readable, 1, 20);
    }
    while (rfs_next_event(node->engine, &event)) take_event(node, &event);
    return NULL;
}

static struct node *opened[2]; /* told about when something hangs */

static void tell(struct node *node) {
    rfs_statistics now = node_statistics(node);
    pthread_mutex_lock(&node->lock);
    for (int i = 1; i < EVENT_KINDS; i++)
        if (node->events[i]) fprintf(stderr, "%s: event %d x%u: %s\n", node->path, i, node->events[i], node->text[i]);
    pthread_mutex_unlock(&node->lock);
    fprintf(stderr, "%s: mode %d link %d seq %llu acked %llu waiting %llu\n", node->path, now.mode, now.link_up, (unsigned long long)now.seq,
            (unsigned long long)now.acked_seq, (unsigned long long)now.waiting_ops);
}

/* One round of waiting for node->changed (held: node->lock); fails when the whole takes too long. */
static void wait_changed(struct node *node, uint64_t began, const char *what) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until = to_timespec(until.tv_sec * NS_PER_S + until.tv_nsec + NS_PER_S / 10);
    pthread_cond_timedwait(&node->changed, &node->lock, &until);
    if (now_ns() - began < PATIENCE_S * (uint64_t)NS_PER_S) return;
    pthread_mutex_unlock(&node->lock);
    for (int i = 0; i < 2; i++)
        if (opened[i]) tell(opened[i]);
    fail_at(what, 0, "it took too long");
}

void wait_event(struct node *node, int kind, uint32_t count) {
    uint64_t began = now_ns();
    pthread_mutex_lock(&node->lock);
    while (node->events[kind] < count) wait_changed(node, began, "wait_event");
    pthread_mutex_unlock(&node->lock);
}

uint32_t events_seen(struct node *node, int kind) {
    pthread_mutex_lock(&node->lock);
    uint32_t count = node->events[kind];
    pthread_mutex_unlock(&node->lock);
    return count;
}

void wait_mode(struct node *node, enum rfs_mode mode) {
    uint64_t began = now_ns();
    while (node_statistics(node).mode != (int)mode) {
        pthread_mutex_lock(&node->lock);
        wait_changed(node, began, "wait_mode");
        pthread_mutex_unlock(&node->lock);
    }
}

/* ---- a node ---------------------------------------------------------------------------------------------------------------- */

static int start_engine(struct node *node) {
    int error, tree = rfs_tree_open(node->path);
    CHECK(tree >= 0);
    node->engine = rfs_engine_new(&tree, 1, &error);
    CHECK(node->engine);
    close(tree);
    int marks = nodes_have_marks ? rfs_open_marks(node->engine, node->state) : 0;
    CHECK(marks >= 0);
    atomic_store(&node->stopping, false);
    CHECK_EQUAL(pthread_create(&node->pump, NULL, pump, node), 0);
    return marks;
}

static void stop_engine(struct node *node) {
    CHECK_EQUAL(rfs_session_close(node->engine), 0);
    atomic_store(&node->stopping, true);
    pthread_join(node->pump, NULL);
    rfs_engine_free(node->engine);
}

const char *nodes_at = "/tmp";

void node_open(struct node *node, const char *name) {
    memset(node, 0, sizeof *node);
    snprintf(node->path, sizeof node->path, "%s/lockstep-native-%d-%s", nodes_at, (int)getpid(), name);
    remove_tree(node->path);
    CHECK_EQUAL(mkdir(node->path, 0755), 0);
    snprintf(node->state, sizeof node->state, "%s-state", node->path);
    remove_tree(node->state);
    CHECK_EQUAL(mkdir(node->state, 0700), 0);
    node->cut_fd = -1;
    node->answers = calloc(TICKETS, sizeof *node->answers);
    node->results = calloc(TICKETS, sizeof *node->results);
    node->fids = calloc(TICKETS, sizeof *node->fids);
    CHECK(node->answers && node->results && node->fids);
    pthread_mutex_init(&node->lock, NULL);
    pthread_cond_init(&node->changed, NULL);
    CHECK_EQUAL(start_engine(node), 0);
    opened[opened[0] ? 1 : 0] = node;
}

static void copy_file(const struct node *node, const char *from, const char *to) {
    static uint8_t buffer[1 << 20];
    char path[256];
    snprintf(path, sizeof path, "%s/%s", node->state, from);
    int in = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "%s/%s", node->state, to);
    int out = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(in >= 0 && out >= 0);
    for (ssize_t got; (got = read(in, buffer, sizeof buffer)) > 0;) CHECK_EQUAL(write(out, buffer, (size_t)got), got);
    close(in);
    close(out);
}

int node_restart(struct node *node, bool crash) {
    if (crash) {
        copy_file(node, "intent-log.0", "crashed.0");
        copy_file(node, "intent-log.1", "crashed.1");
    }
    stop_engine(node);
    if (crash) {
        copy_file(node, "crashed.0", "intent-log.0");
        copy_file(node, "crashed.1", "intent-log.1");
    }
    memset(node->answers, 0, TICKETS * sizeof *node->answers); /* tickets begin anew */
    return start_engine(node);
}

static void learn_below(struct node *node, uint64_t parent, const char *path) {
    DIR *stream = opendir(path);
    CHECK(stream);
    for (struct dirent *entry; (entry = readdir(stream));) {
        char below[512];
        if (entry->d_name[0] == '.') continue;
        uint64_t fid = fid_of(node, parent, entry->d_name);
        snprintf(below, sizeof below, "%s/%.200s", path, entry->d_name);
        if (fid && entry->d_type == DT_DIR) learn_below(node, fid, below);
    }
    closedir(stream);
}

void node_learn(struct node *node) { learn_below(node, ROOT, node->path); }

void node_close(struct node *node, bool keep) {
    CHECK_EQUAL(rfs_session_close(node->engine), 0);
    CHECK_EQUAL(rfs_purge_holding(node->engine, RFS_HELD | RFS_ARRIVING), 0);
    opened[opened[0] == node ? 0 : 1] = NULL;
    stop_engine(node);
    if (node->cut_fd >= 0) close(node->cut_fd);
    if (!keep) remove_tree(node->path);
    if (!keep) remove_tree(node->state);
    free(node->answers);
    free(node->results);
    free(node->fids);
    pthread_mutex_destroy(&node->lock);
    pthread_cond_destroy(&node->changed);
}

void node_alone(struct node *node, uint64_t term, uint32_t bit) {
    CHECK_EQUAL(rfs_become_primary(node->engine, term, bit), 0);
    CHECK_EQUAL(rfs_grant(node->engine, term, 1), 0);
}

rfs_statistics node_statistics(struct node *node) {
    rfs_statistics now;
    rfs_get_statistics(node->engine, &now);
    return now;
}

void path_in(const struct node *node, const char *name, char out[256]) { snprintf(out, 256, "%s/%s", node->path, name); }

bool exists(const struct node *node, const char *name) {
    char path[256];
    struct stat stat;
    path_in(node, name, path);
    return lstat(path, &stat) == 0;
}

void make_file(const struct node *node, const char *name, const void *data, size_t bytes) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", node->path, name);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0640);
    CHECK(fd >= 0);
    CHECK_EQUAL(write(fd, data, bytes), bytes);
    close(fd);
}

uint64_t fid_of(struct node *node, uint64_t parent_fid, const char *name) {
    rfs_engine *engine = node->engine;
    struct inode *parent = inode_get(engine, parent_fid), *inode;
    struct descriptor directory;
    struct stat stat;
    uint64_t fid = 0;
    CHECK(parent);
    CHECK_EQUAL(descriptor_get(engine, parent, &directory), 0);
    if (inode_at(engine, parent, directory.fd, name, &inode, &stat) == 0) {
        fid = inode->fid;
        inode_put(engine, inode);
    }
    descriptor_put(engine, &directory);
    inode_put(engine, parent);
    return fid;
}

size_t open_descriptors(void) {
    size_t count = 0;
    DIR *stream = opendir("/proc/self/fd");
    CHECK(stream);
    while (readdir(stream)) count++;
    closedir(stream);
    return count;
}

/* ---- ops ------------------------------------------------------------------------------------------------------------------- */

struct op *named(enum frame_type type, uint64_t parent, const char *name) {
    struct op *op = op_new(type);
    CHECK(op);
    op->body.fid = parent;
    op->body.mode = (type == FRAME_MKDIR ? S_IFDIR : S_IFREG) | 0755;
    op->body.name_bytes = (uint16_t)strlen(name);
    strcpy(op->body.name, name);
    return op;
}

static void give_data(struct op *op, const void *data, size_t bytes) {
    op->data = malloc(bytes ? bytes : 1);
    CHECK(op->data);
    memcpy(op->data, data, bytes);
    op->body.data_bytes = (uint32_t)bytes;
}

struct op *writing(uint64_t fid, uint64_t offset, const void *data, size_t bytes) {
    struct op *op = op_new(FRAME_WRITE);
    CHECK(op);
    op->body.fid = fid;
    op->body.offset = offset;
    op->body.length = bytes;
    give_data(op, data, bytes);
    return op;
}

uint64_t start(struct node *node, struct op *op) {
    uint64_t ticket = op->ticket = atomic_fetch_add(&node->engine->next_ticket, 1);
    CHECK(ticket < TICKETS);
    mirror_submit(node->engine, op);
    return ticket;
}

bool is_answered(struct node *node, uint64_t ticket) {
    pthread_mutex_lock(&node->lock);
    bool answered = node->answers[ticket];
    pthread_mutex_unlock(&node->lock);
    return answered;
}

int answer_of(struct node *node, uint64_t ticket) {
    uint64_t began = now_ns();
    pthread_mutex_lock(&node->lock);
    while (!node->answers[ticket]) wait_changed(node, began, "answer_of");
    int result = node->results[ticket];
    pthread_mutex_unlock(&node->lock);
    return result;
}

int finish(struct node *node, struct op *op) { return answer_of(node, start(node, op)); }

uint64_t made(struct node *node, struct op *op) {
    uint64_t ticket = start(node, op);
    return answer_of(node, ticket) == 0 ? node->fids[ticket] : 0;
}

uint64_t create_file(struct node *node, uint64_t parent, const char *name) {
    uint64_t fid = made(node, named(FRAME_CREATE, parent, name));
    CHECK(fid);
    return fid;
}

uint64_t create_directory(struct node *node, uint64_t parent, const char *name) {
    uint64_t fid = made(node, named(FRAME_MKDIR, parent, name));
    CHECK(fid);
    return fid;
}

struct op *linking(uint64_t fid, uint64_t parent, const char *name) {
    struct op *op = named(FRAME_LINK, parent, name);
    op->body.other = fid;
    return op;
}

struct op *renaming(uint64_t parent, const char *name, uint64_t to, const char *name2, uint32_t flags) {
    struct op *op = named(FRAME_RENAME, parent, name);
    op->body.other = to;
    op->body.flags = flags;
    op->body.name2_bytes = (uint16_t)strlen(name2);
    strcpy(op->body.name2, name2);
    return op;
}

struct op *syncing(uint64_t fid) {
    struct op *op = op_new(FRAME_FSYNC);
    CHECK(op);
    op->body.fid = fid;
    op->durable = true;
    return op;
}

struct op *attributing(uint64_t fid, uint32_t flags) {
    struct op *op = op_new(FRAME_SET_ATTRIBUTES);
    CHECK(op);
    op->body.fid = fid;
    op->body.flags = flags;
    return op;
}

struct op *xattring(enum frame_type type, uint64_t fid, const char *name, const char *value) {
    struct op *op = named(type, fid, name);
    op->body.mode = 0;
    if (type == FRAME_SET_XATTR) give_data(op, value, strlen(value));
    return op;
}

/* take_event() has seen to "at most once"; a ticket that nobody answered is found here. */
void check_answered_once(struct node *node) {
    uint64_t given = atomic_load(&node->engine->next_ticket);
    for (uint64_t ticket = 1; ticket < given; ticket++) answer_of(node, ticket);
}

/* ---- a pair ------------------------------------------------------------------------------------------------------------------ */

void connect_ends(int ends[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0 && bind(listener, (void *)&address, sizeof address) == 0 && listen(listener, 1) == 0);
    CHECK_EQUAL(getsockname(listener, (void *)&address, &bytes), 0);
    ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(ends[0] >= 0 && connect(ends[0], (void *)&address, sizeof address) == 0);
    ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(ends[1] >= 0);
    close(listener);
}

void pair_open(struct pair *pair) {
    node_open(&pair->a, "a");
    node_open(&pair->b, "b");
    for (int i = 0; some_are_local && i < 2; i++) CHECK_EQUAL(rfs_add_pattern(i ? pair->b.engine : pair->a.engine, 0, LOCAL_NAMES, 0), 0);
    pair->session = (rfs_session){.session = 1, .generation = 100, .everything = 1, .progress_timeout_us = 20000000, .fsync_timeout_us = 30000000, .keepalive_us = 500000};
}

void pair_close(struct pair *pair) {
    node_close(&pair->a, false);
    node_close(&pair->b, false);
}

static void keep_cut(struct node *node, int fd) {
    if (node->cut_fd >= 0) close(node->cut_fd);
    node->cut_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    CHECK(node->cut_fd >= 0);
}

bool links_are_secure, applies_in_parallel, some_are_local, nodes_have_marks;

static void connect_nodes(struct node *source, struct node *target, rfs_channel *channels[2]) {
    int ends[2];
    CHECK_EQUAL(rfs_session_close(source->engine), 0); /* before anything is agreed: what has arrived is applied now */
    CHECK_EQUAL(rfs_session_close(target->engine), 0);
    connect_ends(ends);
    keep_cut(source, ends[0]);
    keep_cut(target, ends[1]);
    if (links_are_secure) {
        connect_channels(channels, ends);
        return;
    }
    for (int i = 0; i < 2; i++) CHECK((channels[i] = rfs_channel_plain(ends[i])) != NULL);
}

void pair_connect(struct pair *pair, struct node *source, struct node *target) {
    rfs_channel *channels[2];
    connect_nodes(source, target, channels);
    pair->session.session++;
    pair->session.seq = node_statistics(source).seq;
    pair->session.peer_applied_seq = 0;
    pair->session.everything = node_statistics(source).marked_everything || node_statistics(target).marked_everything;
    CHECK_EQUAL(rfs_session_target(target->engine, channels[1], &pair->session, 0), 0);
    if (applies_in_parallel) link_apply_in_parallel(target->engine->link);
    CHECK_EQUAL(rfs_session_source(source->engine, channels[0], &pair->session), 0);
}

/* Who moves files across the border meanwhile may be faster than END. */
static void send_end(struct node *source, uint32_t round) {
    int result;
    do {
        wait_event(source, RFS_EVENT_DRAINED, round++);
        result = rfs_send_end(source->engine);
    } while (result == -EAGAIN);
    CHECK_EQUAL(result, 0);
}

void pair_finish(struct node *source, struct node *target, uint32_t round) {
    send_end(source, round);
    wait_event(target, RFS_EVENT_END_RECEIVED, round);
    CHECK_EQUAL(rfs_purge_holding(target->engine, RFS_HELD), 0);
}

void pair_up(struct pair *pair, struct node *source, struct node *target) { pair_up_while(pair, source, target, NULL, NULL); }

void pair_up_while(struct pair *pair, struct node *source, struct node *target, void (*meanwhile)(struct node *source, void *context), void *context) {
    uint32_t round = events_seen(source, RFS_EVENT_DRAINED) + 1;
    uint32_t ends = events_seen(target, RFS_EVENT_END_RECEIVED) + 1;
    pair_connect(pair, source, target);
    if (meanwhile) meanwhile(source, context);
    send_end(source, round);
    wait_event(target, RFS_EVENT_END_RECEIVED, ends);
    CHECK_EQUAL(rfs_purge_holding(target->engine, RFS_HELD), 0);
}

void pair_checkpoint(struct node *source, struct node *target) {
    uint64_t ticket = rfs_submit_checkpoint(source->engine);
    CHECK(ticket);
    CHECK_EQUAL(answer_of(source, ticket), 0);
    CHECK_EQUAL(answer_of(target, rfs_submit_sync(target->engine)), 0);
    CHECK_EQUAL(answer_of(source, rfs_submit_sync(source->engine)), 0);
    CHECK_EQUAL(rfs_end_checkpoint(source->engine), 0);
    CHECK_EQUAL(rfs_forget_marks(target->engine), 0);
}

void pair_cut(struct pair *pair) {
    uint32_t a = events_seen(&pair->a, RFS_EVENT_LINK_LOST), b = events_seen(&pair->b, RFS_EVENT_LINK_LOST);
    shutdown(pair->a.cut_fd, SHUT_RDWR);
    shutdown(pair->b.cut_fd, SHUT_RDWR);
    wait_event(&pair->a, RFS_EVENT_LINK_LOST, a + 1);
    wait_event(&pair->b, RFS_EVENT_LINK_LOST, b + 1);
}

void pair_resume(struct pair *pair, struct node *source, struct node *target) {
    rfs_channel *channels[2];
    connect_nodes(source, target, channels);
    pair->session.session++;
    pair->session.peer_applied_seq = node_statistics(target).applied_seq;
    CHECK_EQUAL(rfs_session_target(target->engine, channels[1], &pair->session, 1), 0);
    if (applies_in_parallel) link_apply_in_parallel(target->engine->link);
    CHECK_EQUAL(rfs_session_resume(source->engine, channels[0], &pair->session), 0);
}

void settle(struct node *source) {
    uint64_t began = now_ns();
    for (rfs_statistics now = node_statistics(source); now.waiting_ops || now.acked_seq < now.seq; now = node_statistics(source)) {
        pthread_mutex_lock(&source->lock);
        wait_changed(source, began, "settle");
        pthread_mutex_unlock(&source->lock);
    }
}

void compare_nodes(struct pair *pair) { compare_trees(pair->a.path, pair->b.path); }
