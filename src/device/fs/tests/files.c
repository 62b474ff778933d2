/* What programs do with files, one line for each with how it went: the same words are wanted from every runtime.
 * files DIRECTORY NAMES: works in DIRECTORY, which is empty; NAMES: how many names a large directory has. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *said(long result) { return result < 0 ? strerrorname_np(errno) : "ok"; }
#define TELL(what, call) do { errno = 0; long r_ = (long)(call); printf("%s: %s\n", what, said(r_)); } while (0)
#define VALUE(what, call) do { errno = 0; long r_ = (long)(call); if (r_ < 0) printf("%s: %s\n", what, said(r_)); else printf("%s: %ld\n", what, r_); } while (0)

static void put(const char *name, const char *text) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) printf("put %s: %s\n", name, strerrorname_np(errno));
    close(fd);
}
static const char *get(const char *name) {
    static char text[4096];
    int fd = open(name, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n < 0) return strerrorname_np(errno);
    text[n] = 0;
    close(fd);
    return text;
}
static int mode(const char *name) { struct stat s; return lstat(name, &s) ? -1 : (int)(s.st_mode & 07777); }
static struct flock range(int type, off_t from, off_t len) {
    struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = from, .l_len = len };
    return l;
}
/* Runs a function in a child; its exit status. */
static int child(int (*work)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) { int status = work(); fflush(stdout); _exit(status); }
    int status; waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void temporary(void) {
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    TELL("O_TMPFILE", fd);
    VALUE("  write", write(fd, "secret", 6));
    char path[64]; snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    TELL("  linkat", linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    printf("  content: %s, mode %o\n", get("named"), mode("named"));
    close(fd);
    fd = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    TELL("O_TMPFILE|O_EXCL: linkat", linkat(AT_FDCWD, path, AT_FDCWD, "never", AT_SYMLINK_FOLLOW));
    close(fd);
}
static void direct(void) {
    void *page; if (posix_memalign(&page, 4096, 8192)) return;
    memset(page, 'd', 8192);
    int fd = open("direct", O_RDWR | O_CREAT | O_DIRECT, 0644);
    TELL("O_DIRECT", fd);
    VALUE("  pwrite", pwrite(fd, page, 8192, 4096));
    memset(page, 0, 8192);
    VALUE("  pread", pread(fd, page, 8192, 8192));
    printf("  bytes: %c, then %d\n", ((char *)page)[0], ((char *)page)[4096]);
    close(fd);
}
static void space(void) {
    int fd = open("space", O_RDWR | O_CREAT | O_TRUNC, 0644);
    struct stat s;
    TELL("fallocate", fallocate(fd, 0, 0, 1 << 20));
    fstat(fd, &s); printf("  size %ld, %s\n", (long)s.st_size, s.st_blocks >= 2048 ? "allocated" : "not allocated");
    TELL("  keep size", fallocate(fd, FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 20));
    fstat(fd, &s); printf("  size %ld, %s\n", (long)s.st_size, s.st_blocks >= 4096 ? "allocated" : "not allocated");
    TELL("  write", pwrite(fd, "in the hole", 11, 65536) - 11);
    TELL("  punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 4096));
    char byte = 1; VALUE("  pread", pread(fd, &byte, 1, 65536)); printf("  byte %d\n", byte);
    TELL("  neither", fallocate(fd, 0x4000, 0, 4096));
    close(fd);
    fd = open("sparse", O_RDWR | O_CREAT | O_TRUNC, 0644);
    pwrite(fd, "x", 1, 1 << 20); pwrite(fd, "y", 1, 0);
    fsync(fd); fstat(fd, &s);
    printf("sparse: size %ld, %s\n", (long)s.st_size, s.st_blocks < 100 ? "few blocks" : "many blocks");
    VALUE("  hole", lseek(fd, 0, SEEK_HOLE)); VALUE("  data", lseek(fd, 4096, SEEK_DATA)); VALUE("  no data", lseek(fd, 2 << 20, SEEK_DATA));
    int to = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0644);
    off_t in = 0, out = 10;
    VALUE("copy_file_range", copy_file_range(fd, &in, to, &out, 100, 0));
    printf("  at %ld and %ld: ", (long)in, (long)out);
    char c = 0; pread(to, &c, 1, 10); printf("%c\n", c);
    close(fd); close(to);
}
static void names(void) {
    put("a", "A"); put("b", "B");
    TELL("rename NOREPLACE", renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
    TELL("rename EXCHANGE", renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE));
    printf("  a is %s, ", get("a")); printf("b is %s\n", get("b"));
    TELL("rename EXCHANGE|NOREPLACE", renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE | RENAME_NOREPLACE));
    TELL("link", link("a", "hard"));
    struct stat s; stat("hard", &s); printf("  links %ld\n", (long)s.st_nlink);
    int fd = open("gone", O_RDWR | O_CREAT, 0644);
    write(fd, "still", 5); unlink("gone"); fstat(fd, &s);
    char text[8] = ""; pread(fd, text, 7, 0);
    printf("unlinked: links %ld, content %s\n", (long)s.st_nlink, text);
    TELL("  fchmod", fchmod(fd, 0600)); TELL("  ftruncate", ftruncate(fd, 2));
    close(fd);
    TELL("name of 255", mkdir((char[256]){[0 ... 254] = 'n'}, 0755)); TELL("name of 256", mkdir((char[257]){[0 ... 255] = 'n'}, 0755));
    TELL("rmdir of a file", rmdir("a")); TELL("unlink of a directory", unlink((char[256]){[0 ... 254] = 'n'}));
}
static void attributes(void) {
    char value[256], list[4096]; put("x", "");
    TELL("setxattr user", setxattr("x", "user.one", "1", 1, XATTR_CREATE)); TELL("  again", setxattr("x", "user.one", "1", 1, XATTR_CREATE));
    TELL("  replace none", setxattr("x", "user.two", "2", 1, XATTR_REPLACE));
    VALUE("  get", getxattr("x", "user.one", value, sizeof value)); VALUE("  size", getxattr("x", "user.one", NULL, 0));
    VALUE("  too small", getxattr("x", "user.one", value, 0) - 1 + getxattr("x", "user.none", value, 9));
    VALUE("  list", listxattr("x", list, sizeof list) == 9 && !strcmp(list, "user.one"));
    TELL("  remove", removexattr("x", "user.one")); TELL("  remove none", removexattr("x", "user.one"));
    TELL("  of a link", (symlink("x", "soft"), lsetxattr("soft", "user.one", "1", 1, 0)));
    /* user::rw-, user:77:r--, group::r--, mask::r--, other::--- */
    struct { uint32_t version; struct { uint16_t tag, perm; uint32_t id; } e[5]; } acl =
        { 2, { {1, 6, -1}, {2, 4, 77}, {4, 4, -1}, {16, 4, -1}, {32, 0, -1} } };
    TELL("ACL", setxattr("x", "system.posix_acl_access", &acl, sizeof acl, 0)); printf("  mode %o\n", mode("x"));
    TELL("  chmod", chmod("x", 0670));
    long size = getxattr("x", "system.posix_acl_access", value, sizeof value); printf("  %ld bytes, mask %d\n", size, size > 32 ? value[30] : -1);
    mkdir("default", 0755); acl.e[1].perm = 7; acl.e[3].perm = 7;
    TELL("default ACL", setxattr("default", "system.posix_acl_default", &acl, sizeof acl, 0));
    umask(022); put("default/f", ""); mkdir("default/d", 0777);
    printf("  file %o, directory %o, ", mode("default/f"), mode("default/d"));
    VALUE("inherited", getxattr("default/d", "system.posix_acl_default", value, sizeof value));
}
static int as_nobody(void) {
    if (setgid(65534) || setuid(65534)) return 100;
    int fd = open("suid", O_WRONLY); TELL("nobody opens", fd); TELL("  writes", write(fd, "x", 1)); printf("  mode %o\n", mode("suid"));
    fd = open("suid2", O_WRONLY | O_TRUNC); TELL("nobody truncates", fd); printf("  mode %o\n", mode("suid2"));
    TELL("  may not chown", chown("suid", 0, 0)); TELL("  may not read", open("private", O_RDONLY)); TELL("  may not make", mkdir("closed/x", 0700));
    return 0;
}
static void rights(void) {
    chmod(".", 0777);
    put("suid", ""); chmod("suid", 06777); put("suid2", "long"); chmod("suid2", 06777); put("private", ""); chmod("private", 0600); mkdir("closed", 0755);
    child(as_nobody);
    put("suid3", ""); chmod("suid3", 06755); TELL("chown", chown("suid3", 5, 6)); printf("  mode %o\n", mode("suid3"));
    mkdir("sgid", 02775); chown("sgid", 0, 50); chmod("sgid", 02775); put("sgid/f", ""); mkdir("sgid/d", 0755);
    struct stat s; stat("sgid/f", &s); printf("group of a set-group-id directory: %d, below %o\n", (int)s.st_gid, mode("sgid/d"));
}
static void mapping(void) {
    put("mapped", "0123456789");
    int fd = open("mapped", O_RDWR);
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *private = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    TELL("mmap shared", shared == MAP_FAILED ? -1 : 0); TELL("mmap private", private == MAP_FAILED ? -1 : 0);
    shared[1] = 'S'; private[2] = 'P';
    TELL("  msync", msync(shared, 4096, MS_SYNC));
    printf("  file %s, private %.4s\n", get("mapped"), private);
    pwrite(fd, "W", 1, 3); printf("  after a write: shared %.5s\n", shared);
    TELL("  ftruncate", ftruncate(fd, 2)); printf("  beyond the end: %d\n", shared[2]);
    munmap(shared, 4096); munmap(private, 4096); close(fd);
}
static int tries(void) {
    int fd = open("lock", O_RDWR); struct flock l = range(F_WRLCK, 3, 1);
    TELL("  SETLK", fcntl(fd, F_SETLK, &l)); l = range(F_WRLCK, 10, 5); TELL("  beside", fcntl(fd, F_SETLK, &l));
    l = range(F_RDLCK, 0, 0); fcntl(fd, F_GETLK, &l);
    printf("  GETLK: type %d from %ld for %ld, %s\n", l.l_type, (long)l.l_start, (long)l.l_len, l.l_pid == getppid() ? "its pid" : "another pid");
    TELL("  flock", flock(open("lock", O_RDWR), LOCK_SH | LOCK_NB));
    return 0;
}
static int waits(void) {
    int fd = open("lock", O_RDWR); struct flock l = range(F_WRLCK, 0, 0);
    TELL("  SETLKW", fcntl(fd, F_SETLKW, &l)); printf("  then %s\n", get("lock")); return 0;
}
static void locks(void) {
    put("lock", "first"); int fd = open("lock", O_RDWR); struct flock l = range(F_WRLCK, 2, 3);
    TELL("lock", fcntl(fd, F_SETLK, &l)); TELL("flock", flock(fd, LOCK_EX)); child(tries);
    fflush(stdout); pid_t pid = fork();
    if (pid == 0) { waits(); fflush(stdout); _exit(0); }
    usleep(300000); put("other", ""); pwrite(fd, "after", 5, 0); l = range(F_UNLCK, 0, 0); fcntl(fd, F_SETLK, &l); waitpid(pid, NULL, 0);
    close(fd);
}
static void watching(void) {
    char events[4096]; int fd = inotify_init1(IN_NONBLOCK); mkdir("watched", 0755);
    inotify_add_watch(fd, "watched", IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_ATTRIB);
    put("watched/f", "x"); chmod("watched/f", 0600); rename("watched/f", "watched/g"); unlink("watched/g");
    struct pollfd p = { fd, POLLIN, 0 }; poll(&p, 1, 1000); long n = read(fd, events, sizeof events);
    printf("inotify:");
    for (long at = 0; at < n;) { struct inotify_event *e = (void *)(events + at); printf(" %x:%s", e->mask, e->len ? e->name : ""); at += sizeof *e + e->len; }
    printf("\n"); close(fd);
}
static int connects(void) {
    struct sockaddr_un a = { AF_UNIX, "socket" }; int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    TELL("  connect", connect(fd, (void *)&a, sizeof a)); write(fd, "hello", 5); return 0;
}
static int fills(void) { int fd = open("fifo", O_WRONLY); write(fd, "through", 7); return 0; }
static void special(void) {
    struct sockaddr_un a = { AF_UNIX, "socket" }; int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    TELL("bind", bind(fd, (void *)&a, sizeof a)); TELL("listen", listen(fd, 1)); child(connects);
    char text[16] = ""; int got = accept(fd, NULL, NULL); read(got, text, 15); printf("  %s\n", text);
    TELL("mkfifo", mkfifo("fifo", 0600)); fflush(stdout); if (fork() == 0) { fills(); _exit(0); }
    memset(text, 0, 16); fd = open("fifo", O_RDONLY); read(fd, text, 15); wait(NULL); printf("  %s\n", text);
}
static void many(int count) {
    char name[32]; mkdir("many", 0755); if (chdir("many")) return;
    for (int i = 0; i < count; i++) { snprintf(name, sizeof name, "%d", i); close(open(name, O_WRONLY | O_CREAT, 0644)); }
    /* What is there all the time is listed once, whatever comes and goes meanwhile. */
    char *seen = calloc(count, 1); DIR *d = opendir("."); long n = 0, twice = 0, missing = 0;
    for (struct dirent *e; (e = readdir(d)); n++) {
        if (e->d_name[0] == '.' || e->d_name[0] == 'n') continue;
        int i = atoi(e->d_name); if (seen[i]++) twice++;
        if (n % 10 == 0) { snprintf(name, sizeof name, "%d", (i / 2) * 2 + 1 < count ? (i / 2) * 2 + 1 : i); unlink(name); snprintf(name, sizeof name, "new%ld", n); close(open(name, O_WRONLY | O_CREAT, 0644)); }
    }
    for (int i = 0; i < count; i += 2) missing += !seen[i];
    printf("many: %ld twice, %ld missing\n", twice, missing); closedir(d); chdir("..");
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN); umask(022);
    if (argc < 3 || chdir(argv[1])) return 2;
    temporary(); direct(); space(); names(); attributes(); rights(); mapping(); locks(); watching(); special(); many(atoi(argv[2]));
    return 0;
}
