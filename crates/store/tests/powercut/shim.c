/* Preloaded into a process that writes a store: keeps, beside the store, what a disk without power would hold.
 *
 * A file's content is what it was at its last successful fsync or fdatasync; a directory's entries are what they were at
 * the directory's last fsync. Content goes to $LINNET_SHADOW/i/<inode>-<birth>, a listing to $LINNET_SHADOW/d/<n>: first
 * line the directory's path, then lines "f <inode>-<birth> <name>" or "d - <name>". Only below $LINNET_SHADOW_ROOT.
 * $LINNET_SHADOW_BLIND: syncs of files whose path ends so are not seen (to show that a missing sync would be noticed).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long listings;

static int key_of(int fd, char *out, size_t room) {
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &st) != 0) return -1;
    snprintf(out, room, "%llu-%lld.%u", (unsigned long long)st.stx_ino, (long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
    return 0;
}

/* The path of fd if it is below the root. */
static int path_of(int fd, char *path) {
    const char *root = getenv("LINNET_SHADOW_ROOT");
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = root ? readlink(link, path, PATH_MAX - 1) : -1;
    if (len < 0) return 0;
    path[len] = 0;
    if (strncmp(path, root, strlen(root)) != 0) return 0;
    const char *blind = getenv("LINNET_SHADOW_BLIND");
    size_t tail = blind ? strlen(blind) : 0;
    return !(blind && (size_t)len >= tail && strcmp(path + len - tail, blind) == 0);
}

static void copy_file(const char *path, const char *to) {
    int in = open(path, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    struct stat st;
    static char buffer[1 << 16];
    if (in < 0 || out < 0 || fstat(in, &st) != 0 || ftruncate(out, st.st_size) != 0) abort();
    off_t at = 0;
    while ((at = lseek(in, at, SEEK_DATA)) >= 0) {
        off_t end = lseek(in, at, SEEK_HOLE);
        while (at < end) {
            size_t want = end - at < (off_t)sizeof buffer ? (size_t)(end - at) : sizeof buffer;
            ssize_t got = pread(in, buffer, want, at);
            if (got <= 0 || pwrite(out, buffer, got, at) != got) abort();
            at += got;
        }
    }
    close(in);
    close(out);
}

static void list_directory(const char *path, const char *to) {
    FILE *out = fopen(to, "w");
    DIR *dir = opendir(path);
    if (!out || !dir) abort();
    fprintf(out, "%s\n", path);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY);
        struct stat st;
        char key[96];
        if (fd < 0) continue;
        if (fstat(fd, &st) == 0 && key_of(fd, key, sizeof key) == 0) {
            fprintf(out, S_ISDIR(st.st_mode) ? "d - %s\n" : "f %2$s %1$s\n", entry->d_name, key);
        }
        close(fd);
    }
    closedir(dir);
    fclose(out);
}

static int sync_and_note(int fd, int (*sync)(int)) {
    const char *shadow = getenv("LINNET_SHADOW");
    char path[PATH_MAX], key[96], to[PATH_MAX + 128], temporary[PATH_MAX + 160];
    struct stat st;
    if (!shadow || !path_of(fd, path) || fstat(fd, &st) != 0) return sync(fd);
    pthread_mutex_lock(&lock);
    /* Taken before the sync, published after it: never more than the sync covered. */
    int is_dir = S_ISDIR(st.st_mode);
    if (is_dir) {
        snprintf(to, sizeof to, "%s/d/%010lu", shadow, ++listings);
    } else {
        if (key_of(fd, key, sizeof key) != 0) abort();
        snprintf(to, sizeof to, "%s/i/%s", shadow, key);
    }
    snprintf(temporary, sizeof temporary, "%s/taking", shadow);
    if (is_dir) list_directory(path, temporary); else copy_file(path, temporary);
    int result = sync(fd);
    if (result == 0 && rename(temporary, to) != 0) abort();
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return sync_and_note(fd, real);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return sync_and_note(fd, real);
}
