/* Records of the snapshot of before, as a disk gives them back: each is one, or none. What is in it stays within it, and leads to no file but one of
 * this tree. (Not more than looked through and put on a file: to put a tree back from records is native/test_before.c's.)
 *
 * The first byte: RAW leaves the record as it is; else its lengths and sums are made to fit. DIRECTORY: it is the root's, with entries. */
#include "../../csrc/before_record.c" /* the trailer is its own */
#define add add_key
#define empty empty_directory
#include "../../csrc/before_restore.c" /* what goes through the entries is its own */

#include "scratch.h"

enum { RAW = 1, DIRECTORY = 2 };

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

static struct scratch scratch;

/* The facts' lengths, and a trailer behind all. */
static size_t fit(uint8_t *record, size_t bytes, uint8_t options) {
    if (bytes < sizeof(struct before_facts)) return bytes;
    struct before_facts facts;
    memcpy(&facts, record, sizeof facts);
    size_t room = bytes - sizeof facts;
    facts.xattr_bytes = facts.xattr_bytes % (uint32_t)(room + 1);
    facts.more_bytes = (uint32_t)room - facts.xattr_bytes;
    facts.mode = (facts.mode & 07777) | (options & DIRECTORY ? S_IFDIR : S_IFREG);
    memcpy(record, &facts, sizeof facts);
    struct trailer trailer = {.magic = MAGIC, .bytes = (uint32_t)bytes, .crc = crc32c(0, record, bytes)};
    memcpy(record + bytes, &trailer, sizeof trailer);
    return bytes + sizeof trailer;
}

static void write_record(int objects, const struct before_key *key, const uint8_t *record, size_t bytes) {
    int fd = openat(objects, key->text, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, record, bytes) == (ssize_t)bytes);
    close(fd);
}

static void check_file(struct restoring *restoring, const struct before_key *key, int path_fd) {
    struct before_record record;
    int result = before_read(restoring->objects, key, &record, NULL);
    CHECK(result == 0 || result == -ENOENT);
    if (result < 0) return;
    CHECK(record.xattrs + record.facts.xattr_bytes == record.more && record.more[record.facts.more_bytes] == 0);
    result = dress(path_fd, &record);
    CHECK(result == 0 || result == -EBADMSG || result == -EPROTO || result == -EOPNOTSUPP || result == -EINVAL || result == -ENOSPC || result == -EPERM || result == -ERANGE || result == -E2BIG || result == -ENODATA);
    before_record_free(&record);
}

static void check_directory(struct restoring *restoring) {
    int result = look_for_all(restoring);
    CHECK(result <= 0);
    CHECK(restoring->directories.count <= 1 + 4096 / 4 && restoring->others.count <= 4096 / 4); /* each takes bytes of the record */
}

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    (void)count;
    (void)arguments;
    scratch_open(&scratch);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes) {
    if (bytes < 2) return 0;
    scratch_begin(&scratch);
    size_t used = bytes - 1;
    uint8_t *record = malloc(used + sizeof(struct trailer));
    CHECK(record && mkdirat(scratch.root_fd, "objects", 0700) == 0);
    memcpy(record, input + 1, used);
    if (!(input[0] & RAW)) used = fit(record, used, input[0]);
    scratch_file(&scratch, "f", 10);
    struct restoring restoring = {.root = scratch.root_fd, .before = -1, .limbo = -1, .made = -1};
    struct before_key file;
    struct stat stat;
    int path_fd = openat(scratch.root_fd, "f", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    restoring.objects = openat(scratch.root_fd, "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    restoring.made = openat(scratch.root_fd, "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(restoring.objects >= 0 && path_fd >= 0 && fstat(scratch.root_fd, &stat) == 0 && before_key_of(scratch.root_fd, "", &restoring.root_key) == 0);
    restoring.device = stat.st_dev;
    CHECK(before_key_of(scratch.root_fd, "f", &file) == 0);
    const struct before_key *key = input[0] & DIRECTORY ? &restoring.root_key : &file;
    write_record(restoring.objects, key, record, used);
    if (input[0] & DIRECTORY) check_directory(&restoring);
    else check_file(&restoring, &file, path_fd);
    close(path_fd);
    close_one(&restoring);
    free(record);
    scratch_reset(&scratch);
    return 0;
}
