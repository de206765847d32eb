/* The kernel side under any messages: each is refused, or served and answered exactly once, and all that was taken is given back.
 *
 * An input is a byte of options (the mode; whether SETXATTR is the longer one), then messages, each as long as its header says. The kernel
 * is trusted for two things only, so the fuzzer is helped with them: an `fh` is one that was given out, of that node, and not closed since;
 * a node id below 64 stands for one that was given out. */
#include <sanitizer/asan_interface.h>
#include <sys/uio.h>

static ssize_t take_reply(int fd, const struct iovec *parts, int count);
#define writev take_reply /* where answers go to the kernel */
#include "../../csrc/fuse_reply.c"
#undef writev
#include "../../csrc/filter.c" /* serve() is its own */

#include <sys/socket.h>

#include "link.h"
#include "scratch.h"

enum { MODES = 3, SHORT_SETXATTR = 4, LEASE_LOST = 8, BORDER = 16, NODES = 64, FILES = 16, OUTSTANDING = 64 };

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

static struct scratch scratch;
static struct connection connection;
static struct link *the_link;
static uint8_t *buffer;

/* What the kernel would know: nodes and open files it was told of, and requests without an answer. */
static struct {
    uint64_t nodes[NODES];
    struct file *files[FILES];
    struct {
        uint64_t unique;
        uint32_t opcode;
        bool answered;
    } requests[OUTSTANDING];
    uint32_t node_count, file_count, request_count;
} kernel;

/* ---- answers ---------------------------------------------------------------------------------------------------------------------- */

static void learn_node(uint64_t nodeid) {
    if (nodeid && kernel.node_count < NODES) kernel.nodes[kernel.node_count++] = nodeid;
}

static void learn_file(uint64_t fh) {
    struct file *file = (struct file *)(uintptr_t)fh;
    CHECK(file && file->inode && file->fd >= 0);
    if (kernel.file_count < FILES) kernel.files[kernel.file_count++] = file;
}

static void learn(uint32_t opcode, const uint8_t *data, size_t bytes) {
    const struct fuse_entry_out *entry = (const void *)data;
    switch (opcode) {
    case FUSE_LOOKUP:
    case FUSE_MKDIR:
        CHECK(bytes == sizeof *entry);
        learn_node(entry->nodeid);
        break;
    case FUSE_CREATE:
        CHECK(bytes == sizeof *entry + sizeof(struct fuse_open_out));
        learn_node(entry->nodeid);
        learn_file(((const struct fuse_open_out *)(const void *)(entry + 1))->fh);
        break;
    case FUSE_OPEN:
        CHECK(bytes == sizeof(struct fuse_open_out));
        learn_file(((const struct fuse_open_out *)(const void *)data)->fh);
        break;
    default: break;
    }
}

static ssize_t take_reply(int fd, const struct iovec *parts, int count) {
    const struct fuse_out_header *header = parts[0].iov_base;
    size_t bytes = count > 1 ? parts[1].iov_len : 0;
    CHECK(fd == connection.fd && parts[0].iov_len == sizeof *header && header->len == sizeof *header + bytes);
    CHECK(header->error <= 0 && header->error > -512 && (!header->error || !bytes));
    CHECK(header->unique && header->unique <= kernel.request_count);
    uint32_t at = (uint32_t)header->unique - 1;
    CHECK(!kernel.requests[at].answered);
    kernel.requests[at].answered = true;
    uint8_t *data = malloc(bytes ? bytes : 1); /* each byte is read, and aligned for those who look into it */
    CHECK(data);
    if (bytes) memcpy(data, parts[1].iov_base, bytes);
    if (!header->error) learn(kernel.requests[at].opcode, data, bytes);
    free(data);
    return (ssize_t)header->len;
}

/* ---- messages --------------------------------------------------------------------------------------------------------------------- */

/* Puts an open file into the field; its node is returned. NULL: there is none, and the kernel would not ask. */
static struct file *put_file(uint64_t *fh) {
    if (!kernel.file_count) return NULL;
    struct file *file = kernel.files[*fh % kernel.file_count];
    *fh = (uint64_t)(uintptr_t)file;
    return file;
}

static void close_file(const struct file *file) {
    for (uint32_t i = 0; i < kernel.file_count; i++)
        if (kernel.files[i] == file) kernel.files[i--] = kernel.files[--kernel.file_count];
}

static void put_node(uint64_t *nodeid) {
    if (*nodeid < NODES) *nodeid = kernel.nodes[*nodeid % kernel.node_count];
}

/* In every one of these structs fh is the first field. */
static bool has_file(uint32_t opcode) {
    return opcode == FUSE_READ || opcode == FUSE_WRITE || opcode == FUSE_RELEASE || opcode == FUSE_FSYNC || opcode == FUSE_LSEEK || opcode == FUSE_FALLOCATE ||
           opcode == FUSE_COPY_FILE_RANGE;
}

static bool help_copy(uint8_t *body) {
    struct fuse_copy_file_range_in *in = (void *)body;
    struct file *file = put_file(&in->fh_out);
    if (file) in->nodeid_out = file->inode->fid;
    return file != NULL;
}

