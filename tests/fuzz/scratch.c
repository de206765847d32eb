/* The engine's own threads are ended: its jobs are done when the fuzzer says, so an input does the same each time. */
#include "scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "link.h"
#include "op.h"

enum { OUTSIDE_BYTES = 12, FEW_BUCKETS = 16 };

_Noreturn void fail_at(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: FAILED: %s\n", file, line, what);
    abort();
}

_Noreturn static void impossible(const char *what) {
    fprintf(stderr, "skipped: %s (%s)\n", what, strerror(errno));
    exit(SCRATCH_IMPOSSIBLE);
}

/* ---- the file system: no device of it can be opened, whatever is made there, and it cannot eat the machine's memory */

static void open_base(struct scratch *scratch) {
    char path[] = "/tmp/lockstep-fuzz-XXXXXX", tree[64], reason[RFS_REASON_BYTES];
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) impossible("needs root, for mounts of its own");
    if (!mkdtemp(path) || mount("lockstep-fuzz", path, "tmpfs", MS_NODEV | MS_NOSUID, "size=2m,nr_inodes=4096,mode=755") < 0) impossible("no tmpfs");
    snprintf(tree, sizeof tree, "%s/tree", path);
    CHECK(mkdir(tree, 0755) == 0);
    scratch->base_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(scratch->base_fd >= 0);
    scratch->root_fd = rfs_tree_open(tree);
    umount2(path, MNT_DETACH); /* the descriptors keep it */
    rmdir(path);
    if (scratch->root_fd < 0 || rfs_tree_probe(scratch->root_fd, reason) < 0) impossible("tmpfs does not hold replicas here");
}

static void look_outside(const struct scratch *scratch, struct stat now[3]) {
    CHECK(fstat(scratch->base_fd, &now[0]) == 0 && fstat(scratch->outside_fd, &now[1]) == 0);
    CHECK(fstatat(scratch->outside_fd, "file", &now[2], AT_SYMLINK_NOFOLLOW) == 0);
}

