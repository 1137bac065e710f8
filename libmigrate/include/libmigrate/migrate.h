/* libmigrate: move running processes between hosts. The C interface of libmigrate.so.
 *
 * Every function talks to the daemon of this host (`migrated`) over its local socket, may be called
 * by any thread at any time, blocks, and leaves no descriptor, thread or memory behind (but the
 * report, which the caller frees). The library depends on nothing but the C++ runtime.
 *
 *   char* report = NULL;
 *   int status = migrate_move(0, "hostB", NULL, &report);   // from here on, this runs at hostB
 *   if (status != MIGRATE_DONE) fprintf(stderr, "%s\n", migrate_last_error());
 *   migrate_free(report);
 */
#ifndef LIBMIGRATE_MIGRATE_H
#define LIBMIGRATE_MIGRATE_H

#include <sys/types.h>

#if defined(__GNUC__)
#define MIGRATE_API __attribute__((visibility("default")))
#else
#define MIGRATE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define MIGRATE_VERSION_MAJOR 0
#define MIGRATE_VERSION_MINOR 1
#define MIGRATE_DEFAULT_SOCKET "/run/migrate/migrated.sock"

/* What a call came to; the same numbers are the exit codes of migratectl. */
enum migrate_status {
  MIGRATE_DONE = 0,    /* Done; check: the process can be moved. */
  MIGRATE_ERROR = 1,   /* No daemon, no such process, no permission, connection lost. */
  MIGRATE_USAGE = 2,   /* An argument cannot be right; nothing was tried. */
  MIGRATE_REFUSED = 3, /* A rule forbids it; nothing was stopped. The report has the refusals. */
  MIGRATE_FAILED = 4,  /* The move failed and the process runs on where it was. */
  MIGRATE_LOST = 5     /* The move failed after the process had been handed over. */
};

/* How to do it; NULL stands for a struct of zeros. Strings are borrowed for the call. */
struct migrate_options {
  const char* socket;   /* Daemon's socket. NULL: $MIGRATE_SOCKET, else MIGRATE_DEFAULT_SOCKET. */
  const char* mode;     /* "lazy" (NULL), "demand" or "eager". */
  const char* wait;     /* What a move waits for: "resumed" (NULL), "done" or "exit". */
  double retry_seconds; /* Try that long while the reasons against the move are transient. */
};

/* Asks whether process `pid` (0: the caller) can be moved. `destination` is "HOST" or "HOST:PORT",
 * or NULL to apply only the rules of this host. The process is not stopped.
 * If `report` is not NULL, *report becomes a JSON object {"movable","refusals":[{"code","object",
 * "reason","remedy"}]} to be freed with migrate_free, or NULL if there is none.
 * Returns MIGRATE_DONE, MIGRATE_REFUSED, MIGRATE_USAGE or MIGRATE_ERROR. */
MIGRATE_API int migrate_check(pid_t pid, const char* destination,
                              const struct migrate_options* options, char** report);

/* Moves process `pid` to `destination`; 0 moves the caller, which after MIGRATE_DONE runs there,
 * all of its threads included. For the caller itself `wait` can only be "resumed".
 * *report: the JSON object that `migratectl move --json` prints, as for migrate_check.
 * Returns any migrate_status. */
MIGRATE_API int migrate_move(pid_t pid, const char* destination,
                             const struct migrate_options* options, char** report);

/* Waits until the source of the last move of `process` owes nothing (`condition` "done") or the
 * process has ended ("exit"). `process` is a pid of this host in decimal or an id, or the beginning
 * of one, as `migratectl ps` shows it. With "exit", *exit_status (if not NULL) becomes the status
 * as waitpid gives it.
 * Returns MIGRATE_DONE, MIGRATE_LOST (it was lost with a host), MIGRATE_FAILED (it never moved),
 * MIGRATE_USAGE or MIGRATE_ERROR. */
MIGRATE_API int migrate_wait(const char* process, const char* condition,
                             const struct migrate_options* options, int* exit_status);

/* Frees a report; NULL is allowed. */
MIGRATE_API void migrate_free(char* report);

/* What a status means, in English; a static string. */
MIGRATE_API const char* migrate_strerror(int status);

/* Why the calling thread's last call did not return MIGRATE_DONE: what was tried, on what, what the
 * system said, what to do. Empty after MIGRATE_DONE. Valid until the thread's next call. */
MIGRATE_API const char* migrate_last_error(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LIBMIGRATE_MIGRATE_H */
