/*
 * The native half of the rogue class: system calls that Java has no way to make.
 *
 * Each function returns "" when the attack reached its aim, or "ERRNO STEP". Where an attack needs a child and gets none, the
 * forbidden call itself is tried with arguments that cannot succeed, so that the errno tells whether it reached the kernel
 * proper or was stopped before. Nothing is left behind: mounts are undone, children killed and waited for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <jni.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static jstring worked(JNIEnv *env) { return (*env)->NewStringUTF(env, ""); }

static jstring failed(JNIEnv *env, int error, const char *step) {
  char text[160];
  snprintf(text, sizeof text, "%d %s: %s", error, step, strerror(error));
  return (*env)->NewStringUTF(env, text);
}

/* fork was refused: what would the call itself have got? */
static jstring failed_twice(JNIEnv *env, int fork_error, const char *call, int call_error) {
  char text[200];
  snprintf(text, sizeof text, "%d fork: %s; %s by itself: errno %d", fork_error, strerror(fork_error), call, call_error);
  return (*env)->NewStringUTF(env, text);
}

JNIEXPORT jstring JNICALL Java_dev_lazaret_rogue_Rogue_mountAndChange(JNIEnv *env, jclass class, jstring device,
                                                                       jstring directory, jstring file, jstring content) {
  (void)class;
  const char *dev = (*env)->GetStringUTFChars(env, device, NULL);
  const char *dir = (*env)->GetStringUTFChars(env, directory, NULL);
  const char *name = (*env)->GetStringUTFChars(env, file, NULL);
  const char *text = (*env)->GetStringUTFChars(env, content, NULL);
  const char *step = "mount", *place = dir;
  char path[PATH_MAX];
  int error = 0;
  /* without a directory of its own a disk goes over one that is there */
  if (mkdir(dir, 0700) != 0 && errno != EEXIST) place = "/tmp";
  snprintf(path, sizeof path, "%s/%s", place, name);
  if (mount(dev, place, "ext4", 0, NULL) != 0) {
    error = errno;
  } else {
    step = "open on the mounted disk";
    int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT | O_CLOEXEC, 0644);
    size_t length = strlen(text);
    if (fd < 0) {
      error = errno;
    } else {
      step = "write to the mounted disk";
      ssize_t written = write(fd, text, length);
      if (written < 0 || fsync(fd) != 0) error = errno;
      else if ((size_t)written != length) error = EIO;
      close(fd);
    }
    if (umount2(place, 0) != 0 && umount2(place, MNT_DETACH) != 0 && error == 0) {
      step = "umount";
      error = errno;
    }
  }
  (*env)->ReleaseStringUTFChars(env, device, dev);
  (*env)->ReleaseStringUTFChars(env, directory, dir);
  (*env)->ReleaseStringUTFChars(env, file, name);
  (*env)->ReleaseStringUTFChars(env, content, text);
  return error == 0 ? worked(env) : failed(env, error, step);
}