static void make_outside(struct scratch *scratch) {
    CHECK(mkdirat(scratch->base_fd, "outside", 0750) == 0);
    int directory = openat(scratch->base_fd, "outside", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    scratch->outside_fd = fcntl(directory, F_DUPFD_CLOEXEC, OUTSIDE_FD);
    close(directory);
    CHECK(scratch->outside_fd == OUTSIDE_FD);
    int fd = openat(scratch->outside_fd, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0640);
    CHECK(fd >= 0 && write(fd, "leave it be\n", OUTSIDE_BYTES) == OUTSIDE_BYTES);
    close(fd);
    look_outside(scratch, scratch->untouched);
}

static bool same_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

static void check_outside(const struct scratch *scratch) {
    struct stat now[3];
    look_outside(scratch, now);
    for (int i = 0; i < 3; i++) {
        const struct stat *then = &scratch->untouched[i];
        CHECK(now[i].st_ino == then->st_ino && now[i].st_mode == then->st_mode && now[i].st_nlink == then->st_nlink && now[i].st_size == then->st_size);
        CHECK(same_time(now[i].st_mtim, then->st_mtim) && same_time(now[i].st_ctim, then->st_ctim));
    }
}

/* ---- emptying it -------------------------------------------------------------------------------------------------------------- */

static void empty(int directory_fd) {
    int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    CHECK(stream);
    for (struct dirent *entry; (entry = readdir(stream));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (unlinkat(fd, entry->d_name, 0) == 0) continue;
        int below = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        CHECK(below >= 0);
        empty(below);
        close(below);
        CHECK(unlinkat(fd, entry->d_name, AT_REMOVEDIR) == 0);
    }
    closedir(stream);
}

static void undress(int fd) {
    char names[65536];
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    ssize_t bytes = flistxattr(fd, names, sizeof names);
    for (ssize_t at = 0; at < bytes; at += (ssize_t)strlen(names + at) + 1) fremovexattr(fd, names + at);
    CHECK(fchown(fd, 0, 0) == 0 && fchmod(fd, 0755) == 0 && futimens(fd, times) == 0);
}

/* ---- the engine ------------------------------------------------------------------------------------------------------------------ */

static void end_threads(rfs_engine *engine) {
    workers_stop(engine);
    mirror_stop(engine);
    engine->mirror_started = false;
}

/* It is emptied for each input: most of the time would go into looking through buckets. And so it grows now and then. */
static void shrink_table(struct inode_table *table) {
    for (size_t i = FEW_BUCKETS; i < table->buckets; i++) {
        if (table->by_fid[i]) table->by_fid[i % FEW_BUCKETS] = table->by_fid[i]; /* the root, and nobody else */
        if (table->by_number[i]) table->by_number[i % FEW_BUCKETS] = table->by_number[i];
    }
    table->buckets = FEW_BUCKETS;
}

static struct job *next_job(struct workers *workers) {
    pthread_mutex_lock(&workers->lock);
    struct job *job = list_empty(&workers->jobs) ? NULL : ITEM(workers->jobs.next, struct job, item);
    if (job) list_remove(&job->item);
    pthread_mutex_unlock(&workers->lock);
    return job;
}

void scratch_run_jobs(struct scratch *scratch) {
    struct job *job;
    while ((job = next_job(&scratch->engine->workers))) job->run(scratch->engine, job);
}

static void drain_events(rfs_engine *engine) {
    rfs_event event;
    while (rfs_next_event(engine, &event)) {
        CHECK(memchr(event.text, 0, sizeof event.text));
        CHECK(event.kind != RFS_EVENT_LOCAL_FAILED); /* memory does not fail: somebody synced what cannot be synced */
    }
}

static void set_scopes(rfs_engine *engine, const struct scopes *scopes) {
    struct inode *root = inode_get(engine, FIRST_DIRECTORY_FID);
    engine->directory[0].scopes = scopes ? *scopes : (struct scopes){0};
    atomic_store(&root->scope, engine->directory[0].scopes.root);
    inode_put(engine, root);
}

void scratch_draw_border(struct scratch *scratch) { set_scopes(scratch->engine, &scratch->border); }

static void forget(rfs_engine *engine) {
    struct mirror *mirror = &engine->mirror;
    CHECK(list_empty(&mirror->pending) && list_empty(&mirror->syncing) && list_empty(&mirror->parked));
    CHECK(mirror->in_flight_ops == 0 && mirror->in_flight_bytes == 0 && mirror->answering == 0);
    mirror->seq = mirror->acked_seq = mirror->alone_seq = mirror->rtt_us = mirror->demote_ticket = 0;
    mirror->need_used_raised = false;
    listing_free(engine);
    inodes_forget_kernel(engine);
    inodes_forget_all(engine);
    CHECK(engine->inodes.count == 1); /* whoever took a reference has given it back */
    struct inode *root = inode_get(engine, FIRST_DIRECTORY_FID);
    CHECK(root && root->refs == 2 && root->nlookup == 0); /* ours of this moment, and the table's */
    atomic_store(&root->resync, 0);
    inode_put(engine, root);
    set_scopes(engine, NULL);
    engine->mode = RFS_IDLE;
    engine->target = engine->demoting = engine->end_sent = engine->resumable = false;
    engine->epoch = 1;
    atomic_store(&engine->next_fid, UINT64_C(1) << 40);
    atomic_store(&engine->next_ticket, 1);
    atomic_store(&engine->applied_seq, 0);
    atomic_store(&engine->received_seq, 0);
    atomic_store(&engine->last_heard_ns, now_ns());
    atomic_store(&engine->held, 0);
    atomic_store(&engine->failed, false);
}

static int free_fd(const struct scratch *scratch) {
    int fd = fcntl(scratch->base_fd, F_DUPFD_CLOEXEC, 0);
    CHECK(fd >= 0);
    close(fd);
    return fd;
}

void scratch_begin(struct scratch *scratch) { scratch->first_free_fd = free_fd(scratch); }

void scratch_reset(struct scratch *scratch) {
    scratch_run_jobs(scratch);
    drain_events(scratch->engine);
    forget(scratch->engine);
    CHECK(free_fd(scratch) == scratch->first_free_fd);
    check_outside(scratch);
    empty(scratch->root_fd);
    undress(scratch->root_fd);
}

void scratch_open(struct scratch *scratch) {
    int error;
    open_base(scratch);
    make_outside(scratch);
    scratch->engine = rfs_engine_new(&scratch->root_fd, 1, &error);
    CHECK(scratch->engine);
    end_threads(scratch->engine);
    shrink_table(&scratch->engine->inodes);
    CHECK(scopes_add(&scratch->border, "*.tmp", false) == 0);
    scratch_begin(scratch);
    scratch_reset(scratch);
}

void scratch_file(struct scratch *scratch, const char *name, size_t bytes) {
    int fd = openat(scratch->root_fd, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 && (!bytes || pwrite(fd, "some bytes", bytes < 10 ? bytes : 10, 0) > 0));
    close(fd);
}
