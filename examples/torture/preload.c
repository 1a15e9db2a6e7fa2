/* Fails the n-th call of one kind below a directory, and counts all of them. Loaded by LD_PRELOAD:
 *   TORTURE_DIR    the directory
 *   TORTURE_COUNTS a file of 64-bit words: how often each kind was called, and last how often one failed
 *   TORTURE_CALL   the number of the kind that fails
 *   TORTURE_NTH    the first call of it that fails, from 1
 *   TORTURE_TIMES  how many fail
 *   TORTURE_ERRNO  with what; 0: it does half of what it was asked; -1: nothing, and says it did all
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

enum { PWRITE, PREAD, FDATASYNC, FSYNC, OPEN, UNLINK, MMAP, FALLOCATE, KINDS };

static const char *dir;
static size_t dir_len;
static uint64_t *counts;
static uint64_t fails, nth, times;
static int with;

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("TORTURE_COUNTS");
    dir = getenv("TORTURE_DIR");
    if (!dir || !file) return;
    dir_len = strlen(dir);
    fails = strtoull(getenv("TORTURE_CALL"), 0, 10);
    nth = strtoull(getenv("TORTURE_NTH"), 0, 10);
    times = strtoull(getenv("TORTURE_TIMES"), 0, 10);
    with = atoi(getenv("TORTURE_ERRNO"));
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    void *(*map)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, "mmap");
    int fd = real(file, O_RDWR);
    if (fd < 0) return;
    void *at = map(0, (KINDS + 1) * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    counts = at == MAP_FAILED ? 0 : at;
    close(fd);
}

static int below(const char *path) {
    return counts && strncmp(path, dir, dir_len) == 0;
}

static int fd_below(int fd) {
    char link[32], path[4096];
    if (!counts) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}

/* Whether this call, which is below the directory, fails. */
static int hit(unsigned kind) {
    uint64_t n = __atomic_add_fetch(&counts[kind], 1, __ATOMIC_SEQ_CST);
    if (kind != fails || n < nth || n - nth >= times) return 0;
    __atomic_add_fetch(&counts[KINDS], 1, __ATOMIC_SEQ_CST);
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define POSITIONED(name, kind, buffer)                                       \
    ssize_t name(int fd, buffer buf, size_t len, off64_t at) {               \
        __typeof__(&name) real = REAL(name);                                 \
        if (fd_below(fd) && hit(kind)) {                                     \
            if (with < 0) return len;                                        \
            if (with == 0) return real(fd, buf, len > 1 ? len / 2 : len, at); \
            errno = with;                                                    \
            return -1;                                                       \
        }                                                                    \
        return real(fd, buf, len, at);                                       \
    }

#define SYNC(name, kind)                      \
    int name(int fd) {                        \
        __typeof__(&name) real = REAL(name);  \
        if (fd_below(fd) && hit(kind)) {      \
            errno = with;                     \
            return -1;                        \
        }                                     \
        return real(fd);                      \
    }

POSITIONED(pwrite64, PWRITE, const void *)
POSITIONED(pwrite, PWRITE, const void *)
POSITIONED(pread64, PREAD, void *)
POSITIONED(pread, PREAD, void *)
SYNC(fdatasync, FDATASYNC)
SYNC(fsync, FSYNC)

#define OPENS(name)                                    \
    int name(const char *path, int flags, ...) {       \
        __typeof__(&name) real = REAL(name);           \
        va_list rest;                                  \
        va_start(rest, flags);                         \
        mode_t mode = va_arg(rest, mode_t);            \
        va_end(rest);                                  \
        if (below(path) && hit(OPEN)) {                \
            errno = with;                              \
            return -1;                                 \
        }                                              \
        return real(path, flags, mode);                \
    }

OPENS(open)
OPENS(open64)

int unlink(const char *path) {
    __typeof__(&unlink) real = REAL(unlink);
    if (below(path) && hit(UNLINK)) {
        errno = with;
        return -1;
    }
    return real(path);
}

#define MAPS(name)                                                                   \
    void *name(void *at, size_t len, int prot, int flags, int fd, off64_t offset) {  \
        __typeof__(&name) real = REAL(name);                                         \
        if (fd >= 0 && fd_below(fd) && hit(MMAP)) {                                  \
            errno = with;                                                            \
            return MAP_FAILED;                                                       \
        }                                                                            \
        return real(at, len, prot, flags, fd, offset);                               \
    }

MAPS(mmap)
MAPS(mmap64)

#define ALLOCATES(name)                                          \
    int name(int fd, int mode, off64_t at, off64_t len) {        \
        __typeof__(&name) real = REAL(name);                     \
        if (fd_below(fd) && hit(FALLOCATE)) {                    \
            errno = with;                                        \
            return -1;                                           \
        }                                                        \
        return real(fd, mode, at, len);                          \
    }

ALLOCATES(fallocate)
ALLOCATES(fallocate64)