/* A word that parent and child share: under a policy an attacker may have neither pipes nor wait(2) to talk by. */
static int *shared_word(int value) {
  int *word = mmap(NULL, sizeof *word, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (word == MAP_FAILED) return NULL;
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
  return word;
}

/* Yields until the word is no longer `value`, at most some seconds; what it is then. */
static int wait_for_change(int *word, int value) {
  int now = value;
  for (long turn = 0; turn < 5000000 && now == value; turn++) {
    now = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    if (now == value) sched_yield();
  }
  return now;
}

/* A process with threads cannot enter a user namespace (unshare(2), EINVAL), so a child does, and leaves its errno. */
JNIEXPORT jstring JNICALL Java_dev_lazaret_rogue_Rogue_unshare(JNIEnv *env, jclass class) {
  (void)class;
  const int flags = CLONE_NEWUSER | CLONE_NEWNS, unknown = -1;
  int *word = shared_word(unknown);
  if (word == NULL) return failed(env, errno, "map memory");
  pid_t child = fork();
  if (child < 0) {
    int fork_error = errno;
    munmap(word, sizeof *word);
    return unshare(flags) == 0 ? worked(env) : failed_twice(env, fork_error, "unshare", errno);
  }
  if (child == 0) {
    __atomic_store_n(word, unshare(flags) == 0 ? 0 : errno, __ATOMIC_RELEASE);
    _exit(0);
  }
  int error = wait_for_change(word, unknown);
  waitpid(child, NULL, 0);
  munmap(word, sizeof *word);
  if (error == unknown) return failed(env, ETIMEDOUT, "nothing came from the child");
  return error == 0 ? worked(env) : failed(env, error, "unshare");
}

/* The shell's proof of life. */
#define SHELL_OUTPUT "/tmp/rogue-shell"

/* Starts a shell out of the server's own process, by fork and exec: where its pipes are denied the JVM's own way of starting a
 * program closes descriptors that are not its own, and an attacker would do without it too. */
JNIEXPORT jstring JNICALL Java_dev_lazaret_rogue_Rogue_shell(JNIEnv *env, jclass class) {
  (void)class;
  static char *const arguments[] = {"sh", "-c", "id > " SHELL_OUTPUT, NULL}, *const environment[] = {NULL};
  const int unknown = -1;
  unlink(SHELL_OUTPUT);
  int *word = shared_word(unknown);
  if (word == NULL) return failed(env, errno, "map memory");
  pid_t child = fork();
  if (child == 0) {
    execve("/bin/busybox", arguments, environment);
    __atomic_store_n(word, errno, __ATOMIC_RELEASE);
    _exit(0);
  }
  int error = child < 0 ? errno : unknown;
  int written = 0;
  for (int turn = 0; turn < 2000 && error == unknown && !written; turn++) {
    char said[8] = "";
    int fd = open(SHELL_OUTPUT, O_RDONLY);
    if (fd >= 0) {
      written = read(fd, said, 4) == 4 && memcmp(said, "uid=", 4) == 0;
      close(fd);
    }
    error = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    if (error == unknown && !written) usleep(5000);
  }
  waitpid(child, NULL, WNOHANG);
  munmap(word, sizeof *word);
  if (written) return worked(env);
  if (child < 0) return failed(env, error, "fork");
  return error == unknown ? failed(env, ETIMEDOUT, "the shell said nothing") : failed(env, error, "execve");
}

/* Takes over another process and reads its memory at an address whose content is known. */
JNIEXPORT jstring JNICALL Java_dev_lazaret_rogue_Rogue_ptrace(JNIEnv *env, jclass class) {
  (void)class;
  static const long secret = 0x1a2a4e7;
  int *over = shared_word(0);
  if (over == NULL) return failed(env, errno, "map memory");
  pid_t child = fork();
  if (child < 0) {
    int fork_error = errno;
    munmap(over, sizeof *over);
    /* No such process: ESRCH when the kernel looks for it. */
    ptrace(PTRACE_SEIZE, INT_MAX, NULL, NULL);
    return failed_twice(env, fork_error, "ptrace", errno);
  }
  if (child == 0) {
    wait_for_change(over, 0);
    _exit(0);
  }
  const char *step = NULL;
  int error = 0, status = 0;
  if (ptrace(PTRACE_SEIZE, child, NULL, NULL) != 0) {
    step = "seize";
    error = errno;
  } else if (ptrace(PTRACE_INTERRUPT, child, NULL, NULL) != 0 || waitpid(child, &status, 0) != child) {
    step = "interrupt";
    error = errno;
  } else {
    errno = 0;
    long found = ptrace(PTRACE_PEEKDATA, child, &secret, NULL);
    if (found != secret) {
      step = "read its memory";
      error = errno == 0 ? EIO : errno;
    }
  }
  __atomic_store_n(over, 1, __ATOMIC_RELEASE);
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  munmap(over, sizeof *over);
  return step == NULL ? worked(env) : failed(env, error, step);
}

/* Opens a file through a ring: the kernel does it without the open call that a filter would see. */
JNIEXPORT jstring JNICALL Java_dev_lazaret_rogue_Rogue_ioUring(JNIEnv *env, jclass class) {
  (void)class;
  struct io_uring_params params;
  memset(&params, 0, sizeof params);
  int ring = (int)syscall(SYS_io_uring_setup, 2, &params);
  if (ring < 0) return failed(env, errno, "io_uring_setup");

  const char *step = NULL;
  int error = 0;
  size_t sq_size = params.sq_off.array + params.sq_entries * sizeof(unsigned);
  size_t cq_size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  size_t sqe_size = params.sq_entries * sizeof(struct io_uring_sqe);
  const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
  char *sq = mmap(NULL, sq_size, prot, flags, ring, IORING_OFF_SQ_RING);
  char *cq = mmap(NULL, cq_size, prot, flags, ring, IORING_OFF_CQ_RING);
  struct io_uring_sqe *sqe = mmap(NULL, sqe_size, prot, flags, ring, IORING_OFF_SQES);
  if (sq == MAP_FAILED || cq == MAP_FAILED || (void *)sqe == MAP_FAILED) {
    step = "map the ring";
    error = errno;
  } else {
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_OPENAT;
    sqe->fd = AT_FDCWD;
    sqe->addr = (unsigned long)"/etc/passwd";
    sqe->open_flags = O_RDONLY | O_CLOEXEC;
    *(unsigned *)(sq + params.sq_off.array) = 0;
    __atomic_store_n((unsigned *)(sq + params.sq_off.tail), 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1) {
      step = "io_uring_enter";
      error = errno;
    } else if (__atomic_load_n((unsigned *)(cq + params.cq_off.tail), __ATOMIC_ACQUIRE) != 1) {
      step = "nothing came back";
      error = EAGAIN;
    } else {
      int result = ((struct io_uring_cqe *)(cq + params.cq_off.cqes))->res;
      if (result < 0) {
        step = "open through the ring";
        error = -result;
      } else {
        close(result);
      }
    }
  }
  if (sq != MAP_FAILED) munmap(sq, sq_size);
  if (cq != MAP_FAILED) munmap(cq, cq_size);
  if ((void *)sqe != MAP_FAILED) munmap(sqe, sqe_size);
  close(ring);
  return step == NULL ? worked(env) : failed(env, error, step);
}
