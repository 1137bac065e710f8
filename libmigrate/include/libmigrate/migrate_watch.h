/* Processes wherever they are: see migrate.h, which includes this. */
#ifndef LIBMIGRATE_MIGRATE_WATCH_H
#define LIBMIGRATE_MIGRATE_WATCH_H

#include <libmigrate/migrate_result.h>

#ifdef __cplusplus
extern "C" {
#endif

struct migrate_options;

/* `process`, here: a global name ("ORIGIN/SERIAL/EPOCH", as `migratectl identity` prints it) of a
 * process of any host, which its home is asked about; or what migrate_state() takes. */

/* Where a process was seen. Strings are valid during the call that gets it. */
struct migrate_sighting {
  size_t size;
  const char* identity; /* Its global name. */
  const char* state;    /* "not-moved", "moving", "away", "done", ...: as `migratectl ps`. */
  const char* where;    /* The host, by name or address. */
};

/* Calls `seen` with `data`, by the calling thread, at once and whenever the state or the host of
 * `process` has changed, up to half a second later. Ends with MIGRATE_DONE when `seen` returns not
 * 0, or when the process has ended ("exit_status" is then in the result, as waitpid gives it);
 * MIGRATE_LOST if it was lost with a host. A home that does not answer, or a daemon that is started
 * again within a minute, is waited for. MIGRATE_TIMEOUT: options.time_limit_seconds came first;
 * MIGRATE_USAGE, MIGRATE_ERROR (no such process of this user, or it has ended without having been
 * moved: only its parent knows how). Meanwhile the caller has a connection open, with which it is
 * not moved itself. */
MIGRATE_API int migrate_watch(const char* process,
                              int (*seen)(const struct migrate_sighting* sighting, void* data),
                              void* data, const struct migrate_options* options,
                              migrate_result** result);

/* Sends `signal` to `process` as kill(2) would at its home, whose kernel judges whether the
 * caller's user may; 0 sends nothing. It is passed on to where the process is. MIGRATE_DONE,
 * MIGRATE_REFUSED, MIGRATE_USAGE, MIGRATE_ERROR (no such process, it has ended, or its home does
 * not answer). */
MIGRATE_API int migrate_kill(const char* process, int signal, const struct migrate_options* options,
                             migrate_result** result);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LIBMIGRATE_MIGRATE_WATCH_H */