/* False: a message that the kernel cannot send. */
static bool help(uint8_t *message, size_t bytes) {
    struct fuse_in_header *header = (void *)message;
    uint8_t *body = message + sizeof *header;
    size_t body_bytes = bytes - sizeof *header;
    if (header->opcode > 2 * FUSE_TMPFILE) header->opcode %= FUSE_TMPFILE; /* there is little to see beyond the last one */
    put_node(&header->nodeid);
    if ((header->opcode == FUSE_RENAME || header->opcode == FUSE_RENAME2) && body_bytes >= 8) put_node((uint64_t *)(void *)body);
    if (!has_file(header->opcode) || body_bytes < 8) return true;
    struct file *file = put_file((uint64_t *)(void *)body);
    if (!file) return false;
    header->nodeid = file->inode->fid;
    if (header->opcode == FUSE_COPY_FILE_RANGE && body_bytes >= sizeof(struct fuse_copy_file_range_in) && !help_copy(body)) return false;
    if (header->opcode == FUSE_RELEASE && body_bytes >= sizeof(struct fuse_release_in)) close_file(file);
    return true;
}

static void send_message(const uint8_t *input, size_t bytes) {
    memcpy(buffer, input, bytes);
    struct fuse_in_header *header = (void *)buffer;
    header->len = (uint32_t)bytes;
    header->unique = kernel.request_count + 1;
    if (!help(buffer, bytes)) return;
    kernel.requests[kernel.request_count].unique = header->unique;
    kernel.requests[kernel.request_count].opcode = header->opcode;
    kernel.requests[kernel.request_count].answered = !request_has_answer(header->opcode);
    kernel.request_count++;
    struct request request = request_in(buffer, bytes);
    ASAN_POISON_MEMORY_REGION(buffer + bytes, MESSAGE_BYTES - bytes);
    serve(&connection, &request);
    CHECK(!request.taken); /* no input is as large as the writes that keep their message */
    ASAN_UNPOISON_MEMORY_REGION(buffer, MESSAGE_BYTES);
}

/* ---- one input ---------------------------------------------------------------------------------------------------------------------- */

static void make_tree(void) {
    int root = scratch.root_fd;
    scratch_file(&scratch, "f", 5000);
    CHECK(mkdirat(root, "d", 02775) == 0 && symlinkat(WAY_OUT, root, "s") == 0 && mknodat(root, "p", S_IFIFO | 0644, 0) == 0);
    CHECK(mkdirat(root, HOLDING_NAME, 0700) == 0 && linkat(root, "f", root, "d/link", 0) == 0);
}

static void begin(uint8_t options) {
    static const enum rfs_mode modes[4] = {RFS_ALONE, RFS_PAIRED, RFS_FROZEN, RFS_ALONE};
    rfs_engine *engine = scratch.engine;
    memset(&kernel, 0, sizeof kernel);
    learn_node(ROOT_NODE);
    learn_node(FIRST_DIRECTORY_FID);
    connection.extended_setxattr = !(options & SHORT_SETXATTR);
    engine->mode = modes[options & MODES];
    if (engine->mode == RFS_PAIRED) engine->link = the_link;
    if (options & BORDER) scratch_draw_border(&scratch);
    if (options & LEASE_LOST) atomic_store(&engine->last_heard_ns, 0);
}

/* The peer has everything. */
static void acknowledge(void) {
    rfs_engine *engine = scratch.engine;
    link_abandon(the_link); /* nothing refers to the ops any more */
    for (uint64_t seq = 1; seq <= engine->mirror.seq; seq++) mirror_synced(engine, seq);
    CHECK(mirror_acknowledged(engine, engine->mirror.seq) == 0);
}

static void end(void) {
    rfs_engine *engine = scratch.engine;
    scratch_run_jobs(&scratch);
    if (engine->link) acknowledge();
    rfs_fence(engine); /* what is parked fails */
    scratch_run_jobs(&scratch);
    engine->link = NULL;
    for (uint32_t i = 0; i < kernel.request_count; i++) CHECK(kernel.requests[i].answered);
    while (!list_empty(&connection.files)) file_close(&connection, ITEM(connection.files.next, struct file, item));
    CHECK(connection.open_files == 0);
}

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    (void)count;
    (void)arguments;
    int ends[2];
    rfs_session session = {.session = 7, .generation = 9};
    scratch_open(&scratch);
    connection = (struct connection){.engine = scratch.engine, .fd = -1, .mount_fd = -1};
    pthread_mutex_init(&connection.lock, NULL);
    list_init(&connection.files);
    scratch.engine->connection = &connection;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    the_link = link_new(scratch.engine, rfs_channel_plain(ends[0]), &session);
    buffer = message_get(scratch.engine);
    CHECK(the_link && buffer);
    link_abandon(the_link); /* what it has to say waits in its queue */
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes) {
    if (bytes < 2) return 0;
    scratch_begin(&scratch);
    make_tree();
    begin(input[0]);
    for (size_t at = 1; bytes - at >= sizeof(struct fuse_in_header) && kernel.request_count < OUTSTANDING;) {
        uint32_t length;
        memcpy(&length, input + at, sizeof length);
        if (length < sizeof(struct fuse_in_header)) length = sizeof(struct fuse_in_header);
        if (length > bytes - at) length = (uint32_t)(bytes - at);
        send_message(input + at, length);
        at += length;
    }
    end();
    scratch_reset(&scratch);
    return 0;
}
