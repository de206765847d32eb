/* Open descriptors of inodes: a small direct-mapped cache, so that a hot directory or file is not opened for every op. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine.h"

/* A handle leads to the object that it was taken of, or nowhere. This is what is lost if that were ever not so. */
static bool is_same(int fd, const struct inode *inode) {
    struct stat stat;
    return fstat(fd, &stat) == 0 && stat.st_ino == inode->number && (stat.st_mode & S_IFMT) == inode->type;
}

int descriptor_get(rfs_engine *engine, struct inode *inode, struct descriptor *out) {
    struct descriptor_cache *cache = &engine->descriptors;
    struct descriptor_slot *slot = &cache->slots[hash_slot(inode->fid, DESCRIPTOR_SLOTS)];
    bool kept = inode->pin_fd < 0;
    int old = -1, flags = S_ISREG(inode->type) ? O_RDWR | O_NOFOLLOW | O_NONBLOCK : S_ISDIR(inode->type) ? O_RDONLY | O_DIRECTORY : O_PATH | O_NOFOLLOW;
    pthread_mutex_lock(&cache->lock);
    if (kept && slot->fd >= 0 && slot->fid == inode->fid) {
        slot->users++;
        *out = (struct descriptor){slot->fd, (int)(slot - cache->slots)};
        pthread_mutex_unlock(&cache->lock);
        return 0;
    }
    pthread_mutex_unlock(&cache->lock);
    int fd = inode_open(engine, inode, flags);
    if (fd < 0) return fd;
    if (!is_same(fd, inode)) {
        close(fd);
        return -ESTALE;
    }
    *out = (struct descriptor){fd, -1};
    if (!kept) return 0;
    pthread_mutex_lock(&cache->lock);
    if (!slot->users) {
        old = slot->fd;
        *slot = (struct descriptor_slot){inode->fid, fd, 1};
        out->slot = (int)(slot - cache->slots);
    }
    pthread_mutex_unlock(&cache->lock);
    if (old >= 0) close(old);
    return 0;
}

void descriptor_put(rfs_engine *engine, struct descriptor *descriptor) {
    if (descriptor->slot < 0) {
        if (descriptor->fd >= 0) close(descriptor->fd);
    } else {
        struct descriptor_slot *slot = &engine->descriptors.slots[descriptor->slot];
        int gone = -1;
        pthread_mutex_lock(&engine->descriptors.lock);
        if (!--slot->users && !slot->fid) {
            gone = slot->fd;
            slot->fd = -1;
        }
        pthread_mutex_unlock(&engine->descriptors.lock);
        if (gone >= 0) close(gone);
    }
    *descriptor = (struct descriptor){-1, -1};
}

void descriptor_drop(rfs_engine *engine, uint64_t fid) {
    struct descriptor_slot *slot = &engine->descriptors.slots[hash_slot(fid, DESCRIPTOR_SLOTS)];
    int gone = -1;
    pthread_mutex_lock(&engine->descriptors.lock);
    if (slot->fd >= 0 && slot->fid == fid && fid) {
        slot->fid = 0; /* the last user closes it */
        if (!slot->users) {
            gone = slot->fd;
            slot->fd = -1;
        }
    }
    pthread_mutex_unlock(&engine->descriptors.lock);
    if (gone >= 0) close(gone);
}
